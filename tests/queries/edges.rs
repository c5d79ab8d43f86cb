//! Addresses and numbers at the edges of what there is, given to every command that takes one: each is answered or refused.

use crate::support::Booted;
use crate::support::everything::named;
use crate::support::text::run;
use verikd::commands::{COMMANDS, QueryError, Run};
use verikd::memory::CachedMemory;
use verikd::target::Target;

/// The first and last of all, of either half, of pages, and next to them.
const EDGES: [&str; 14] = [
    "0",
    "1",
    "fff",
    "7fffffff",
    "ffffffff",
    "7fffffffffff",
    "7fffffffffffffff",
    "8000000000000000",
    "ffff800000000000",
    "fffffffffffff000",
    "fffffffffffffff0",
    "fffffffffffffff8",
    "fffffffffffffffe",
    "ffffffffffffffff",
];

/// How a number is given to commands, beside the name alone.
const FORMS: [&str; 12] = [
    "{}",
    "{} L1",
    "{} L8",
    "{} L{}",
    "{} ffffffffffffffff",
    "nt {}",
    "nt L{}",
    "= {} {}",
    "= {} {} {}",
    "-k {}",
    "80 {}",
    "nt!_LIST_ENTRY {}",
];

#[test]
fn no_number_makes_a_command_panic_or_last() {
    let Booted { memory, kernel } = named("name").boot();
    // As a session has it.
    let memory = CachedMemory::new(memory);
    let target = Target::new(&memory, &kernel);
    let queries = COMMANDS.iter().filter(|spec| matches!(spec.run, Run::Query(_)));
    let (mut answered, mut refused) = (0, 0);
    for name in queries.flat_map(|spec| spec.names).filter(|name| !name.starts_with('.')) {
        for edge in EDGES {
            for form in FORMS {
                let line = format!("{name} {}", form.replace("{}", edge));
                match run(&target, &line) {
                    Ok(_) => answered += 1,
                    Err(error) => {
                        let is_bug = matches!(error, QueryError::Lost(_));
                        assert!(!is_bug, "{line}: {error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(answered > 1000 && refused > 1000, "{answered} answered, {refused} refused");
}

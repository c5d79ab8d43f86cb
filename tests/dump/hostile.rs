//! Every field of every header set to what it cannot be; files cut anywhere: an error that names a field, or an answer; no
//! panic, no loop, no memory beyond a bound.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verikd::debugger::Debugger;
use verikd::dump;
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd_sim::windows::{Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::fields::{self, Field};
use super::support::text::text;
use super::{Nobody, folder, x86};

/// Mutations of each kind of file, unless `VERIKD_SEEDS` says otherwise: first every field with every value in an order of
/// their own, then words anywhere in the headers.
const MUTATIONS: usize = 40;
/// What a field is set to: nothing, the least, everything, what no machine has, what nobody set.
const VALUES: [u64; 5] = [0, 1, u64::MAX, 1 << 40, u64::from_le_bytes(*b"PAGEPAGE")];

/// Opens it, and asks it what walks lists, if it opens.
fn survive(path: &Path, what: &str) {
    if std::env::var_os("VERIKD_SEEDS").is_some() {
        println!("{what}");
    }
    let opened = match dump::open(path, None) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let symbols = Arc::new(SymbolSource::new(SymbolPath::parse("")));
    let mut debugger = Debugger::new(Arc::new(opened.source), symbols, Duration::ZERO);
    if debugger.break_in(&mut Nobody).is_ok()
        && let Some(target) = debugger.target()
    {
        for line in ["lm", ".bugcheck", "vertarget", "!verifier 3 myfault.sys", "r", "~1s"] {
            let _ = text(&target, line);
        }
    }
}

#[test]
fn no_header_field_can_do_harm() {
    let mut machine = Machine::with_scenario(&WINDOWS_7_SP1, Scenario::BugcheckC462, 0);
    machine.stop_for_dump();
    for kind in DumpKind::ALL {
        let path = folder("hostile").join(kind.name());
        write_dump(&machine, kind, &path).unwrap();
        change_fields(&path, kind.name(), &fields::of(kind));
        cut(&path, kind.name());
        std::fs::remove_file(&path).unwrap();
    }
    let small = x86::write_small("hostile-small", 4);
    let behind_header = (0x1000..0x1080).step_by(4).map(|at| (at, 4));
    let small_fields: Vec<_> = fields::HEADER_32.iter().copied().chain(behind_header).collect();
    change_fields(&small, "hostile-small", &small_fields);
    cut(&small, "hostile-small");
    for is_pae in [true, false] {
        let name = if is_pae { "hostile-pae" } else { "hostile-plain" };
        let path = x86::write(name, is_pae);
        change_fields(&path, name, fields::HEADER_32);
        cut(&path, name);
    }
}

/// Every field with every value and a random one, as many as `VERIKD_SEEDS` says; then words anywhere.
fn change_fields(path: &Path, name: &str, fields: &[Field]) {
    let count = std::env::var("VERIKD_SEEDS").map_or(MUTATIONS, |it| it.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
    let mut changes: Vec<(Field, u64)> = Vec::new();
    for field in fields {
        changes.extend(VALUES.iter().map(|value| (*field, *value)));
        changes.push((*field, random.u64(..)));
    }
    random.shuffle(&mut changes);
    let every = changes.len();
    while changes.len() < count {
        let at = match random.u8(0..3) {
            0 => 4 * random.u64(0..0x40),
            1 => 4 * random.u64(0x3c0..0x3f0),
            _ => 0x2000 + 4 * random.u64(0..0x20),
        };
        let value = *random.choice(VALUES.iter()).expect("there are some");
        changes.push((
            (at, if random.bool() { 4 } else { 8 }),
            if random.bool() { value } else { random.u64(..) },
        ));
    }
    println!("{name}: {} fields with {every} values in all, {count} tried", fields.len());
    // No field that is changed lies behind these.
    let mut whole = vec![0; 0x4000];
    let len = std::fs::metadata(path).unwrap().len().min(0x4000) as usize;
    std::fs::File::open(path).unwrap().read_exact(&mut whole[..len]).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut put = |at: u64, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    for ((at, size), value) in changes.into_iter().take(count) {
        put(at, &value.to_le_bytes()[..size]);
        survive(path, &format!("{name}: {value:#x} in {size} bytes at {at:#x}"));
        put(at, &whole[at as usize..at as usize + size]);
    }
}

fn cut(path: &Path, name: &str) {
    for len in [0x40_0123, 0x13000, 0x2400, 0x2038, 0x2010, 0x2000, 0x1fff, 0xfff, 0x40, 8, 7, 1, 0] {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        if file.metadata().unwrap().len() > len {
            file.set_len(len).unwrap();
        }
        drop(file);
        survive(path, &format!("{name} cut at {len:#x}"));
    }
}

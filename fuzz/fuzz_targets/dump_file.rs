//! A dump from a stranger: whatever is in it, it is refused, or answers what walks lists.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use libfuzzer_sys::fuzz_target;
use verikd::commands::{self, Run};
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd::target::Progress;

/// Somebody who looks at nothing.
struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        unreachable!("a file asks nothing")
    }
}

impl Progress for Nobody {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("the machine has room for temporary files");
    std::fs::write(file.path(), bytes).expect("as above");
    let Ok(opened) = verikd::dump::open(file.path(), None) else { return };
    let symbols = Arc::new(SymbolSource::new(SymbolPath::parse("")));
    let mut debugger = Debugger::new(Arc::new(opened.source), symbols, Duration::ZERO);
    if debugger.break_in(&mut Nobody).is_err() {
        return;
    }
    for line in ["lm", ".bugcheck", "!verifier 3", "r", "vertarget"] {
        let Ok((spec, arguments)) = commands::find(line) else { panic!("{line} is a command") };
        if let Run::Query(run) = spec.run {
            // A failure is an answer too.
            debugger.ask(run, arguments, &Nobody).ok();
        }
    }
});

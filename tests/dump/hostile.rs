//! Every field of every header set to what it cannot be; files cut anywhere: an error that names a field, or an answer; no
//! panic, no loop, no memory beyond a bound.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verikd::debugger::Debugger;
use verikd::dump;
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd_sim::windows::Machine;
use verikd_sim::{DumpKind, write_dump};

use super::support::text::text;
use super::{Nobody, folder};

/// Mutations of each kind of file, unless `VERIKD_SEEDS` says otherwise.
const MUTATIONS: u64 = 40;

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
        for line in ["lm", ".bugcheck", "!verifier 3 myfault.sys", "r"] {
            let _ = text(&target, line);
        }
    }
}

#[test]
fn no_header_field_can_do_harm() {
    let seeds = std::env::var("VERIKD_SEEDS").map_or(MUTATIONS, |it| it.parse().expect("a number"));
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    for kind in DumpKind::ALL {
        let path = folder("hostile").join(kind.name());
        write_dump(&machine, kind, &path).unwrap();
        // No field that is changed lies behind these.
        let mut whole = vec![0; 0x4000];
        std::fs::File::open(&path).unwrap().read_exact(&mut whole).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(kind as u64);
        let mut put = |at: u64, bytes: &[u8]| {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(bytes).unwrap();
        };
        for seed in 0..seeds {
            // Fields that are read, and whatever else lies in the headers.
            let at = match seed % 3 {
                0 => 4 * random.u64(0..0x40),
                1 => 4 * random.u64(0x3c0..0x420),
                _ => 0x2000 + 4 * random.u64(0..0x20),
            };
            let value: u64 = match random.u8(0..6) {
                0 => 0,
                1 => 1,
                2 => u64::MAX,
                3 => 1 << 40,
                4 => u64::from_le_bytes(*b"PAGEPAGE"),
                _ => random.u64(..),
            };
            let len = if random.bool() { 4 } else { 8 };
            let old = &whole[at as usize..at as usize + len];
            put(at, &value.to_le_bytes()[..len]);
            survive(&path, &format!("{} seed {seed}: {value:#x} at {at:#x}", kind.name()));
            put(at, old);
        }
        drop(file);
        for len in [0x40_0123, 0x13000, 0x2400, 0x2038, 0x2010, 0x2000, 0x1fff, 0xfff, 0x40, 8, 7, 1, 0] {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(len).unwrap();
            drop(file);
            survive(&path, &format!("{} cut at {len:#x}", kind.name()));
        }
        std::fs::remove_file(&path).unwrap();
    }
}

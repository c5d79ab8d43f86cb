//! `!verifier` on kernels written down here: the published transcripts, and every way in which a kernel can disappoint.

mod allocations;
mod arguments;
mod drivers;
mod pool_log;
mod traces;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::blind::UNKNOWN_API;
use crate::support::text::WithNotes as _;
use crate::support::text::assert_same_text;
use crate::support::verifier::*;
use crate::support::{Booted, PAGE, World};
use serde_json::{Value, json};
use verikd::commands::{Answer, Note, NoteKind, QueryError, Run, Style, find};
use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use verikd::target::Target;

const DRIVER: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";

#[test]
fn the_published_leak_prints_as_published() {
    for build in [Build::Windows7, Build::Windows11] {
        let booted = leak(build).boot();
        // An entry's address depends on the build's node; the transcript is Windows 7's.
        assert_same_text(
            &text(&booted, "!verifier 3 myfault.sys"),
            include_str!("../../golden/verifier-3-myfault.txt"),
        );
        assert_same_text(
            &text(&booted, "!verifier 80 fffffa8005400000"),
            include_str!("../../golden/verifier-80.txt"),
        );
    }
}

#[test]
fn a_query_costs_few_requests() {
    let booted = leak(Build::Windows7).boot();
    booted.memory.reset();
    text(&booted, "!verifier 3 myfault.sys");
    // Settings 2, tree 2, tables 1, driver 3, page of trackers 1.
    assert_eq!(booted.memory.reads(), 9);
    // A reply of a live target carries 1096 bytes.
    assert!(booted.memory.bytes() < 12 * 1096, "{:#x} bytes", booted.memory.bytes());
    booted.memory.reset();
    text(&booted, "!verifier 80 fffffa8005400000");
    // Variables 1, modules 3, the entry 1; one search that finds it, one that finds no other.
    assert_eq!((booted.memory.reads(), booted.memory.searches()), (1 + 3 + 1, 2));
    let blind = leak(Build::Windows7).boot_blind(UNKNOWN_API);
    text(&blind, "!verifier 80 fffffa8005400000");
    // The log in pieces of 64 KiB, cut at the newest entry.
    assert_eq!(blind.memory.reads(), 1 + 3 + 8 * 1024 / 64 + 1);
}

#[test]
fn json_has_the_facts_of_the_text_with_addresses_as_strings() {
    let booted = leak(Build::Windows7).boot();
    let report = run(&booted, "!verifier 3 myfault").unwrap().with_notes();
    assert_eq!(report["settings"]["level"], 8);
    assert_eq!(report["settings"]["statistics"]["allocations_attempted"], 0xb);
    let driver = &report["drivers"][0];
    assert_eq!(driver["entry"], "0xfffffa80031b5830");
    assert_eq!((&driver["name"], &driver["loads"]), (&json!("myfault.sys"), &json!(1)));
    assert_eq!(driver["allocations"]["pages_end"], "null_link");
    let block = json!({
        "address": "0xfffffa8005400000", "size": 0xf_b000, "tag": "Leak",
            "tag_number": "0x6b61654c", "caller": "0xfffff8800447d634",
        "caller_symbol": "myfault!MyfaultDeviceControl+0x358", "tracker": "0xfffffa8003220ec0", "odd_size": false,
    });
    assert_eq!(driver["allocations"]["blocks"][0], block);

    let log = run(&booted, "!verifier 80 fffffa80`05400000").unwrap().with_notes();
    assert_eq!(
        (&log["length"], &log["parsed"], &log["method"]),
        (&json!(0x1_0000), &json!(0x1_0000), &json!("search"))
    );
    assert_eq!(log["notes"][0]["kind"], "remark");
    let entry = &log["entries"][0];
    assert_eq!((&entry["slot"], &entry["size"]), (&json!(0x1230), &json!(0xf_a000)));
    assert_eq!(
        entry["stack"][2],
        json!({"address": "0xfffff8800447d634", "symbol": "myfault!MyfaultDeviceControl+0x358"})
    );
}

#[test]
fn what_ends_one_read_for_good_ends_the_query_with_what_it_has() {
    let mut world = leak(Build::Windows7);
    for index in 1..9 {
        let at = |base: VirtAddr| base.offset(index * 0x1000);
        add_driver(&mut world, at(NODE), at(DATA), at(SUSPECT), &format!("driver{index}.sys"));
        world.put(
            "_RTL_BALANCED_LINKS",
            NODE.offset((index - 1) * 0x1000),
            "RightChild",
            NODE.offset(index * 0x1000).0,
        );
    }
    let booted = world.boot();
    for allowed in 0..170 {
        let memory = Interrupted { inner: &booted.memory, left: allowed.into(), refused: 0.into() };
        let target = Target::new(&memory, &booted.kernel);
        for line in ["!verifier 3", "!verifier 80 fffffa8005400000"] {
            let Ok(answer) = crate::support::text::run(&target, line) else { continue };
            let refused = memory.refused.load(Ordering::Relaxed);
            assert!(answer.worst() >= Some(NoteKind::Partial) || refused == 0, "{line}, {allowed} reads");
        }
        assert!(
            memory.refused.load(Ordering::Relaxed) <= 1,
            "after {allowed} reads the user pressed Ctrl+C once"
        );
    }
}

#[test]
fn without_the_kernels_symbols_the_error_names_the_file_to_get() {
    let mut world = leak(Build::Windows7);
    world.write(
        NT,
        &crate::support::image::pe_image(NT_SIZE, &verikd::symbols::Symbols::identity(&*world.nt).clone()),
    );
    let booted = world.boot();
    let kernel = verikd::target::Kernel::new(world.version, verikd::symbols::store::SymbolPath::default());
    let target = Target::new(&booted.memory, &kernel);
    let Run::Query(run) = find("!verifier").unwrap().0.run else { panic!("a query") };
    let error = run("3", &target).err().unwrap();
    assert!(!error.is_usage());
    assert_eq!(
        error.to_string(),
        "!verifier: nt has no symbols: no symbols for ntkrnlmp.pdb (identity 070707070707070707070707070707071): the \
         symbol path is empty; give one with -y, _NT_SYMBOL_PATH or .sympath\n  Windows' own files are at \
         https://msdl.microsoft.com/download/symbols/ntkrnlmp.pdb/070707070707070707070707070707071/ntkrnlmp.pdb; \
         .symfix and .reload fetch them"
    );
}

#[test]
fn modules_and_version_are_shown_in_windbgs_columns() {
    let booted = leak(Build::Windows7).boot();
    assert_eq!(
        text(&booted, "lm"),
        "start             end                 module name\n\
         fffff800`01400000 fffff800`019ea000   nt         (table symbols)\n\
         fffff880`0447c000 fffff880`04485000   myfault    (table symbols)\n"
    );
    assert_eq!(text(&booted, "lm m my*").lines().count(), 2);
    assert_eq!(notes(&booted, "lm m x*")[0].kind, NoteKind::Failed);
    assert_eq!(
        text(&booted, "vertarget"),
        "Windows Kernel Version 7601 MP Free x64\n\
         Kernel base = 0xfffff800`01400000 PsLoadedModuleList = 0xfffff800`01639c90\n\
         Debug session time: not available\n\
         System Uptime: not available\n"
    );
}

#[test]
fn no_flipped_byte_of_the_verifiers_state_is_a_panic_or_an_endless_walk() {
    let mut world = leak(Build::Windows7);
    world.drop_pages(LOG);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let tree = world.global("ViTargetDriversAvl");
    let places =
        [(tree, 0x40), (TABLES, 0x70), (NODE, 0x50), (DATA, 0x100), (SUSPECT, 0x40), (TRACKERS, PAGE)];
    for _ in 0..400 {
        let before: Vec<_> = places.iter().map(|(at, len)| world.read(*at, *len)).collect();
        for _ in 0..=next(6) {
            let (at, len) = places[next(places.len() as u64) as usize];
            world.write(at.offset(next(len)), &[next(256) as u8]);
        }
        let booted = world.boot();
        if let Ok(answer) = run(&booted, "!verifier 3") {
            answer.write_text(Style::default(), &mut String::new()).unwrap();
        }
        assert!(booted.memory.reads() < 1_000);
        for ((at, _), bytes) in places.iter().zip(before) {
            world.write(*at, &bytes);
        }
    }
}

/// A memory whose user presses Ctrl+C after some reads.
struct Interrupted<'a> {
    inner: &'a dyn Memory,
    left: AtomicUsize,
    refused: AtomicUsize,
}

impl Memory for Interrupted<'_> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return self.inner.read_virtual(address, buf);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let address = Address::Virtual(address);
        Err(ReadError { address, wanted: buf.len(), got: 0, cause: ReadCause::Interrupted })
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.inner.search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}

fn run(booted: &Booted, line: &str) -> Result<Answer, QueryError> {
    crate::support::text::run(&booted.target(), line)
}

fn text(booted: &Booted, line: &str) -> String {
    crate::support::text::text(&booted.target(), line)
}

fn notes(booted: &Booted, line: &str) -> Vec<Note> {
    crate::support::text::notes(&booted.target(), line)
}

fn json(world: &World, line: &str) -> Value {
    run(&world.boot(), line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

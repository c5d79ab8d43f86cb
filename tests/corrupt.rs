//! Scenario `corrupt`, counted: what each query asks of the target and allocates, and that it finds all that is left to find.
//!
//! What is left is found here by other means: trackers that are as most seeds have them, on pages that the driver's list
//! still leads to; log records whose Address field has the address, wherever in the ring.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

use crate::support::text::WithNotes as _;
use peak_alloc::PeakAlloc;
use serde_json::Value;
use support::machine::{Still, version_of};
use support::text::run;
use verikd::memory::{CountingMemory, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, SListHead, Target};
use verikd_sim::windows::{BUILDS, Build, Machine, Scenario};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Requests of one query at most, whatever lies in the target.
const REQUESTS: u64 = 150;
/// Bytes that it asks for at most.
const ASKED: u64 = 1 << 20;
/// Bytes that it holds at a time at most, its answer included.
const HELD: usize = 8 << 20;

const SEEDS: u64 = 33;
const LEAKED: [u64; 3] = [0xffff_fa80_0540_0000, 0xffff_fa80_0500_0000, 0xffff_fa80_04a6_6000];

/// The allocator counts for the whole process, so this is one test.
#[test]
fn no_damage_costs_more_than_the_bounds_or_hides_what_is_left() {
    let truth = truth();
    let (mut most_requests, mut most_bytes, mut most_held) = (0, 0, 0);
    let mut blocks_left = 0;
    for seed in 0..SEEDS {
        let build = BUILDS[seed as usize % BUILDS.len()];
        let (machine, kernel) = corrupt(build, seed);
        let memory = CountingMemory::new(machine);
        let target = Target::new(&memory, &kernel);
        // Symbols are read once, and are no part of a query.
        let _ = run(&target, "!verifier 3");
        let mut ask = |line: &str| -> Option<Value> {
            memory.reset();
            ALLOCATOR.reset_peak_usage();
            let before = ALLOCATOR.current_usage();
            let answer = run(&Target::new(&memory, &kernel), line).ok();
            let held = ALLOCATOR.peak_usage() - before;
            let requests = memory.reads() + memory.searches();
            assert!(requests <= REQUESTS, "seed {seed}: {line} made {requests} requests");
            assert!(memory.bytes() <= ASKED, "seed {seed}: {line} asked for {:#x} bytes", memory.bytes());
            assert!(held <= HELD, "seed {seed}: {line} held {held:#x} bytes");
            most_requests = most_requests.max(requests);
            most_bytes = most_bytes.max(memory.bytes());
            most_held = most_held.max(held);
            Some(answer?.with_notes())
        };
        let report = ask("!verifier 3").unwrap_or_else(|| panic!("seed {seed}: drivers"));
        let drivers = report["drivers"].as_array().unwrap();
        assert_eq!(drivers.len(), 3, "seed {seed}: no damage keeps the tree from leading to all of them");
        for driver in drivers {
            blocks_left += check_blocks(&target, driver, &truth, seed);
        }
        for address in LEAKED {
            let log = ask(&format!("!verifier 80 {address:x}"));
            let found = log.as_ref().map_or(0, |log| {
                let entries = log["entries"].as_array().unwrap().iter();
                entries.filter(|entry| entry["address"] == format!("{address:#x}")).count()
            });
            assert_eq!(found, records_of(&target, address), "seed {seed}: entries of {address:x}");
        }
        for line in ["!verifier 80 400", "!verifier 8", "!verifier 400", "!verifier 7cf", "lm"] {
            ask(line);
        }
        // Inside a block, and in none: many searches of the whole log, which take a debug build long.
        if seed % BUILDS.len() as u64 == 1 {
            for line in ["!verifier 80 fffffa80`05400010", "!verifier 80 fffffa80`00c00000"] {
                ask(line);
            }
        }
        let modules = target.modules().unwrap();
        assert!(modules.modules().len() >= 6, "seed {seed}: {} modules", modules.modules().len());
    }
    assert!(blocks_left > SEEDS as usize * 600, "{blocks_left} blocks were left to find");
    println!(
        "most requests {most_requests}, bytes {most_bytes:#x}, held {most_held:#x}; {blocks_left} blocks"
    );
}

/// Makes sure that every block that is left is listed; how many there are.
fn check_blocks(target: &Target<'_>, driver: &Value, truth: &Truth, seed: u64) -> usize {
    let data = number(&driver["verified_data"]);
    let listed: HashSet<u64> = blocks(driver).map(|block| number(&block["tracker"])).collect();
    let pages = pages(target, VirtAddr(data));
    let mut left = 0;
    for (tracker, facts) in &truth[&number(&driver["entry"])] {
        let on_page = pages.contains(&(tracker & !0xfff));
        if on_page && facts_at(target, *tracker).as_ref() == Some(facts) {
            assert!(listed.contains(tracker), "seed {seed}: {} {tracker:x}", driver["name"]);
            left += 1;
        }
    }
    left
}

/// Tracker pages that a driver's list leads to before it breaks off.
fn pages(target: &Target<'_>, data: VirtAddr) -> HashSet<u64> {
    let record = target.record("nt!_VF_TARGET_VERIFIED_DRIVER_DATA", data).unwrap();
    let mut at = SListHead::read(&record, "PoolPageHeaders").unwrap().first;
    let mut pages = HashSet::new();
    while let Ok(header) = target.record("nt!_VI_POOL_PAGE_HEADER", at) {
        let is_its_own = header.uint("Signature").is_ok_and(|it| it == 0x2132_1345)
            && header.pointer("VerifierEntry").is_ok_and(|it| it == data);
        if !is_its_own || !pages.insert(at.0) {
            break;
        }
        at = header.pointer("NextPage").unwrap();
    }
    pages
}

/// Address, caller, size and tag of each tracker, by the drivers' entries.
type Facts = [u64; 4];
type Truth = HashMap<u64, BTreeMap<u64, Facts>>;

/// What most seeds have.
fn truth() -> Truth {
    let mut votes: HashMap<u64, BTreeMap<u64, HashMap<Facts, usize>>> = HashMap::new();
    for seed in 0..SEEDS {
        let (machine, kernel) = corrupt(BUILDS[0], seed);
        let target = Target::new(&machine, &kernel);
        let report = run(&target, "!verifier 3").unwrap().with_notes();
        for driver in report["drivers"].as_array().unwrap() {
            let of_driver = votes.entry(number(&driver["entry"])).or_default();
            for block in blocks(driver) {
                let tracker = number(&block["tracker"]);
                let facts = facts_at(&target, tracker).unwrap();
                *of_driver.entry(tracker).or_default().entry(facts).or_default() += 1;
            }
        }
    }
    let elected = |facts: HashMap<Facts, usize>| facts.into_iter().max_by_key(|(_, votes)| *votes).unwrap();
    let of_driver = |(entry, trackers): (u64, BTreeMap<u64, _>)| {
        let trackers = trackers.into_iter().map(|(tracker, facts)| (tracker, elected(facts)));
        // What a few seeds alone have is damage.
        let real = trackers.filter(|(_, (_, votes))| *votes >= SEEDS as usize / 8);
        (entry, real.map(|(tracker, (facts, _))| (tracker, facts)).collect::<BTreeMap<_, _>>())
    };
    let truth: Truth = votes.into_iter().map(of_driver).collect();
    let trackers: usize = truth.values().map(BTreeMap::len).sum();
    assert_eq!((truth.len(), trackers), (3, 2000), "the scenario's blocks");
    truth
}

/// Raw contents of a tracker; the mark in bit 0 of its address is no part of them.
fn facts_at(target: &Target<'_>, tracker: u64) -> Option<Facts> {
    let record = target.record("nt!_VI_POOL_ENTRY", VirtAddr(tracker)).ok()?;
    let field = |name: &str| record.uint(&format!("InUse.{name}")).ok();
    Some([field("VirtualAddress")? & !1, field("CallingAddress")?, field("NumberOfBytes")?, field("Tag")?])
}

/// Records of the log whose Address is `address`, by reading all of it.
fn records_of(target: &Target<'_>, address: u64) -> usize {
    let variable = |name: &str| {
        let at = target.address_of(name).unwrap();
        let (bytes, _) = target.read_some(at, 8);
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    let layout = target.layout("nt!_VF_POOL_TRACE").unwrap();
    let length = variable("nt!VfPoolTracesLength") as u32 as usize;
    let records = target.records(&layout, VirtAddr(variable("nt!VfPoolTraces")), length);
    records.iter().filter(|record| record.pointer("Address").is_ok_and(|it| it == VirtAddr(address))).count()
}

fn blocks(driver: &Value) -> impl Iterator<Item = &Value> {
    driver["allocations"]["blocks"].as_array().unwrap().iter()
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn corrupt(build: &'static Build, seed: u64) -> (Still, Kernel) {
    static STORE: OnceLock<()> = OnceLock::new();
    let folder = |build: &Build| Path::new(env!("CARGO_TARGET_TMPDIR")).join("corrupt").join(build.name);
    STORE.get_or_init(|| {
        for build in BUILDS {
            std::fs::create_dir_all(folder(build)).unwrap();
            for image in build.all_images() {
                std::fs::write(folder(build).join(image.pdb_file), image.pdb).unwrap();
            }
        }
    });
    let mut machine = Machine::with_scenario(build, Scenario::Corrupt, seed);
    machine.break_in();
    let path = SymbolPath::parse(&folder(build).display().to_string());
    let kernel = Kernel::new(version_of(&machine), path);
    (Still(machine), kernel)
}

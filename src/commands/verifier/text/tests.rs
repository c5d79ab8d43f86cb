//! Published samples, from states put together by hand: verifier-samples.md S5, S6, S9. Each is as it was published, but
//! for numbers that the publisher had cut.

use super::super::allocations::{Allocations, Block};
use super::super::drivers::Driver;
use super::super::format::{Era, VerifierFormat};
use super::super::options;
use super::super::settings::{PoolCounters, Settings, Statistics};
use super::super::{DriverReport, VerifierReport};
use crate::commands::{Answer, Style};
use crate::output::Reading;
use crate::target::{VirtAddr, WalkEnd};

#[test]
fn windows_8_1_prints_as_its_own_debugger_did() {
    let pool = counters([0, 3, 0, 0x13], [0, 0x1058, 0, 0x4_a4a0]);
    let blocks = [
        (0x982a_8fe0, 0x20, "VMdl", 0x9a3b_f6ac, "MyDriver!DeviceControlDispatch+0x4c"),
        (0x8645_a000, 0x1008, "mdrv", 0x9a3b_f687, "MyDriver!DeviceControlDispatch+0x27"),
        (0x9a83_6fd0, 0x30, "Vfwi", 0x9a3b_f6ed, "MyDriver!GetNecessaryObjects"),
    ];
    let driver = driver("MyDriver.sys", 0x8422_6b28, [1, 0], pool.clone(), &blocks);
    let report = report(0x2_09bb, Era::Windows8, 4, [0x2_db1a, 0x2_db1a], pool, driver);
    assert_prints(&report, VerifierFormat::Auto, include_str!("samples/windows-8.1-x86.txt"));
}

#[test]
fn windows_7_prints_as_todays_debugger_does_if_asked_to() {
    let pool = counters([1, 0, 1, 0], [0x70, 0, 0x70, 0]);
    let blocks = [(0x8649_1d10, 0x70, "abcd", 0xa05c_1047, "Sample!DriverEntry+0x27")];
    let driver = driver("Sample.sys", 0xa013_f2c8, [2, 1], pool.clone(), &blocks);
    let report = report(8, Era::Windows7, 4, [3, 0], pool, driver);
    assert_prints(&report, VerifierFormat::New, include_str!("samples/windows-7-x86-new.txt"));
}

#[test]
fn windows_11_prints_a_block_of_special_pool_as_published() {
    let pool = counters([0, 1, 1, 0x6f], [0, 4, 0x3e, 0xbe59]);
    let (address, caller) = (0xffff_cb84_3b87_aff0, 0xffff_f803_569c_53e1);
    let blocks = [(address, 4, "ebpf", caller, "ebpfcore!ebpf_allocate+0x21")];
    let driver = driver("ebpfcore.sys", 0xffff_cb84_3873_0e10, [2, 1], pool.clone(), &blocks);
    let report = report(0x12_09bb, Era::Windows10, 8, [1, 1], pool, driver);
    let text = print(&report, VerifierFormat::Auto);
    let sample = include_str!("samples/windows-11-x64.txt");
    assert!(text.contains(sample), "{text}");
    assert!(
        text.contains(
            "    [ ] (0x02000000) Code integrity checks\n\n  \
             RESERVED FLAGS (use of these flags is unsupported):\n    \
             [X] (0x00100000) Unused or reserved flag\n\n    [X] Indicates flag is enabled\n"
        ),
        "{text}"
    );
}

/// Headings of tables may end in spaces, which publishers lose.
fn assert_prints(report: &VerifierReport, format: VerifierFormat, sample: &str) {
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let text = print(report, format);
    assert_eq!(lines(&text), lines(sample), "\n{text}");
}

fn print(report: &VerifierReport, verifier: VerifierFormat) -> String {
    let mut text = String::new();
    report.write_styled(&Style { verifier }, &mut text).unwrap();
    text
}

fn report(
    level: u32,
    era: Era,
    pointer_size: usize,
    [succeeded, special]: [u64; 2],
    pool: PoolCounters,
    driver: DriverReport,
) -> VerifierReport {
    let counter = |value| Some(Reading::Value(value));
    let statistics = Statistics {
        raise_irqls: counter(0),
        acquire_spin_locks: counter(0),
        synchronize_executions: counter(0),
        trims: counter(0),
        allocations_attempted: counter(succeeded),
        allocations_succeeded: counter(succeeded),
        allocations_succeeded_special_pool: counter(special),
        allocations_with_no_tag: counter(0),
        allocations_failed: counter(0),
        allocations_failed_deliberately: counter(0),
        pool,
    };
    let options = options::options(level, era);
    VerifierReport {
        settings: Settings {
            level,
            era,
            options,
            option_flags: Some(0),
            statistics,
            pointer_size,
            without_symbols: None,
        },
        drivers: Some(vec![driver]),
        drivers_end: Some(WalkEnd::Null),
        logs: Vec::new(),
        notes: Vec::new(),
        pointer_size,
    }
}

/// Paged and nonpaged, now and at their peak.
fn counters(allocations: [u64; 4], bytes: [u64; 4]) -> PoolCounters {
    let [paged, nonpaged, peak_paged, peak_nonpaged] = allocations.map(Reading::Value);
    let [paged_bytes, nonpaged_bytes, peak_paged_bytes, peak_nonpaged_bytes] = bytes.map(Reading::Value);
    PoolCounters {
        current_paged_allocations: paged,
        current_nonpaged_allocations: nonpaged,
        peak_paged_allocations: peak_paged,
        peak_nonpaged_allocations: peak_nonpaged,
        paged_bytes,
        nonpaged_bytes,
        peak_paged_bytes,
        peak_nonpaged_bytes,
    }
}

fn driver(
    name: &str,
    entry: u64,
    [loads, unloads]: [u64; 2],
    pool: PoolCounters,
    blocks: &[(u64, u64, &str, u64, &str)],
) -> DriverReport {
    let block = |(address, size, tag, caller, symbol): &(u64, u64, &str, u64, &str)| Block {
        address: VirtAddr(*address),
        size: *size,
        tag: (*tag).to_owned(),
        caller: VirtAddr(*caller),
        caller_symbol: Some((*symbol).into()),
        tracker: VirtAddr(0),
        stack: None,
        odd_size: size & 1 != 0,
    };
    let driver = Driver {
        entry: VirtAddr(entry),
        verified_data: VirtAddr(0),
        name: Some(name.to_owned()),
        base: VirtAddr(0),
        size: Reading::Value(0),
        loads: Reading::Value(loads),
        unloads: Reading::Value(unloads),
        pool,
        contiguous_memory_bytes: Some(Reading::Value(0)),
        peak_contiguous_memory_bytes: Some(Reading::Value(0)),
        pool_pages: None,
        free_trackers: None,
    };
    let allocations = Allocations {
        blocks: blocks.iter().map(block).collect(),
        pages: 1,
        pages_end: WalkEnd::Null,
        free_end: WalkEnd::Null,
        gaps: Vec::new(),
    };
    DriverReport { driver, allocations: Some(allocations) }
}

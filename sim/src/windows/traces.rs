//! Driver Verifier's smaller logs: injected faults, changes of IRQL, requests that were forced to be pending, I/O requests,
//! critical regions; and the cancelled requests that are watched.
//!
//! ```text
//!  !verifier    4  8  40  100  200     rings of records, as the pool log is
//!             400                      VfWdIrpListHead -> _VF_WATCHDOG_IRP -> _VF_WATCHDOG_IRP -> back
//! ```
//! Lengths but that of the IRQL log (verifier-samples.md S3) and that of the faults (S4) are guesses. A log whose record is
//! in no symbols of the build is not made: that of I/O requests on Windows 7.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, Site, span};
use super::layout::Type;
use super::processes::LEAKING_THREAD;
use super::verified::MYFAULT;
use crate::paging::Access;
use crate::physical::PAGE_SIZE;

/// A ring, and the events that were logged in it.
struct Log {
    /// Its pointer, index and length.
    variables: [&'static str; 3],
    record: &'static str,
    at: VirtAddr,
    length: u32,
    /// Events that were ever logged, which is the index of the newest.
    events: u32,
    /// What the record of an event `age` events ago says.
    fields: fn(age: u32) -> Vec<(&'static str, u64)>,
    stacks: &'static [&'static [Site]],
}

/// Where the rings are, one behind the other.
const RINGS: u64 = 0xffff_fa80_02d0_0000;
/// Requests that drivers work on, and how far they lie from each other.
const IRPS: VirtAddr = VirtAddr(0xffff_fa80_02f0_0010);
const IRP_STRIDE: u64 = 0x200;
const IRP_COUNT: u32 = 6;
/// Entries of watched requests.
const WATCHED: VirtAddr = VirtAddr(0xffff_fa80_02f8_0010);
/// When the machine was stopped, in ticks of its clock.
const TICKS: u32 = 0x495e;

/// The thread of an idle processor: DPCs run on it.
const IDLE_THREAD: &str = "KiInitialThread";
/// A thread of another process.
const OTHER_THREAD: u64 = 0xffff_fa80_0441_9060;

const CONTROL: &[Site] = &[
    ("myfault", "MyfaultDispatch", 0xb7),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

const LOGS: [Log; 5] = [
    Log {
        variables: ["ViFaultTraces", "ViFaultTracesIndex", "ViFaultTracesLength"],
        record: "_VI_FAULT_TRACE",
        at: VirtAddr(RINGS),
        length: 0x80,
        // Fewer than there is room for: slots behind the newest were never used.
        events: 0x75,
        fields: |age| vec![("Thread", thread(age))],
        stacks: &[
            &[
                ("nt", "VerifierExAllocatePoolEx", 0x1d),
                ("myfault", "MyfaultDeviceControl", 0x2e1),
                ("myfault", "MyfaultDispatch", 0xb7),
                ("nt", "IovCallDriver", 0xa0),
                ("nt", "IopXxxControlFile", 0x607),
            ],
            &[("nt", "VerifierExAllocatePool", 0x1c), ("myfault", "MyfaultLeakPool", 0x4b), CONTROL[0]],
        ],
    },
    Log {
        variables: ["ViTrackIrqlQueue", "ViTrackIrqlIndex", "ViTrackIrqlQueueLength"],
        record: "_VI_TRACK_IRQL",
        at: VirtAddr(RINGS + 0x4000),
        length: 0x100,
        events: 0x3_04d3,
        fields: |age| {
            // Up to DISPATCH_LEVEL and down again, a few times a tick.
            let (old, new) = if age % 2 == 0 { (2, 0) } else { (0, 2) };
            vec![
                ("Thread", thread(age / 2)),
                ("OldIrql", old),
                ("NewIrql", new),
                ("Processor", u64::from(age / 2 % 2)),
                ("TickCount", u64::from(TICKS - age / 6)),
            ]
        },
        stacks: &[
            &[("myfault", "MyfaultDeviceControl", 0x1c4), CONTROL[0], CONTROL[1], CONTROL[2], CONTROL[3]],
            &[("myfault", "MyfaultSendStatus", 0x36), CONTROL[0], CONTROL[1], CONTROL[2]],
        ],
    },
    Log {
        variables: ["VfForcedPendingLog", "VfForcedPendingIrps", "VfForcedPendingLogLength"],
        record: "_IOV_FORCED_PENDING_TRACE",
        at: VirtAddr(RINGS + 0x8000),
        length: 0x100,
        events: 0x1c2,
        fields: |age| vec![("Irp", irp(age)), ("Thread", thread(age))],
        stacks: &[&[CONTROL[1], CONTROL[2], CONTROL[3], CONTROL[4]]],
    },
    Log {
        variables: ["IovIrpTraces", "IovIrpTracesIndex", "IovIrpTracesLength"],
        record: "_IOV_IRP_TRACE",
        at: VirtAddr(RINGS + 0x2_8000),
        length: 0x100,
        events: 0x8e0,
        fields: |age| {
            vec![
                ("Irp", irp(age / 2)),
                ("Thread", thread(age / 2)),
                // A critical region: 0 less 1.
                ("KernelApcDisable", 0xffff),
                ("SpecialApcDisable", 0),
                ("Irql", u64::from(age % 2)),
            ]
        },
        stacks: &[
            &[("nt", "IopfCompleteRequest", 0x3b2), ("myfault", "MyfaultDeviceControl", 0x2e1), CONTROL[0]],
            &[CONTROL[1], CONTROL[2], CONTROL[3], CONTROL[4]],
        ],
    },
    Log {
        variables: [
            "VfKeCriticalRegionTraces",
            "VfKeCriticalRegionTracesIndex",
            "VfKeCriticalRegionTracesLength",
        ],
        record: "_VF_KE_CRITICAL_REGION_TRACE",
        at: VirtAddr(RINGS + 0x3_0000),
        length: 0x100,
        events: 0x2_7711,
        fields: |age| vec![("Thread", thread(age))],
        stacks: &[&[("myfault", "MyfaultDeviceControl", 0x98), CONTROL[0], CONTROL[1], CONTROL[2]]],
    },
];

/// Fills every log, counts what is in them, and watches two cancelled requests.
pub(super) fn until_first_stop(kernel: &mut Kernel) {
    for number in 0..IRP_COUNT {
        kernel.pool_block(VirtAddr(irp(number)), IRP_STRIDE - 0x10, b"Irp ");
    }
    for log in &LOGS {
        if kernel.has(log.record, "StackTrace") {
            fill(kernel, log);
        }
    }
    count(kernel);
    watch(kernel, &[(irp(1), TICKS + 0x120), (irp(4), TICKS + 0x1c8)]);
}

/// Writes the events that still lie in a ring: the newest, as many as it has room for.
fn fill(kernel: &mut Kernel, log: &Log) {
    let size = kernel.size_of(log.record);
    let bytes = u64::from(log.length) * size;
    kernel.map(span(log.at, bytes.next_multiple_of(PAGE_SIZE)), Access::Write);
    let [pointer, index, length] = log.variables;
    kernel.write_variables(&[
        (pointer, log.at.0, 8),
        (index, log.events.into(), 4),
        (length, log.length.into(), 4),
    ]);
    let idle = kernel.find_symbol(IDLE_THREAD).unwrap_or(VirtAddr(OTHER_THREAD));
    for age in 0..log.events.min(log.length) {
        let slot = (log.events - age) % log.length;
        let record = log.at.offset(u64::from(slot) * size);
        let mut fields = (log.fields)(age);
        for (_, value) in fields.iter_mut().filter(|(name, value)| *name == "Thread" && *value == 0) {
            *value = idle.0;
        }
        kernel.set_all(record, log.record, &fields);
        let stack = kernel.stack(log.stacks[age as usize % log.stacks.len()]);
        let start = record.offset(kernel.offset_of(log.record, "StackTrace"));
        let room = frames(kernel, log.record);
        for (number, frame) in (0..).zip(stack.iter().take(room)) {
            kernel.write_u64(start.offset(number * 8), frame.0);
        }
    }
}

/// Counts injected faults as failed allocations, and changes of IRQL.
fn count(kernel: &mut Kernel) {
    const GLOBAL: &str = "_MM_DRIVER_VERIFIER_DATA";
    const DATA: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
    let [faults, irqls, ..] = &LOGS;
    let (faults, irqls) = (i64::from(faults.events), i64::from(irqls.events));
    let global = kernel.symbol("MmVerifierData");
    for (at, aggregate, counter, more) in [
        (global, GLOBAL, "AllocationsAttempted", faults),
        (global, GLOBAL, "AllocationsFailed", faults),
        (global, GLOBAL, "AllocationsFailedDeliberately", faults),
        (global, GLOBAL, "RaiseIrqls", irqls / 2),
        (global, GLOBAL, "AcquireSpinLocks", irqls / 3),
        (MYFAULT.data, DATA, "AllocationsFailed", faults),
        (MYFAULT.data, DATA, "AllocationsFailedDeliberately", faults),
        (MYFAULT.data, DATA, "RaiseIrqls", irqls / 2),
    ] {
        if kernel.has(aggregate, counter) {
            kernel.add(at, aggregate, counter, more);
        }
    }
}

/// Puts cancelled requests, each with the tick at which it is late, on the list of those watched.
fn watch(kernel: &mut Kernel, requests: &[(u64, u32)]) {
    const ENTRY: &str = "_VF_WATCHDOG_IRP";
    let head = kernel.symbol("VfWdIrpListHead");
    kernel.list_init(head);
    for (number, (irp, due)) in (0..).zip(requests) {
        let at = WATCHED.offset(number * 0x30);
        kernel.pool_block(at, kernel.size_of(ENTRY), b"VfWd");
        let fields = [
            ("Irp", *irp),
            ("DueTickCount", u64::from(*due)),
            ("Inserted", 1),
            ("TrackedStackLocation", 2),
            ("CancelTimeoutTicks", 0x12c0),
        ];
        kernel.set_all(at, ENTRY, &fields);
        kernel.list_append(head, at);
    }
}

/// Return addresses that a record has room for.
fn frames(kernel: &Kernel, record: &str) -> usize {
    match kernel.layouts.types.locate(record, "StackTrace") {
        Some((_, Type::Array(_, count))) => *count as usize,
        _ => panic!("{record}.StackTrace is an array"),
    }
}

/// A thread by turns; 0 stands for an idle processor's.
const fn thread(number: u32) -> u64 {
    match number % 3 {
        0 => LEAKING_THREAD.0,
        1 => OTHER_THREAD,
        _ => 0,
    }
}

const fn irp(number: u32) -> u64 {
    IRPS.0 + (number % IRP_COUNT) as u64 * IRP_STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn call_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(LOGS.iter().flat_map(|log| log.stacks).flat_map(|stack| *stack));
    }
}

//! Driver Verifier's log of pool allocations and frees: `VfPoolTraces`, what `!verifier 80` searches.
//!
//! A ring of records in nonpaged pool, as many and as large as the build has them. The slot of a record is `++VfPoolTracesIndex` modulo the ring's length, so
//! the newest is at the index itself. Only verified drivers' allocations are logged, but every free in the kernel: so
//! nearly all records are frees by others.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, Site, span};
use super::layout::Type;
use crate::sim::paging::Access;

/// Where the ring is, and how large it may be there; a larger one lies behind all that the leak may reach.
const RING: VirtAddr = VirtAddr(0xffff_fa80_0240_0000);
const RING_ROOM: u64 = 0x80_0000;
const LARGE_RING: VirtAddr = VirtAddr(0xffff_fa80_8000_0000);
/// `VfPoolTracesIndex` at the first stop, in a ring of 0x10000 records: it has gone round twice.
const FIRST_STOP_INDEX: u32 = 0x2_d4c7;

/// One record.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The block.
    pub(super) address: VirtAddr,
    /// Bytes asked for, or of the freed block.
    pub(super) size: u64,
    /// `_ETHREAD` that did it.
    pub(super) thread: VirtAddr,
    /// Return addresses, innermost first.
    pub(super) stack: Vec<VirtAddr>,
}

/// Creates the ring, full: `remarkable` events, oldest first, each with how many events ago it was, among frees by others.
pub(super) fn start(kernel: &mut Kernel, remarkable: &[(u32, Event)]) {
    let record = Record::of(kernel);
    let length = kernel.layouts.release.pool_log_length;
    let size = u64::from(length) * record.size;
    let at = if size <= RING_ROOM { RING } else { LARGE_RING };
    kernel.map(span(at, size), Access::Write);
    let frees = BackgroundFrees::new(kernel);
    let mut ring = vec![0; usize::try_from(size).expect("some mebibytes")];
    for age in 0..length {
        let index = FIRST_STOP_INDEX - age;
        let slot = record.slot(&mut ring, index % length);
        match remarkable.iter().find(|(event_age, _)| *event_age == age) {
            Some((_, event)) => record.encode(event, slot),
            None => record.encode(&frees.event(index), slot),
        }
    }
    kernel.write(at, &ring);
    for (variable, value) in [("VfPoolTracesLength", length), ("VfPoolTracesIndex", FIRST_STOP_INDEX)] {
        let at = kernel.symbol(variable);
        kernel.write_u32(at, value);
    }
    let pointer = kernel.symbol("VfPoolTraces");
    kernel.write_u64(pointer, at.0);
}

/// Logs an event in the slot behind the newest.
pub(super) fn append(kernel: &mut Kernel, event: &Event) {
    let variable = kernel.symbol("VfPoolTracesIndex");
    let mut index = [0; 4];
    kernel.memory.read(variable, &mut index);
    let index = u32::from_le_bytes(index).wrapping_add(1);
    kernel.write_u32(variable, index);
    let record = Record::of(kernel);
    let mut bytes = vec![0; usize::try_from(record.size).expect("a record is small")];
    record.encode(event, &mut bytes);
    let length = kernel.layouts.release.pool_log_length;
    let ring = VirtAddr(kernel.read_u64(kernel.symbol("VfPoolTraces")));
    kernel.write(ring.offset(u64::from(index % length) * record.size), &bytes);
}

/// Where the fields of `_VF_POOL_TRACE` are.
struct Record {
    size: u64,
    address: usize,
    bytes: usize,
    thread: usize,
    stack: usize,
    frames: usize,
}

impl Record {
    fn of(kernel: &Kernel) -> Self {
        const RECORD: &str = "_VF_POOL_TRACE";
        let offset = |field| usize::try_from(kernel.offset_of(RECORD, field)).expect("a record is small");
        let frames = match kernel.layouts.types.locate(RECORD, "StackTrace") {
            Some((_, Type::Array(_, count))) => *count as usize,
            _ => panic!("{RECORD}.StackTrace is an array"),
        };
        Self {
            size: kernel.size_of(RECORD),
            address: offset("Address"),
            bytes: offset("Size"),
            thread: offset("Thread"),
            stack: offset("StackTrace"),
            frames,
        }
    }

    /// The slot with this number.
    fn slot<'a>(&self, ring: &'a mut [u8], number: u32) -> &'a mut [u8] {
        let size = usize::try_from(self.size).expect("a record is small");
        &mut ring[number as usize * size..][..size]
    }

    /// Writes a record whose slot holds zeros.
    fn encode(&self, event: &Event, slot: &mut [u8]) {
        let mut put = |at: usize, value: u64| slot[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(self.address, event.address.0);
        put(self.bytes, event.size);
        put(self.thread, event.thread.0);
        for (number, frame) in event.stack.iter().take(self.frames).enumerate() {
            put(self.stack + number * 8, frame.0);
        }
    }
}

/// Frees that the rest of the system makes: always the same one for an index.
struct BackgroundFrees {
    /// Call stacks, and whether their blocks are paged.
    stacks: Vec<(bool, Vec<VirtAddr>)>,
}

/// Call stacks of frees by others, innermost first: whether of paged pool, and return addresses.
const STACKS: &[(bool, &[Site])] = &[
    (
        false,
        &[
            ("nt", "ExFreePoolWithTag", 0x22c),
            ("nt", "ObfDereferenceObject", 0xd4),
            ("nt", "ObpCloseHandle", 0x94),
            ("nt", "KiSystemServiceCopyEnd", 0x13),
        ],
    ),
    (
        false,
        &[
            ("nt", "ExFreePoolWithTag", 0x22c),
            ("nt", "IopfCompleteRequest", 0x3b2),
            ("nt", "IopSynchronousServiceTail", 0x251),
            ("nt", "IopXxxControlFile", 0x607),
            ("nt", "NtDeviceIoControlFile", 0x56),
            ("nt", "KiSystemServiceCopyEnd", 0x13),
        ],
    ),
    (
        false,
        &[
            ("nt", "ExFreePoolWithTag", 0x22c),
            ("ndis", "NdisFreeMemory", 0x1f),
            ("ndis", "ndisMSendCompleteNetBufferListsInternal", 0x8e),
            ("ndis", "ndisInterruptDpc", 0x1b6),
            ("nt", "KiRetireDpcList", 0x1bc),
            ("nt", "KiIdleLoop", 0x5a),
        ],
    ),
    (
        true,
        &[
            ("nt", "ExFreePoolWithTag", 0x22c),
            ("nt", "NtQuerySystemInformation", 0x4d),
            ("nt", "KiSystemServiceCopyEnd", 0x13),
        ],
    ),
    (
        true,
        &[
            ("nt", "ExFreePoolWithTag", 0x22c),
            ("nt", "ExpWorkerThread", 0x111),
            ("nt", "PspSystemThreadStartup", 0x5a),
            ("nt", "KxStartSystemThread", 0x16),
        ],
    ),
];

/// Threads that free: those of other processes, and of the idle process for frees in a DPC.
const THREADS: &[u64] = &[0xffff_fa80_036c_76b0, 0xffff_fa80_043a_7b60, 0xffff_fa80_0441_9060];

impl BackgroundFrees {
    fn new(kernel: &Kernel) -> Self {
        let resolve = |(paged, stack): &(bool, &[Site])| (*paged, kernel.stack(stack));
        Self { stacks: STACKS.iter().map(resolve).collect() }
    }

    /// Blocks lie below the leak's, in `fffffa80'03200000` and the 8 MiB behind it, or in paged pool.
    fn event(&self, index: u32) -> Event {
        let number = scramble(u64::from(index));
        let (paged, stack) = &self.stacks[(number % self.stacks.len() as u64) as usize];
        let region: u64 = if *paged { 0xffff_f8a0_0100_0000 } else { 0xffff_fa80_0320_0000 };
        let block = number >> 8 & 0x7_ffff;
        let size = ((number >> 32) % 0xd0 + 3) * 0x10;
        let thread = THREADS[(number >> 48) as usize % THREADS.len()];
        Event {
            address: VirtAddr(region + block * 0x10),
            size,
            thread: VirtAddr(thread),
            stack: stack.clone(),
        }
    }
}

/// Spreads consecutive numbers over all 64 bits. Source: the finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
const fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn background_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(STACKS.iter().flat_map(|(_, stack)| *stack));
    }
}

//! Driver Verifier's log of pool allocations and frees: `VfPoolTraces`, what `!verifier 80` searches.
//!
//! A ring of records in nonpaged pool, as many and as large as the build has them. The slot of a record is `++VfPoolTracesIndex` modulo the ring's length, so
//! the newest is at the index itself. Only verified drivers' allocations are logged, but every free in the kernel: so
//! nearly all records are frees by others.
//!
//! What the ring holds at the first stop is a function of each record's place in it, so the simulation keeps none of it:
//! a page is made when it is read, and kept only once it is written to.

use std::collections::BTreeMap;
use std::sync::Arc;

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, Site};
use super::layout::Type;
use crate::physical::{PAGE_SIZE, PageSource};

/// Where the ring is, and how large it may be there; a larger one lies behind all that the leak may reach.
const RING: VirtAddr = VirtAddr(0xffff_fa80_0240_0000);
const RING_ROOM: u64 = 0x80_0000;
const LARGE_RING: VirtAddr = VirtAddr(0xffff_fa80_8000_0000);
/// Events before the first stop, beside as many as fit into the ring twice.
const FIRST_STOP_INDEX: u32 = 0xd4c7;

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

/// Creates a ring of `length` records, full: `remarkable` events, each with how many events ago it was, among frees by
/// others.
pub(super) fn start(kernel: &mut Kernel, length: u32, remarkable: Vec<(u32, Event)>) {
    let record = Record::of(kernel);
    let newest = 2 * length + FIRST_STOP_INDEX;
    let size = u64::from(length) * record.size as u64;
    let at = if size <= RING_ROOM { RING } else { LARGE_RING };
    // Of two events that are as old the later one in the list counts.
    let remarkable: BTreeMap<_, _> = remarkable
        .into_iter()
        .map(|(age, event)| ((newest - age) % length, record.encoded(&event)))
        .collect();
    let frees = BackgroundFrees::new(kernel, &record);
    let ring = Ring { record, length, newest, remarkable, frees };
    kernel.map_large(at, size, Arc::new(ring));
    kernel.write_variables(&[
        ("VfPoolTracesLength", length.into(), 4),
        ("VfPoolTracesIndex", newest.into(), 4),
        ("VfPoolTraces", at.0, 8),
    ]);
}

/// How many events were logged.
pub(super) fn index(kernel: &Kernel) -> u32 {
    kernel.read_u32(kernel.symbol("VfPoolTracesIndex"))
}

/// Logs an event in the slot behind the newest.
pub(super) fn append(kernel: &mut Kernel, event: &Event) {
    let bytes = Record::of(kernel).encoded(event);
    let at = advance(kernel);
    kernel.write(at, &bytes);
}

/// Takes the next slot for an event, as its logger does before it writes the record. Returns where the slot is.
pub(super) fn advance(kernel: &mut Kernel) -> VirtAddr {
    let [index_at, length] = ["VfPoolTracesIndex", "VfPoolTracesLength"].map(|name| kernel.symbol(name));
    let index = kernel.read_u32(index_at).wrapping_add(1);
    kernel.write_u32(index_at, index);
    let length = kernel.read_u32(length).max(1);
    let ring = VirtAddr(kernel.read_u64(kernel.symbol("VfPoolTraces")));
    ring.offset(u64::from(index % length) * kernel.size_of("_VF_POOL_TRACE"))
}

/// What the ring holds at the first stop.
#[derive(Debug)]
struct Ring {
    record: Record,
    length: u32,
    /// Index of the newest event.
    newest: u32,
    /// Whole records, by slot.
    remarkable: BTreeMap<u32, Vec<u8>>,
    frees: BackgroundFrees,
}

impl PageSource for Ring {
    fn fill(&self, number: u64, page: &mut [u8; PAGE_SIZE as usize]) {
        let size = self.record.size;
        let start = usize::try_from(number * PAGE_SIZE).expect("a ring fits into memory");
        let end = start + page.len();
        let first = start / size;
        let behind = end.div_ceil(size).min(self.length as usize);
        let mut cut = vec![0; size];
        for slot in first..behind {
            let at = slot * size;
            if start <= at && at + size <= end {
                self.encode(slot as u32, &mut page[at - start..][..size]);
            } else {
                // The first and the last record of a page may lie in its neighbours too.
                cut.fill(0);
                self.encode(slot as u32, &mut cut);
                let (from, to) = (at.max(start), (at + size).min(end));
                page[from - start..to - start].copy_from_slice(&cut[from - at..to - at]);
            }
        }
        for (slot, record) in self.remarkable.range(first as u32..behind as u32) {
            let at = *slot as usize * size;
            let (from, to) = (at.max(start), (at + size).min(end));
            page[from - start..to - start].copy_from_slice(&record[from - at..to - at]);
        }
    }
}

impl Ring {
    /// Writes the free that fills a slot, which holds zeros.
    fn encode(&self, slot: u32, bytes: &mut [u8]) {
        let age = (self.newest % self.length + self.length - slot) % self.length;
        let (address, size, thread, stack) = self.frees.event(self.newest - age);
        self.record.encode(address, size, thread, stack, bytes);
    }
}

/// Where the fields of `_VF_POOL_TRACE` are.
#[derive(Debug)]
struct Record {
    size: usize,
    address: usize,
    bytes: usize,
    thread: usize,
    stack: usize,
    frames: usize,
}

impl Record {
    fn of(kernel: &Kernel) -> Self {
        const RECORD: &str = "_VF_POOL_TRACE";
        let number = |value| usize::try_from(value).expect("a record is small");
        let offset = |field| number(kernel.offset_of(RECORD, field));
        let frames = match kernel.layouts.types.locate(RECORD, "StackTrace") {
            Some((_, Type::Array(_, count))) => *count as usize,
            _ => panic!("{RECORD}.StackTrace is an array"),
        };
        Self {
            size: number(kernel.size_of(RECORD)),
            address: offset("Address"),
            bytes: offset("Size"),
            thread: offset("Thread"),
            stack: offset("StackTrace"),
            frames,
        }
    }

    fn encoded(&self, event: &Event) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        self.encode(event.address, event.size, event.thread, &self.frames(&event.stack), &mut bytes);
        bytes
    }

    /// The bytes of as many frames as a record has room for.
    fn frames(&self, stack: &[VirtAddr]) -> Vec<u8> {
        stack.iter().take(self.frames).flat_map(|frame| frame.0.to_le_bytes()).collect()
    }

    /// Writes a record whose slot holds zeros.
    fn encode(&self, address: VirtAddr, size: u64, thread: VirtAddr, stack: &[u8], slot: &mut [u8]) {
        for (at, value) in [(self.address, address.0), (self.bytes, size), (self.thread, thread.0)] {
            slot[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        slot[self.stack..][..stack.len()].copy_from_slice(stack);
    }
}

/// Frees that the rest of the system makes: always the same one for an index.
#[derive(Debug)]
struct BackgroundFrees {
    /// Call stacks as a record has them, and whether their blocks are paged.
    stacks: Vec<(bool, Vec<u8>)>,
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
    fn new(kernel: &Kernel, record: &Record) -> Self {
        let resolve = |(paged, stack): &(bool, &[Site])| (*paged, record.frames(&kernel.stack(stack)));
        Self { stacks: STACKS.iter().map(resolve).collect() }
    }

    /// Block, size, thread and stack of an event. Blocks lie below the leak's, in `fffffa80'03200000` and the 8 MiB behind
    /// it, or in paged pool.
    fn event(&self, index: u32) -> (VirtAddr, u64, VirtAddr, &[u8]) {
        let number = scramble(u64::from(index));
        let (paged, stack) = &self.stacks[(number % self.stacks.len() as u64) as usize];
        let region: u64 = if *paged { 0xffff_f8a0_0100_0000 } else { 0xffff_fa80_0320_0000 };
        let block = number >> 8 & 0x7_ffff;
        let size = ((number >> 32) % 0xd0 + 3) * 0x10;
        let thread = THREADS[(number >> 48) as usize % THREADS.len()];
        (VirtAddr(region + block * 0x10), size, VirtAddr(thread), stack)
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
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn background_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(STACKS.iter().flat_map(|(_, stack)| *stack));
    }
}

//! What is kept of the loaded modules is what the kernel's list has, in every stop.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kd_protocol::MachineType;

use super::*;
use crate::memory::{ImageMemory, PhysAddr, ReadError, StopId};
use crate::source::KernelVersion;
use crate::symbols::store::SymbolPath;
use crate::symbols::table::TableSymbols;
use crate::symbols::{Guid, PdbIdentity};
use crate::target::kernel::Kernel;

const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
const HEAD: VirtAddr = NT.offset(0x1000);
const LAST_UNLOADED: VirtAddr = NT.offset(0x1020);
const UNLOADED: VirtAddr = NT.offset(0x1028);
const ARRAY: VirtAddr = VirtAddr(0xffff_fa80_0300_0000);
const ENTRIES: VirtAddr = VirtAddr(0xffff_fa80_0400_0000);
const SIZE: u32 = 0x8000;

#[test]
fn from_both_ends_an_address_is_in_the_module_that_the_whole_list_says() {
    let machine = Machine::with(40);
    for number in (0..41).rev() {
        for offset in [0, 0x7fff, 0x8000] {
            let address = base(number).offset(offset);
            let from_ends = machine.module_at(address);
            let whole = machine.fresh().target().modules().unwrap();
            assert_eq!(from_ends, whole.containing(address).map(|module| module.name.to_string()));
        }
    }
}

#[test]
fn a_module_near_an_end_costs_its_way() {
    let machine = Machine::with(200);
    for (number, most) in [(3, 7), (198, 3), (199, 0), (196, 6)] {
        let before = machine.reads();
        assert_eq!(machine.module_at(base(number)), Some(format!("driver{number}")));
        let reads = machine.reads() - before;
        assert!(reads <= most + 2, "driver{number}: {reads} reads");
    }
}

#[test]
fn what_did_not_change_is_read_once_a_boot() {
    let machine = Machine::with(200);
    machine.modules();
    machine.unload(17, 1);
    machine.stop_again();
    assert_eq!((machine.modules(), machine.module_at(base(17))), (199, None));
    for _ in 0..3 {
        machine.stop_again();
        let before = machine.reads();
        assert_eq!(machine.modules(), 199);
        assert_eq!(machine.module_at(base(17)), None);
        let reads = machine.reads() - before;
        assert!(reads <= 4, "{reads} reads");
    }
}

#[test]
fn what_was_loaded_or_unloaded_meanwhile_is_seen() {
    let machine = Machine::with(20);
    assert_eq!(machine.modules(), 20);
    machine.load(20);
    machine.stop_again();
    assert_eq!((machine.modules(), machine.module_at(base(20))), (21, Some("driver20".into())));
    machine.unload(5, 1);
    machine.stop_again();
    assert_eq!((machine.modules(), machine.module_at(base(5))), (20, None));
    // Unloaded and loaded again into the same entry, elsewhere.
    machine.unload(20, 2);
    machine.load_at(20, base(77));
    machine.stop_again();
    assert_eq!((machine.module_at(base(20)), machine.module_at(base(77))), (None, Some("driver20".into())));
}

#[test]
fn fifty_unloaded_drivers_later_the_end_of_the_list_tells() {
    let machine = Machine::with(20);
    machine.unload(5, 1);
    machine.stop_again();
    assert_eq!(machine.modules(), 19);
    machine.unload(19, 1);
    machine.load_at(19, base(77));
    machine.stop_again();
    assert_eq!(machine.module_at(base(19)), None);
    assert_eq!(machine.module_at(base(77)), Some("driver19".into()));
}

#[test]
fn a_driver_that_is_remembered_before_it_leaves_the_list_is_not_kept() {
    let machine = Machine::with(20);
    machine.remember(7, 1);
    machine.stop_again();
    assert_eq!(machine.module_at(base(7)), Some("driver7".into()));
    assert_eq!(machine.modules(), 20);
    machine.take_out(7);
    machine.stop_again();
    assert_eq!((machine.modules(), machine.module_at(base(7))), (19, None));
}

#[test]
fn a_list_that_is_torn_is_told_as_it_is_read_from_its_head() {
    let machine = Machine::with(20);
    machine.write(entry(10), &0xffff_fa80_dead_0000_u64.to_le_bytes());
    assert_eq!(machine.module_at(base(2)), Some("driver2".into()));
    assert_eq!(
        machine.module_at(base(15)),
        Some("driver15".into()),
        "its links are right from there to the end"
    );
    assert_eq!(machine.module_at(base(99)), None);
    let list = machine.target().modules().unwrap();
    assert_eq!(list.modules().len(), 11);
    assert!(!list.end().is_complete());
}

const fn base(number: usize) -> VirtAddr {
    VirtAddr(0xffff_f880_0100_0000 + number as u64 * 0x1_0000)
}

const fn entry(number: usize) -> VirtAddr {
    ENTRIES.offset(number as u64 * 0x4000)
}

/// A machine that stands still, runs on, and changes meanwhile.
struct Machine {
    memory: Arc<Bytes>,
    kernel: Kernel,
}

struct Bytes {
    image: Mutex<ImageMemory>,
    stop: AtomicU64,
    reads: AtomicU64,
}

impl Machine {
    fn with(drivers: usize) -> Self {
        let mut image = ImageMemory::new();
        image.map(NT, vec![0; 0x2000]);
        image.map(ARRAY, vec![0; 50 * 0x28]);
        for number in 0..=drivers {
            image.map(entry(number), vec![0; 0x200]);
        }
        let bytes = Bytes { image: Mutex::new(image), stop: AtomicU64::new(1), reads: AtomicU64::new(0) };
        let machine = Self { memory: Arc::new(bytes), kernel: kernel() };
        machine.link(HEAD, HEAD);
        machine.write(UNLOADED, &ARRAY.0.to_le_bytes());
        (0..drivers).for_each(|number| machine.load(number));
        machine
    }

    /// The same machine, of which nothing is known yet.
    fn fresh(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), kernel: kernel() }
    }

    fn target(&self) -> Target<'_> {
        Target::new(&*self.memory, &self.kernel)
    }

    fn module_at(&self, address: VirtAddr) -> Option<String> {
        let target = self.target();
        let module = target.module_at(address);
        assert!(module.is_some() || target.unloaded_modules().is_ok());
        module.map(|module| module.name.to_string())
    }

    fn modules(&self) -> usize {
        self.target().modules().unwrap().modules().len()
    }

    fn reads(&self) -> u64 {
        self.memory.reads.load(Ordering::Relaxed)
    }

    fn stop_again(&self) {
        self.memory.stop.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, at: VirtAddr, bytes: &[u8]) {
        self.memory.image.lock().unwrap().write(at, bytes);
    }

    fn pointer(&self, at: VirtAddr) -> VirtAddr {
        let mut word = [0; 8];
        self.memory.image.lock().unwrap().read_virtual(at, &mut word).unwrap();
        VirtAddr(u64::from_le_bytes(word))
    }

    fn link(&self, from: VirtAddr, to: VirtAddr) {
        self.write(from, &to.0.to_le_bytes());
        self.write(to.offset(8), &from.0.to_le_bytes());
    }

    fn load(&self, number: usize) {
        self.load_at(number, base(number));
    }

    fn load_at(&self, number: usize, base: VirtAddr) {
        let (at, name) = (entry(number), format!("driver{number}.sys"));
        self.write(at.offset(0x30), &base.0.to_le_bytes());
        self.write(at.offset(0x40), &SIZE.to_le_bytes());
        self.write(at.offset(0x58), &(name.len() as u16 * 2).to_le_bytes());
        self.write(at.offset(0x60), &at.offset(0xa0).0.to_le_bytes());
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.write(at.offset(0xa0), &name);
        self.link(self.pointer(HEAD.offset(8)), at);
        self.link(at, HEAD);
    }

    fn unload(&self, number: usize, count: u32) {
        self.remember(number, count);
        self.take_out(number);
    }

    /// As the `count`th that is unloaded.
    fn remember(&self, number: usize, count: u32) {
        let at = ARRAY.offset(u64::from(count - 1) * 0x28);
        self.write(at.offset(0x10), &base(number).0.to_le_bytes());
        self.write(at.offset(0x18), &base(number).offset(SIZE.into()).0.to_le_bytes());
        self.write(at.offset(0x20), &u64::from(count).to_le_bytes());
        self.write(LAST_UNLOADED, &count.to_le_bytes());
    }

    fn take_out(&self, number: usize) {
        let at = entry(number);
        self.link(self.pointer(at.offset(8)), self.pointer(at));
    }
}

fn kernel() -> Kernel {
    let symbol = |at: VirtAddr| at.since(NT) as u32;
    let symbols = TableSymbols::new(PdbIdentity::new("nt.pdb", Guid::default(), 1))
        .symbol("MmLastUnloadedDriver", symbol(LAST_UNLOADED))
        .symbol("MmUnloadedDrivers", symbol(UNLOADED));
    let version = KernelVersion {
        machine: MachineType::AMD64,
        base: NT,
        module_list: HEAD,
        ..KernelVersion::default()
    };
    let kernel = Kernel::new(version, SymbolPath::parse("/nowhere"));
    kernel.use_symbols(NT, 0x2000, Arc::new(symbols));
    kernel
}

impl Memory for Bytes {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.image.lock().unwrap().read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.image.lock().unwrap().read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.image.lock().unwrap().search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        StopId(self.stop.load(Ordering::Relaxed))
    }
}

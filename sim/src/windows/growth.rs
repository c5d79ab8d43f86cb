//! What makes a machine as large as those in the field: further drivers, worn-out addresses, allocations that come and go.
//!
//! Further drivers have headers and nothing else in memory. Their entries in the kernel's list are scattered over nonpaged
//! pool, as blocks that were allocated one by one at boot are.

use kd_protocol::VirtAddr;

use super::layout::{ImageLayout, Section, SectionKind};
use super::verified::{Chosen, Driver, further_driver};

/// How much larger than usual a machine is. Nought of everything is as it always was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Further drivers that are loaded; at most [`Growth::MOST_MODULES`] count.
    pub modules: u16,
    /// How many of them Driver Verifier verifies too, if it verifies any; they are loaded then.
    pub drivers: u16,
    /// How often the newest leaked block's address was allocated and freed before, as the log of pool allocations has it; as
    /// many as its older half holds.
    pub reuse: u32,
    /// Blocks that myfault.sys takes every second while the machine runs; it gives as many back, each a while later.
    pub busy: u32,
    /// How many processors it has: at most [`Growth::MOST_PROCESSORS`] count, and nought are two.
    pub processors: u8,
    /// By how many call paths myfault.sys leaks while the machine runs: at most [`Growth::MOST_CALLERS`] count, and nought are
    /// one.
    pub callers: u8,
}

impl Growth {
    /// The most further drivers that a machine can have.
    pub const MOST_MODULES: u16 = (NAMES.len() * SUFFIXES) as u16;

    /// The most processors that a machine can have: a group of them.
    pub const MOST_PROCESSORS: u8 = 64;

    /// The most call paths by which a driver leaks.
    pub const MOST_CALLERS: u8 = 3;

    /// Further drivers that are loaded.
    pub(super) fn loaded(self) -> usize {
        self.modules.max(self.drivers).min(Self::MOST_MODULES).into()
    }

    /// Further drivers that were unloaded.
    pub(super) fn unloaded(self) -> usize {
        const MOST: usize = 40;
        (self.loaded() / 4).min(MOST)
    }

    pub(super) fn verified(self) -> usize {
        self.drivers.min(Self::MOST_MODULES).into()
    }
}

/// The layouts of the further drivers.
pub(super) fn layouts(growth: Growth) -> Vec<ImageLayout> {
    (0..growth.loaded()).map(layout).collect()
}

/// The name of a further driver and where it was before it was unloaded: base and size.
pub(super) fn unloaded_driver(number: usize) -> (String, u64, u64) {
    let name = name(Growth::MOST_MODULES as usize - 1 - number);
    (format!("{name}.sys"), UNLOADED_BASE + number as u64 * IMAGE_STRIDE, 0x1_8000)
}

/// Where the entry of a further driver in the list of modules is: neighbours in the list are far from each other.
pub(super) const fn entry_of(number: usize) -> VirtAddr {
    /// More than there are drivers, and prime, so that every place is used once.
    const PLACES: u64 = 211;
    const STEP: u64 = 83;
    const STRIDE: u64 = 0xe000;
    let number = number as u64;
    let within = (number * 0x340) & 0xfc0;
    VirtAddr(ENTRIES + number * STEP % PLACES * STRIDE + within + 0x10)
}

/// Those of the further drivers that are verified.
pub(super) fn chosen(growth: Growth) -> impl Iterator<Item = Chosen> {
    DRIVERS[..growth.verified()].iter().map(|driver| Chosen { driver, loads: 1, unloads: 0 })
}

const BASE: u64 = 0xffff_f880_0500_0000;
const UNLOADED_BASE: u64 = 0xffff_f880_0900_0000;
const IMAGE_STRIDE: u64 = 0x4_0000;
const ENTRIES: u64 = 0xffff_fa80_0150_0000;
pub(super) const BLOCKS: u64 = 0xffff_fa80_0145_0000;

fn layout(number: usize) -> ImageLayout {
    let module = name(number);
    ImageLayout {
        file: format!("{module}.sys"),
        module: module.to_owned(),
        pdb: format!("{module}.pdb"),
        types: Vec::new(),
        base: BASE + number as u64 * IMAGE_STRIDE,
        preferred_base: 0x1_0000,
        timestamp: 0x5200_0000 + number as u32 * 0x1_2345,
        entry: String::new(),
        exports: Vec::new(),
        sections: vec![Section {
            name: ".text".to_owned(),
            at: 0x1000,
            size: 0x7000 + (number % 7) as u32 * 0x5000,
            kind: SectionKind::Code,
            symbols: Vec::new(),
        }],
    }
}

const fn name(number: usize) -> &'static str {
    NAMES[number / SUFFIXES % NAMES.len()][number % SUFFIXES]
}

const SUFFIXES: usize = 10;

macro_rules! names {
    ($($prefix:literal)+) => {
        [$([
            concat!($prefix, "port"), concat!($prefix, "flt"), concat!($prefix, "bus"), concat!($prefix, "mini"),
            concat!($prefix, "class"), concat!($prefix, "hub"), concat!($prefix, "svc"), concat!($prefix, "drv"),
            concat!($prefix, "ext"), concat!($prefix, "mon"),
        ]),+]
    };
}

const NAMES: [[&str; SUFFIXES]; 20] = names!(
    "stor" "net" "usb" "vid" "aud" "hid" "fs" "pci" "acpi" "wdf" "ser" "blue" "tcp" "vol" "part" "crypt" "key" "mou" "bat" "gpio"
);

/// Driver Verifier's records of them, if they are verified.
pub(super) static DRIVERS: [Driver; NAMES.len() * SUFFIXES] = {
    let mut drivers = [const { further_driver("", 0) }; NAMES.len() * SUFFIXES];
    let mut number = 0;
    while number < drivers.len() {
        drivers[number] = further_driver(name(number), number as u64);
        number += 1;
    }
    drivers
};

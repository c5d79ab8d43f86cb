//! What Driver Verifier can be told of: drivers, and where its records of them are.

use kd_protocol::VirtAddr;

use crate::physical::PAGE_SIZE;

/// A driver, and where Driver Verifier's records of it are.
#[derive(Debug)]
pub(super) struct Driver {
    /// Its module.
    pub(super) module: &'static str,
    /// What `!verifier` prints as Entry: its `_VF_TARGET_DRIVER`.
    pub(super) entry: VirtAddr,
    pub(super) data: VirtAddr,
    pub(super) suspect: VirtAddr,
    pub(super) object: VirtAddr,
    /// Its tracker pages are taken one behind the other from here.
    pub(super) trackers: VirtAddr,
}

/// The driver that leaks, where the published transcript has it.
pub(super) static MYFAULT: Driver = driver("myfault", 0, 0xffff_fa80_031b_c000);

pub(super) static NETFILT: Driver = driver("netfilt", 1, 0xffff_fa80_0340_0000);

pub(super) static STORFILT: Driver = driver("storfilt", 2, 0xffff_fa80_0350_0000);

/// Records of further drivers lie behind those of the first.
const STRIDE: u64 = 0x2000;

const fn driver(module: &'static str, number: u64, trackers: u64) -> Driver {
    Driver {
        module,
        entry: VirtAddr(0xffff_fa80_031b_5830 + number * STRIDE),
        data: VirtAddr(0xffff_fa80_031b_5c10 + number * STRIDE),
        suspect: VirtAddr(0xffff_fa80_031b_4e10 + number * STRIDE),
        object: VirtAddr(0xffff_fa80_044c_0e40 + number * PAGE_SIZE),
        trackers: VirtAddr(trackers),
    }
}

/// A driver whose records lie where those of the ones above never reach.
pub(super) const fn further_driver(module: &'static str, number: u64) -> Driver {
    const ROOM: u64 = 0x4000;
    let at = 0xffff_fa80_00d0_0000 + number * ROOM;
    Driver {
        module,
        suspect: VirtAddr(at + 0x10),
        entry: VirtAddr(at + 0x830),
        data: VirtAddr(at + 0xc10),
        object: VirtAddr(at + 0x2040),
        trackers: VirtAddr(0xffff_fa80_0110_0000 + number * ROOM),
    }
}

/// First byte of nonpaged pool.
pub(super) const NONPAGED_POOL_START: VirtAddr = VirtAddr(0xffff_fa80_00c0_0000);

/// Most that nonpaged pool grows to: three quarters of RAM.
pub(super) const NONPAGED_POOL_SIZE: u64 = 0x6000_0000;

/// "All pool allocations checked on unload".
pub(super) const LEVEL_POOL_TRACKING: u64 = 8;

/// A driver that was chosen to be verified, and how often it was loaded and unloaded since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) driver: &'static Driver,
    pub(super) loads: u64,
    pub(super) unloads: u64,
}

impl Chosen {
    pub(super) const fn is_loaded(self) -> bool {
        self.loads > self.unloads
    }
}

/// Where Driver Verifier keeps what the driver allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// Nowhere: it is off, or the driver is not verified.
    None,
    /// In the driver's own list.
    List,
    /// In the tree of advanced pool tracking.
    Tree,
}

/// The symbol whose presence decides.
pub(super) const BLOCKS_TREE: &str = "ViPoolInfoAvl";

//! Driver Verifier: what it was told to do, which drivers it verifies, and what they hold.
//!
//! `drivers` has the tree and the list by which drivers are found, `trackers` their pool allocations, `advanced` the trees
//! that newer kernels may keep those in.

pub(super) mod advanced;
mod drivers;
mod trackers;

pub(super) use trackers::{Allocation, Slot, allocated, allocated_many, failed, freed};

use super::growth;
use super::kernel::Kernel;
use super::verified::{Chosen, LEVEL_POOL_TRACKING};

/// Leaves Driver Verifier off, as most machines have it: empty lists, and no counter ever moves.
pub(super) fn stay_off(kernel: &mut Kernel) {
    for list in ["VfExcludedDriversList", "VfSuspectDriversList"] {
        let head = kernel.symbol(list);
        kernel.list_init(head);
    }
}

/// Turns Driver Verifier on, at this level, for these drivers.
pub(super) fn start(kernel: &mut Kernel, level: u64, chosen: &[Chosen]) {
    stay_off(kernel);
    let chosen: Vec<_> = chosen.iter().copied().chain(growth::chosen(kernel.growth)).collect();
    let total = |count: fn(&Chosen) -> u64| chosen.iter().map(count).sum();
    let fields = [
        ("Level", level),
        ("Loads", total(|chosen| chosen.loads)),
        ("Unloads", total(|chosen| chosen.unloads)),
    ];
    let global = kernel.symbol("MmVerifierData");
    kernel.set_all(global, "_MM_DRIVER_VERIFIER_DATA", &fields);
    // The mode of a boot with verified drivers; a guess, no source gives its value.
    const MODE: u64 = 3;
    kernel.set_existing(global, "_MM_DRIVER_VERIFIER_DATA", &[("VerifyMode", MODE)]);
    kernel.write_variables(&[
        ("ViVerifierEnabled", 1, 4),
        ("VerifierIsTrackingPool", u64::from(level & LEVEL_POOL_TRACKING != 0), 4),
        ("ViAvlInitialized", 1, 4),
        ("ViTargetInitialized", 1, 4),
        ("VfVerifyMode", MODE, 4),
        // Builds since 1809 decide by the word of rule classes, whose low bits are the level's.
        ("VfRuleClasses", level, 8),
    ]);
    for Chosen { driver, loads, unloads } in &chosen {
        drivers::choose(kernel, driver, *loads, *unloads);
    }
    // Of a driver that was unloaded, what was kept is left behind in freed memory.
    for chosen in chosen.iter().filter(|chosen| chosen.loads > 0) {
        drivers::verify(kernel, chosen.driver);
    }
    let loaded: Vec<_> =
        chosen.iter().filter(|chosen| chosen.is_loaded()).map(|chosen| chosen.driver).collect();
    drivers::plant(kernel, &loaded);
}

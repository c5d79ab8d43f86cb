//! What has happened on a machine, done to it: Driver Verifier's records and what drivers hold.

use std::collections::HashSet;

use super::kernel::Kernel;
use super::pool::{big, heap, pages, trackers};
use super::pool_log::{self, Event};
use super::scenario::Scenario;
use super::verified::{Chosen, LEVEL_POOL_TRACKING, NETFILT};
use super::verifier::{self, advanced};
use super::{damage, flood, leak, special_pool, traces};

/// Forces IRQL checking and I/O verification.
const LEVEL_WITHOUT_TRACKING: u64 = 0x12;

/// Injects faults, forces requests to be pending, logs requests.
const LEVEL_LOGS: u64 = 0x604;

/// Blocks of the second driver in scenario `AdvancedTracking`.
const IN_THE_TREE: usize = 24;

/// Records of the largest log.
const BIG_LOG_LENGTH: u32 = 0x10_0000;

/// Blocks in scenario `Many`.
const MANY: usize = 20_000;

impl Scenario {
    /// Brings the machine's verifier, and what drivers hold, to where the machine is first stopped.
    pub(super) fn furnish(self, kernel: &mut Kernel) {
        let layouts = kernel.layouts.clone();
        let (level, length) = (u64::from(layouts.release.standard_level), layouts.release.pool_log_length);
        let tracking = LEVEL_POOL_TRACKING;
        let of_the_leak = self.tracking_of_the_leak();
        match self {
            Self::VerifierOff => {
                verifier::stay_off(kernel);
                leak::until_first_stop(kernel, of_the_leak);
            }
            Self::NotTracked => {
                start(kernel, LEVEL_WITHOUT_TRACKING, self.chosen());
                leak::until_first_stop(kernel, of_the_leak);
                // Where the log belongs to the plug-in that tracks pool, nothing is logged without it.
                if !kernel.has("_VF_TARGET_VERIFIED_DRIVER_DATA", "DifPluginPerDriverDataContextHead") {
                    log(kernel, length, Vec::new());
                }
            }
            Self::Myfault
            | Self::Torn
            | Self::BigLog
            | Self::PoolTorn
            | Self::PoolSmall
            | Self::PoolBig
            | Self::PoolHeap
            | Self::BugcheckC462
            | Self::BugcheckC460
            | Self::BugcheckC4F6
            | Self::Bugcheck7e => {
                start(kernel, tracking, self.chosen());
                match self {
                    Self::PoolSmall if !heap::is_there(kernel) => pages::furnish(kernel),
                    Self::PoolSmall => heap::furnish(kernel),
                    Self::PoolBig => big::furnish(kernel),
                    Self::PoolHeap => {
                        heap::furnish(kernel);
                        heap::furnish_lfh(kernel);
                    }
                    _ => {}
                }
                let events = leak::until_first_stop(kernel, of_the_leak);
                log(kernel, if self == Self::BigLog { BIG_LOG_LENGTH } else { length }, events);
            }
            Self::Many | Self::Corrupt => {
                trackers::expand(kernel);
                start(kernel, tracking, self.chosen());
                let leaked = leak::until_first_stop(kernel, of_the_leak);
                let blocks = if self == Self::Many { MANY } else { MANY / 10 };
                let mut events =
                    flood::until_first_stop(kernel, blocks - leak::BLOCKS_AT_FIRST_STOP as usize);
                events.extend(leaked);
                log(kernel, length, events);
            }
            Self::AdvancedTracking => {
                start(kernel, tracking, self.chosen());
                advanced::start(kernel);
                let leaked = leak::until_first_stop(kernel, of_the_leak);
                let mut events = flood::of_one_in_the_tree(kernel, &NETFILT, IN_THE_TREE);
                events.extend(leaked);
                log(kernel, length, events);
            }
            Self::SpecialPool | Self::Logs => {
                let logs = if self == Self::Logs { LEVEL_LOGS } else { 0 };
                start(kernel, level | logs, self.chosen());
                let leaked = leak::until_first_stop(kernel, of_the_leak);
                let mut events = special_pool::until_first_stop(kernel);
                events.extend(leaked);
                log(kernel, length, events);
                if self == Self::Logs {
                    traces::until_first_stop(kernel);
                }
            }
            Self::Unloaded => {
                start(kernel, tracking, self.chosen());
                let mut events = flood::of_one(kernel, &NETFILT, 12);
                events.extend(leak::until_unloaded(kernel));
                log(kernel, length, events);
            }
        }
    }

    /// Does what a scenario does to records that are complete. `seed` chooses what.
    pub(super) fn damage(self, kernel: &mut Kernel, seed: u64) {
        match self {
            Self::Torn => damage::tear(kernel, seed),
            Self::Corrupt => damage::corrupt(kernel, seed),
            Self::PoolTorn => damage::tear_trackers(kernel, seed),
            _ => {}
        }
    }
}

fn start(kernel: &mut Kernel, level: u64, chosen: &[Chosen]) {
    verifier::start(kernel, level, chosen);
    flood::of_further(kernel);
}

/// Starts the log with what is remarkable in it, and with what a worn-out address has behind it.
fn log(kernel: &mut Kernel, length: u32, remarkable: Vec<(u32, Event)>) {
    let events = with_reuse(kernel, length, remarkable);
    pool_log::start(kernel, length, events);
}

/// Adds what a worn-out address has behind it: spread over the older half of the ring, where nothing else is.
fn with_reuse(kernel: &Kernel, length: u32, remarkable: Vec<(u32, Event)>) -> Vec<(u32, Event)> {
    let times = kernel.growth.reuse.min(length / 4);
    if times == 0 {
        return remarkable;
    }
    let step = length / 2 / (2 * times);
    let taken: HashSet<u32> = remarkable.iter().map(|(age, _)| *age).collect();
    let events = leak::reuse(kernel, times);
    let ages = (0..).map(|number| length - 1 - number * step);
    // Of those that meet another event, one is lost: the block's own history is what it is.
    let reused = ages.zip(events).filter(|(age, _)| !taken.contains(age)).collect::<Vec<_>>();
    reused.into_iter().chain(remarkable).collect()
}

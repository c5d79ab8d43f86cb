//! Scenarios: what has happened on a simulated machine before it is first stopped.

use std::fmt;
use std::str::FromStr;

use super::images::{Build, FILTER_DRIVERS, Image};
use super::verified::{BLOCKS_TREE, Chosen, Driver, MYFAULT, NETFILT, STORFILT, Tracking};

/// What has happened on a simulated machine before it is first stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// myfault.sys is verified with pool tracking alone, and has leaked ten blocks: the published case.
    #[default]
    Myfault,
    /// Three verified drivers hold 20,000 blocks.
    Many,
    /// myfault.sys is verified with the standard settings: its blocks lie in special pool, some of them of odd size.
    SpecialPool,
    /// myfault.sys was unloaded, netfilt.sys was loaded again, storfilt.sys was never loaded; all were chosen.
    Unloaded,
    /// Driver Verifier is off. myfault.sys leaks all the same.
    VerifierOff,
    /// netfilt.sys is verified without pool tracking, myfault.sys, which leaks, is not verified.
    NotTracked,
    /// As `Myfault`, but the machine was stopped in the middle of an allocation; a seed says where in it.
    Torn,
    /// Three verified drivers whose records are damaged, a seed says how.
    Corrupt,
    /// As `Myfault`, with a log of 0x100000 records.
    BigLog,
    /// Two verified drivers whose blocks lie in the trees of advanced pool tracking, which Server 2022 and Windows 11 have.
    AdvancedTracking,
    /// As `SpecialPool` with every option that logs something: faults, IRQLs, requests, critical regions.
    Logs,
    /// As `Myfault`, and bug-checks as soon as it runs: the driver is unloaded, and has not freed its ten blocks.
    BugcheckC462,
    /// The same as older kernels tell it: with the bytes that were not freed.
    BugcheckC460,
    /// As `Myfault`, and bug-checks: the driver took a handle of user mode for one of its own.
    BugcheckC4F6,
    /// As `Myfault`, and bug-checks: an access violation of the driver in a system thread.
    Bugcheck7e,
    /// As `Myfault`, but the machine was stopped while the kernel made room for more pool tags; a seed says where in it.
    PoolTorn,
    /// As `Myfault`, with small pool blocks that are known one by one, some of them freed.
    PoolSmall,
    /// As `Myfault`, with large pool blocks of many tags, some of them freed.
    PoolBig,
    /// As `PoolSmall`, with blocks of one size each beside them; of kernels whose pool is made of segment heaps.
    PoolHeap,
}

const MYFAULT_LOADED: Chosen = Chosen { driver: &MYFAULT, loads: 1, unloads: 0 };
const MYFAULT_UNLOADED: Chosen = Chosen { driver: &MYFAULT, loads: 1, unloads: 1 };
const NETFILT_LOADED: Chosen = Chosen { driver: &NETFILT, loads: 1, unloads: 0 };
const NETFILT_RELOADED: Chosen = Chosen { driver: &NETFILT, loads: 2, unloads: 1 };
const STORFILT_LOADED: Chosen = Chosen { driver: &STORFILT, loads: 1, unloads: 0 };
const STORFILT_NOT_LOADED: Chosen = Chosen { driver: &STORFILT, loads: 0, unloads: 0 };

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 19] = [
        Self::Myfault,
        Self::Many,
        Self::SpecialPool,
        Self::Unloaded,
        Self::VerifierOff,
        Self::NotTracked,
        Self::Torn,
        Self::Corrupt,
        Self::BigLog,
        Self::AdvancedTracking,
        Self::Logs,
        Self::BugcheckC462,
        Self::BugcheckC460,
        Self::BugcheckC4F6,
        Self::Bugcheck7e,
        Self::PoolTorn,
        Self::PoolSmall,
        Self::PoolBig,
        Self::PoolHeap,
    ];

    /// Its name: `special-pool`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Myfault => "myfault",
            Self::Many => "many",
            Self::SpecialPool => "special-pool",
            Self::Unloaded => "unloaded",
            Self::VerifierOff => "verifier-off",
            Self::NotTracked => "not-tracked",
            Self::Torn => "torn",
            Self::Corrupt => "corrupt",
            Self::BigLog => "big-log",
            Self::AdvancedTracking => "advanced-tracking",
            Self::Logs => "logs",
            Self::BugcheckC462 => "bugcheck-c4-62",
            Self::BugcheckC460 => "bugcheck-c4-60",
            Self::BugcheckC4F6 => "bugcheck-c4-f6",
            Self::Bugcheck7e => "bugcheck-7e",
            Self::PoolTorn => "pool-torn",
            Self::PoolSmall => "pool-small",
            Self::PoolBig => "pool-big",
            Self::PoolHeap => "pool-heap",
        }
    }

    /// Makes sure that a machine with this Windows can be in the scenario.
    ///
    /// # Errors
    /// [`NotOnBuild`] says what its kernel lacks.
    pub fn check(self, build: &Build) -> Result<(), NotOnBuild> {
        if build.is_32_bit() {
            return match self {
                Self::VerifierOff | Self::Bugcheck7e => Ok(()),
                _ => Err(NotOnBuild { scenario: self, build: build.name, needed: "VfPoolTraces" }),
            };
        }
        let needed = match self {
            Self::AdvancedTracking => BLOCKS_TREE,
            Self::PoolHeap => "ExPoolState",
            _ => return Ok(()),
        };
        let kernel = build.images[0].layout().expect("a test parses the committed files");
        match kernel.symbol(needed) {
            Some(_) => Ok(()),
            None => Err(NotOnBuild { scenario: self, build: build.name, needed }),
        }
    }

    /// Images of drivers beside those of the build that it needs.
    pub(super) const fn drivers(self) -> &'static [Image] {
        match self {
            Self::Many | Self::Corrupt | Self::Unloaded | Self::NotTracked | Self::AdvancedTracking => {
                FILTER_DRIVERS
            }
            _ => &[],
        }
    }

    /// True if this module is loaded when the machine is first stopped.
    pub(super) fn is_loaded(self, module: &str) -> bool {
        let absent: &[&Driver] = match self {
            Self::Unloaded => &[&MYFAULT, &STORFILT],
            Self::NotTracked | Self::AdvancedTracking => &[&STORFILT],
            _ => &[],
        };
        absent.iter().all(|driver| driver.module != module)
    }

    /// Drivers that were chosen to be verified.
    pub(super) const fn chosen(self) -> &'static [Chosen] {
        match self {
            Self::VerifierOff => &[],
            Self::NotTracked => &[NETFILT_LOADED],
            Self::Many | Self::Corrupt => &[MYFAULT_LOADED, NETFILT_LOADED, STORFILT_LOADED],
            Self::Unloaded => &[MYFAULT_UNLOADED, NETFILT_RELOADED, STORFILT_NOT_LOADED],
            Self::AdvancedTracking => &[MYFAULT_LOADED, NETFILT_LOADED],
            Self::Myfault
            | Self::SpecialPool
            | Self::Torn
            | Self::BigLog
            | Self::Logs
            | Self::PoolTorn
            | Self::PoolSmall
            | Self::PoolBig
            | Self::PoolHeap => &[MYFAULT_LOADED],
            Self::BugcheckC462 | Self::BugcheckC460 | Self::BugcheckC4F6 | Self::Bugcheck7e => {
                &[MYFAULT_LOADED]
            }
        }
    }

    /// True if myfault.sys goes on leaking while the machine runs.
    pub(super) const fn leaks(self) -> bool {
        !matches!(self, Self::Unloaded)
    }

    /// Where Driver Verifier keeps account of that.
    pub(super) const fn tracking_of_the_leak(self) -> Tracking {
        match self {
            Self::VerifierOff | Self::NotTracked => Tracking::None,
            Self::AdvancedTracking => Tracking::Tree,
            _ => Tracking::List,
        }
    }
}

/// A scenario that needs what this Windows does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a machine with Windows {build} cannot be in scenario {scenario}: its kernel has no nt!{needed}")]
pub struct NotOnBuild {
    scenario: Scenario,
    build: &'static str,
    needed: &'static str,
}

/// A name that no scenario has. Prints those that are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no scenario; there are {}", Scenario::ALL.map(Scenario::name).join(", "))]
pub struct NoScenario {
    name: String,
}

impl FromStr for Scenario {
    type Err = NoScenario;

    fn from_str(name: &str) -> Result<Self, NoScenario> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| NoScenario { name: name.to_owned() })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_lacks_is_named() {
        let check = |build: &str| Scenario::AdvancedTracking.check(Build::find(build).unwrap());
        assert_eq!(check("2022"), Ok(()));
        let x86 = Build::find("xp-x86").unwrap();
        assert_eq!(Scenario::VerifierOff.check(x86), Ok(()));
        assert!(Scenario::Myfault.check(x86).unwrap_err().to_string().contains("no nt!VfPoolTraces"));
        assert_eq!(
            check("7sp1").unwrap_err().to_string(),
            "a machine with Windows 7sp1 cannot be in scenario advanced-tracking: its kernel has no nt!ViPoolInfoAvl"
        );
    }

    #[test]
    fn every_scenario_is_found_by_its_name_in_any_case() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().to_uppercase().parse(), Ok(scenario));
        }
        let error = "leaky".parse::<Scenario>().unwrap_err().to_string();
        assert!(error.starts_with("`leaky` is no scenario; there are myfault, many, "), "{error}");
    }
}

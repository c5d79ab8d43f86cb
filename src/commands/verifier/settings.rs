//! Level, options and global counters: `nt!MmVerifierData`.

use serde::Serialize;

use super::format::Era;
use super::options::{VerifierOption, options};
use crate::output::Reading;
use crate::target::{Record, Target, TargetError};

/// `Level`: allocations of verified drivers are tracked.
pub const LEVEL_POOL_TRACKING: u32 = 0x8;
/// `VfOptionFlags`: no log of pool allocations and frees is kept (Windows 11), or one without stacks.
pub const OPTION_NO_POOL_LOG: u32 = 0x2;
/// `VfOptionFlags`: allocations are kept in two global trees instead of one list per driver.
pub const OPTION_ADVANCED_POOL_TRACKING: u32 = 0x1000;

/// What Driver Verifier was told to do, and what it has counted.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Settings {
    /// `Level`, the word of enabled options.
    pub level: u32,
    /// The time that the target's Windows is of.
    pub era: Era,
    /// The options that the target has, on or off, ascending.
    pub options: Vec<VerifierOption>,
    /// `VfOptionFlags`; nothing if the build has none or it cannot be read.
    pub option_flags: Option<u32>,
    /// Why it could not be read, if that is why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option_flags_trouble: Option<String>,
    /// Counters of all verified drivers together.
    pub statistics: Statistics,
    /// Why this was read by the built-in layout, if it was: it has no counters of pool then.
    #[serde(skip)]
    pub without_symbols: Option<TargetError>,
}

/// Global counters; those that a build does not have are left out.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Statistics {
    /// `KeRaiseIrql` calls.
    pub raise_irqls: Option<Reading>,
    /// `KeAcquireSpinLock` calls.
    pub acquire_spin_locks: Option<Reading>,
    /// `KeSynchronizeExecution` calls.
    pub synchronize_executions: Option<Reading>,
    /// Times that memory was trimmed to find accesses to paged memory.
    pub trims: Option<Reading>,
    /// Pool allocations asked for.
    pub allocations_attempted: Option<Reading>,
    /// Those that succeeded.
    pub allocations_succeeded: Option<Reading>,
    /// Those that came from special pool, or were larger than a page's room.
    pub allocations_succeeded_special_pool: Option<Reading>,
    /// Those without a tag.
    pub allocations_with_no_tag: Option<Reading>,
    /// Those that failed.
    pub allocations_failed: Option<Reading>,
    /// Those that were made to fail.
    pub allocations_failed_deliberately: Option<Reading>,
    /// Pool in use now and at its peak.
    pub pool: PoolCounters,
}

/// Counts and bytes of pool, paged and nonpaged, now and at their peak: of all drivers or of one.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolCounters {
    /// Outstanding paged allocations.
    pub current_paged_allocations: Reading,
    /// Outstanding nonpaged allocations.
    pub current_nonpaged_allocations: Reading,
    /// Most paged allocations outstanding at a time.
    pub peak_paged_allocations: Reading,
    /// Most nonpaged allocations outstanding at a time.
    pub peak_nonpaged_allocations: Reading,
    /// Bytes of outstanding paged allocations.
    pub paged_bytes: Reading,
    /// Bytes of outstanding nonpaged allocations.
    pub nonpaged_bytes: Reading,
    /// Most bytes of paged allocations outstanding at a time.
    pub peak_paged_bytes: Reading,
    /// Most bytes of nonpaged allocations outstanding at a time.
    pub peak_nonpaged_bytes: Reading,
}

impl PoolCounters {
    /// Takes the counters out of a structure that has them under these names.
    pub(super) fn of(record: &Record<'_>) -> Self {
        let read = |path| Reading::of(record.uint(path));
        Self {
            current_paged_allocations: read("CurrentPagedPoolAllocations"),
            current_nonpaged_allocations: read("CurrentNonPagedPoolAllocations"),
            peak_paged_allocations: read("PeakPagedPoolAllocations"),
            peak_nonpaged_allocations: read("PeakNonPagedPoolAllocations"),
            paged_bytes: read("PagedBytes"),
            nonpaged_bytes: read("NonPagedBytes"),
            peak_paged_bytes: read("PeakPagedBytes"),
            peak_nonpaged_bytes: read("PeakNonPagedBytes"),
        }
    }

    /// The same without what is of another moment than what it would be held against.
    pub(super) fn of_another_moment(&mut self) {
        let why =
            || Reading::Unreadable("it was read at another stop than the moment of the list".to_owned());
        for reading in [
            &mut self.current_paged_allocations,
            &mut self.current_nonpaged_allocations,
            &mut self.paged_bytes,
            &mut self.nonpaged_bytes,
        ] {
            *reading = why();
        }
    }
}

impl Settings {
    /// Reads `nt!MmVerifierData` and `nt!VfOptionFlags`, in two requests. Without the kernel's symbols, what of them the
    /// debugger data block and a built-in layout lead to.
    ///
    /// # Errors
    /// [`TargetError`] if the level is not to be had; any other counter may be missing.
    pub fn read(target: &Target<'_>) -> Result<Self, TargetError> {
        let (at, layout, without_symbols) = match target.address_of("nt!MmVerifierData") {
            Ok(at) => (at, target.layout("nt!_MM_DRIVER_VERIFIER_DATA")?, None),
            Err(missing @ TargetError::NoSymbols { .. }) => {
                let (at, layout) = target.verifier_data(missing.clone())?;
                (at, layout, Some(missing))
            }
            Err(error) => return Err(error),
        };
        let data = target.record_of(&layout, at)?;
        let level = data.u32("Level")?;
        // A kernel without the variable has none of its options.
        let mut option_flags_trouble = None;
        let option_flags = target.address_of("nt!VfOptionFlags").ok().and_then(|at| {
            let mut word = [0; 4];
            let read = target.memory().read_virtual(at, &mut word);
            option_flags_trouble = read.err().map(|error| error.to_string());
            option_flags_trouble.is_none().then(|| u32::from_le_bytes(word))
        });
        let counter = |path| data.has(path).then(|| Reading::of(data.uint(path)));
        let statistics = Statistics {
            raise_irqls: counter("RaiseIrqls"),
            acquire_spin_locks: counter("AcquireSpinLocks"),
            synchronize_executions: counter("SynchronizeExecutions"),
            trims: counter("Trims"),
            allocations_attempted: counter("AllocationsAttempted"),
            allocations_succeeded: counter("AllocationsSucceeded"),
            allocations_succeeded_special_pool: counter("AllocationsSucceededSpecialPool"),
            allocations_with_no_tag: counter("AllocationsWithNoTag"),
            allocations_failed: counter("AllocationsFailed"),
            allocations_failed_deliberately: counter("AllocationsFailedDeliberately"),
            pool: PoolCounters::of(&data),
        };
        let era = Era::of(target);
        Ok(Self {
            level,
            era,
            options: options(level, era),
            option_flags,
            option_flags_trouble,
            statistics,
            without_symbols,
        })
    }
}

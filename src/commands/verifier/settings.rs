//! Level, options and global counters: `nt!MmVerifierData`.

use serde::Serialize;

use crate::output::Reading;
use crate::target::{Record, Target, TargetError, verifier_data};

/// `Level`: allocations of verified drivers are tracked.
pub const LEVEL_POOL_TRACKING: u32 = 0x8;
/// `VfOptionFlags`: allocations are kept in two global trees instead of one list per driver.
pub const OPTION_ADVANCED_POOL_TRACKING: u32 = 0x1000;

/// Level bits in ascending order, and what the debuggers of Windows 7's time called them.
///
/// Source: verifier.md 3.5. No sample shows the old names of 0x200 and 0x400 and of the bits since Windows 8; those
/// are the new names.
const OPTIONS: &[(u32, &str)] = &[
    (0x1, "Special pool"),
    (0x2, "Special irql"),
    (0x4, "Inject random low-resource API failures"),
    (0x8, "All pool allocations checked on unload"),
    (0x10, "Io subsystem checking enabled"),
    (0x20, "Deadlock detection enabled"),
    (0x80, "DMA checking enabled"),
    (0x100, "Security checks enabled"),
    (0x200, "Force pending I/O requests"),
    (0x400, "IRP logging"),
    (0x800, "Miscellaneous checks enabled"),
    (0x2000, "Invariant MDL checking for stack"),
    (0x4000, "Invariant MDL checking for driver"),
    (0x8000, "Power framework delay fuzzing"),
    (0x1_0000, "Port/miniport interface checking"),
    (0x2_0000, "DDI compliance checking"),
    (0x4_0000, "Systematic low resources simulation"),
    (0x8_0000, "DDI compliance checking (additional)"),
    (0x20_0000, "NDIS/WIFI verification"),
    (0x80_0000, "Kernel synchronization delay fuzzing"),
    (0x100_0000, "VM switch verification"),
    (0x200_0000, "Code integrity checks"),
];

/// What Driver Verifier was told to do, and what it has counted.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// `Level`, the word of enabled options.
    pub level: u32,
    /// The options that are set in `level`, ascending.
    pub options: Vec<EnabledOption>,
    /// `VfOptionFlags`; nothing if the build has none or it cannot be read.
    pub option_flags: Option<u32>,
    /// Counters of all verified drivers together.
    pub statistics: Statistics,
    /// Bytes of a pointer.
    #[serde(skip)]
    pub pointer_size: usize,
    /// Why this was read by the built-in layout, if it was: it has no counters of pool then.
    #[serde(skip)]
    pub without_symbols: Option<TargetError>,
}

/// One option that is on.
#[derive(Clone, Debug, Serialize)]
pub struct EnabledOption {
    /// Its bit in the level.
    pub flag: u32,
    /// Its name.
    pub name: String,
}

/// Global counters; those that a build does not have are left out.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
                let (at, layout) = verifier_data(target, missing.clone())?;
                (at, layout, Some(missing))
            }
            Err(error) => return Err(error),
        };
        let data = target.record_of(&layout, at)?;
        let level = data.u32("Level")?;
        let option_flags = target.address_of("nt!VfOptionFlags").ok().and_then(|at| {
            let bytes = target.read_ranges(&[(at, 4)]).pop()?.ok()?;
            Some(u32::from_le_bytes(*bytes.first_chunk()?))
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
        let pointer_size = data.layout().pointer_size();
        Ok(Self { level, options: options(level), option_flags, statistics, pointer_size, without_symbols })
    }
}

fn options(level: u32) -> Vec<EnabledOption> {
    let set = (0..32).map(|bit| 1 << bit).filter(|flag| level & flag != 0);
    let named = set.map(|flag| {
        let known = OPTIONS.iter().find(|(known, _)| *known == flag);
        let name = known
            .map_or_else(|| format!("Unused or reserved flag ({flag:#x})"), |(_, name)| (*name).to_owned());
        EnabledOption { flag, name }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_published_level_have_their_published_names() {
        // verifier-samples.md S2.
        let names: Vec<_> = options(0x9bb).into_iter().map(|option| option.name).collect();
        assert_eq!(
            names,
            [
                "Special pool",
                "Special irql",
                "All pool allocations checked on unload",
                "Io subsystem checking enabled",
                "Deadlock detection enabled",
                "DMA checking enabled",
                "Security checks enabled",
                "Miscellaneous checks enabled",
            ]
        );
        assert_eq!(options(0x8000_0000)[0].name, "Unused or reserved flag (0x80000000)");
    }
}

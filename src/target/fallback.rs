//! What is known of a kernel without its PDB: the parts of structures that are the same in every known x64 kernel.
//!
//! Eleven builds from Windows 7 SP1 to 11 24H2 were compared. Used only where the kernel's symbols are missing, and an
//! answer that rests on it says so.

use std::sync::{Arc, LazyLock};

use super::{Layout, Target, TargetError, VirtAddr};
use crate::symbols::table::TableSymbols;
use crate::symbols::{Guid, PdbIdentity, Symbols};

const IMAGE_FILE_MACHINE_AMD64: u16 = 0x8664;

/// Counters after these moved between builds, and so did the structure's size.
const COMMON: &str = "\
_MM_DRIVER_VERIFIER_DATA 30
  Level 0 u32
  RaiseIrqls 4 u32
  AcquireSpinLocks 8 u32
  SynchronizeExecutions c u32
  AllocationsAttempted 10 u32
  AllocationsSucceeded 14 u32
  AllocationsSucceededSpecialPool 18 u32
  AllocationsWithNoTag 1c u32
  TrimRequests 20 u32
  Trims 24 u32
  AllocationsFailed 28 u32
  AllocationsFailedDeliberately 2c u32
";

static SYMBOLS: LazyLock<Arc<TableSymbols>> = LazyLock::new(|| {
    let identity = PdbIdentity::new("the built-in layouts", Guid::default(), 0);
    Arc::new(TableSymbols::new(identity).types(COMMON))
});

/// Driver Verifier's level and first counters without the kernel's PDB: where they are, and what they look like.
///
/// The address is the debugger data block's.
///
/// # Errors
/// That of the symbols, `missing`, unless the kernel is an x64 one and gives a debugger data block that has the address.
pub fn verifier_data(target: &Target<'_>, missing: TargetError) -> Result<(VirtAddr, Layout), TargetError> {
    if target.kernel().version().machine != IMAGE_FILE_MACHINE_AMD64 {
        return Err(missing);
    }
    let Some(address) = target.debugger_data().ok().and_then(|data| data.mm_verifier_data()) else {
        return Err(missing);
    };
    let symbols: Arc<dyn Symbols> = Arc::clone(&*SYMBOLS) as _;
    let id = symbols.find_type("_MM_DRIVER_VERIFIER_DATA").expect("the text above has it");
    let layout = symbols.layout(id)?;
    Ok((address, Layout::new(symbols, layout)))
}

//! What is known of a kernel without its PDB: the parts of structures that are the same in every known x64 kernel.
//!
//! Builds from Windows 7 SP1 to 11 25H2 were compared, and the types of 213 kernels for what pool tracking uses. Chosen
//! only where the kernel's symbols are missing, or lack the type: some public PDBs of 2018 are said to miss
//! `_VI_POOL_ENTRY` (verifier.md 0). An answer that rests on it says so.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use crate::symbols::table::TableSymbols;
use crate::symbols::{Guid, PdbIdentity, Symbols};

/// Counters of `_MM_DRIVER_VERIFIER_DATA` after these moved between builds, and so did its size; of
/// `_KLDR_DATA_TABLE_ENTRY` this is what all builds share.
const COMMON: &str = "\
_LIST_ENTRY 10
  Flink 0 *_LIST_ENTRY
  Blink 8 *_LIST_ENTRY
_SINGLE_LIST_ENTRY 8
  Next 0 *_SINGLE_LIST_ENTRY
_SLIST_ENTRY 10
  Next 0 *_SLIST_ENTRY
_UNICODE_STRING 10
  Length 0 u16
  MaximumLength 2 u16
  Buffer 8 *wchar
_RTL_BALANCED_LINKS 20
  Parent 0 *_RTL_BALANCED_LINKS
  LeftChild 8 *_RTL_BALANCED_LINKS
  RightChild 10 *_RTL_BALANCED_LINKS
  Balance 18 char
_RTL_AVL_TABLE 68
  BalancedRoot 0 _RTL_BALANCED_LINKS
  OrderedPointer 20 ptr
  WhichOrderedElement 28 u32
  NumberGenericTableElements 2c u32
  DepthOfTree 30 u32
  RestartKey 38 *_RTL_BALANCED_LINKS
  DeleteCount 40 u32
  CompareRoutine 48 code
  AllocateRoutine 50 code
  FreeRoutine 58 code
  TableContext 60 ptr
_VI_POOL_ENTRY_INUSE 20
  VirtualAddress 0 ptr
  CallingAddress 8 ptr
  NumberOfBytes 10 u64
  Tag 18 u64
_VI_POOL_PAGE_HEADER 18
  NextPage 0 *_SLIST_ENTRY
  VerifierEntry 8 ptr
  Signature 10 u64
_VI_POOL_ENTRY 20
  PageHeader 0 _VI_POOL_PAGE_HEADER
  InUse 0 _VI_POOL_ENTRY_INUSE
  NextFree 0 *_SLIST_ENTRY
_KLDR_DATA_TABLE_ENTRY 6c
  InLoadOrderLinks 0 _LIST_ENTRY
  DllBase 30 ptr
  EntryPoint 38 ptr
  SizeOfImage 40 u32
  FullDllName 48 _UNICODE_STRING
  BaseDllName 58 _UNICODE_STRING
  Flags 68 u32
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

/// Never stands in for symbols by itself: what is missing at its end matters, and
/// [`Target::verifier_data`](super::Target::verifier_data) says it.
pub(super) const PARTIAL: &str = "_MM_DRIVER_VERIFIER_DATA";

static SYMBOLS: LazyLock<Arc<TableSymbols>> = LazyLock::new(|| {
    let identity = PdbIdentity::new("the built-in layouts", Guid::default(), 0);
    Arc::new(TableSymbols::new(identity).types(COMMON))
});

/// The structures that are the same in every known x64 kernel, as the symbols of one.
#[must_use]
pub fn built_in_layouts() -> Arc<dyn Symbols> {
    Arc::clone(&*SYMBOLS) as _
}

/// True if a built-in layout is chosen where an x64 kernel's symbols lack the structure called `name`.
#[must_use]
pub fn stands_in(name: &str) -> bool {
    name != PARTIAL && SYMBOLS.find_type(name).is_some()
}

/// Names of the built-in layouts that were used.
pub(super) type BuiltInUsed = std::cell::RefCell<BTreeSet<Arc<str>>>;

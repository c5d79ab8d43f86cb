//! Driver Verifier's structures of two builds, in the language of `symbols::table`; verifier.md 6 has where from.

/// Windows 7 SP1 x64 (7601).
pub const WINDOWS_7: &str = "\
_MM_DRIVER_VERIFIER_DATA a0
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
  Loads 30 u32
  Unloads 34 u32
  UnTrackedPool 38 u32
  CurrentPagedPoolAllocations 40 u32
  CurrentNonPagedPoolAllocations 44 u32
  PeakPagedPoolAllocations 48 u32
  PeakNonPagedPoolAllocations 4c u32
  PagedBytes 50 u64
  NonPagedBytes 58 u64
  PeakPagedBytes 60 u64
  PeakNonPagedBytes 68 u64
_VF_AVL_TREE_NODE 10
  p 0 ptr
  RangeSize 8 u64
_VF_TARGET_DRIVER 30
  TreeNode 0 _VF_AVL_TREE_NODE
  VerifiedData 28 ptr
_SLIST_HEADER 10
  Alignment 0 u64
  Region 8 u64
  Header8 0 _SLIST_HEADER::8
  Header16 0 _SLIST_HEADER::16
  HeaderX64 0 _SLIST_HEADER::X64
_SLIST_HEADER::8 10
  Depth 0 u64:0,10
  NextEntry 0 u64:19,27
  HeaderType 8 u64:0,1
  Region 8 u64:3d,3
_SLIST_HEADER::16 10
  Depth 0 u64:0,10
  HeaderType 8 u64:0,1
  NextEntry 8 u64:4,3c
_SLIST_HEADER::X64 10
  Depth 0 u64:0,10
  HeaderType 8 u64:0,1
  NextEntry 8 u64:4,3c
_VF_TARGET_VERIFIED_DRIVER_DATA 100
  SuspectDriverEntry 0 ptr
  Signature 28 u64
  PoolPageHeaders 30 _SLIST_HEADER
  PoolTrackers 40 _SLIST_HEADER
  CurrentPagedPoolAllocations 50 u32
  CurrentNonPagedPoolAllocations 54 u32
  PeakPagedPoolAllocations 58 u32
  PeakNonPagedPoolAllocations 5c u32
  PagedBytes 60 u64
  NonPagedBytes 68 u64
  PeakPagedBytes 70 u64
  PeakNonPagedBytes 78 u64
  ContiguousMemoryBytes d8 u64
  PeakContiguousMemoryBytes e0 u64
_LIST_ENTRY 10
  Flink 0 ptr
  Blink 8 ptr
_UNICODE_STRING 10
  Length 0 u16
  MaximumLength 2 u16
  Buffer 8 ptr
_VF_SUSPECT_DRIVER_ENTRY 28
  Links 0 _LIST_ENTRY
  Loads 10 u32
  Unloads 14 u32
  BaseName 18 _UNICODE_STRING
_RTL_BALANCED_LINKS 20
  Parent 0 ptr
  LeftChild 8 ptr
  RightChild 10 ptr
  Balance 18 i8
_RTL_AVL_TABLE 68
  BalancedRoot 0 _RTL_BALANCED_LINKS
  NumberGenericTableElements 2c u32
_VF_AVL_TABLE 70
  RtlTable 0 _RTL_AVL_TABLE
  ReservedNode 68 ptr
_VF_AVL_TREE 40
  Tables 20 ptr
  TablesNo 28 u32
_VI_POOL_PAGE_HEADER 18
  NextPage 0 ptr
  VerifierEntry 8 ptr
  Signature 10 u64
_VI_POOL_ENTRY_INUSE 20
  VirtualAddress 0 ptr
  CallingAddress 8 ptr
  NumberOfBytes 10 u64
  Tag 18 u64
_VI_POOL_ENTRY 20
  InUse 0 _VI_POOL_ENTRY_INUSE
  NextFree 0 ptr
  PageHeader 0 _VI_POOL_PAGE_HEADER
_VF_POOL_TRACE 80
  Address 0 ptr
  Size 8 u64
  Thread 10 ptr
  StackTrace 18 ptr[d]
_VI_FAULT_TRACE 48
  Thread 0 ptr
  StackTrace 8 ptr[8]
_VI_TRACK_IRQL 38
  Thread 0 ptr
  OldIrql 8 u8
  NewIrql 9 u8
  Processor a u16
  TickCount c u32
  StackTrace 10 ptr[5]
_IOV_FORCED_PENDING_TRACE 200
  Irp 0 ptr
  Thread 8 ptr
  StackTrace 10 ptr[3e]
_VF_KE_CRITICAL_REGION_TRACE 40
  Thread 0 ptr
  StackTrace 8 ptr[7]
_VF_WATCHDOG_IRP 20
  ListEntry 0 _LIST_ENTRY
  Irp 10 ptr
  DueTickCount 18 u32
  Inserted 1c u8
  TrackedStackLocation 1d i8
  CancelTimeoutTicks 1e u16
";

/// What Windows 11 21H2 x64 (22000) has otherwise; the rest is as in Windows 7.
const WINDOWS_11_CHANGES: &str = "\
_VF_AVL_TREE_NODE_EX 18
  Base 0 _VF_AVL_TREE_NODE
  SessionId 10 u32
_VF_AVL_TREE_NODE 10
  p 0 ptr
  RangeSize 8 u64
_VF_TARGET_DRIVER 40
  TreeNode 0 _VF_AVL_TREE_NODE_EX
  DriverObject 30 ptr
  VerifiedData 38 ptr
_SLIST_HEADER 10
  Alignment 0 u64
  Region 8 u64
  HeaderX64 0 _SLIST_HEADER::X64
_SLIST_HEADER::X64 10
  Depth 0 u64:0,10
  NextEntry 8 u64:4,3c
_VF_TARGET_VERIFIED_DRIVER_DATA 130
  SuspectDriverEntry 0 ptr
  Signature 28 u64
  SeSigningLevel 30 u8
  PoolPageHeaders 40 _SLIST_HEADER
  PoolTrackers 50 _SLIST_HEADER
  CurrentPagedPoolAllocations 70 u32
  CurrentNonPagedPoolAllocations 74 u32
  PeakPagedPoolAllocations 78 u32
  PeakNonPagedPoolAllocations 7c u32
  PagedBytes 80 u64
  NonPagedBytes 88 u64
  PeakPagedBytes 90 u64
  PeakNonPagedBytes 98 u64
  ContiguousMemoryBytes f8 u64
  PeakContiguousMemoryBytes 100 u64
_VF_AVL_TREE 28
  Tables 10 ptr
  TablesNo 18 u32
_VF_POOL_TRACE 1a8
  Address 0 ptr
  Size 8 u64
  Thread 10 ptr
  StackTrace 18 ptr[32]
_VF_AVL_TABLE c0
  RtlTable 0 _RTL_AVL_TABLE
  ReservedNode 68 ptr
_RTL_AVL_TABLE 68
  BalancedRoot 0 _RTL_BALANCED_LINKS
  NumberGenericTableElements 2c u32
_RTL_BALANCED_LINKS 20
  Parent 0 ptr
  LeftChild 8 ptr
  RightChild 10 ptr
  Balance 18 i8
";

/// Windows 11 21H2 x64 (22000).
pub fn windows_11() -> String {
    changed(WINDOWS_7, WINDOWS_11_CHANGES)
}

/// Windows 7 SP1 x86 (7601).
///
/// Source: ntdiff's headers, `Win7_SP1/x86`, for `_VF_TARGET_DRIVER`, `_VF_AVL_TREE` and `_VF_AVL_TABLE`; its `Win8.1/x86`
/// for `_VF_TARGET_VERIFIED_DRIVER_DATA`, which is the same structure on x64; published x86 headers of one or the other
/// for the trackers and `_VF_POOL_TRACE`. The rest are x64's fields with pointers and SIZE_T of 4 bytes, which no source
/// confirms: `_VF_SUSPECT_DRIVER_ENTRY`, `_VI_TRACK_IRQL`, `_VF_WATCHDOG_IRP`, and the size of `_MM_DRIVER_VERIFIER_DATA`.
pub const WINDOWS_7_X86: &str = "\
_MM_DRIVER_VERIFIER_DATA 78
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
  Loads 30 u32
  Unloads 34 u32
  UnTrackedPool 38 u32
  CurrentPagedPoolAllocations 40 u32
  CurrentNonPagedPoolAllocations 44 u32
  PeakPagedPoolAllocations 48 u32
  PeakNonPagedPoolAllocations 4c u32
  PagedBytes 50 u32
  NonPagedBytes 54 u32
  PeakPagedBytes 58 u32
  PeakNonPagedBytes 5c u32
_VF_AVL_TREE_NODE 8
  p 0 ptr
  RangeSize 4 u32
_VF_TARGET_DRIVER 18
  TreeNode 0 _VF_AVL_TREE_NODE
  VerifiedData 14 ptr
_SINGLE_LIST_ENTRY 4
  Next 0 ptr
_SLIST_HEADER 8
  Alignment 0 u64
  Next 0 _SINGLE_LIST_ENTRY
  Depth 4 u16
  Sequence 6 u16
_VF_TARGET_VERIFIED_DRIVER_DATA 90
  SuspectDriverEntry 0 ptr
  Signature 14 u32
  PoolPageHeaders 18 _SLIST_HEADER
  PoolTrackers 20 _SLIST_HEADER
  CurrentPagedPoolAllocations 28 u32
  CurrentNonPagedPoolAllocations 2c u32
  PeakPagedPoolAllocations 30 u32
  PeakNonPagedPoolAllocations 34 u32
  PagedBytes 38 u32
  NonPagedBytes 3c u32
  PeakPagedBytes 40 u32
  PeakNonPagedBytes 44 u32
  ContiguousMemoryBytes 80 u32
  PeakContiguousMemoryBytes 84 u32
_LIST_ENTRY 8
  Flink 0 ptr
  Blink 4 ptr
_UNICODE_STRING 8
  Length 0 u16
  MaximumLength 2 u16
  Buffer 4 ptr
_VF_SUSPECT_DRIVER_ENTRY 18
  Links 0 _LIST_ENTRY
  Loads 8 u32
  Unloads c u32
  BaseName 10 _UNICODE_STRING
_RTL_BALANCED_LINKS 10
  Parent 0 ptr
  LeftChild 4 ptr
  RightChild 8 ptr
  Balance c i8
_RTL_AVL_TABLE 38
  BalancedRoot 0 _RTL_BALANCED_LINKS
  NumberGenericTableElements 18 u32
_VF_AVL_TABLE 3c
  RtlTable 0 _RTL_AVL_TABLE
  ReservedNode 38 ptr
_VF_AVL_TREE 40
  Tables 10 ptr
  TablesNo 14 u32
_VI_POOL_PAGE_HEADER c
  NextPage 0 ptr
  VerifierEntry 4 ptr
  Signature 8 u32
_VI_POOL_ENTRY_INUSE 10
  VirtualAddress 0 ptr
  CallingAddress 4 ptr
  NumberOfBytes 8 u32
  Tag c u32
_VI_POOL_ENTRY 10
  InUse 0 _VI_POOL_ENTRY_INUSE
  NextFree 0 ptr
  PageHeader 0 _VI_POOL_PAGE_HEADER
_VF_POOL_TRACE 40
  Address 0 ptr
  Size 4 u32
  Thread 8 ptr
  StackTrace c ptr[d]
_VI_TRACK_IRQL 20
  Thread 0 ptr
  OldIrql 4 u8
  NewIrql 5 u8
  Processor 6 u16
  TickCount 8 u32
  StackTrace c ptr[5]
_VF_WATCHDOG_IRP 14
  ListEntry 0 _LIST_ENTRY
  Irp 8 ptr
  DueTickCount c u32
  Inserted 10 u8
  TrackedStackLocation 11 i8
  CancelTimeoutTicks 12 u16
";

/// What Windows 8.1 x86 (9600) has otherwise. Source: ntdiff's headers, `Win8.1/x86`, and x86 headers of later builds for
/// `_VF_AVL_TABLE`, which has grown on x64 with 8.1 as well.
const WINDOWS_8_1_X86_CHANGES: &str = "\
_VF_AVL_TREE_NODE 8
  p 0 ptr
  RangeSize 4 u32
_VF_TARGET_DRIVER 1c
  TreeNode 0 _VF_AVL_TREE_NODE
  VerifiedData 18 ptr
_RTL_BALANCED_LINKS 10
  Parent 0 ptr
  LeftChild 4 ptr
  RightChild 8 ptr
  Balance c i8
_RTL_AVL_TABLE 38
  BalancedRoot 0 _RTL_BALANCED_LINKS
  NumberGenericTableElements 18 u32
_VF_AVL_TABLE 80
  RtlTable 0 _RTL_AVL_TABLE
  ReservedNode 38 ptr
_VF_AVL_TREE 14
  Tables 8 ptr
  TablesNo c u32
";

/// What Windows 10 x86 of 1903 to 2004 has otherwise than 8.1, which of them is not known. Source: ntdiff's headers, as
/// `layouts.json` of the shared data has them; the first entry of a list is a plain pointer in this text.
const WINDOWS_10_X86_CHANGES: &str = "\
_VF_AVL_TREE_NODE 8
  p 0 ptr
  RangeSize 4 u32
_VF_AVL_TREE_NODE_EX c
  Base 0 _VF_AVL_TREE_NODE
  SessionId 8 u32
_VF_TARGET_DRIVER 20
  TreeNode 0 _VF_AVL_TREE_NODE_EX
  VerifiedData 1c ptr
_SLIST_HEADER 8
  Alignment 0 u64
  Next 0 ptr
  Depth 4 u16
  CpuId 6 u16
_VF_TARGET_VERIFIED_DRIVER_DATA b0
  SuspectDriverEntry 0 ptr
  Signature 14 u32
  SeSigningLevel 18 u8
  PoolPageHeaders 20 _SLIST_HEADER
  PoolTrackers 28 _SLIST_HEADER
  CurrentPagedPoolAllocations 30 u32
  CurrentNonPagedPoolAllocations 34 u32
  PeakPagedPoolAllocations 38 u32
  PeakNonPagedPoolAllocations 3c u32
  PagedBytes 40 u32
  NonPagedBytes 44 u32
  PeakPagedBytes 48 u32
  PeakNonPagedBytes 4c u32
  ContiguousMemoryBytes 88 u32
  PeakContiguousMemoryBytes 8c u32
";

/// Windows 10 x86, some build of 1903 to 2004.
pub fn windows_10_x86() -> String {
    changed(&windows_8_1_x86(), WINDOWS_10_X86_CHANGES)
}

/// Windows 8.1 x86 (9600).
pub fn windows_8_1_x86() -> String {
    changed(WINDOWS_7_X86, WINDOWS_8_1_X86_CHANGES)
}

/// The structures of a text, but for those that another one has too, and that other one's.
fn changed(base: &str, changes: &str) -> String {
    let has = |name: &str| {
        changes.lines().any(|line| !line.starts_with(' ') && line.starts_with(&format!("{name} ")))
    };
    let replaces_lists = has("_SLIST_HEADER");
    let mut text = String::new();
    let mut keep = false;
    for line in base.lines() {
        if !line.starts_with(' ') {
            let is_replaced = has(line.split(' ').next().unwrap());
            let is_form = replaces_lists && line.starts_with("_SLIST_HEADER::");
            keep = !is_replaced && !is_form;
        }
        if keep {
            text.push_str(line);
            text.push('\n');
        }
    }
    text + changes
}

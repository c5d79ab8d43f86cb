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
    let changed = |name: &str| {
        WINDOWS_11_CHANGES.lines().any(|line| !line.starts_with(' ') && line.starts_with(&format!("{name} ")))
    };
    let mut text = String::new();
    let mut keep = false;
    for line in WINDOWS_7.lines() {
        if !line.starts_with(' ') {
            keep = !changed(line.split(' ').next().unwrap()) && !line.starts_with("_SLIST_HEADER::");
        }
        if keep {
            text.push_str(line);
            text.push('\n');
        }
    }
    text + WINDOWS_11_CHANGES
}

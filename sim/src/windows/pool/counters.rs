//! What the memory manager counts: pages of RAM, of each pool, of commit. `!vm` shows it.
//!
//! Source: pool.md 7.

use kd_protocol::VirtAddr;

use crate::paging::Access;
use crate::physical::PAGE_SIZE;
use crate::windows::kernel::{Kernel, span};
use crate::windows::pool_account::Pool;
use crate::windows::verified::NONPAGED_POOL_SIZE;

/// The visible state, which lies apart from the other since a serviced kernel may have it there.
const VISIBLE: VirtAddr = VirtAddr(0xffff_f8a0_0900_0000);
/// Where pools begin: of Windows 10, and paged pool of Windows 7.
const NONPAGED_REGION: u64 = 0xffff_e000_0000_0000;
const PAGED_REGION: u64 = 0xffff_c000_0000_0000;
const PAGED_OF_7: u64 = 0xffff_f8a0_0000_0000;
/// Where x64 kernels before Windows 10 1607 map page tables.
const PTE_BASE: u64 = 0xffff_f680_0000_0000;
/// Pages of pool that no tag counts: what is free in pages that are in use, and the pool's own.
const SLACK: u64 = 0x680;
/// What else is in use of the machine's RAM, and committed.
const OTHERS: u64 = 0x1_2000;
const PAGED_MAXIMUM: u64 = 0x200_0000;

/// Makes the structures that counters lie in.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    if let Some(pointer) = kernel.find_symbol("MiVisibleState") {
        kernel.map(span(VISIBLE, kernel.size_of("_MI_VISIBLE_STATE")), Access::Write);
        kernel.write_u64(pointer, VISIBLE.0);
        let regions = VISIBLE.offset(kernel.offset_of("_MI_VISIBLE_STATE", "SystemVaRegions"));
        // The database of pages came to the front with Server 2022.
        let first = u64::from(kernel.layouts.release.number >= 20348);
        for (index, start) in (first..).zip([NONPAGED_REGION, PAGED_REGION]) {
            let at = regions.offset(index * kernel.size_of("_MI_SYSTEM_VA_ASSIGNMENT"));
            let fields = [("BaseAddress", start), ("NumberOfBytes", 1 << 40)];
            kernel.set_all(at, "_MI_SYSTEM_VA_ASSIGNMENT", &fields);
        }
    }
    if let Some(at) =
        kernel.find_symbol("MmPagedPoolInfo").filter(|_| kernel.find_symbol("MmNonPagedPoolStart").is_some())
    {
        // Each entry of the page tables says for which page it is by its own address.
        let entry = PTE_BASE + ((PAGED_OF_7 & 0xffff_ffff_ffff) >> 9);
        kernel.set_existing(at, "_MM_PAGED_POOL_INFO", &[("FirstPteForPagedPool", entry)]);
        kernel.write_variables(&[("MmPagedPoolEnd", PAGED_OF_7 + (0x20 << 32) - 1, 8)]);
    }
    publish(kernel);
}

/// Brings counters up to what the pool's account says.
pub(in crate::windows) fn publish(kernel: &mut Kernel) {
    let pages_of = |bytes: u64| bytes.div_ceil(PAGE_SIZE) + SLACK;
    let (nonpaged, paged) =
        (pages_of(kernel.pool.held(Pool::NonPaged)), pages_of(kernel.pool.held(Pool::Paged)));
    let physical = kernel.memory.physical.size() / PAGE_SIZE;
    let used = nonpaged + paged + OTHERS;
    let available = physical.saturating_sub(used);
    let committed = used + 0x3000;
    let maximum = NONPAGED_POOL_SIZE / PAGE_SIZE;
    kernel.write_variables(&[
        ("MmAvailablePages", available, 8),
        ("MmResidentAvailablePages", available + 0x800, 8),
        ("MmAllocatedNonPagedPool", nonpaged, 8),
        ("MmMaximumNonPagedPoolInPages", maximum, 8),
        ("MmSizeOfPagedPoolInBytes", PAGED_MAXIMUM * PAGE_SIZE, 8),
        ("MmTotalCommittedPages", committed, 8),
        ("MmSharedCommit", 0x1a31, 8),
    ]);
    if let Some(at) = kernel.find_symbol("MmPagedPoolInfo") {
        let fields = [("AllocatedPagedPool", paged), ("PagedPoolCommit", paged)];
        kernel.set_existing(at, "_MM_PAGED_POOL_INFO", &fields);
    }
    if let Some(at) = kernel.find_symbol("MmModifiedPageListHead") {
        kernel.set(at, "_MMPFNLIST", "Total", 0x250c);
    }
    let Some(partition) = kernel.find_symbol("MiSystemPartition") else { return };
    let counters = [
        ("Vp.NumberOfPhysicalPages", physical),
        ("Vp.AvailablePages", available),
        ("Vp.ResidentAvailablePages", available + 0x800),
        ("Vp.TotalCommittedPages", committed),
        ("Vp.TotalCommitLimit", physical * 2),
        ("Vp.SharedCommit", 0x1a31),
        ("Vp.ModifiedPageListHead.Total", 0x250c),
    ];
    kernel.set_existing(partition, "_MI_PARTITION", &counters);
    let state = kernel.symbol("MiState");
    kernel.set(state, "_MI_SYSTEM_INFORMATION", "Pools.AllocatedNonPagedPool", nonpaged);
    let counters = [
        ("PagedPoolInfo.AllocatedPagedPool", paged),
        ("MaximumNonPagedPoolInPages", maximum),
        ("SizeOfPagedPoolInPages", PAGED_MAXIMUM),
        ("SharedCommit", 0x1a31),
    ];
    kernel.set_existing(VISIBLE, "_MI_VISIBLE_STATE", &counters);
}

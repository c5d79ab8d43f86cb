//! Pages of the old pool, up to Windows 10 1607: blocks one after the other, each with a header that knows the one before it.
//!
//! Source: pool.md 4.1.

use kd_protocol::VirtAddr;

use super::trackers::allocated;
use crate::paging::Access;
use crate::windows::kernel::{Kernel, span};
use crate::windows::pool_account::{Pool, PoolBlock};

const HEADER: &str = "_POOL_HEADER";
const HEADER_SIZE: u64 = 0x10;
/// Where Windows 7 has its pools, and where Windows 8.1 and later do.
const NONPAGED_OF_7: VirtAddr = VirtAddr(0xffff_fa80_0130_0000);
const PAGED_OF_7: VirtAddr = VirtAddr(0xffff_f8a0_0210_0000);
const NONPAGED: VirtAddr = VirtAddr(0xffff_e000_0030_0000);
const PAGED: VirtAddr = VirtAddr(0xffff_c000_0030_0000);

/// Allocates small blocks in both pools, some of which were freed again.
pub(in crate::windows) fn furnish(kernel: &mut Kernel) {
    let is_7 = kernel.find_symbol("MmNonPagedPoolStart").is_some();
    let (nonpaged, paged) = if is_7 { (NONPAGED_OF_7, PAGED_OF_7) } else { (NONPAGED, PAGED) };
    for (pool, start, pages) in [(Pool::NonPaged, nonpaged, 3), (Pool::Paged, paged, 2)] {
        for number in 0..pages {
            // Neighbouring pages are of different kinds as often as not.
            let page = start.offset(number * 0x3000);
            kernel.map(span(page, 0x1000), Access::Write);
            lay(kernel, pool, page, number);
        }
    }
}

/// Fills a page: sizes that come to a page, each block in use or free.
fn lay(kernel: &mut Kernel, pool: Pool, page: VirtAddr, number: u64) {
    let sizes: [(u64, bool); 8] = [
        (0x90, true),
        (0x170, true),
        (0x40, false),
        (0x620, true),
        (0x20, true),
        (0x2f0, true),
        (0x80, false),
        (0x410, true),
    ];
    let (mut offset, mut previous) = (0, 0);
    for (index, (size, is_allocated)) in (0..).zip(sizes) {
        let tag = if (index + number).is_multiple_of(3) { *b"File" } else { *b"Smal" };
        let ty = match (is_allocated, pool) {
            (false, _) => 0,
            (true, Pool::NonPaged) => 1,
            (true, Pool::Paged) => 2,
        };
        let at = page.offset(offset);
        put_header(kernel, at, tag, size, previous, ty);
        allocated(
            kernel,
            PoolBlock { address: at.offset(HEADER_SIZE), bytes: size, tag, pool, is_allocated },
        );
        (offset, previous) = (offset + size, size);
    }
    debug_assert_eq!(offset, 0x1000, "a page is filled");
}

/// Writes a block's header.
pub(super) fn put_header(kernel: &mut Kernel, at: VirtAddr, tag: [u8; 4], size: u64, previous: u64, ty: u64) {
    let fields = [
        ("PreviousSize", previous / HEADER_SIZE),
        ("BlockSize", size / HEADER_SIZE),
        ("PoolType", ty),
        ("PoolTag", u32::from_le_bytes(tag).into()),
    ];
    kernel.set_all(at, HEADER, &fields);
}

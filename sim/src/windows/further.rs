//! Further drivers in memory: headers, and a row of the kernel's table of images.

use kd_protocol::VirtAddr;

use super::headers::{self, Headers};
use super::kernel::{Kernel, span};
use super::layout::ImageLayout;
use super::scenario::Scenario;
use crate::paging::Access;

/// Maps the headers of a further driver. Returns its checksum.
pub(super) fn map_headers(kernel: &mut Kernel, layout: &ImageLayout) -> u32 {
    let check_sum = layout.timestamp & 0xf_ffff;
    let base = VirtAddr(layout.base);
    let headers = Headers {
        is_32_bit: false,
        base: layout.base,
        size: layout.size_of_image(),
        check_sum,
        timestamp: layout.timestamp,
        pdb: &layout.pdb,
    };
    kernel.map(span(base, headers::SIZE as u64), Access::Read);
    kernel.write(base, &headers.bytes());
    check_sum
}

/// Writes the table by which the kernel finds unwind data: every image that is loaded, by address.
///
/// Offsets are the public ones of `_INVERTED_FUNCTION_TABLE`. \[uncertain: that real entries are in this order\]
pub(super) fn list_for_unwinding(kernel: &mut Kernel, scenario: Scenario) {
    const ENTRY_SIZE: u64 = 0x18;
    const MAXIMUM: u32 = 0x100;
    let Some(table) = kernel.find_symbol("PsInvertedFunctionTable") else { return };
    let layouts = kernel.layouts.clone();
    let own =
        layouts.images.iter().map(|(_, layout)| layout).filter(|layout| scenario.is_loaded(&layout.module));
    let mut images: Vec<_> =
        own.chain(&layouts.further).map(|image| (image.base, image.size_of_image())).collect();
    // The kernel is the first whatever its address.
    images[1..].sort_unstable();
    kernel.write_u32(table, images.len() as u32);
    kernel.write_u32(table.offset(4), MAXIMUM);
    for (number, (base, size)) in (0..).zip(images) {
        let entry = table.offset(0x10 + number * ENTRY_SIZE);
        kernel.write_u64(entry, base + 0x1000);
        kernel.write_u64(entry.offset(8), base);
        kernel.write_u32(entry.offset(0x10), size);
    }
}

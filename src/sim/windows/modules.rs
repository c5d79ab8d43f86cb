//! Loaded images: their bytes in memory, and the kernel's list of them.

use kd_protocol::VirtAddr;
use object::LittleEndian as LE;
use object::pe::{ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::pod;
use object::read::pe::ImageNtHeaders;

use super::kernel::{Kernel, span};
use super::layout::SectionKind;
use crate::sim::paging::Access;

/// `_LDR_DATA_TABLE_ENTRY` of the kernel; those of the other images follow below it.
const FIRST_ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0366_7890);
/// Bytes from one entry to the next one below: entry, name, pool header.
const ENTRY_STRIDE: u64 = 0x100;
/// Bytes of an entry that the kernel fills: it knows a shorter structure, `_KLDR_DATA_TABLE_ENTRY`, whose fields up to
/// `CheckSum` are the same, and puts `BaseDllName` behind it.
const ENTRY_SIZE: u64 = 0xa0;
/// Full names, one behind the other.
const FULL_NAMES: VirtAddr = VirtAddr(0xffff_f8a0_0000_2010);
const FULL_NAME_STRIDE: u64 = 0x100;

/// Maps every image of the build and links it into `PsLoadedModuleList`.
pub(super) fn load(kernel: &mut Kernel) {
    let layouts = kernel.layouts.clone();
    let list = kernel.symbol("PsLoadedModuleList");
    for (image, layout) in &layouts.images {
        map_image(kernel, image.bytes, layout);
    }
    kernel.list_init(list);
    for (number, (image, layout)) in layouts.images.iter().enumerate() {
        let number = number as u64;
        let entry = VirtAddr(FIRST_ENTRY.0 - number * ENTRY_STRIDE);
        kernel.pool_block(entry, ENTRY_STRIDE - kernel.size_of("_POOL_HEADER"), b"MmLd");
        let nt = nt_headers(image.bytes);
        let fields = [
            ("DllBase", layout.base()),
            ("EntryPoint", layout.base() + u64::from(nt.optional_header.address_of_entry_point.get(LE))),
            ("SizeOfImage", nt.optional_header.size_of_image.get(LE).into()),
            ("Flags", flags(&layout.module)),
            ("LoadCount", 1),
            ("CheckSum", nt.optional_header.check_sum.get(LE).into()),
        ];
        kernel.set_all(entry, "_LDR_DATA_TABLE_ENTRY", &fields);
        let full_name_at = FULL_NAMES.offset(number * FULL_NAME_STRIDE);
        kernel.map(full_name_at..full_name_at.offset(FULL_NAME_STRIDE), Access::Write);
        let full_name = format!("{}{}", folder(&layout.module), layout.file);
        for (field, buffer, name) in [
            ("FullDllName", full_name_at, &full_name),
            ("BaseDllName", entry.offset(ENTRY_SIZE), &layout.file),
        ] {
            let at = entry.offset(kernel.offset_of("_LDR_DATA_TABLE_ENTRY", field));
            kernel.unicode_string(at, buffer, name);
        }
        let links = entry.offset(kernel.offset_of("_LDR_DATA_TABLE_ENTRY", "InLoadOrderLinks"));
        kernel.list_append(list, links);
    }
    let symbol = |name| kernel.symbol(name);
    let (nt_base, hal_base) = (symbol("PsNtosImageBase"), symbol("PsHalImageBase"));
    kernel.write_u64(nt_base, layouts.images[0].1.base());
    kernel.write_u64(hal_base, kernel.image("hal").base());
}

/// Maps an image's headers and sections. Sections for initialisation are discarded: their pages are not mapped.
fn map_image(kernel: &mut Kernel, bytes: &[u8], layout: &super::layout::ImageLayout) {
    let base = VirtAddr(layout.base());
    let nt = nt_headers(bytes);
    let headers = nt.optional_header.size_of_headers.get(LE) as usize;
    kernel.map(span(base, headers as u64), Access::Read);
    kernel.write(base, &bytes[..headers]);
    // The loader relocates the image, and says so in its header.
    let optional_header = nt_offset(bytes) + std::mem::offset_of!(ImageNtHeaders64, optional_header);
    let image_base = kernel.offset_of("_IMAGE_OPTIONAL_HEADER64", "ImageBase");
    kernel.write_u64(base.offset(optional_header as u64 + image_base), base.0);

    for (header, section) in sections(bytes).iter().zip(&layout.sections) {
        let access = match section.kind {
            SectionKind::DiscardableCode => continue,
            SectionKind::Code => Access::Execute,
            SectionKind::Data => Access::Write,
            SectionKind::Linker => Access::Read,
        };
        let at = base.offset(section.at.into());
        kernel.map(span(at, section.size.into()), access);
        let (raw, size) = header.pe_file_range();
        kernel.write(at, &bytes[raw as usize..][..size as usize]);
    }
}

/// Folder in `FullDllName`, as boot and demand-loaded images have it.
fn folder(module: &str) -> &'static str {
    match module {
        "nt" | "hal" => r"\SystemRoot\system32\",
        "ndis" => r"\SystemRoot\system32\drivers\",
        _ => r"\??\C:\Windows\system32\drivers\",
    }
}

/// `_LDR_DATA_TABLE_ENTRY.Flags`: loaded; boot images additionally "loaded by the loader"; verified ones say so.
fn flags(module: &str) -> u64 {
    const VERIFYING: u64 = 0x0200_0000;
    match module {
        "nt" | "hal" | "ndis" => 0x0910_4000,
        _ => 0x4910_4000 | VERIFYING,
    }
}

fn nt_headers(image: &[u8]) -> &ImageNtHeaders64 {
    let (headers, _) = pod::from_bytes(&image[nt_offset(image)..]).expect("committed images have headers");
    headers
}

fn nt_offset(image: &[u8]) -> usize {
    ImageDosHeader::parse(image).expect("committed images are PE").nt_headers_offset() as usize
}

fn sections(image: &[u8]) -> &[ImageSectionHeader] {
    let mut offset = nt_offset(image) as u64;
    let (nt, _) = ImageNtHeaders64::parse(image, &mut offset).expect("committed images are PE32+");
    nt.sections(image, offset).expect("committed images have sections").iter().as_slice()
}

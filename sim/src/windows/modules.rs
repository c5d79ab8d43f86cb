//! Loaded images: their bytes in memory, and the kernel's list of them.

use kd_protocol::VirtAddr;
use object::LittleEndian as LE;
use object::pe::{ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::pod;
use object::read::pe::ImageNtHeaders;

use super::kernel::{Kernel, span};
use super::layout::{ImageLayout, SectionKind};
use super::scenario::Scenario;
use super::time::BOOT_TIME;
use super::{further, growth};
use crate::paging::Access;

/// The entry of the kernel; those of the other images follow below it.
const FIRST_ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0366_7890);
/// Bytes from one entry to the next one below: entry, name, pool header.
const ENTRY_STRIDE: u64 = 0x100;
/// An entry's structure. Symbols of builds before 1607 lack the kernel's own, but for `CheckSum` its fields are as those of
/// user mode's.
pub(super) const ENTRY: [&str; 2] = ["_KLDR_DATA_TABLE_ENTRY", "_LDR_DATA_TABLE_ENTRY"];
/// Bytes of an entry that the kernel fills: `_KLDR_DATA_TABLE_ENTRY`; it puts `BaseDllName` behind it.
const ENTRY_SIZE: u64 = 0xa0;
/// `CheckSum` in the kernel's own structure, of all builds.
const CHECK_SUM: u64 = 0x78;
/// Full names, one behind the other.
const FULL_NAMES: VirtAddr = VirtAddr(0xffff_f8a0_0000_2010);
const FULL_NAME_STRIDE: u64 = 0x100;

/// Maps every image that the scenario loads and links it into `PsLoadedModuleList`.
pub(super) fn load(kernel: &mut Kernel, scenario: Scenario) {
    let layouts = kernel.layouts.clone();
    let list = kernel.symbol("PsLoadedModuleList");
    let is_loaded = |layout: &ImageLayout| scenario.is_loaded(&layout.module);
    for (image, layout) in layouts.images.iter().filter(|(_, layout)| is_loaded(layout)) {
        map_image(kernel, image.bytes, layout);
    }
    kernel.list_init(list);
    for (number, (image, layout)) in
        layouts.images.iter().enumerate().filter(|(_, (_, layout))| is_loaded(layout))
    {
        let nt = nt_headers(image.bytes);
        let entry = Entry {
            number,
            entry_point: nt.optional_header.address_of_entry_point.get(LE),
            check_sum: nt.optional_header.check_sum.get(LE),
            flags: flags(&layout.module, scenario),
        };
        list_module(kernel, layout, &entry);
    }
    for (number, layout) in layouts.further.iter().enumerate() {
        let check_sum = further::map_headers(kernel, layout);
        let is_verified = growth::chosen(kernel.growth).any(|chosen| chosen.driver.module == layout.module);
        let flags = if is_verified && !scenario.chosen().is_empty() { DRIVER | VERIFYING } else { DRIVER };
        let entry = Entry { number: layouts.images.len() + number, entry_point: 0x1000, check_sum, flags };
        list_module(kernel, layout, &entry);
    }
    let (nt, hal) = (layouts.images[0].1.base, kernel.image("hal").base);
    kernel.write_variables(&[("PsNtosImageBase", nt, 8), ("PsHalImageBase", hal, 8)]);
    unloaded(kernel, scenario);
    if !layouts.further.is_empty() {
        further::list_for_unwinding(kernel, scenario);
    }
}

/// What an entry says that the layout does not.
struct Entry {
    number: usize,
    entry_point: u32,
    check_sum: u32,
    flags: u64,
}

/// Puts a module at the end of `PsLoadedModuleList`.
fn list_module(kernel: &mut Kernel, layout: &ImageLayout, module: &Entry) {
    let aggregate = kernel.first_of(&ENTRY);
    let list = kernel.symbol("PsLoadedModuleList");
    let entry = entry_of(kernel, &layout.module);
    kernel.pool_block(entry, ENTRY_STRIDE - kernel.size_of("_POOL_HEADER"), b"MmLd");
    let fields = [
        ("DllBase", layout.base),
        ("EntryPoint", layout.base + u64::from(module.entry_point)),
        ("SizeOfImage", layout.size_of_image().into()),
        ("Flags", module.flags),
    ];
    kernel.set_all(entry, aggregate, &fields);
    kernel.set_existing(entry, aggregate, &[("LoadCount", 1), ("ObsoleteLoadCount", 1)]);
    kernel.write_u32(entry.offset(CHECK_SUM), module.check_sum);
    let full_name_at = FULL_NAMES.offset(module.number as u64 * FULL_NAME_STRIDE);
    kernel.map(full_name_at..full_name_at.offset(FULL_NAME_STRIDE), Access::Write);
    for (field, buffer, name) in [
        ("FullDllName", full_name_at, &full_name(layout)),
        ("BaseDllName", entry.offset(ENTRY_SIZE), &layout.file),
    ] {
        let at = entry.offset(kernel.offset_of(aggregate, field));
        kernel.unicode_string(at, buffer, name);
    }
    let links = entry.offset(kernel.offset_of(aggregate, "InLoadOrderLinks"));
    kernel.list_append(list, links);
}

/// Writes the kernel's list of drivers that were unloaded.
///
/// An entry is 0x28 bytes: name, start, end, time. No build's symbols have the structure.
fn unloaded(kernel: &mut Kernel, scenario: Scenario) {
    const UNLOADED: VirtAddr = VirtAddr(0xffff_fa80_0366_2010);
    const ENTRIES: u64 = 50;
    const SIZE: u64 = 0x28;
    const MINUTE: u64 = 60 * 10_000_000;
    kernel.pool_block(UNLOADED, ENTRIES * SIZE, b"MmDT");
    let mut drivers: Vec<_> = (0..kernel.growth.unloaded()).map(growth::unloaded_driver).collect();
    for chosen in scenario.chosen().iter().filter(|chosen| chosen.unloads > 0) {
        let image = kernel.image(chosen.driver.module);
        drivers.push((image.file.clone(), image.base, image.size_of_image().into()));
    }
    let count = drivers.len() as u64;
    for (number, (file, base, size)) in (0..).zip(drivers) {
        let at = UNLOADED.offset(number * SIZE);
        let name = UNLOADED.offset(ENTRIES * SIZE + 0x10 + number * 0x40);
        kernel.pool_block(name, 0x30, b"MmDn");
        kernel.unicode_string(at, name, &file);
        kernel.write_u64(at.offset(0x10), base);
        kernel.write_u64(at.offset(0x18), base + size);
        kernel.write_u64(at.offset(0x20), BOOT_TIME + (number + 1) * MINUTE);
    }
    kernel.write_variables(&[("MmUnloadedDrivers", UNLOADED.0, 8), ("MmLastUnloadedDriver", count, 4)]);
}

/// Where a module's entry in the list is.
pub(super) fn entry_of(kernel: &Kernel, module: &str) -> VirtAddr {
    if let Some(number) = kernel.layouts.further.iter().position(|layout| layout.module == module) {
        return growth::entry_of(number);
    }
    let number = kernel.layouts.images.iter().position(|(_, layout)| layout.module == module);
    let number = number.unwrap_or_else(|| panic!("no layout file for module {module}"));
    VirtAddr(FIRST_ENTRY.0 - number as u64 * ENTRY_STRIDE)
}

/// The characters of a module's file name, as the list has them.
pub(super) fn base_name_of(kernel: &Kernel, module: &str) -> VirtAddr {
    entry_of(kernel, module).offset(ENTRY_SIZE)
}

/// Where a module's file is, as the kernel writes it.
pub(super) fn full_name(layout: &ImageLayout) -> String {
    format!("{}{}", folder(&layout.module), layout.file)
}

/// Maps an image's headers and sections. Sections for initialisation are discarded: their pages are not mapped.
fn map_image(kernel: &mut Kernel, bytes: &[u8], layout: &ImageLayout) {
    let base = VirtAddr(layout.base);
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

/// Takes the debug directory's place and size from the headers of every image that is loaded.
pub(super) fn remove_debug_directories(kernel: &mut Kernel, scenario: Scenario) {
    /// Optional header, to the seventh data directory.
    const DEBUG_DIRECTORY: u64 = 0x70 + 6 * 8;
    let layouts = kernel.layouts.clone();
    for (image, layout) in layouts.images.iter().filter(|(_, layout)| scenario.is_loaded(&layout.module)) {
        let optional_header =
            nt_offset(image.bytes) + std::mem::offset_of!(ImageNtHeaders64, optional_header);
        kernel.write_u64(VirtAddr(layout.base).offset(optional_header as u64 + DEBUG_DIRECTORY), 0);
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

/// Flags of a driver that was loaded by name, and the one of a verified image.
const DRIVER: u64 = 0x4910_4000;
const VERIFYING: u64 = 0x0200_0000;

/// `_LDR_DATA_TABLE_ENTRY.Flags`: loaded; boot images additionally "loaded by the loader"; verified ones say so.
fn flags(module: &str, scenario: Scenario) -> u64 {
    let is_verified =
        scenario.chosen().iter().any(|chosen| chosen.is_loaded() && chosen.driver.module == module);
    let flags = match module {
        "nt" | "hal" | "ndis" => 0x0910_4000,
        _ => DRIVER,
    };
    if is_verified { flags | VERIFYING } else { flags }
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

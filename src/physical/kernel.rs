//! Finds the kernel in physical memory: page tables that translate, then its image, each candidate checked before it is
//! believed.
//!
//! ```text
//!  CR3 of a processor, or a page that looks like a top table --> KUSER_SHARED_DATA says a Windows version --> a root
//!  IDT[0], or the header's list --> down page by page to MZ, PE --> the kernel's base --> its exports
//! ```
//! Source: docs/dumps.md 6.

use std::sync::Arc;

use kd_protocol::MachineType;
use object::read::pe::ExportTable;

use super::processor::Processor;
use crate::memory::{
    Memory, Paging, PhysAddr, PhysicalMemory, SharedData, TranslatedMemory, Translation, VirtAddr,
};
use crate::source::KernelVersion;

const PAGE: u64 = 0x1000;
/// The kernel's image begins at most this far below its code.
const MAX_IMAGE: u64 = 32 << 20;
/// Where the KPCR of an x64 kernel with KVA shadow keeps the kernel's own root: 7601; 9600 to 18362; 19041 and later.
const KERNEL_DIRECTORY_TABLE_BASE: [u64; 3] = [0x9000, 0x7000, 0x6000];
/// An export directory is no larger.
const MAX_EXPORTS: usize = 1 << 20;
/// CR4: five levels.
const LA57: u64 = 1 << 12;
/// The region of a 64-bit kernel's image, and of a 32-bit one's.
const KERNEL_64: (u64, u64) = (0xffff_f800_0000_0000, 0xffff_f880_0000_0000);
const KERNEL_32: (u64, u64) = (0x8000_0000, 0xffff_f000);
/// Pages of the kernel's region that are looked at for the beginning of its image: 8 GiB of what is mapped.
const MAX_PROBED: u32 = 1 << 21;
/// A page that nobody has written to.
const NOTHING: &[u8] = &[0; PAGE as usize];
/// Bytes that are looked through at a time.
const SCAN_PIECE: usize = 1 << 20;

/// Memory that is no Windows machine's, or whose page tables are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoKernel(pub(crate) String);

/// A kernel, and how its memory is read.
pub(crate) struct Found {
    pub(crate) memory: TranslatedMemory,
    pub(crate) version: KernelVersion,
    /// Where its top table is, as CR3 has it.
    pub(crate) root: u64,
}

/// What the kernel's memory is with this root, if it is one.
pub(crate) fn with_root(
    physical: &Arc<dyn PhysicalMemory>,
    cr3: u64,
    paging: Paging,
) -> Option<TranslatedMemory> {
    let memory = TranslatedMemory::new(Arc::clone(physical), cr3, paging);
    let shared = SharedData::address(!matches!(paging, Paging::Pae | Paging::X86));
    let mut major = [0; 4];
    memory.read_virtual(shared.offset(SharedData::NT_MAJOR_VERSION), &mut major).ok()?;
    matches!(u32::from_le_bytes(major), 5 | 6 | 10).then_some(memory)
}

/// The kernel of a virtual machine, found through its processors, or through what its memory looks like.
pub(crate) fn find(
    physical: &Arc<dyn PhysicalMemory>,
    processors: &[Processor],
    dtb: Option<u64>,
) -> Result<Found, NoKernel> {
    let given = dtb.map(|dtb| (dtb, None));
    let plain: &[Paging] = &[Paging::Long4, Paging::Arm64];
    // Those in the kernel first: a processor in user mode may run on tables that lack most of it.
    let in_ring =
        |is_kernel: bool| processors.iter().filter(move |cpu| (cpu.selectors[0] & 3 == 0) == is_kernel);
    let of_cpus = in_ring(true).chain(in_ring(false)).map(|cpu| (cpu.cr3, Some(cpu)));
    for (cr3, cpu) in given.into_iter().chain(of_cpus) {
        let pagings: &[Paging] = match cpu {
            Some(cpu) if cpu.cr4 & LA57 != 0 => &[Paging::Long5],
            Some(_) => &plain[..1],
            None => plain,
        };
        let own = pagings.iter().filter_map(|paging| Some((with_root(physical, cr3, *paging)?, cr3)));
        let shadowed = cpu.and_then(|cpu| behind_shadow(physical, cpu, pagings[0]));
        for (memory, root) in own.chain(shadowed) {
            let handlers = processors.iter().filter_map(|cpu| divide_error(&memory, cpu.idt_base));
            if let Some(base) = handlers.into_iter().find_map(|code| image_above(&memory, code)) {
                return Ok(found(memory, base, root));
            }
            if let Some(base) = any_kernel(&memory) {
                return Ok(found(memory, base, root));
            }
        }
        if let Some(found) = find_32_bit(physical, processors, cr3, cpu) {
            return Ok(found);
        }
    }
    scan(physical)
}

/// The kernel of a 32-bit machine, whose tables are of another form, and whose interrupts' gates have eight bytes.
fn find_32_bit(
    physical: &Arc<dyn PhysicalMemory>,
    processors: &[Processor],
    cr3: u64,
    cpu: Option<&Processor>,
) -> Option<Found> {
    /// CR4.
    const PAE: u64 = 1 << 5;
    let pagings: &[Paging] = match cpu {
        Some(cpu) if cpu.cr4 & PAE != 0 => &[Paging::Pae],
        Some(_) => &[Paging::X86],
        None => &[Paging::Pae, Paging::X86],
    };
    let memory = pagings.iter().find_map(|paging| with_root(physical, cr3, *paging))?;
    let handler = |cpu: &Processor| {
        let mut gate = [0; 8];
        memory.read_virtual(VirtAddr(cpu.idt_base), &mut gate).ok()?;
        let word = |at: usize| u64::from(u16::from_le_bytes([gate[at], gate[at + 1]]));
        Some(VirtAddr(word(0) | word(6) << 16)).filter(|it| it.0 >= KERNEL_32.0)
    };
    let is_its = |base: &VirtAddr| machine_of(&memory, *base) == Some(MachineType::I386);
    let base =
        processors.iter().filter_map(handler).find_map(|code| image_above(&memory, code).filter(is_its));
    let base = base.or_else(|| any_kernel(&memory))?;
    Some(found(memory, base, cr3))
}

/// The kernel's own root, where a processor was stopped on the one that user mode has.
fn behind_shadow(
    physical: &Arc<dyn PhysicalMemory>,
    cpu: &Processor,
    paging: Paging,
) -> Option<(TranslatedMemory, u64)> {
    let kpcr = VirtAddr(cpu.kernel_gs_base.filter(|base| *base != 0)?);
    let shadow = TranslatedMemory::new(Arc::clone(physical), cpu.cr3, paging);
    KERNEL_DIRECTORY_TABLE_BASE.iter().find_map(|offset| {
        let mut root = [0; 8];
        shadow.read_virtual(kpcr.offset(*offset), &mut root).ok()?;
        let root = u64::from_le_bytes(root);
        Some((with_root(physical, root, paging)?, root))
    })
}

/// The handler of the first interrupt: a routine of the kernel's.
fn divide_error(memory: &TranslatedMemory, idt: u64) -> Option<VirtAddr> {
    let mut gate = [0; 16];
    memory.read_virtual(VirtAddr(idt), &mut gate).ok()?;
    let word = |at: usize| u64::from(u16::from_le_bytes([gate[at], gate[at + 1]]));
    let high = u64::from(u32::from_le_bytes(gate[8..12].try_into().expect("four bytes")));
    Some(VirtAddr(word(0) | word(6) << 16 | high << 32)).filter(|it| it.0 >> 47 == 0x1_ffff)
}

/// The base of the image that this code lies in.
pub(crate) fn image_above(memory: &TranslatedMemory, code: VirtAddr) -> Option<VirtAddr> {
    let top = code.0 & !(PAGE - 1);
    let candidates = (0..MAX_IMAGE / PAGE).map_while(|back| top.checked_sub(back * PAGE)).map(VirtAddr);
    candidates.into_iter().find(|base| is_image(memory, *base))
}

/// True if an executable image of a machine that is read here begins there.
pub(crate) fn is_image(memory: &dyn Memory, base: VirtAddr) -> bool {
    machine_of(memory, base).is_some()
}

/// Whose image begins there, if it is a machine's that is read here.
fn machine_of(memory: &dyn Memory, base: VirtAddr) -> Option<MachineType> {
    let mut start = [0; 0x40];
    if memory.read_virtual(base, &mut start).is_err() || !start.starts_with(b"MZ") {
        return None;
    }
    let new_header = u32::from_le_bytes(start[0x3c..0x40].try_into().expect("four bytes"));
    let mut head = [0; 6];
    let is_there = new_header < 0x1000
        && memory.read_virtual(base.offset(new_header.into()), &mut head).is_ok()
        && head.starts_with(b"PE\0\0");
    let machine = MachineType(u16::from_le_bytes([head[4], head[5]]));
    let is_known = matches!(machine, MachineType::AMD64 | MachineType::ARM64 | MachineType::I386);
    (is_there && is_known).then_some(machine)
}

/// The first image in the region of a kernel that exports what only the kernel does.
pub(crate) fn any_kernel(memory: &TranslatedMemory) -> Option<VirtAddr> {
    // The tables of x64 and of ARM64 are alike enough for one to be taken for the other.
    let (machine, mut at, end) = match memory.page_tables().map(|tables| tables.paging) {
        Ok(Paging::Pae | Paging::X86) => (MachineType::I386, KERNEL_32.0, KERNEL_32.1),
        Ok(Paging::Arm64) => (MachineType::ARM64, KERNEL_64.0, KERNEL_64.1),
        _ => (MachineType::AMD64, KERNEL_64.0, KERNEL_64.1),
    };
    // Tables of a hostile file may map all of it, again and again the same pages.
    let mut left_to_probe = MAX_PROBED;
    while at < end && left_to_probe > 0 {
        let left = match memory.translate(VirtAddr(at)) {
            Translation::Hole { left, .. } => left,
            Translation::Mapped { .. } => {
                let base = VirtAddr(at);
                left_to_probe -= 1;
                if machine_of(memory, base) == Some(machine)
                    && export(memory, base, "NtBuildNumber").is_some()
                {
                    return Some(base);
                }
                PAGE - at % PAGE
            }
        };
        at = at.checked_add(left)?;
    }
    None
}

/// Looks for a top table: one entry of its upper half leads to itself, and what it translates is a kernel.
fn scan(physical: &Arc<dyn PhysicalMemory>) -> Result<Found, NoKernel> {
    let mut piece = vec![0; SCAN_PIECE];
    for range in physical.ranges() {
        let mut next = range.start.next_multiple_of(PAGE);
        while next < range.end {
            let start = next.max(physical.next_written(PhysAddr(next)).0 & !(PAGE - 1));
            if start >= range.end {
                break;
            }
            let len = (range.end - start).min(SCAN_PIECE as u64) as usize;
            let got = match physical.read(PhysAddr(start), &mut piece[..len]) {
                Ok(()) => len,
                Err((_, cause)) if cause.is_of_link() => return Err(NoKernel(cause.to_string())),
                Err((got, _)) => got,
            };
            // A page that cannot be read is passed over.
            next = start + if got == len { len as u64 } else { (got as u64 & !(PAGE - 1)) + PAGE };
            let piece = &piece[..got];
            for (at, page) in (start..).step_by(PAGE as usize).zip(piece.chunks_exact(PAGE as usize)) {
                // Most of a machine's pages, and all holes of a file.
                if page == NOTHING {
                    continue;
                }
                for paging in [Paging::Long4, Paging::Arm64] {
                    if is_top_table(page, at, paging)
                        && let Some(memory) = with_root(physical, at, paging)
                        && let Some(base) = any_kernel(&memory)
                    {
                        return Ok(found(memory, base, at));
                    }
                }
            }
        }
    }
    Err(NoKernel(
        "no processor's tables, and none in memory, translate KUSER_SHARED_DATA and a kernel's image; it may be encrypted, \
         or of a machine that runs something else"
            .into(),
    ))
}

fn found(memory: TranslatedMemory, base: VirtAddr, root: u64) -> Found {
    Found { version: version(&memory, base), memory, root }
}

/// True if one entry of the page's upper half, and no other, leads to the page itself.
fn is_top_table(page: &[u8], at: u64, paging: Paging) -> bool {
    let own = (at | 1).to_le_bytes();
    // ARM64: it must be a table's, and has attributes where x64's address goes on.
    let (kind, above) = if paging == Paging::Arm64 { (3, 0x3) } else { (1, 0xf) };
    // Bits 12 to 47 of the address and more, and that it is present: what no other page's entries have by chance.
    let is_own = |entry: &[u8]| {
        entry[0] & kind == kind
            && entry[1] & 0xf0 == own[1] & 0xf0
            && entry[2..6] == own[2..6]
            && entry[6] & above == own[6]
    };
    page[PAGE as usize / 2..].chunks_exact(8).filter(|entry| is_own(entry)).count() == 1
}

/// The build that `KUSER_SHARED_DATA` says; kernels before 10 have no place for it there.
pub(crate) fn shared_build(memory: &dyn Memory, is_64_bit: bool) -> Option<u16> {
    let shared = SharedData::address(is_64_bit);
    let word = |at: u64| {
        let mut value = [0; 4];
        memory.read_virtual(shared.offset(at), &mut value).ok()?;
        Some(u32::from_le_bytes(value))
    };
    let build =
        (word(SharedData::NT_MAJOR_VERSION)? == 10).then(|| word(SharedData::NT_BUILD_NUMBER)).flatten()?;
    // The upper half says whether it is a free build.
    Some(build as u16).filter(|build| *build != 0)
}

/// What a kernel at `base` says of itself through its exports.
fn version(memory: &TranslatedMemory, base: VirtAddr) -> KernelVersion {
    let build = export(memory, base, "NtBuildNumber").and_then(|at| {
        let mut build = [0; 4];
        memory.read_virtual(at, &mut build).ok()?;
        Some(u32::from_le_bytes(build))
    });
    // The upper byte is 0xf0 of a free build, 0xc0 of a checked one.
    let major = if build.is_some_and(|it| it >> 24 == 0xc0) { 0xc } else { 0xf };
    let machine = machine_of(memory, base).unwrap_or_default();
    let is_64_bit = machine != MachineType::I386;
    KernelVersion {
        major,
        build: build.map(|it| it as u16).or_else(|| shared_build(memory, is_64_bit)).unwrap_or(0),
        flags: 1 | if is_64_bit { KernelVersion::PTR64 } else { 0 },
        machine,
        base,
        module_list: export(memory, base, "PsLoadedModuleList").unwrap_or_default(),
        debugger_data_list: VirtAddr(0),
    }
}

/// The address of what the image at `base` exports by this name.
fn export(memory: &dyn Memory, base: VirtAddr, name: &str) -> Option<VirtAddr> {
    let mut headers = [0; PAGE as usize];
    memory.read_virtual(base, &mut headers).ok()?;
    let u32_at =
        |at: usize| headers.get(at..at + 4).map(|it| u32::from_le_bytes(it.try_into().expect("four bytes")));
    let optional = u32_at(0x3c)? as usize + 24;
    // Magic 0x20b: data directories at 112, else at 96.
    let is_64_bit = u32_at(optional)? & 0xffff == 0x20b;
    let directory = optional + if is_64_bit { 112 } else { 96 };
    let (rva, len) = (u32_at(directory)?, u32_at(directory + 4)? as usize);
    if rva == 0 || len == 0 || len > MAX_EXPORTS {
        return None;
    }
    let mut bytes = vec![0; len];
    memory.read_virtual(base.offset(rva.into()), &mut bytes).ok()?;
    let table = ExportTable::parse(&bytes, rva).ok()?;
    let is_called = |pointer| table.name_from_pointer(pointer).is_ok_and(|found| found == name.as_bytes());
    let (_, index) = table.name_iter().find(|(pointer, _)| is_called(*pointer))?;
    let target = table.target_by_index(index).ok()?;
    match target {
        object::read::pe::ExportTarget::Address(rva) => Some(base.offset(rva.into())),
        _ => None,
    }
}

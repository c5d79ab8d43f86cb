//! Files that hold a machine's memory: crash dumps, cores of virtual machines, images.
//!
//! ```text
//!  PAGEDU64, PAGEDUMP --> header --> runs, bitmap, ranges --.
//!                            `--> small dump: blocks         >-- page map --> page tables --> Memory --> ImageSource
//!  ELF core, LiME, VMware -----> loads, notes, regions -----|
//!  none of these: RAM as it is, if a kernel is in it -------'
//! ```
//! A file of any size is opened in a moment: headers and the index of its runs are read, pages when they are asked for. No
//! byte of it is trusted: lengths are checked against the file, walks are bounded.
//!
//! Source: docs/dumps.md.

mod containers;
mod cores;
mod error;
mod header;
mod opened;
mod processors;
mod stop;
mod triage;
mod vmware;
mod write;

use std::path::Path;
use std::sync::Arc;

use kd_protocol::MachineType;

use self::header::{Header, LEN_64};
use crate::memory::{Memory, Paging, PhysicalMemory, TranslatedMemory, VirtAddr};
use crate::physical::{self, FilePages, KeptPages, PageMap, PositionedFile, Processor, Run};
use crate::source::{ImageSource, KernelVersion, Source};

pub use error::DumpError;
pub use opened::Opened;
pub(crate) use write::LIVE_SYSTEM_DUMP;
pub use write::{DumpFacts, DumpForm, WriteError, Written, write};

/// A machine of less memory is none.
const LEAST_RAM: u64 = 1 << 20;
/// What a dump is worth whose kernel is not found: it opens all the same.
const ONLY_THE_HEADER: &str = "Only what its header says is known of this dump: .bugcheck, vertarget";

/// Opens a file by its content. `dtb` is the root of the kernel's page tables, for files that do not say it.
///
/// # Errors
/// [`DumpError`].
pub fn open(path: &Path, dtb: Option<u64>) -> Result<Opened, DumpError> {
    let failed = |source| DumpError::File { path: path.to_owned(), source };
    let file = Arc::new(PositionedFile::open(path).map_err(failed)?);
    let start = file.read_some(0, LEN_64).map_err(failed)?;
    match start.get(..8) {
        None => Err(DumpError::Truncated { what: "signature", has: file.len(), needs: 8 }),
        Some(b"PAGEDU64") => crash_dump(&file, &Header::parse(&start, true)?, dtb),
        Some(b"PAGEDUMP") => crash_dump(&file, &Header::parse(&start, false)?, dtb),
        Some(begins) if begins.starts_with(b"\x7fELF") => {
            let (map, processors) = cores::elf(&file)?;
            virtual_machine(&file, map, &processors, &processors, "core of a virtual machine", dtb)
        }
        Some(begins) if begins.starts_with(b"EMiL") => {
            let map = cores::lime(&file)?;
            virtual_machine(&file, map, &[], &[], "LiME image", dtb)
        }
        Some(begins) if vmware::is_state(begins) => vmware_machine(&file, None, dtb),
        Some(begins) => match refused(&start) {
            Some(reason) => Err(DumpError::Refused(reason.into())),
            None => memory_alone(&file, begins, dtb),
        },
    }
}

/// Opens a file that does not say what it is: a machine's memory, if a kernel is found in it.
fn memory_alone(file: &Arc<PositionedFile>, begins: &[u8], dtb: Option<u64>) -> Result<Opened, DumpError> {
    if let Some(state) = vmware::state_beside(file.path()) {
        return vmware_machine(&Arc::new(state), Some(file), dtb);
    }
    let unknown = || {
        match begins {
        [0, 0, 0, 0, 0, 0, 0, 0] => DumpError::Refused(
            "a dump whose writing did not begin: it begins with zeros; nor is it an image of raw memory, since no kernel is \
             found in it"
                .into(),
        ),
        // Two bytes only, which memory may begin with by chance.
        [b'M', b'Z', ..] => DumpError::Refused("a program, a driver or a library".into()),
        begins => DumpError::Unknown { begins: begins.escape_ascii().to_string() },
    }
    };
    if file.len() < LEAST_RAM || !file.len().is_multiple_of(0x1000) {
        return Err(unknown());
    }
    raw(file, dtb).map_err(|error| match error {
        DumpError::NoKernel(_) => unknown(),
        other => other,
    })
}

fn vmware_machine(
    state: &Arc<PositionedFile>,
    memory: Option<&Arc<PositionedFile>>,
    dtb: Option<u64>,
) -> Result<Opened, DumpError> {
    let vmware::State { memory, map, roots } = vmware::state(state, memory)?;
    virtual_machine(&memory, map, &roots, &[], "memory of a VMware machine", dtb)
}

/// Opens a file whose bytes are physical memory from address 0 on: nothing in it says so, so that its reader has to.
///
/// # Errors
/// [`DumpError`].
pub fn open_raw(path: &Path, dtb: Option<u64>) -> Result<Opened, DumpError> {
    let failed = |source| DumpError::File { path: path.to_owned(), source };
    let file = Arc::new(PositionedFile::open(path).map_err(failed)?);
    let start = file.read_some(0, LEN_64).map_err(failed)?;
    let says_what_it_is = |begins: &[u8]| {
        let known: [&[u8]; 4] = [b"PAGEDU64", b"PAGEDUMP", b"\x7fELF", b"EMiL"];
        known.iter().any(|it| begins.starts_with(it)) || vmware::is_state(begins)
    };
    if start.get(..8).is_some_and(says_what_it_is) {
        return Err(DumpError::Refused(
            "a file that says what it is, and no raw memory: -z FILE opens it".into(),
        ));
    }
    raw(&file, dtb)
}

/// What is to be said if the tables that somebody named lead to no kernel, and others were found.
fn other_tables(dtb: Option<u64>, memory: &dyn Memory) -> Option<String> {
    const FLAGS: u64 = 0xfff;
    let root = memory.page_tables().ok()?.root;
    let given = dtb.filter(|given| given & !FLAGS != root & !FLAGS)?;
    Some(format!(
        "--dtb {given:x} leads to no kernel: the page tables at {root:x} are used, which were found"
    ))
}

/// The file's bytes are those of RAM, in order; what lies where RAM has a hole is in it too, or is not.
fn raw(file: &Arc<PositionedFile>, dtb: Option<u64>) -> Result<Opened, DumpError> {
    const FOUR_GIB: u64 = 1 << 32;
    let len = file.len() & !0xfff;
    let map = |hole: u64| {
        let mut map = PageMap::default();
        map.push(Run { start: 0, len: len.min(hole), offset: 0 })?;
        map.push(Run { start: FOUR_GIB, len: len.saturating_sub(hole), offset: hole })?;
        Ok::<_, DumpError>(map)
    };
    let mut best: Option<(usize, Opened)> = None;
    let mut why = None;
    // The whole; without what firmware keeps below 4 GiB, as machines of QEMU and VMware are laid out.
    for hole in
        [u64::MAX, 0xc000_0000, 0x8000_0000].into_iter().filter(|hole| *hole == u64::MAX || len > *hole)
    {
        match virtual_machine(file, map(hole)?, &[], &[], "image of raw memory", dtb) {
            Ok(opened) => {
                let images = images(&opened);
                if best.as_ref().is_none_or(|(most, _)| images > *most) {
                    best = Some((images, opened));
                }
            }
            Err(error) => why = why.or(Some(error)),
        }
    }
    best.map(|(_, opened)| opened).ok_or_else(|| why.expect("there was one try at least"))
}

/// How many modules of its list have an image where the list says: with pages in the wrong places there are few.
fn images(opened: &Opened) -> usize {
    const MOST: usize = 1024;
    let Ok(version) = opened.source.version() else { return 0 };
    let memory = opened.source.memory();
    let word = |at: VirtAddr| {
        let mut value = [0; 8];
        memory.read_virtual(at, &mut value).ok()?;
        Some(VirtAddr(u64::from_le_bytes(value)))
    };
    let head = version.module_list;
    let next = |at: &VirtAddr| word(*at).filter(|next| *next != head);
    let entries = std::iter::successors(Some(head).filter(|head| !head.is_null()).and_then(word), next);
    let bases = entries.take(MOST).filter_map(|entry| word(entry.offset(0x30)));
    bases.filter(|base| physical::is_image(&*memory, *base)).count()
}

/// Why a file with this beginning is none of ours, if that is known.
fn refused(begins: &[u8]) -> Option<&'static str> {
    const DISK: &str = "a virtual machine's disk, which holds no memory: what Windows wrote is in it (Windows\\MEMORY.DMP), and --vm reads the \
         machine while it runs";
    const KNOWN: &[(&[u8], &str)] = &[
        (b"MDMP", "a process's minidump: it holds no kernel memory"),
        (b"HIBR", "a hibernation file: start the machine, and make a kernel dump"),
        (b"hibr", "a hibernation file: start the machine, and make a kernel dump"),
        (b"WAKE", "a hibernation file that was resumed from: it holds nothing any more"),
        (b"RSTR", "a hibernation file that was resumed from: it holds nothing any more"),
        (b"MSCF", "a cabinet: unpack the dump first (cabextract, expand)"),
        (b"QEVM", "a saved state of QEMU: make a core of it (virsh dump --memory-only, dump-guest-memory)"),
        (b"Libv", "a saved state of libvirt: make a core of it (virsh dump --memory-only)"),
        (b"makedump", "a compressed core of QEMU: make one without -z, -l, -s"),
        (b"KDUMP   ", "a compressed core of QEMU: make one without -z, -l, -s"),
        (b"PAGE\0\0\0\0", "a dump whose writing did not finish"),
        (b"\x1f\x8b\x08", "compressed with gzip: unpack it first (gzip -d)"),
        (b"PK\x03\x04", "a zip archive: unpack the dump first (unzip)"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack the dump first (7z x)"),
        (b"Rar!\x1a\x07", "a RAR archive: unpack the dump first (unrar x)"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first (zstd -d)"),
        (b"\xfd7zXZ\0", "compressed with xz: unpack it first (xz -d)"),
        (b"BZh", "compressed with bzip2: unpack it first (bzip2 -d)"),
        (b"QFI\xfb", DISK),
        (b"KDMV", DISK),
        (b"# Disk DescriptorFile", DISK),
        (b"vhdxfile", DISK),
        (b"conectix", DISK),
        (b"<<< Oracle VM VirtualBox Disk Image", DISK),
        (b"Microsoft C/C++ MSF 7.00", "a symbol file (PDB), which goes into the folder that -y names"),
        (b"EGAP", "a dump whose bytes are in another order: it was swapped word by word on its way"),
    ];
    KNOWN.iter().find(|(magic, _)| begins.starts_with(magic)).map(|(_, what)| *what)
}

fn crash_dump(file: &Arc<PositionedFile>, header: &Header, dtb: Option<u64>) -> Result<Opened, DumpError> {
    const TRIAGE: u32 = 4;
    if header.dump_type == TRIAGE {
        return triage::open(file, header);
    }
    let map = containers::pages(file, header)?;
    let what = format!("{}, {} pages", header.kind(), map.total() / 0x1000);
    let mut warnings = Vec::new();
    if header.lacks_pages() {
        warnings.push("The dump lacks pages: the page file was too small for it".to_owned());
    }
    if map.file_end() > file.len() {
        warnings.push(format!(
            "The dump is cut short: it has {:#x} bytes, its pages end at {:#x}. What is missing is said where it is missed",
            file.len(),
            map.file_end()
        ));
    }
    let pages: Arc<dyn PhysicalMemory> = Arc::new(KeptPages::new(FilePages { file: Arc::clone(file), map }));
    let root = dtb.unwrap_or(header.directory_table_base);
    let pagings: &[Paging] = match (header.machine, header.is_pae) {
        (MachineType::ARM64, _) => &[Paging::Arm64],
        (MachineType::AMD64, _) => &[Paging::Long4, Paging::Long5],
        // Writers differ about the flag; what the tables say decides.
        (_, true) => &[Paging::Pae, Paging::X86],
        (_, false) => &[Paging::X86, Paging::Pae],
    };
    let of_header = pagings.iter().find_map(|paging| physical::with_root(&pages, root, *paging));
    let wide = |address: VirtAddr| {
        if header.is_64_bit { address } else { VirtAddr(address.0 & 0xffff_ffff) }
    };
    let (block, list) = (wide(header.debugger_data), wide(header.module_list));
    let (memory, base) = match of_header {
        Some(memory) => {
            let base = kernel_base(&memory, block, list, header.is_64_bit);
            let base = base.or_else(|| physical::any_kernel(&memory).filter(|_| header.is_64_bit));
            (memory, base)
        }
        // A root of no use: whatever page of the dump is one.
        None => match physical::find(&pages, &[], dtb) {
            Ok(found) => {
                warnings.extend(other_tables(dtb, &found.memory));
                (found.memory, Some(found.version.base))
            }
            Err(why) => {
                warnings.push(format!("{ONLY_THE_HEADER}: no page tables of its kernel are in it ({why})"));
                (TranslatedMemory::new(pages, root, pagings[0]), Some(VirtAddr(0)))
            }
        },
    };
    if base.is_none() {
        warnings.push(format!(
            "{ONLY_THE_HEADER}: neither its debugger data block nor its list of modules can be read, and no image of a kernel \
             is in it"
        ));
    }
    let build = Some(header.build).filter(|build| *build != 0);
    let version = KernelVersion {
        major: header.major,
        build: build.or_else(|| physical::shared_build(&memory, header.is_64_bit)).unwrap_or(0),
        flags: 1 | if header.is_64_bit { KernelVersion::PTR64 } else { 0 },
        machine: header.machine,
        base: base.unwrap_or_default(),
        module_list: list,
        debugger_data_list: list_of(&memory, block, header.is_64_bit),
    };
    Ok(opened(file, memory, version, header, what, warnings))
}

fn opened(
    file: &PositionedFile,
    memory: impl Memory + 'static,
    version: KernelVersion,
    header: &Header,
    what: String,
    warnings: Vec<String>,
) -> Opened {
    let name = file.path().display().to_string();
    let context = header.context.clone();
    let processor = context.as_deref().and_then(|context| processors::of_context(&memory, header, context));
    let stop = stop::of_header(header, processor.unwrap_or(0));
    let source = ImageSource::with_noted(name, memory, version, stop, context, header.noted());
    Opened { source, what, warnings }
}

/// A machine whose kernel is found through `leads`; of `processors` all registers are known.
fn virtual_machine(
    file: &Arc<PositionedFile>,
    map: PageMap,
    leads: &[Processor],
    processors: &[Processor],
    kind: &str,
    dtb: Option<u64>,
) -> Result<Opened, DumpError> {
    let what = format!("{kind}, {} pages", map.total() / 0x1000);
    let mut warnings = Vec::new();
    if map.file_end() > file.len() {
        warnings.push(format!(
            "The file is cut short: it has {:#x} bytes, its memory ends at {:#x}. What is missing is said where it is missed",
            file.len(),
            map.file_end()
        ));
    }
    let pages: Arc<dyn PhysicalMemory> = Arc::new(KeptPages::new(FilePages { file: Arc::clone(file), map }));
    let found = physical::find(&pages, leads, dtb)?;
    warnings.extend(other_tables(dtb, &found.memory));
    let machine = found.version.machine;
    let contexts: Vec<_> = processors.iter().map(|cpu| cpu.context(machine)).collect();
    let context = contexts.first().cloned();
    let count = leads.len().max(1) as u32;
    let stop = match processors.first() {
        Some(cpu) => physical::exception(0x8000_0003, cpu.rip, (0, count)),
        None => physical::stood_somewhere(count),
    };
    let name = file.path().display().to_string();
    let source = ImageSource::new(name, found.memory, found.version, stop, context).with_contexts(contexts);
    Ok(Opened { source, what, warnings })
}

/// The kernel's base: what its debugger data say, else the first module's.
fn kernel_base(memory: &dyn Memory, block: VirtAddr, list: VirtAddr, is_64_bit: bool) -> Option<VirtAddr> {
    let word = |at: VirtAddr, len: usize| {
        let mut value = [0; 8];
        memory.read_virtual(at, &mut value[..len]).ok()?;
        Some(u64::from_le_bytes(value))
    };
    let width = if is_64_bit { 8 } else { 4 };
    let cut = |value: u64| VirtAddr(if is_64_bit { value } else { value & 0xffff_ffff });
    let of_block = (!block.is_null() && word(block.offset(0x10), 4) == Some(0x4742_444b))
        .then(|| word(block.offset(0x18), 8).map(cut))
        .flatten();
    let of_list = || {
        let first = cut(word(list, width)?);
        word(first.offset(if is_64_bit { 0x30 } else { 0x18 }), width).map(cut)
    };
    let is_kernels = |base: &VirtAddr| {
        let first = if is_64_bit { 0xffff_8000_0000_0000 } else { 0x8000_0000 };
        base.0 >= first && base.0.is_multiple_of(0x1000)
    };
    let candidates = [of_block, of_list()].map(|base| base.filter(is_kernels));
    let is_there = |base: &VirtAddr| physical::is_image(memory, *base);
    // Its first page may be absent; then its own word for it has to do.
    candidates.into_iter().flatten().find(is_there).or(candidates[0]).or(candidates[1])
}

/// The head of the list that `block` is in, which is what a kernel tells a live debugger.
fn list_of(memory: &dyn Memory, block: VirtAddr, is_64_bit: bool) -> VirtAddr {
    let width = if is_64_bit { 8 } else { 4 };
    let follow = |at: VirtAddr, len: usize| {
        let mut link = [0; 8];
        memory.read_virtual(at, &mut link[..len]).ok()?;
        let link = u64::from_le_bytes(link);
        Some(VirtAddr(if is_64_bit { link } else { link & 0xffff_ffff }))
    };
    if block.is_null() {
        return VirtAddr(0);
    }
    // The block's links are 64 bits wide on every kernel; the head's are as wide as its pointers.
    let head = follow(block, 8).filter(|head| follow(*head, width) == Some(block));
    head.unwrap_or_default()
}

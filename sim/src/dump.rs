//! A machine's memory as files: crash dumps as Windows writes them, a core as QEMU does, a LiME image.
//!
//! Pages that nobody wrote to hold zeros, and are left as holes of the file where the format has them.
//!
//! Source: `DUMP_HEADER64` of the Windows SDK's `mindumpdef.h`; the ELF specification; QEMU's notes.

mod triage;

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use kd_protocol::{PhysAddr, VirtAddr};

use super::physical::PAGE_SIZE;
use super::windows::Machine;

/// Kinds of files that a machine's memory can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// All of RAM, run after run: type 1.
    Full,
    /// The pages in use, by a bitmap: type 5.
    Active,
    /// The same, called a kernel dump: type 6.
    Kernel,
    /// The same, by ranges, as newer debuggers write them: type 0xA.
    Ranges,
    /// A small memory dump: the stack, the lists of drivers, a few blocks: type 4.
    Triage,
    /// An ELF core with QEMU's notes.
    Elf,
    /// A LiME image.
    Lime,
}

impl DumpKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Full, Self::Active, Self::Kernel, Self::Ranges, Self::Triage, Self::Elf, Self::Lime];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Active => "active",
            Self::Kernel => "kernel",
            Self::Ranges => "ranges",
            Self::Triage => "triage",
            Self::Elf => "elf",
            Self::Lime => "lime",
        }
    }

    const fn dump_type(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Active => 5,
            Self::Ranges => 10,
            Self::Triage => 4,
            Self::Kernel | Self::Elf | Self::Lime => 6,
        }
    }
}

/// Places in `_KSPECIAL_REGISTERS` of x64.
const CR0: usize = 0;
const IDTR_BASE: usize = 0x68;

/// Clocks in `_KUSER_SHARED_DATA`: {LowPart, High1Time, ..}.
const INTERRUPT_TIME: VirtAddr = VirtAddr(0xffff_f780_0000_0008);
const SYSTEM_TIME: VirtAddr = VirtAddr(0xffff_f780_0000_0014);

/// Writes `machine`'s memory to `path` as such a file.
///
/// # Errors
/// The file's.
pub fn write_dump(machine: &Machine, kind: DumpKind, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let writer = Writer { machine, pages: machine.pages_in_use() };
    match kind {
        DumpKind::Full => writer.full(&mut file),
        DumpKind::Active | DumpKind::Kernel => writer.bitmap(&mut file, kind),
        DumpKind::Ranges => writer.ranges(&mut file),
        DumpKind::Triage => file.write_all(&writer.triage()),
        DumpKind::Elf => writer.elf(&mut file),
        DumpKind::Lime => writer.lime(&mut file),
    }
}

struct Writer<'a> {
    machine: &'a Machine,
    /// Frames of pages in use, in order.
    pages: Vec<u64>,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Writer<'_> {
    fn frames(&self) -> u64 {
        self.machine.ram() / PAGE_SIZE
    }

    /// Runs of pages in use: first frame, count.
    fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for frame in &self.pages {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == *frame => *count += 1,
                _ => runs.push((*frame, 1)),
            }
        }
        runs
    }

    fn word(&self, at: VirtAddr) -> u64 {
        let mut value = [0; 8];
        self.machine.read_virtual(at, &mut value);
        u64::from_le_bytes(value)
    }

    /// Where the kernel has this variable.
    fn variable(&self, name: &str) -> VirtAddr {
        self.machine.address_of(name).expect("every build has it")
    }

    fn header(&self, dump_type: u32) -> Vec<u8> {
        let version = self.machine.version();
        let mut header: Vec<u8> = b"PAGE".iter().copied().cycle().take(0x2000).collect();
        put(&mut header, 0, b"PAGEDU64");
        put(&mut header, 8, &u32::from(version.major).to_le_bytes());
        put(&mut header, 0xc, &u32::from(version.minor).to_le_bytes());
        put(&mut header, 0x10, &self.machine.page_table_root().0.to_le_bytes());
        put(&mut header, 0x20, &version.ps_loaded_module_list.0.to_le_bytes());
        put(&mut header, 0x30, &u32::from(version.machine_type).to_le_bytes());
        put(&mut header, 0x34, &(self.machine.processors().len() as u32).to_le_bytes());
        let block = self.variable("KdDebuggerDataBlock");
        let bug_check = self.variable("KiBugCheckData");
        put(&mut header, 0x38, &(self.word(bug_check) as u32).to_le_bytes());
        for index in 0..4 {
            let parameter = self.word(bug_check.offset(8 + 8 * index as u64));
            put(&mut header, 0x40 + 8 * index, &parameter.to_le_bytes());
        }
        put(&mut header, 0x80, &block.0.to_le_bytes());
        header[0x88..0xf00].fill(0);
        put(&mut header, 0x88, &1_u32.to_le_bytes());
        put(&mut header, 0x90, &self.frames().to_le_bytes());
        put(&mut header, 0xa0, &self.frames().to_le_bytes());
        let context = &self.machine.processors()[0].context;
        put(&mut header, 0x348, context);
        // A context's MxCsr stands in it twice.
        let mxcsr: [u8; 4] = header[0x348 + 0x34..][..4].try_into().expect("four bytes");
        put(&mut header, 0x348 + 0x118, &mxcsr);
        header[0xf00..0xf98].fill(0);
        put(&mut header, 0xf00, &0x8000_0003_u32.to_le_bytes());
        put(&mut header, 0xf10, &context[0xf8..0x100]);
        put(&mut header, 0xf98, &dump_type.to_le_bytes());
        // SystemTime; Comment; SystemUpTime.
        put(&mut header, 0xfa8, &self.word(SYSTEM_TIME).to_le_bytes());
        header[0xfb0..0x1030].fill(0);
        put(&mut header, 0x1030, &self.word(INTERRUPT_TIME).to_le_bytes());
        // Attributes.
        put(&mut header, 0x1050, &[0; 4]);
        header
    }

    fn page(&self, frame: u64) -> [u8; PAGE_SIZE as usize] {
        let mut page = [0; PAGE_SIZE as usize];
        self.machine.read_physical(PhysAddr(frame * PAGE_SIZE), &mut page);
        page
    }

    fn write_pages(&self, file: &mut File, first: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(first))?;
        let mut out = io::BufWriter::new(file);
        self.pages.iter().try_for_each(|frame| out.write_all(&self.page(*frame)))?;
        out.flush()
    }

    fn full(&self, file: &mut File) -> io::Result<()> {
        let header = self.header(1);
        file.write_all(&header)?;
        let start = header.len() as u64;
        file.set_len(start + self.machine.ram())?;
        self.write_in_place(file, start)
    }

    /// Each page in use where RAM lies from `start` on, the others being holes of the file.
    fn write_in_place(&self, file: &mut File, start: u64) -> io::Result<()> {
        self.pages.iter().try_for_each(|frame| {
            file.seek(SeekFrom::Start(start + frame * PAGE_SIZE))?;
            file.write_all(&self.page(*frame))
        })
    }

    fn bitmap(&self, file: &mut File, kind: DumpKind) -> io::Result<()> {
        let header = self.header(kind.dump_type());
        let bits = self.frames().next_multiple_of(64);
        let first = (header.len() as u64 + 0x38 + bits / 8).next_multiple_of(PAGE_SIZE);
        let mut summary = vec![0; 0x38 + bits as usize / 8];
        put(&mut summary, 0, if kind == DumpKind::Kernel { b"SDMPDUMP" } else { b"FDMPDUMP" });
        put(&mut summary, 0x20, &first.to_le_bytes());
        put(&mut summary, 0x28, &(self.pages.len() as u64).to_le_bytes());
        put(&mut summary, 0x30, &bits.to_le_bytes());
        for frame in &self.pages {
            summary[0x38 + *frame as usize / 8] |= 1 << (frame % 8);
        }
        file.write_all(&header)?;
        file.write_all(&summary)?;
        self.write_pages(file, first)
    }

    fn ranges(&self, file: &mut File) -> io::Result<()> {
        let header = self.header(10);
        let runs = self.runs();
        let metadata = 0x20 + 16 * (runs.len() as u64 + 1);
        let first = 0x2040 + metadata - 0x20;
        let mut summary = vec![0; (first - 0x2000) as usize];
        put(&mut summary, 0, b"\x40\0\0\0RDMPDUMP");
        put(&mut summary, 0x10, &metadata.to_le_bytes());
        put(&mut summary, 0x18, &first.to_le_bytes());
        put(&mut summary, 0x20, &(runs.len() as u32).to_le_bytes());
        put(&mut summary, 0x28, &(self.pages.len() as u64).to_le_bytes());
        for (index, (frame, count)) in runs.iter().enumerate() {
            put(&mut summary, 0x30 + 16 * index, &frame.to_le_bytes());
            put(&mut summary, 0x38 + 16 * index, &count.to_le_bytes());
        }
        // What follows the last is whatever lay there.
        put(&mut summary, 0x30 + 16 * runs.len(), &[0xcd; 16]);
        file.write_all(&header)?;
        file.write_all(&summary)?;
        self.write_pages(file, first)
    }

    fn elf(&self, file: &mut File) -> io::Result<()> {
        const EHDR: usize = 0x40;
        const PHDR: usize = 0x38;
        const NOTE: usize = 0x1b8;
        let processors = self.machine.processors();
        let mut notes = Vec::new();
        for processor in processors {
            notes.extend([5_u32, NOTE as u32, 0].iter().flat_map(|it| it.to_le_bytes()));
            notes.extend(b"QEMU\0\0\0\0");
            let mut state = vec![0; NOTE];
            put(&mut state, 0, &1_u32.to_le_bytes());
            put(&mut state, 4, &(NOTE as u32).to_le_bytes());
            let context = &processor.context;
            // Rax rbx rcx rdx rsi rdi rsp rbp r8.. from a CONTEXT's rax rcx rdx rbx rsp rbp rsi rdi r8..
            let order = [0, 3, 1, 2, 6, 7, 4, 5].into_iter().chain(8..16);
            for (index, from) in order.enumerate() {
                put(&mut state, 8 + 8 * index, &context[0x78 + 8 * from..][..8]);
            }
            put(&mut state, 0x88, &context[0xf8..0x100]);
            put(&mut state, 0x90, &context[0x44..0x48]);
            for index in 0..6 {
                put(&mut state, 0x98 + 24 * index, &context[0x38 + 2 * index..][..2]);
            }
            put(&mut state, 0x98 + 24 * 9 + 16, &processor.special_registers[IDTR_BASE..][..8]);
            put(&mut state, 0x188, &processor.special_registers[CR0..][..8]);
            put(&mut state, 0x188 + 24, &self.machine.page_table_root().0.to_le_bytes());
            notes.extend(state);
        }
        let notes_at = EHDR + 2 * PHDR;
        // Not where a page begins, as QEMU's.
        let memory_at = notes_at + notes.len() + 8;
        let mut head = vec![0; memory_at];
        put(&mut head, 0, b"\x7fELF\x02\x01\x01");
        put(&mut head, 16, &4_u16.to_le_bytes());
        put(&mut head, 18, &62_u16.to_le_bytes());
        put(&mut head, 20, &1_u32.to_le_bytes());
        put(&mut head, 32, &(EHDR as u64).to_le_bytes());
        for (at, value) in [(52, EHDR), (54, PHDR), (56, 2)] {
            put(&mut head, at, &(value as u16).to_le_bytes());
        }
        let segment = |kind: u32, offset: usize, len: u64| {
            let mut segment = vec![0; PHDR];
            put(&mut segment, 0, &kind.to_le_bytes());
            put(&mut segment, 8, &(offset as u64).to_le_bytes());
            put(&mut segment, 32, &len.to_le_bytes());
            put(&mut segment, 40, &len.to_le_bytes());
            segment
        };
        put(&mut head, EHDR, &segment(4, notes_at, notes.len() as u64));
        put(&mut head, EHDR + PHDR, &segment(1, memory_at, self.machine.ram()));
        put(&mut head, notes_at, &notes);
        file.write_all(&head)?;
        file.set_len(memory_at as u64 + self.machine.ram())?;
        self.write_in_place(file, memory_at as u64)
    }

    fn lime(&self, file: &mut File) -> io::Result<()> {
        let mut out = io::BufWriter::new(file);
        for (first, count) in self.runs() {
            out.write_all(b"EMiL\x01\0\0\0")?;
            out.write_all(&(first * PAGE_SIZE).to_le_bytes())?;
            out.write_all(&((first + count) * PAGE_SIZE - 1).to_le_bytes())?;
            out.write_all(&[0; 8])?;
            (first..first + count).try_for_each(|frame| out.write_all(&self.page(frame)))?;
        }
        out.flush()
    }
}

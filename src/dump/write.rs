//! Crash dumps, written: the pages of a selection behind a header that other readers take too.
//!
//! ```text
//!  beside the file: pages, as they are read --> bitmap of those that were --> header, PAGEDU64 last --> renamed to the file
//! ```
//! Whoever looks at the file's name finds a whole dump, or none.
//!
//! Source: docs/dumps.md 2, 3 and 8.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kd_protocol::MachineType;

use crate::memory::{PhysAddr, PhysicalMemory, ReadCause, VirtAddr};

use super::header::{CONTEXT_ARM64, CONTEXT_X64, CONTEXT_X86, FORM_32, FORM_64, Form};

const PAGE: u64 = 0x1000;
/// Bytes that are read at a time where that is cheap.
const PIECE: u64 = 1 << 20;
/// No machine has more frames: 1 PiB; where frames have 32 bits, 64 GiB, which is what PAE reaches.
const MAX_FRAMES: u64 = 1 << 38;
const MAX_FRAMES_32: u64 = 1 << 24;
/// The bug check code in a dump whose machine did not crash.
pub(crate) const LIVE_SYSTEM_DUMP: u32 = 0x161;
/// Where an x64 `CONTEXT` has MxCsr twice.
const MXCSR: [usize; 2] = [0x34, 0x118];

/// What a dump's header says of the machine.
#[derive(Clone, Debug, Default)]
pub struct DumpFacts {
    /// Low byte 0xf of a free build, 0xc of a checked one.
    pub major: u16,
    /// The build.
    pub build: u16,
    /// `IMAGE_FILE_HEADER.Machine`.
    pub machine: MachineType,
    /// The root of the page tables.
    pub root: u64,
    /// `PsLoadedModuleList`.
    pub module_list: VirtAddr,
    /// `PsActiveProcessHead`.
    pub process_list: VirtAddr,
    /// The debugger data block.
    pub debugger_data: VirtAddr,
    /// How many.
    pub processors: u32,
    /// Code and parameters, if it has bug-checked.
    pub bug_check: Option<[u64; 5]>,
    /// When it was stopped: units of 100 ns since 1601; 0 if that is not known.
    pub system_time: u64,
    /// How long it had been running, in the same units.
    pub up_time: u64,
    /// The `CONTEXT` of the processor that stopped, as the machine has it.
    pub context: Option<Vec<u8>>,
    /// Of a 32-bit machine: its tables have entries of 64 bits.
    pub is_pae: bool,
}

impl DumpFacts {
    /// Where the fields of such a machine's header are.
    const fn form(&self) -> &'static Form {
        if self.machine.pointer_size() == 4 { &FORM_32 } else { &FORM_64 }
    }
}

/// Which container is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpForm {
    /// All of RAM: runs (type 1) where the header has room for them, else a bitmap (type 5).
    Full,
    /// A selection of the kernel's pages, by a bitmap: type 6.
    Kernel,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// `DumpType`.
    pub dump_type: u32,
    /// Pages in the file.
    pub pages: u64,
    /// Pages of the selection that could not be read: absent, or zeros where the container has no gaps.
    pub unread: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why a dump was not written. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is one of that name.
    #[error("{} is there already; /o overwrites it", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading was ended.
    #[error("reading was broken off: {0}")]
    Read(ReadCause),
    /// Nothing was selected, or what no machine has.
    #[error("{0:#x} is no frame of a machine's")]
    Frame(u64),
}

/// Writes the frames in `runs` (first, count; in order, none twice) to `path`; `advance` is told pages done, of how many.
///
/// # Errors
/// [`WriteError`].
pub fn write(
    path: &Path,
    overwrites: bool,
    facts: &DumpFacts,
    form: DumpForm,
    runs: &[(u64, u64)],
    physical: &dyn PhysicalMemory,
    advance: &mut dyn FnMut(u64, u64),
) -> Result<Written, WriteError> {
    let failed = |source| WriteError::File { path: path.to_owned(), source };
    if !overwrites && path.exists() {
        return Err(WriteError::Exists(path.to_owned()));
    }
    let end = runs.last().map_or(0, |(first, count)| first.saturating_add(*count));
    let form_of_header = facts.form();
    if end == 0 || end > if form_of_header.is_64_bit { MAX_FRAMES } else { MAX_FRAMES_32 } {
        return Err(WriteError::Frame(end));
    }
    // A device or a pipe would be replaced, and a dump is not written in its order.
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        return Err(failed(io::Error::other("it is no ordinary file")));
    }
    // A link stays one.
    let of_link = path.canonicalize().ok().filter(|_| path.is_symlink());
    let place = of_link.as_deref().unwrap_or(path);
    let folder = place.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Only its owner may read it: memory holds secrets.
    let mut file = tempfile::Builder::new().prefix(".dump").tempfile_in(folder).map_err(failed)?;
    let is_by_runs = form == DumpForm::Full && runs.len() <= form_of_header.whole_runs;
    let mut pages = Pages::new(end, is_by_runs, form_of_header.len as u64);
    pages.copy(file.as_file_mut(), runs, physical, advance).map_err(|error| match error {
        Copying::Read(cause) => WriteError::Read(cause),
        Copying::File(source) => failed(source),
    })?;
    let dump_type = match (form, is_by_runs) {
        (DumpForm::Full, true) => 1,
        (DumpForm::Full, false) => 5,
        (DumpForm::Kernel, _) => 6,
    };
    let header = header(facts, dump_type, &pages, if is_by_runs { runs } else { &[] });
    let bytes = pages.finish(file.as_file_mut(), header, form).map_err(failed)?;
    if overwrites {
        file.persist(place).map_err(|error| failed(error.error))?;
    } else {
        file.persist_noclobber(place).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists(path.to_owned()),
            _ => failed(error.error),
        })?;
    }
    Ok(Written { dump_type, pages: pages.count, unread: pages.unread, bytes })
}

enum Copying {
    Read(ReadCause),
    File(io::Error),
}

impl From<io::Error> for Copying {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// Pages as they are copied.
struct Pages {
    is_by_runs: bool,
    /// A multiple of 64: readers take it in words.
    bits: u64,
    bitmap: Vec<u8>,
    /// Where the first page is in the file.
    first: u64,
    count: u64,
    unread: u64,
}

impl Pages {
    fn new(end: u64, is_by_runs: bool, header: u64) -> Self {
        let bits = end.next_multiple_of(64);
        let bitmap = if is_by_runs { Vec::new() } else { vec![0; (bits / 8) as usize] };
        let behind_map = header + 0x38 + bits / 8;
        let first = if is_by_runs { header } else { behind_map.next_multiple_of(PAGE) };
        Self { is_by_runs, bits, bitmap, first, count: 0, unread: 0 }
    }

    fn copy(
        &mut self,
        file: &mut File,
        runs: &[(u64, u64)],
        physical: &dyn PhysicalMemory,
        advance: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Copying> {
        let total: u64 = runs.iter().map(|(_, count)| count).sum();
        let mut piece = vec![0; PIECE as usize];
        let mut done = 0;
        for (first, count) in runs {
            let mut frame = *first;
            let end = first + count;
            while frame < end {
                let len = ((end - frame) * PAGE).min(PIECE) as usize;
                let (got, cause) = match physical.read(PhysAddr(frame * PAGE), &mut piece[..len]) {
                    Ok(()) => (len, None),
                    Err((got, cause)) => (got, Some(cause)),
                };
                let whole = got as u64 / PAGE;
                for page in piece.chunks_exact(PAGE as usize).take(whole as usize) {
                    self.put(file, frame, Some(page))?;
                    frame += 1;
                }
                match cause {
                    Some(cause) if cause.is_of_link() => return Err(Copying::Read(cause)),
                    Some(_) => {
                        self.put(file, frame, None)?;
                        frame += 1;
                        done += 1;
                    }
                    None => {}
                }
                done += whole;
                advance(done, total);
            }
        }
        Ok(())
    }

    /// The next page, or that it could not be read.
    fn put(&mut self, file: &mut File, frame: u64, page: Option<&[u8]>) -> io::Result<()> {
        if page.is_none() {
            self.unread += 1;
            if !self.is_by_runs {
                return Ok(());
            }
        }
        if !self.is_by_runs {
            self.bitmap[frame as usize / 8] |= 1 << (frame % 8);
        }
        // Zeros are left as a hole of the file.
        if let Some(page) = page.filter(|page| page.iter().any(|byte| *byte != 0)) {
            file.seek(SeekFrom::Start(self.first + self.count * PAGE))?;
            file.write_all(page)?;
        }
        self.count += 1;
        Ok(())
    }

    /// Writes what stands before the pages, its first bytes last; the file's length.
    fn finish(&self, file: &mut File, header: Vec<u8>, form: DumpForm) -> io::Result<u64> {
        let len = self.first + self.count * PAGE;
        file.set_len(len)?;
        file.seek(SeekFrom::Start(8))?;
        file.write_all(&header[8..])?;
        if !self.is_by_runs {
            let mut summary = [0; 0x38];
            let signature = if form == DumpForm::Kernel { b"SDMPDUMP" } else { b"FDMPDUMP" };
            summary[..8].copy_from_slice(signature);
            for (at, value) in [(0x20, self.first), (0x28, self.count), (0x30, self.bits)] {
                summary[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            file.write_all(&summary)?;
            file.write_all(&self.bitmap)?;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header[..8])?;
        file.sync_all()?;
        Ok(len)
    }
}

/// `DUMP_HEADER64` or `DUMP_HEADER32`, filled with `PAGE` where nothing is known, as a kernel fills it.
fn header(facts: &DumpFacts, dump_type: u32, pages: &Pages, runs: &[(u64, u64)]) -> Vec<u8> {
    let form = facts.form();
    let mut header: Vec<u8> = b"PAGE".iter().copied().cycle().take(form.len).collect();
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let width = if form.is_64_bit { 8 } else { 4 };
    let word = |value: u64| value.to_le_bytes()[..width].to_vec();
    put(0, if form.is_64_bit { b"PAGEDU64" } else { b"PAGEDUMP" });
    put(8, &u32::from(facts.major).to_le_bytes());
    put(0xc, &u32::from(facts.build).to_le_bytes());
    // Its low bits are no address, but for those of a table of four entries; readers differ in what they make of them.
    let flags = if facts.is_pae && !form.is_64_bit { 0x1f } else { 0xfff };
    put(0x10, &word(facts.root & !flags));
    put(form.module_list, &word(facts.module_list.0));
    put(form.process_list, &word(facts.process_list.0));
    put(form.machine, &u32::from(facts.machine.0).to_le_bytes());
    put(form.processors, &facts.processors.max(1).to_le_bytes());
    let [code, parameters @ ..] =
        facts.bug_check.unwrap_or_else(|| [u64::from(LIVE_SYSTEM_DUMP), 0, 0, 0, 0]);
    put(form.bug_check, &(code as u32).to_le_bytes());
    for (index, parameter) in parameters.iter().enumerate() {
        put(form.parameters + width * index, &word(*parameter));
    }
    if !form.is_64_bit {
        // PaeEnabled, KdSecondaryVersion.
        put(0x5c, &[u8::from(facts.is_pae), 0]);
    }
    put(form.debugger_data, &word(facts.debugger_data.0));
    // PhysicalMemoryBlock, ContextRecord, Exception.
    put(form.runs, &vec![0; form.context - form.runs]);
    put(form.context, &vec![0; form.context_room]);
    put(form.exception, &vec![0; form.exception_len]);
    let listed = if runs.is_empty() { &[(0, pages.bits)][..] } else { runs };
    put(form.runs, &(listed.len() as u32).to_le_bytes());
    put(form.runs + width, &word(listed.iter().map(|(_, count)| count).sum::<u64>()));
    for (index, (first, count)) in listed.iter().enumerate() {
        let at = form.runs + 2 * width * (index + 1);
        put(at, &word(*first));
        put(at + width, &word(*count));
    }
    // Bytes of a CONTEXT, where its program counter is.
    let (len, counter) = match facts.machine {
        MachineType::ARM64 => (CONTEXT_ARM64, 0x108),
        MachineType::I386 => (CONTEXT_X86, 0xb8),
        _ => (CONTEXT_X64, 0xf8),
    };
    if let Some(context) = facts.context.as_ref().filter(|it| it.len() >= len) {
        let mut context = context[..len].to_vec();
        if facts.machine == MachineType::AMD64 {
            let mxcsr = context[MXCSR[0]..MXCSR[0] + 4].to_vec();
            context[MXCSR[1]..MXCSR[1] + 4].copy_from_slice(&mxcsr);
        }
        put(form.context, &context);
        put(form.exception_address(), &context[counter..counter + width]);
    }
    put(form.exception, &0x8000_0003_u32.to_le_bytes());
    put(form.dump_type, &dump_type.to_le_bytes());
    let required = pages.first + pages.count * PAGE;
    put(form.required_space, &required.to_le_bytes());
    put(form.comment, &[0; 128]);
    put(form.comment, b"verikd");
    put(form.system_time, &facts.system_time.to_le_bytes());
    put(form.up_time, &facts.up_time.to_le_bytes());
    // MiniDumpFields, SecondaryDataState.
    put(form.mini_dump_fields, &[0; 8]);
    put(form.writer_status, &[0; 4]);
    // Attributes, BootId; before them in the longer form what was written last.
    put(form.attributes, &[0; 8]);
    if form.is_64_bit {
        put(0x104c, &[0; 4]);
    }
    header
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::super::containers;
    use super::super::header::{Header, LEN_64};
    use super::*;
    use crate::physical::{FilePages, PositionedFile};

    /// Each page filled with its frame's number; those in `holes` cannot be read, for this reason.
    struct Ram {
        holes: Range<u64>,
        cause: ReadCause,
    }

    impl PhysicalMemory for Ram {
        fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
            for (index, page) in buf.chunks_exact_mut(PAGE as usize).enumerate() {
                let frame = address.0 / PAGE + index as u64;
                if self.holes.contains(&frame) {
                    return Err((index * PAGE as usize, self.cause.clone()));
                }
                page.fill(frame as u8);
            }
            Ok(())
        }

        fn ranges(&self) -> Vec<Range<u64>> {
            Vec::new()
        }

        fn end(&self) -> PhysAddr {
            PhysAddr(u64::MAX)
        }
    }

    fn facts() -> DumpFacts {
        DumpFacts { build: 7601, machine: MachineType::AMD64, root: 0x18_7002, ..DumpFacts::default() }
    }

    fn round(form: DumpForm, runs: &[(u64, u64)], holes: Range<u64>) -> Written {
        round_of(&facts(), form, runs, holes)
    }

    /// Writes, reads back, and compares each frame up to behind the last.
    fn round_of(facts: &DumpFacts, form: DumpForm, runs: &[(u64, u64)], holes: Range<u64>) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dmp");
        let ram = Ram { holes: holes.clone(), cause: ReadCause::NotKept };
        let mut told = (0, 0);
        let written =
            write(&path, false, facts, form, runs, &ram, &mut |done, total| told = (done, total)).unwrap();
        assert_eq!(told.0, told.1, "{runs:?}");
        let file = Arc::new(PositionedFile::open(&path).unwrap());
        assert_eq!(file.len(), written.bytes);
        let is_64_bit = facts.machine != MachineType::I386;
        let header = Header::parse(&file.read_some(0, LEN_64).unwrap(), is_64_bit).unwrap();
        let root = if facts.is_pae { facts.root & !0x1f } else { facts.root & !0xfff };
        assert_eq!((header.dump_type, header.directory_table_base), (written.dump_type, root));
        assert_eq!((header.machine, header.build, header.is_pae), (facts.machine, facts.build, facts.is_pae));
        assert_eq!(header.context, facts.context);
        let map = containers::pages(&file, &header).unwrap();
        let pages = FilePages { file, map };
        let is_selected =
            |frame: u64| runs.iter().any(|(first, count)| (*first..first + count).contains(&frame));
        let end = runs.last().map_or(0, |(first, count)| first + count);
        for frame in (0..end + 70).filter(|frame| frame % 61 == 0 || *frame < 0x200 || *frame + 70 > end) {
            let mut page = [0xee; PAGE as usize];
            let read = pages.read(PhysAddr(frame * PAGE), &mut page);
            match (is_selected(frame), holes.contains(&frame)) {
                (true, false) => assert_eq!((read, page[0]), (Ok(()), frame as u8), "{frame:#x}"),
                (true, true) if written.dump_type == 1 => assert_eq!((read, page[0]), (Ok(()), 0)),
                _ => assert_eq!(read, Err((0, ReadCause::NotKept)), "{frame:#x}"),
            }
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing but the dump is left");
        written
    }

    #[test]
    fn what_was_written_is_read_back_page_by_page() {
        for end in [1, 63, 64, 65, 128, 0x1_0001] {
            let all = [(0, end)];
            let last = [(end - 1, 1)];
            let some: &[(u64, u64)] = if end > 63 { &[(1, 3), (40, 20)] } else { &[(0, 1)] };
            for runs in [&all[..], &last, some] {
                for form in [DumpForm::Full, DumpForm::Kernel] {
                    let written = round(form, runs, 0..0);
                    let count: u64 = runs.iter().map(|(_, count)| count).sum();
                    assert_eq!((written.pages, written.unread), (count, 0), "{runs:?}");
                }
            }
        }
    }

    /// Each machine's header is of its own form.
    #[test]
    fn dumps_of_arm64_and_x86_machines_are_read_back() {
        let context = |len: usize, first: u8| Some((first..=255).cycle().take(len).collect());
        let arm64 = DumpFacts { machine: MachineType::ARM64, context: context(0x390, 1), ..facts() };
        let x86 = DumpFacts { machine: MachineType::I386, context: context(0x2cc, 2), ..facts() };
        let pae = DumpFacts { is_pae: true, root: 0x18_7023, ..x86.clone() };
        let some: &[(u64, u64)] = &[(1, 3), (40, 20)];
        let many: Vec<_> = (0..100).map(|index| (index * 3, 2)).collect();
        for (facts, most) in [(&arm64, 42), (&x86, 86), (&pae, 86)] {
            for form in [DumpForm::Full, DumpForm::Kernel] {
                assert_eq!(round_of(facts, form, some, 0..0).pages, 23);
                assert_eq!(round_of(facts, form, some, 41..43).unread, 2);
            }
            assert_eq!(round_of(facts, DumpForm::Full, &many[..most], 0..0).dump_type, 1);
            assert_eq!(round_of(facts, DumpForm::Full, &many[..most + 1], 0..0).dump_type, 5);
        }
    }

    #[test]
    fn a_machine_with_many_pieces_of_ram_is_written_by_a_bitmap() {
        let runs: Vec<_> = (0..100).map(|index| (index * 3, 2)).collect();
        assert_eq!(round(DumpForm::Full, &runs[..42], 0..0).dump_type, 1);
        assert_eq!(round(DumpForm::Full, &runs, 0..0).dump_type, 5);
    }

    #[test]
    fn pages_that_cannot_be_read_are_counted_and_told_apart() {
        let written = round(DumpForm::Kernel, &[(0, 1000)], 300..310);
        assert_eq!((written.pages, written.unread), (990, 10));
        let written = round(DumpForm::Full, &[(0, 1000)], 300..310);
        assert_eq!((written.pages, written.unread), (1000, 10));
    }

    #[test]
    fn a_dump_that_is_not_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dmp");
        let written = |cause, overwrites| {
            let ram = Ram { holes: 300..301, cause };
            write(&path, overwrites, &facts(), DumpForm::Kernel, &[(0, 1000)], &ram, &mut |_, _| {})
        };
        assert!(matches!(
            written(ReadCause::Interrupted, false),
            Err(WriteError::Read(ReadCause::Interrupted))
        ));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(written(ReadCause::NotKept, false), Err(WriteError::Exists(_))));
        assert!(matches!(written(ReadCause::Interrupted, true), Err(WriteError::Read(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        written(ReadCause::NotKept, true).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(b"PAGEDU64"));
        let device = folder.path().join("device");
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        #[cfg(not(unix))]
        std::fs::create_dir(&device).unwrap();
        let ram = Ram { holes: 0..0, cause: ReadCause::NotKept };
        let refused = write(&device, true, &facts(), DumpForm::Full, &[(0, 1)], &ram, &mut |_, _| {});
        assert!(refused.unwrap_err().to_string().contains("it is no ordinary file"));
        let nowhere = Path::new("/nowhere/at/all.dmp");
        let ram = Ram { holes: 0..0, cause: ReadCause::NotKept };
        let refused = write(nowhere, false, &facts(), DumpForm::Full, &[(0, 1)], &ram, &mut |_, _| {});
        assert!(matches!(refused, Err(WriteError::File { .. })), "{refused:?}");
    }
}

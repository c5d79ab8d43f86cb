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

use super::header::LEN_64;

const PAGE: u64 = 0x1000;
/// Bytes that are read at a time where that is cheap.
const PIECE: u64 = 1 << 20;
/// Runs that fit in the header's own block.
const MAX_RUNS: usize = 42;
/// No machine has more frames: 1 PiB.
const MAX_FRAMES: u64 = 1 << 38;
/// The bug check code in a dump whose machine did not crash.
pub(crate) const LIVE_SYSTEM_DUMP: u32 = 0x161;
/// An x64 `CONTEXT`, and where it has MxCsr twice.
const CONTEXT: usize = 0x4d0;
const MXCSR: [usize; 2] = [0x34, 0x118];
const RIP: usize = 0xf8;

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
    /// The x64 `CONTEXT` of the processor that stopped.
    pub context: Option<Vec<u8>>,
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
    if end == 0 || end > MAX_FRAMES {
        return Err(WriteError::Frame(end));
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Only its owner may read it: memory holds secrets.
    let mut file = tempfile::Builder::new().prefix(".dump").tempfile_in(folder).map_err(failed)?;
    let is_by_runs = form == DumpForm::Full && runs.len() <= MAX_RUNS;
    let mut pages = Pages::new(end, is_by_runs);
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
        file.persist(path).map_err(|error| failed(error.error))?;
    } else {
        file.persist_noclobber(path).map_err(|error| match error.error.kind() {
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
    fn new(end: u64, is_by_runs: bool) -> Self {
        let bits = end.next_multiple_of(64);
        let bitmap = if is_by_runs { Vec::new() } else { vec![0; (bits / 8) as usize] };
        let behind_map = LEN_64 as u64 + 0x38 + bits / 8;
        let first = if is_by_runs { LEN_64 as u64 } else { behind_map.next_multiple_of(PAGE) };
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

/// `DUMP_HEADER64`, filled with `PAGE` where nothing is known, as a kernel fills it.
fn header(facts: &DumpFacts, dump_type: u32, pages: &Pages, runs: &[(u64, u64)]) -> Vec<u8> {
    let mut header: Vec<u8> = b"PAGE".iter().copied().cycle().take(LEN_64).collect();
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PAGEDU64");
    put(8, &u32::from(facts.major).to_le_bytes());
    put(0xc, &u32::from(facts.build).to_le_bytes());
    // Its low bits are no address; readers differ in what they make of them.
    put(0x10, &(facts.root & !0xfff).to_le_bytes());
    put(0x20, &facts.module_list.0.to_le_bytes());
    put(0x28, &facts.process_list.0.to_le_bytes());
    put(0x30, &u32::from(facts.machine.0).to_le_bytes());
    put(0x34, &facts.processors.max(1).to_le_bytes());
    let [code, parameters @ ..] =
        facts.bug_check.unwrap_or_else(|| [u64::from(LIVE_SYSTEM_DUMP), 0, 0, 0, 0]);
    put(0x38, &(code as u32).to_le_bytes());
    for (index, parameter) in parameters.iter().enumerate() {
        put(0x40 + 8 * index, &parameter.to_le_bytes());
    }
    put(0x80, &facts.debugger_data.0.to_le_bytes());
    // PhysicalMemoryBlock, ContextRecord, Exception.
    put(0x88, &[0; 0xf98 - 0x88]);
    let listed = if runs.is_empty() { &[(0, pages.bits)][..] } else { runs };
    put(0x88, &(listed.len() as u32).to_le_bytes());
    put(0x90, &listed.iter().map(|(_, count)| count).sum::<u64>().to_le_bytes());
    for (index, (first, count)) in listed.iter().enumerate() {
        put(0x98 + 16 * index, &first.to_le_bytes());
        put(0xa0 + 16 * index, &count.to_le_bytes());
    }
    if let Some(context) = facts.context.as_ref().filter(|it| it.len() >= CONTEXT) {
        let mut context = context[..CONTEXT].to_vec();
        let mxcsr = context[MXCSR[0]..MXCSR[0] + 4].to_vec();
        context[MXCSR[1]..MXCSR[1] + 4].copy_from_slice(&mxcsr);
        put(0x348, &context);
        put(0xf10, &context[RIP..RIP + 8]);
    }
    put(0xf00, &0x8000_0003_u32.to_le_bytes());
    put(0xf98, &dump_type.to_le_bytes());
    let required = pages.first + pages.count * PAGE;
    put(0xfa0, &required.to_le_bytes());
    // Comment.
    put(0xfa8, &facts.system_time.to_le_bytes());
    put(0xfb0, &[0; 128]);
    put(0xfb0, b"verikd");
    // SystemUpTime, MiniDumpFields, SecondaryDataState; WriterStatus, and what follows to BootId.
    put(0x1030, &[0; 0x10]);
    put(0x1030, &facts.up_time.to_le_bytes());
    put(0x1048, &[0; 0x10]);
    header
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::super::containers;
    use super::super::header::Header;
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

    /// Writes, reads back, and compares each frame up to behind the last.
    fn round(form: DumpForm, runs: &[(u64, u64)], holes: Range<u64>) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dmp");
        let ram = Ram { holes: holes.clone(), cause: ReadCause::NotKept };
        let mut told = (0, 0);
        let written =
            write(&path, false, &facts(), form, runs, &ram, &mut |done, total| told = (done, total)).unwrap();
        assert_eq!(told.0, told.1, "{runs:?}");
        let file = Arc::new(PositionedFile::open(&path).unwrap());
        assert_eq!(file.len(), written.bytes);
        let header = Header::parse(&file.read_some(0, LEN_64).unwrap(), true).unwrap();
        assert_eq!((header.dump_type, header.directory_table_base), (written.dump_type, 0x18_7000));
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
        let nowhere = Path::new("/nowhere/at/all.dmp");
        let ram = Ram { holes: 0..0, cause: ReadCause::NotKept };
        let refused = write(nowhere, false, &facts(), DumpForm::Full, &[(0, 1)], &ram, &mut |_, _| {});
        assert!(matches!(refused, Err(WriteError::File { .. })), "{refused:?}");
    }
}

//! Which pages a file holds, and where: an index of runs, however large the file.

use std::ops::Range;
use std::sync::Arc;

use super::file::PositionedFile;
use crate::memory::{PhysAddr, PhysicalMemory, ReadCause};

/// The most runs that are kept: a bitmap of a fragmented machine has many, a hostile one as many as it has bits.
const MAX_RUNS: usize = 1 << 20;
const PAGE: u64 = 0x1000;
/// No machine has more physical address space.
const MAX_ADDRESS: u64 = 1 << 52;

/// Bytes at physical addresses that lie one after another in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) offset: u64,
}

/// Runs in order of their addresses, none over another.
#[derive(Debug, Default)]
pub(crate) struct PageMap {
    runs: Vec<Run>,
    /// What the writer has put, again and again, where it could not read a page.
    filler: Option<[u8; 4]>,
}

/// What is wrong with a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRun {
    #[error("a run of {len:#x} bytes at physical address {start:#x} lies outside of any machine's memory")]
    Outside { start: u64, len: u64 },
    #[error("the run at physical address {0:#x} lies over another")]
    Overlaps(u64),
    #[error("it lists more than {MAX_RUNS} runs")]
    TooMany,
}

impl PageMap {
    /// One whose writer has filled the pages that it could not read with this.
    pub(crate) fn filled_with(filler: [u8; 4]) -> Self {
        Self { filler: Some(filler), ..Self::default() }
    }

    /// Adds a run behind the others, merged with the last where it continues it in address and file.
    pub(crate) fn push(&mut self, run: Run) -> Result<(), BadRun> {
        if run.len == 0 {
            return Ok(());
        }
        if run.start.checked_add(run.len).is_none_or(|end| end > MAX_ADDRESS)
            || run.offset.checked_add(run.len).is_none()
        {
            return Err(BadRun::Outside { start: run.start, len: run.len });
        }
        if let Some(last) = self.runs.last_mut()
            && last.start + last.len == run.start
            && last.offset + last.len == run.offset
        {
            last.len += run.len;
            return Ok(());
        }
        if self.runs.len() == MAX_RUNS {
            return Err(BadRun::TooMany);
        }
        self.runs.push(run);
        Ok(())
    }

    /// The same runs, in order.
    pub(crate) fn sorted(mut self) -> Result<Self, BadRun> {
        self.runs.sort_by_key(|run| run.start);
        for pair in self.runs.windows(2) {
            if pair[0].start + pair[0].len > pair[1].start {
                return Err(BadRun::Overlaps(pair[1].start));
            }
        }
        Ok(self)
    }

    /// Bytes that it lists.
    pub(crate) fn total(&self) -> u64 {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// The end of the last run in the file.
    pub(crate) fn file_end(&self) -> u64 {
        self.runs.iter().map(|run| run.offset + run.len).max().unwrap_or(0)
    }

    fn find(&self, address: u64) -> Option<(Run, u64)> {
        let after = self.runs.partition_point(|run| run.start <= address);
        let run = *self.runs.get(after.checked_sub(1)?)?;
        let into = address - run.start;
        (into < run.len).then_some((run, into))
    }
}

/// Physical memory in a file.
#[derive(Debug)]
pub(crate) struct FilePages {
    pub(crate) file: Arc<PositionedFile>,
    pub(crate) map: PageMap,
}

impl FilePages {
    /// How many bytes of `bytes`, which were read at `offset`, `into` a run, lie before a page of nothing but the writer's
    /// filler.
    fn before_filler(&self, offset: u64, into: u64, bytes: &[u8]) -> Option<usize> {
        let filler = self.map.filler?;
        let is_filler = |from: u64, bytes: &[u8]| {
            bytes.iter().zip(from % 4..).all(|(byte, at)| *byte == filler[at as usize % 4])
        };
        let mut done = 0;
        while done < bytes.len() {
            let at = into + done as u64;
            let len = ((PAGE - at % PAGE) as usize).min(bytes.len() - done);
            // A few bytes may be so by chance: all of the page is not.
            if is_filler(at, &bytes[done..done + len])
                && let Ok(page) = self.file.read_some(offset + done as u64 - at % PAGE, PAGE as usize)
                && is_filler(0, &page)
            {
                return Some(done);
            }
            done += len;
        }
        None
    }
}

impl PhysicalMemory for FilePages {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        let mut got = 0;
        while got < buf.len() {
            let at = address.0.checked_add(got as u64).ok_or((got, ReadCause::NotKept))?;
            let (run, into) = self.map.find(at).ok_or((got, ReadCause::NotKept))?;
            let len = usize::try_from(run.len - into).unwrap_or(usize::MAX).min(buf.len() - got);
            let offset = run.offset + into;
            let there =
                usize::try_from(self.file.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
            self.file
                .read_exact_at(offset, &mut buf[got..got + there])
                .map_err(|error| (got, ReadCause::File(error.to_string().into())))?;
            if let Some(len) = self.before_filler(offset, into, &buf[got..got + there]) {
                return Err((got + len, ReadCause::NotKept));
            }
            got += there;
            if there < len {
                return Err((got, ReadCause::CutShort));
            }
        }
        Ok(())
    }

    /// What a header lists beyond the file's end is none.
    fn ranges(&self) -> Vec<Range<u64>> {
        let there = |run: &Run| run.len.min(self.file.len().saturating_sub(run.offset));
        self.map.runs.iter().map(|run| run.start..run.start + there(run)).collect()
    }

    fn next_written(&self, address: PhysAddr) -> PhysAddr {
        let Some((run, into)) = self.map.find(address.0) else { return address };
        let written = self.file.next_written(run.offset + into);
        let into = written.map_or(run.len, |at| (at - run.offset).min(run.len));
        PhysAddr(run.start + into)
    }

    fn end(&self) -> PhysAddr {
        PhysAddr(self.map.runs.last().map_or(0, |run| run.start + run.len))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn run(start: u64, len: u64, offset: u64) -> Run {
        Run { start, len, offset }
    }

    #[test]
    fn runs_that_continue_each_other_are_one_and_none_lies_over_another() {
        let mut map = PageMap::default();
        for piece in [run(0, 0x1000, 0x2000), run(0x1000, 0x1000, 0x3000), run(0x5000, 0x1000, 0x4000)] {
            map.push(piece).unwrap();
        }
        assert_eq!(map.runs, [run(0, 0x2000, 0x2000), run(0x5000, 0x1000, 0x4000)]);
        assert_eq!((map.total(), map.file_end()), (0x3000, 0x5000));
        map.push(run(0x1000, 0x1000, 0x9000)).unwrap();
        assert_eq!(map.sorted().unwrap_err(), BadRun::Overlaps(0x1000));
        assert!(PageMap::default().push(run(u64::MAX - 0xfff, 0x2000, 0)).is_err());
    }

    /// WinDbg fills what it could not read; a word of it in a page is data.
    #[test]
    fn a_page_of_nothing_but_filler_is_none() {
        let filler = 0xdead_feed_u32.to_le_bytes();
        let mut bytes: Vec<u8> = [filler.repeat(0x800), vec![7; 0x1000]].concat();
        bytes[0x1ffc] = 0;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[filler.repeat(0x400), bytes].concat()).unwrap();
        let file = Arc::new(PositionedFile::open(file.path()).unwrap());
        let mut map = PageMap::filled_with(filler);
        map.push(run(0x5000, 0x4000, 0)).unwrap();
        let pages = FilePages { file, map };
        let read = |at, len| pages.read(PhysAddr(at), &mut vec![0; len]);
        assert_eq!(read(0x5000, 0x1000), Err((0, ReadCause::NotKept)));
        assert_eq!(read(0x5ffd, 2), Err((0, ReadCause::NotKept)));
        assert_eq!(read(0x7000, 8), Ok(()), "words of it in a page that has more");
        assert_eq!(read(0x8000, 0x1000), Ok(()));
        let mut map = PageMap::default();
        map.push(run(0x5000, 0x1000, 0)).unwrap();
        let pages = FilePages { file: Arc::clone(&pages.file), map };
        assert_eq!(pages.read(PhysAddr(0x5000), &mut [0; 8]), Ok(()), "another writer's data");
    }

    /// What nobody wrote to is not looked through.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_hole_of_the_file_is_passed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &[7; 0x1000], 8 << 30).unwrap();
        let mut map = PageMap::default();
        map.push(run(0x1000, 64 << 30, 0)).unwrap();
        let pages = FilePages { file: Arc::new(PositionedFile::open(file.path()).unwrap()), map };
        let next = |at| pages.next_written(PhysAddr(at)).0;
        assert_eq!((next(0), next(1 << 52)), (0, 1 << 52), "outside of what is kept");
        let written = (8 << 30) + 0x1000;
        assert!((written - (1 << 20)..=written).contains(&next(0x1000)), "{:#x}", next(0x1000));
        assert_eq!((next(written), next(written + 0xfff)), (written, written + 0xfff));
        assert_eq!(next(written + (1 << 20)), (64 << 30) + 0x1000);
    }

    #[test]
    fn a_page_that_is_absent_and_one_behind_the_files_end_are_told_apart() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 0x1800]).unwrap();
        let mut map = PageMap::default();
        map.push(run(0x1000, 0x3000, 0)).unwrap();
        let file = Arc::new(PositionedFile::open(file.path()).unwrap());
        let pages = FilePages { file, map };
        let mut buf = [0; 0x10];
        assert_eq!(pages.read(PhysAddr(0x27f8), &mut buf), Err((8, ReadCause::CutShort)));
        assert_eq!(pages.read(PhysAddr(0xff8), &mut buf), Err((0, ReadCause::NotKept)));
        assert_eq!(pages.read(PhysAddr(0x3ff8), &mut buf), Err((0, ReadCause::CutShort)));
        assert_eq!(pages.read(PhysAddr(0x1000), &mut buf), Ok(()));
        assert_eq!((buf, pages.end()), ([7; 0x10], PhysAddr(0x4000)));
    }
}

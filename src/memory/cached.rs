//! A cache over another memory, valid for one stop: nothing is read twice, and nothing is read small.
//!
//! ```text
//!   read 8 bytes  ->  one request carries 1096: ask for as many, up to the page's end, and keep them
//!   page: | known | ? | known ...      a hole is a page that could not be read: it is not asked for again
//! ```
//! A stopped target does not change by itself, so what was read once is true until the next stop. Searches are kept too.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::amounts::searches;
use super::error::{Address, ReadCause, ReadError};
use super::need::{Asked, Need};
use super::standing::{Memory, StopId};
use super::translate::PageTables;
use kd_protocol::{PhysAddr, VirtAddr};

/// Bytes of a page: the unit in which memory is there or not.
const PAGE: u64 = 0x1000;
const PAGE_LEN: usize = PAGE as usize;
/// Pages kept, 16 MiB: a whole pool log of 8 MiB fits, one of 424 MiB passes through.
const MAX_PAGES: usize = 4096;
/// Pages whose addresses are kept, 4 GiB of them.
const MAX_TOUCHED: usize = 1 << 20;
/// Searches kept.
const MAX_SEARCHES: usize = 0x1_0000;

/// Another memory, asked once for each byte of a stop.
#[derive(Debug)]
pub struct CachedMemory<M> {
    inner: M,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    stop: Option<StopId>,
    pages: HashMap<u64, Page>,
    searches: HashMap<(u64, u64, Vec<u8>), Option<VirtAddr>>,
    hits: u64,
    /// Over all stops.
    asked: Asked,
    /// Pages that were read in any stop.
    touched: BTreeSet<u64>,
}

#[derive(Debug)]
enum Page {
    Hole,
    Mapped { bytes: Box<[u8; PAGE_LEN]>, known: Known },
}

/// Which bytes of a page are known: disjoint ranges in order, neighbours merged.
#[derive(Debug, Default)]
struct Known(Vec<Range<usize>>);

impl Known {
    fn add(&mut self, new: Range<usize>) {
        let (mut start, mut end) = (new.start, new.end);
        self.0.retain(|old| {
            let is_apart = old.end < start || end < old.start;
            if !is_apart {
                (start, end) = (start.min(old.start), end.max(old.end));
            }
            is_apart
        });
        let at = self.0.partition_point(|old| old.start < start);
        self.0.insert(at, start..end);
    }

    /// Where the known bytes that begin at `at` end; `at` if it is not known.
    fn end_from(&self, at: usize) -> usize {
        self.0.iter().find(|range| range.contains(&at)).map_or(at, |range| range.end)
    }
}

impl<M: Memory> CachedMemory<M> {
    /// An empty cache over `inner`.
    pub fn new(inner: M) -> Self {
        Self { inner, lines: Mutex::default() }
    }

    /// Reads and searches that were answered without asking.
    pub fn hits(&self) -> u64 {
        self.lock().hits
    }

    /// What was needed since the last call.
    pub fn take_need(&self) -> Need {
        let asked = std::mem::take(&mut self.lock().asked);
        asked.need(self.inner.request_len() as u64)
    }

    /// Forgets everything: somebody wrote to the target.
    pub fn forget(&self) {
        let mut lines = self.lock();
        lines.pages.clear();
        lines.searches.clear();
    }

    /// The memory behind it.
    pub const fn inner(&self) -> &M {
        &self.inner
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of `stop`; nothing once a later one has begun.
    fn lines(&self, stop: StopId) -> Option<MutexGuard<'_, Lines>> {
        let mut lines = self.lock();
        if lines.stop < Some(stop) {
            let (hits, asked) = (lines.hits, std::mem::take(&mut lines.asked));
            let touched = std::mem::take(&mut lines.touched);
            *lines = Lines { stop: Some(stop), hits, asked, touched, ..Lines::default() };
        }
        (lines.stop == Some(stop)).then_some(lines)
    }

    /// The same for what was read since `stop` was looked at: it is of that stop only if that is still the present one.
    fn lines_after_reading(&self, stop: StopId) -> Option<MutexGuard<'_, Lines>> {
        if self.inner.stop() == stop { self.lines(stop) } else { None }
    }

    /// Reads `wanted` bytes at `at` and what comes for free behind them, and keeps it all.
    fn fetch(&self, stop: StopId, at: u64, wanted: u64) -> Result<(), ReadCause> {
        // The last page of all ends where no number goes.
        let page_end = (at + wanted).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let free = (self.inner.request_len() as u64).max(wanted).min(page_end - at);
        let len = self.lines(stop).ok_or(ReadCause::TargetRunning)?.unknown_len(at, free);
        let mut buf = vec![0; len as usize];
        let result = self.inner.read_virtual(VirtAddr(at), &mut buf);
        let got = match &result {
            Ok(()) => buf.len(),
            Err(error) => error.got.min(buf.len()),
        };
        let Some(mut lines) = self.lines_after_reading(stop) else {
            return Err(result.err().map_or(ReadCause::TargetRunning, |error| error.cause));
        };
        lines.store(at, &buf[..got]);
        lines.asked.read(at, got as u64);
        if (got as u64) < wanted {
            lines.asked.meet_hole();
        }
        match result {
            Err(error) if error.cause == ReadCause::NotMapped => {
                let hole = (at + got as u64) / PAGE;
                lines.make_room();
                lines.pages.insert(hole, Page::Hole);
                // Only the bytes that were asked for matter to the caller; it meets the hole if they reach it.
                if got as u64 >= wanted { Ok(()) } else { Err(error.cause) }
            }
            Err(error) if (error.got as u64) < wanted => Err(error.cause),
            _ => Ok(()),
        }
    }
}

impl Lines {
    fn store(&mut self, at: u64, mut bytes: &[u8]) {
        let mut at = at;
        while !bytes.is_empty() {
            let from = (at % PAGE) as usize;
            let len = bytes.len().min(PAGE_LEN - from);
            self.make_room();
            self.touch(at, 1);
            let page = self.pages.entry(at / PAGE).or_insert(Page::Hole);
            if matches!(page, Page::Hole) {
                *page = Page::Mapped { bytes: Box::new([0; PAGE_LEN]), known: Known::default() };
            }
            if let Page::Mapped { bytes: kept, known } = page {
                kept[from..from + len].copy_from_slice(&bytes[..len]);
                known.add(from..from + len);
            }
            at += len as u64;
            bytes = &bytes[len..];
        }
    }

    /// Notes that these bytes were read.
    fn touch(&mut self, at: u64, len: u64) {
        let last = at.saturating_add(len.saturating_sub(1)) / PAGE;
        for page in at / PAGE..=last {
            if self.touched.len() >= MAX_TOUCHED {
                return;
            }
            self.touched.insert(page);
        }
    }

    /// What passes through a full cache pushes everything out: a walk through more than it holds has no favourites.
    fn make_room(&mut self) {
        if self.pages.len() >= MAX_PAGES {
            self.pages.clear();
        }
    }

    /// Copies known bytes from `at` on; how many, and whether a hole follows.
    fn copy(&self, at: u64, buf: &mut [u8]) -> (usize, bool) {
        let mut copied = 0;
        while copied < buf.len() {
            let here = at.wrapping_add(copied as u64);
            let from = (here % PAGE) as usize;
            match self.pages.get(&(here / PAGE)) {
                Some(Page::Hole) => return (copied, true),
                Some(Page::Mapped { bytes, known }) => {
                    let len = (known.end_from(from) - from).min(buf.len() - copied);
                    if len == 0 {
                        return (copied, false);
                    }
                    buf[copied..copied + len].copy_from_slice(&bytes[from..from + len]);
                    copied += len;
                }
                None => return (copied, false),
            }
        }
        (copied, false)
    }

    /// Bytes from `at` on, up to `most`, before the next byte that is known or a known hole.
    fn unknown_len(&self, at: u64, most: u64) -> u64 {
        let mut len = 0;
        while len < most {
            let here = at + len;
            let from = (here % PAGE) as usize;
            let to_page_end = PAGE - from as u64;
            match self.pages.get(&(here / PAGE)) {
                None => len += to_page_end,
                Some(Page::Hole) => break,
                Some(Page::Mapped { known, .. }) => match known.0.iter().find(|range| range.end > from) {
                    Some(next) => return (len + (next.start.saturating_sub(from)) as u64).min(most),
                    None => len += to_page_end,
                },
            }
        }
        len.min(most)
    }
}

impl<M: Memory> Memory for CachedMemory<M> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let fail =
            |wanted, got, cause| Err(ReadError { address: Address::Virtual(address), wanted, got, cause });
        if address.0.checked_add(buf.len() as u64).is_none() {
            return fail(buf.len(), 0, ReadCause::NotMapped);
        }
        let stop = self.inner.stop();
        self.lock().asked.ask(address.0, buf.len() as u64);
        let mut got = 0;
        let mut has_asked = false;
        loop {
            let at = address.0 + got as u64;
            let Some(mut lines) = self.lines(stop) else {
                return fail(buf.len(), got, ReadCause::TargetRunning);
            };
            let (copied, is_hole) = lines.copy(at, &mut buf[got..]);
            got += copied;
            if got == buf.len() || is_hole {
                lines.hits += u64::from(!has_asked);
                drop(lines);
                return if is_hole { fail(buf.len(), got, ReadCause::NotMapped) } else { Ok(()) };
            }
            let at = address.0 + got as u64;
            let wanted = lines.unknown_len(at, (buf.len() - got) as u64);
            drop(lines);
            has_asked = true;
            if let Err(cause) = self.fetch(stop, at, wanted) {
                if let Some(lines) = self.lines(stop) {
                    got += lines.copy(at, &mut buf[got..]).0;
                }
                return fail(buf.len(), got, cause);
            }
        }
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let key = (range.start.0, range.end.0, pattern.to_vec());
        let stop = self.inner.stop();
        let gone = || ReadError {
            address: Address::Virtual(range.start),
            wanted: usize::try_from(range.end.since(range.start)).unwrap_or(usize::MAX),
            got: 0,
            cause: ReadCause::TargetRunning,
        };
        let mut lines = self.lines(stop).ok_or_else(gone)?;
        if let Some(known) = lines.searches.get(&key).copied() {
            lines.hits += 1;
            return Ok(known);
        }
        drop(lines);
        let found = self.inner.search_virtual(range.clone(), pattern)?;
        let mut lines = self.lines_after_reading(stop).ok_or_else(gone)?;
        if lines.searches.len() >= MAX_SEARCHES {
            lines.searches.clear();
        }
        lines.searches.insert(key, found);
        let searched = found.unwrap_or(range.end).since(range.start);
        if self.inner.request_len() == 0 {
            // It was read here; elsewhere the target looks through it by itself.
            lines.touch(range.start.0, searched.saturating_add(pattern.len() as u64));
        }
        lines.asked.search(searches(searched).max(1));
        Ok(found)
    }

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        self.inner.page_tables()
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        self.inner.ram()
    }

    fn touched(&self) -> Vec<VirtAddr> {
        self.lock().touched.iter().map(|page| VirtAddr(page * PAGE)).collect()
    }

    fn request_len(&self) -> usize {
        self.inner.request_len()
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::{CountingMemory, ImageMemory};
    use super::*;

    /// A memory whose requests carry 1096 bytes.
    struct Wide(ImageMemory, StopId);

    impl Memory for Wide {
        fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
            self.0.read_virtual(address, buf)
        }

        fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
            self.0.read_physical(address, buf)
        }

        fn search_virtual(
            &self,
            range: Range<VirtAddr>,
            pattern: &[u8],
        ) -> Result<Option<VirtAddr>, ReadError> {
            self.0.search_virtual(range, pattern)
        }

        fn request_len(&self) -> usize {
            1096
        }

        fn stop(&self) -> StopId {
            self.1
        }
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
    }

    fn cache(stop: u64) -> CachedMemory<CountingMemory<Wide>> {
        let mut image = ImageMemory::new();
        image.map(VirtAddr(0x1_0000), pattern(0x3000));
        CachedMemory::new(CountingMemory::new(Wide(image, StopId(stop))))
    }

    fn read(cache: &impl Memory, at: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut buf = vec![0; len];
        cache.read_virtual(VirtAddr(at), &mut buf).map(|()| buf)
    }

    #[test]
    fn a_small_read_brings_what_comes_for_free() {
        let cache = cache(1);
        assert_eq!(read(&cache, 0x1_0010, 8).unwrap(), pattern(0x3000)[0x10..0x18]);
        assert_eq!(read(&cache, 0x1_0018, 1088).unwrap(), pattern(0x3000)[0x18..0x18 + 1088]);
        assert_eq!((cache.inner().reads(), cache.inner().bytes()), (1, 1096));
        assert_eq!(cache.hits(), 1);
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let cache = cache(1);
        read(&cache, 0x1_1000, 0x1000).unwrap();
        cache.inner().reset();
        assert_eq!(read(&cache, 0x1_0000, 0x3000).unwrap(), pattern(0x3000));
        assert_eq!((cache.inner().reads(), cache.inner().bytes()), (2, 0x2000));
    }

    #[test]
    fn a_hole_is_asked_for_once_and_costs_only_itself() {
        let cache = cache(1);
        for _ in 0..3 {
            let error = read(&cache, 0x1_2ff0, 0x20).unwrap_err();
            assert_eq!((error.got, error.cause), (0x10, ReadCause::NotMapped));
        }
        assert_eq!(cache.inner().reads(), 1);
        assert!(read(&cache, u64::MAX - 4, 8).is_err(), "the end of the address space is no panic");
    }

    #[test]
    fn searches_are_remembered_and_writing_forgets() {
        let cache = cache(1);
        let find = || {
            cache
                .search_virtual(VirtAddr(0x1_0000)..VirtAddr(0x1_3000), &pattern(0x3000)[0x20..0x28])
                .unwrap()
        };
        assert_eq!((find(), find()), (Some(VirtAddr(0x1_0020)), Some(VirtAddr(0x1_0020))));
        assert_eq!(cache.inner().searches(), 1);
        read(&cache, 0x1_0000, 8).unwrap();
        cache.forget();
        read(&cache, 0x1_0000, 8).unwrap();
        assert_eq!(cache.inner().reads(), 2);
    }

    #[test]
    fn whatever_is_read_in_whatever_order_equals_the_memory() {
        let cache = cache(1);
        let mut at = 12_345_usize;
        for _ in 0..2_000 {
            at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345) % 0x3000;
            let len = (at * 31 % 700).min(0x3000 - at);
            assert_eq!(read(&cache, 0x1_0000 + at as u64, len).unwrap(), pattern(0x3000)[at..at + len]);
        }
        assert!(cache.inner().bytes() <= 0x3000, "no byte is asked for twice");
    }

    /// A memory that is let run, and stopped again, while the first read is on its way.
    struct Restless(ImageMemory, AtomicU64);

    impl Memory for Restless {
        fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
            let read = self.0.read_virtual(address, buf);
            if self.1.fetch_max(2, Ordering::Relaxed) == 1 {
                buf.fill(0xaa);
            }
            read
        }

        fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
            self.0.read_physical(address, buf)
        }

        fn search_virtual(&self, _: Range<VirtAddr>, _: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
            let is_first = self.1.fetch_max(2, Ordering::Relaxed) == 1;
            Ok(is_first.then_some(VirtAddr(0x1000)))
        }

        fn stop(&self) -> StopId {
            StopId(self.1.load(Ordering::Relaxed))
        }
    }

    fn restless() -> CachedMemory<Restless> {
        let mut image = ImageMemory::new();
        image.map(VirtAddr(0x1000), vec![7; 0x1000]);
        CachedMemory::new(Restless(image, AtomicU64::new(1)))
    }

    #[test]
    fn bytes_that_came_while_a_stop_ended_are_of_neither() {
        let cache = restless();
        let error = read(&cache, 0x1000, 8).unwrap_err();
        assert_eq!((error.got, error.cause), (0, ReadCause::TargetRunning));
        assert_eq!(read(&cache, 0x1000, 8).unwrap(), [7; 8]);
        let cache = restless();
        let search = || cache.search_virtual(VirtAddr(0)..VirtAddr(0x2000), b"needle");
        assert_eq!(search().unwrap_err().cause, ReadCause::TargetRunning);
        assert_eq!(search().unwrap(), None);
    }
}

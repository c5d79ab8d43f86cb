//! Sparse physical memory: RAM from address 0, of which only pages that were written take room.
//!
//! What a machine starts with may be more than anyone wants to keep: a log of hundreds of mebibytes. Such pages have a
//! source that says what is in them whenever they are read.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use kd_protocol::PhysAddr;

/// Bytes in a page.
pub(crate) const PAGE_SIZE: u64 = 0x1000;

/// Says what pages hold that nobody wrote to; always the same.
pub(crate) trait PageSource: fmt::Debug + Send + Sync {
    /// Fills a page of zeros; `number` counts from the first that has this source.
    fn fill(&self, number: u64, page: &mut [u8; PAGE_SIZE as usize]);
}

/// RAM of a machine. A page that nobody wrote to holds zeros, or what its source says.
#[derive(Clone, Debug)]
pub(crate) struct PhysicalMemory {
    pages: HashMap<u64, Box<[u8; PAGE_SIZE as usize]>>,
    size: u64,
    sources: Vec<(Range<u64>, Arc<dyn PageSource>)>,
}

impl PhysicalMemory {
    /// RAM from address 0 to `size`, a multiple of the page size.
    pub(crate) fn new(size: u64) -> Self {
        debug_assert!(size.is_multiple_of(PAGE_SIZE));
        Self { pages: HashMap::new(), size, sources: Vec::new() }
    }

    /// Lets `source` say what so many pages hold, as long as nobody writes to them.
    pub(crate) fn fill_from(&mut self, first_page: u64, pages: u64, source: Arc<dyn PageSource>) {
        self.sources.push((first_page..first_page + pages, source));
    }

    /// Bytes of RAM.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that it takes room for: pages that were written.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_SIZE
    }

    /// Frames of pages that hold something, in order: written ones, and those with a source.
    pub(crate) fn frames_in_use(&self) -> Vec<u64> {
        let sourced = self.sources.iter().flat_map(|(pages, _)| pages.clone());
        let mut frames: Vec<u64> = self.pages.keys().copied().chain(sourced).collect();
        frames.sort_unstable();
        frames.dedup();
        frames
    }

    /// Copies bytes from `address` on; returns how many there are before the end of RAM.
    pub(crate) fn read(&self, address: PhysAddr, buf: &mut [u8]) -> usize {
        let count = self.available(address, buf.len());
        for (at, chunk) in chunks(address, count) {
            let out = &mut buf[chunk];
            match self.pages.get(&(at / PAGE_SIZE)) {
                Some(page) => out.copy_from_slice(&page[in_page(at)..][..out.len()]),
                None => match unwritten(&self.sources, at / PAGE_SIZE) {
                    Some(page) => out.copy_from_slice(&page[in_page(at)..][..out.len()]),
                    None => out.fill(0),
                },
            }
        }
        count
    }

    /// Overwrites bytes from `address` on; returns how many there were before the end of RAM.
    pub(crate) fn write(&mut self, address: PhysAddr, bytes: &[u8]) -> usize {
        let count = self.available(address, bytes.len());
        for (at, chunk) in chunks(address, count) {
            let bytes = &bytes[chunk];
            let number = at / PAGE_SIZE;
            let page = self.pages.entry(number).or_insert_with(|| {
                unwritten(&self.sources, number).unwrap_or_else(|| Box::new([0; PAGE_SIZE as usize]))
            });
            page[in_page(at)..][..bytes.len()].copy_from_slice(bytes);
        }
        count
    }

    /// A little-endian quadword; 0 behind the end of RAM.
    pub(crate) fn read_u64(&self, address: PhysAddr) -> u64 {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn available(&self, address: PhysAddr, wanted: usize) -> usize {
        let left = self.size.saturating_sub(address.0);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }
}

/// What a page holds that nobody wrote to; `None` for zeros.
fn unwritten(
    sources: &[(Range<u64>, Arc<dyn PageSource>)],
    number: u64,
) -> Option<Box<[u8; PAGE_SIZE as usize]>> {
    let (pages, source) = sources.iter().find(|(pages, _)| pages.contains(&number))?;
    let mut page = Box::new([0; PAGE_SIZE as usize]);
    source.fill(number - pages.start, &mut page);
    Some(page)
}

/// The parts of `address..address + count` that lie in one page each: their address, and their place in the buffer.
fn chunks(address: PhysAddr, count: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = address.offset(done as u64).0;
        let start = done;
        done = count.min(start + (PAGE_SIZE as usize - in_page(at)));
        (start < count).then_some((at, start..done))
    })
}

const fn in_page(address: u64) -> usize {
    (address % PAGE_SIZE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwritten_ram_is_zeros_and_takes_no_room() {
        let memory = PhysicalMemory::new(0x8000_0000);
        let mut buf = [0xff; 0x3000];
        assert_eq!(memory.read(PhysAddr(0x7000_0800), &mut buf), 0x3000);
        assert!(buf.iter().all(|byte| *byte == 0) && memory.pages.is_empty());
    }

    #[derive(Debug)]
    struct Numbers;

    impl PageSource for Numbers {
        fn fill(&self, number: u64, page: &mut [u8; PAGE_SIZE as usize]) {
            page.fill(number.to_le_bytes()[0]);
        }
    }

    #[test]
    fn a_source_says_what_is_in_pages_that_nobody_wrote_to() {
        let mut memory = PhysicalMemory::new(0x8000_0000);
        memory.fill_from(0x100, 0x1000, Arc::new(Numbers));
        let mut buf = [0xff; 4];
        assert_eq!(memory.read(PhysAddr(0x10_2ffe), &mut buf), 4);
        assert!(buf == [2, 2, 3, 3] && memory.pages.is_empty());
        memory.write(PhysAddr(0x10_2fff), &[9]);
        memory.read(PhysAddr(0x10_2ffe), &mut buf);
        assert!(buf == [2, 9, 3, 3] && memory.pages.len() == 1, "the rest of a written page stays");
        memory.read(PhysAddr(0x10_0000 - 2), &mut buf);
        assert_eq!(buf, [0; 4], "zeros before the first page, whose number is 0");
    }

    #[test]
    fn a_write_across_pages_reads_back_and_stops_at_the_end_of_ram() {
        let mut memory = PhysicalMemory::new(0x3000);
        let bytes: Vec<u8> = (0..0x1800_u32).map(|number| number.to_le_bytes()[0]).collect();
        assert_eq!(memory.write(PhysAddr(0xc00), &bytes), 0x1800);
        let mut buf = vec![0; 0x1800];
        assert_eq!(memory.read(PhysAddr(0xc00), &mut buf), 0x1800);
        assert_eq!(buf, bytes);
        assert_eq!(memory.write(PhysAddr(0x2ffc), &bytes), 4);
        assert_eq!(memory.read(PhysAddr(0x2ff0), &mut buf), 0x10);
        assert_eq!(memory.read(PhysAddr(0x3000), &mut buf), 0);
    }
}

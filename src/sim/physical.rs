//! Sparse physical memory: RAM from address 0, of which only pages that were written take room.

use std::collections::HashMap;

use kd_protocol::PhysAddr;

/// Bytes in a page.
pub(crate) const PAGE_SIZE: u64 = 0x1000;

/// RAM of a machine. A page that nobody wrote to holds zeros.
#[derive(Clone, Debug)]
pub(crate) struct PhysicalMemory {
    pages: HashMap<u64, Box<[u8; PAGE_SIZE as usize]>>,
    size: u64,
}

impl PhysicalMemory {
    /// RAM from address 0 to `size`, a multiple of the page size.
    pub(crate) fn new(size: u64) -> Self {
        debug_assert!(size.is_multiple_of(PAGE_SIZE));
        Self { pages: HashMap::new(), size }
    }

    /// Bytes of RAM.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Copies bytes from `address` on; returns how many there are before the end of RAM.
    pub(crate) fn read(&self, address: PhysAddr, buf: &mut [u8]) -> usize {
        let count = self.available(address, buf.len());
        for (at, chunk) in chunks(address, count) {
            let out = &mut buf[chunk];
            match self.pages.get(&(at / PAGE_SIZE)) {
                Some(page) => out.copy_from_slice(&page[in_page(at)..][..out.len()]),
                None => out.fill(0),
            }
        }
        count
    }

    /// Overwrites bytes from `address` on; returns how many there were before the end of RAM.
    pub(crate) fn write(&mut self, address: PhysAddr, bytes: &[u8]) -> usize {
        let count = self.available(address, bytes.len());
        for (at, chunk) in chunks(address, count) {
            let bytes = &bytes[chunk];
            let page = self.pages.entry(at / PAGE_SIZE);
            let page = page.or_insert_with(|| Box::new([0; PAGE_SIZE as usize]));
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

/// The parts of `address..address + count` that lie in one page each: their address, and their place in the buffer.
fn chunks(address: PhysAddr, count: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
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

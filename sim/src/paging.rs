//! x64 page tables: four levels, written into physical memory and walked there. Those of a 32-bit machine with PAE are their
//! lower three, with four entries at the top.
//!
//! ```text
//!  bits 47..39      38..30      29..21      20..12     11..0
//!      PML4 ------> PDPT -----> PD -------> PT ------> byte
//!   CR3             or 1 GiB    or 2 MiB    4 KiB
//!                   CR3 with PAE
//! ```
//! Source: AMD64 Architecture Programmer's Manual, volume 2, sections 5.2.3 (PAE paging) and 5.3 (long-mode page translation).

use std::ops::Range;
use std::sync::Arc;

use kd_protocol::{PhysAddr, VirtAddr};

use super::physical::{PAGE_SIZE, PageSource, PhysicalMemory};

/// Virtual memory of one machine: its RAM, and the page tables at `root`.
#[derive(Clone, Debug)]
pub(crate) struct VirtualMemory {
    pub(crate) physical: PhysicalMemory,
    root: PhysAddr,
    /// First page that was not handed out.
    next_page: u64,
    /// The lowest bit of an address that chooses an entry, level by level from the top one.
    levels: &'static [u32],
}

/// Levels of a 64-bit machine.
const LONG_MODE: &[u32] = &[39, 30, 21, 12];
/// Levels of a 32-bit machine with PAE.
const PAE: &[u32] = &[30, 21, 12];
/// The most bytes that are searched at a time.
const MAX_SEARCH_PIECE: u64 = 0x20_0000;

/// What a mapped page may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read and execute.
    Execute,
    /// Read and write.
    Write,
    /// Read.
    Read,
}

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// To this byte; `left` bytes from it on are in the same page.
    Mapped { at: PhysAddr, left: u64 },
    /// Nowhere, and neither do the `left - 1` bytes behind it.
    Hole { left: u64 },
}

/// A machine has no more RAM to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bytes of a page that an entry of the third level maps.
const LARGE_PAGE_SIZE: u64 = 0x20_0000;
/// Bits 51..12: the page that an entry leads to.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

impl VirtualMemory {
    /// Empty page tables in `ram` bytes of RAM. Pages below `first_page` are not handed out, as a PC's firmware keeps some.
    pub(crate) fn new(ram: u64, first_page: u64) -> Self {
        let root = PhysAddr(first_page * PAGE_SIZE);
        Self { physical: PhysicalMemory::new(ram), root, next_page: first_page + 1, levels: LONG_MODE }
    }

    /// The same of a 32-bit machine with PAE: of an address, the lower half counts.
    pub(crate) fn pae(ram: u64, first_page: u64) -> Self {
        Self { levels: PAE, ..Self::new(ram, first_page) }
    }

    /// Physical address of the top table: what CR3 holds.
    pub(crate) const fn root(&self) -> PhysAddr {
        self.root
    }

    /// Frames of the pages that are in use, zeros or not, in order: tables, and what they map.
    pub(crate) fn frames_in_use(&self) -> Vec<u64> {
        let handed_out = self.root.0 / PAGE_SIZE..self.next_page;
        let mut frames = self.physical.frames_in_use();
        frames.extend(handed_out);
        frames.sort_unstable();
        frames.dedup();
        frames
    }

    /// Pages of RAM that are not handed out.
    pub(crate) const fn free_pages(&self) -> u64 {
        (self.physical.size() / PAGE_SIZE).saturating_sub(self.next_page)
    }

    /// Maps every page of `range` that is not mapped, each to a page of its own that holds zeros.
    pub(crate) fn map(&mut self, range: Range<VirtAddr>, access: Access) -> Result<(), OutOfMemory> {
        let mut page = range.start.0 & !(PAGE_SIZE - 1);
        while page < range.end.0 {
            if let Translation::Hole { .. } = self.translate(VirtAddr(page)) {
                let frame = self.take_page()?;
                self.map_page(VirtAddr(page), frame, access)?;
            }
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// Maps 2 MiB pages from `start` on that hold `size` bytes, to RAM that holds what `source` says.
    ///
    /// Nothing may be mapped there yet. `start` is a multiple of 2 MiB.
    pub(crate) fn map_large(
        &mut self,
        start: VirtAddr,
        size: u64,
        source: Arc<dyn PageSource>,
    ) -> Result<(), OutOfMemory> {
        let first_page = self.next_page.next_multiple_of(LARGE_PAGE_SIZE / PAGE_SIZE);
        let pages = size.next_multiple_of(LARGE_PAGE_SIZE) / PAGE_SIZE;
        if first_page + pages > self.physical.size() / PAGE_SIZE {
            return Err(OutOfMemory);
        }
        self.next_page = first_page + pages;
        self.physical.fill_from(first_page, size.div_ceil(PAGE_SIZE), source);
        for offset in (0..pages * PAGE_SIZE).step_by(LARGE_PAGE_SIZE as usize) {
            let table = self.table(start.offset(offset), &[39, 30])?;
            let entry =
                PhysAddr(first_page * PAGE_SIZE).offset(offset).0 | PRESENT | LARGE | ACCESSED | GLOBAL;
            let entry_at = table.offset((start.offset(offset).0 >> 21 & 0x1ff) * 8);
            self.physical.write(entry_at, &(entry | Access::Write.bits()).to_le_bytes());
        }
        Ok(())
    }

    /// Takes the mapping of a 4 KiB page away, if there is one. What the page held is not reachable any more.
    pub(crate) fn unmap(&mut self, address: VirtAddr) {
        let mut table = self.root;
        for shift in LONG_MODE.iter().copied() {
            let entry_at = table.offset((address.0 >> shift & 0x1ff) * 8);
            let entry = self.physical.read_u64(entry_at);
            if entry & PRESENT == 0 || shift != 12 && entry & LARGE != 0 {
                return;
            }
            if shift == 12 {
                self.physical.write(entry_at, &[0; 8]);
            }
            table = PhysAddr(entry & FRAME);
        }
    }

    /// Makes the page tables visible at the region of entry `slot` of the top table, as Windows does.
    pub(crate) fn map_tables_at(&mut self, slot: u64) {
        let entry = self.root.0 | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE;
        self.physical.write(self.root.offset(slot * 8), &entry.to_le_bytes());
    }

    /// A copy of the top table: the address space of a process that has the same kernel.
    pub(crate) fn copy_root(&mut self) -> Result<PhysAddr, OutOfMemory> {
        let mut table = vec![0; PAGE_SIZE as usize];
        self.physical.read(self.root, &mut table);
        let copy = self.take_page()?;
        self.physical.write(copy, &table);
        Ok(copy)
    }

    /// Where an address leads.
    pub(crate) fn translate(&self, address: VirtAddr) -> Translation {
        match self.walk(address) {
            Walk::Page { at, size } => {
                let offset = address.0 % size;
                Translation::Mapped { at: at.offset(offset), left: size - offset }
            }
            Walk::Hole { size } => Translation::Hole { left: size - address.0 % size },
        }
    }

    /// Copies bytes from `address` on; returns how many there are before the first page that is not mapped.
    pub(crate) fn read(&self, address: VirtAddr, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some((at, count)) = self.run(address.offset(done as u64), buf.len() - done) else { break };
            let read = self.physical.read(at, &mut buf[done..done + count]);
            done += read;
            if read < count {
                break;
            }
        }
        done
    }

    /// Overwrites bytes from `address` on, whatever the page's protection; returns how many were in mapped pages.
    pub(crate) fn write(&mut self, address: VirtAddr, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some((at, count)) = self.run(address.offset(done as u64), bytes.len() - done) else { break };
            let written = self.physical.write(at, &bytes[done..done + count]);
            done += written;
            if written < count {
                break;
            }
        }
        done
    }

    /// The first match of `pattern` that starts in the `length` bytes from `start` on; it may end behind them.
    ///
    /// Bytes that are not mapped match nothing and are no error.
    pub(crate) fn search(&self, start: VirtAddr, length: u64, pattern: &[u8]) -> Option<VirtAddr> {
        if pattern.is_empty() {
            return None;
        }
        let finder = memchr::memmem::Finder::new(pattern);
        let end = start.0.saturating_add(length);
        let mut at = start.0;
        // The match may be near: pieces begin small.
        let mut most = PAGE_SIZE;
        let mut bytes = Vec::new();
        while at < end {
            let left = match self.translate(VirtAddr(at)) {
                Translation::Hole { left } => left,
                Translation::Mapped { left, .. } => {
                    // Matches start in this piece and may end behind it.
                    let piece = left.min(end - at).min(most);
                    most = (most * 2).min(MAX_SEARCH_PIECE);
                    let starts = usize::try_from(piece).expect("a piece fits in memory");
                    bytes.resize(starts + pattern.len() - 1, 0);
                    let read = self.read(VirtAddr(at), &mut bytes);
                    if let Some(offset) = finder.find(&bytes[..read]) {
                        return Some(VirtAddr(at + offset as u64));
                    }
                    piece
                }
            };
            at = at.saturating_add(left);
        }
        None
    }

    /// The physical address of a mapped byte, and how many of the next `wanted` bytes follow it in the same page.
    fn run(&self, address: VirtAddr, wanted: usize) -> Option<(PhysAddr, usize)> {
        let Translation::Mapped { at, left } = self.translate(address) else { return None };
        Some((at, usize::try_from(left).map_or(wanted, |left| left.min(wanted))))
    }

    fn walk(&self, address: VirtAddr) -> Walk {
        const CANONICAL: u64 = 1 << 47;
        let upper = address.0 >> 47;
        if !self.is_pae() && upper != 0 && upper != 0x1_ffff {
            return Walk::Hole { size: CANONICAL };
        }
        let address = self.cut(address);
        let mut table = self.root;
        for shift in self.levels.iter().copied() {
            let entry_at = table.offset((address.0 >> shift & 0x1ff) * 8);
            let entry = self.physical.read_u64(entry_at);
            if entry & PRESENT == 0 {
                return Walk::Hole { size: 1 << shift };
            }
            let may_be_large = shift == 30 && !self.is_pae() || shift == 21;
            if shift == 12 || may_be_large && entry & LARGE != 0 {
                let size: u64 = 1 << shift;
                return Walk::Page { at: PhysAddr(entry & FRAME & !(size - 1)), size };
            }
            table = PhysAddr(entry & FRAME);
        }
        unreachable!("the last level returns")
    }

    fn map_page(&mut self, page: VirtAddr, frame: PhysAddr, access: Access) -> Result<(), OutOfMemory> {
        let page = self.cut(page);
        let table = self.table(page, &self.levels[..self.levels.len() - 1])?;
        let entry = frame.0 | PRESENT | ACCESSED | GLOBAL | access.bits();
        self.physical.write(table.offset((page.0 >> 12 & 0x1ff) * 8), &entry.to_le_bytes());
        Ok(())
    }

    /// The table that the entries for an address lead to, level by level from the top one; those that are missing are made.
    fn table(&mut self, page: VirtAddr, shifts: &[u32]) -> Result<PhysAddr, OutOfMemory> {
        let mut table = self.root;
        for shift in shifts {
            let entry_at = table.offset((page.0 >> shift & 0x1ff) * 8);
            let mut entry = self.physical.read_u64(entry_at);
            if entry & PRESENT == 0 {
                // With PAE, the top table's entries have no such bits.
                let is_top_of_pae = self.is_pae() && *shift == PAE[0];
                let bits = if is_top_of_pae { PRESENT } else { PRESENT | WRITABLE | ACCESSED | DIRTY };
                entry = self.take_page()?.0 | bits;
                self.physical.write(entry_at, &entry.to_le_bytes());
            }
            table = PhysAddr(entry & FRAME);
        }
        Ok(table)
    }

    fn is_pae(&self) -> bool {
        self.levels == PAE
    }

    /// The part of an address that the tables look at.
    fn cut(&self, address: VirtAddr) -> VirtAddr {
        if self.is_pae() { VirtAddr(address.0 & 0xffff_ffff) } else { address }
    }

    fn take_page(&mut self) -> Result<PhysAddr, OutOfMemory> {
        if self.free_pages() == 0 {
            return Err(OutOfMemory);
        }
        let page = PhysAddr(self.next_page * PAGE_SIZE);
        self.next_page += 1;
        Ok(page)
    }
}

/// How a walk through the tables ended.
enum Walk {
    /// At a page of `size` bytes at `at`.
    Page { at: PhysAddr, size: u64 },
    /// At an entry that is not present and stands for `size` bytes.
    Hole { size: u64 },
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Execute => 0,
            Self::Write => WRITABLE | DIRTY | NO_EXECUTE,
            Self::Read => NO_EXECUTE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: VirtAddr = VirtAddr(0xffff_fa80_0540_0000);

    fn memory_with(range: Range<u64>) -> VirtualMemory {
        let mut memory = VirtualMemory::new(0x400_0000, 0x100);
        memory.map(VirtAddr(range.start)..VirtAddr(range.end), Access::Write).unwrap();
        memory
    }

    #[test]
    fn a_read_stops_at_the_first_page_that_is_not_mapped() {
        let mut memory = memory_with(POOL.0..POOL.0 + 0x2000);
        assert_eq!(memory.write(POOL.offset(0xffc), &[1; 0x1100]), 0x1004);
        let mut buf = [0; 0x40];
        assert_eq!(memory.read(POOL.offset(0x1fe0), &mut buf), 0x20);
        assert_eq!(buf[..0x20], [1; 0x20]);
        assert_eq!(memory.read(POOL.offset(0x2000), &mut buf), 0);
    }

    #[test]
    fn a_page_can_be_taken_out_from_between_others() {
        let mut memory = memory_with(POOL.0..POOL.0 + 0x3000);
        memory.unmap(POOL.offset(0x1000));
        let mut buf = [0; 0x3000];
        assert_eq!(memory.read(POOL, &mut buf), 0x1000);
        assert_eq!(memory.read(POOL.offset(0x2000), &mut buf), 0x1000);
        memory.unmap(VirtAddr(0));
    }

    #[derive(Debug)]
    struct Numbers;

    impl PageSource for Numbers {
        fn fill(&self, number: u64, page: &mut [u8; PAGE_SIZE as usize]) {
            page[..8].copy_from_slice(&number.to_le_bytes());
        }
    }

    #[test]
    fn large_pages_show_what_their_source_says() {
        let mut memory = memory_with(POOL.0 - 0x1000..POOL.0);
        memory.map_large(POOL, 0x30_1000, Arc::new(Numbers)).unwrap();
        let number = |offset: u64| {
            let mut bytes = [0; 8];
            assert_eq!(memory.read(POOL.offset(offset), &mut bytes), 8);
            u64::from_le_bytes(bytes)
        };
        assert_eq!(
            (number(0), number(0x30_0000), number(0x30_1000)),
            (0, 0x300, 0),
            "zeros behind the source"
        );
        assert!(matches!(memory.translate(POOL.offset(0x40_0000)), Translation::Hole { .. }));
    }

    #[test]
    fn every_page_has_a_frame_of_its_own() {
        let memory = memory_with(POOL.0..POOL.0 + 0x40_0000);
        let frame = |page: u64| match memory.translate(POOL.offset(page * PAGE_SIZE)) {
            Translation::Mapped { at, left: PAGE_SIZE } => at,
            other => panic!("{other:?}"),
        };
        let frames: std::collections::HashSet<_> = (0..0x400).map(frame).collect();
        assert_eq!(frames.len(), 0x400);
        assert!(!frames.contains(&memory.root()));
    }

    #[test]
    fn large_pages_are_walked() {
        let mut memory = memory_with(POOL.0..POOL.0 + 1);
        // The 2 MiB behind the page: a page-directory entry of its own; the next 1 GiB: one of the PDPT.
        let pml4 = memory.physical.read_u64(memory.root().offset((POOL.0 >> 39 & 0x1ff) * 8));
        let pdpt = PhysAddr(pml4 & FRAME);
        let pd = PhysAddr(memory.physical.read_u64(pdpt.offset((POOL.0 >> 30 & 0x1ff) * 8)) & FRAME);
        let entry = |frame: u64| (frame | PRESENT | LARGE).to_le_bytes();
        memory.physical.write(pd.offset(((POOL.0 >> 21 & 0x1ff) + 1) * 8), &entry(0x20_0000));
        memory.physical.write(pdpt.offset(((POOL.0 >> 30 & 0x1ff) + 1) * 8), &entry(0));
        let two_megabytes = POOL.offset(0x20_0000);
        let mapped = Translation::Mapped { at: PhysAddr(0x20_1234), left: 0x1f_edcc };
        assert_eq!(memory.translate(two_megabytes.offset(0x1234)), mapped);
        let gigabyte = VirtAddr((POOL.0 & !0x3fff_ffff) + 0x4000_0000);
        assert_eq!(
            memory.translate(gigabyte.offset(0x300_0000)),
            Translation::Mapped { at: PhysAddr(0x300_0000), left: 0x3d00_0000 }
        );
    }

    #[test]
    fn a_hole_is_as_large_as_the_missing_entry() {
        let memory = memory_with(POOL.0..POOL.0 + 1);
        assert_eq!(memory.translate(POOL.offset(0x1800)), Translation::Hole { left: 0x800 });
        assert_eq!(memory.translate(POOL.offset(0x20_0000)), Translation::Hole { left: 0x20_0000 });
        assert_eq!(memory.translate(VirtAddr(0)), Translation::Hole { left: 1 << 39 });
        let not_canonical = memory.translate(VirtAddr(0x0000_8000_0000_0000));
        assert_eq!(not_canonical, Translation::Hole { left: 1 << 47 });
    }

    #[test]
    fn the_tables_show_themselves_where_windows_has_them() {
        let mut memory = memory_with(POOL.0..POOL.0 + 1);
        memory.map_tables_at(0x1ed);
        // PTE of an address: fffff680`00000000 + (address >> 12 & 0xfffffffff) * 8.
        let entry = VirtAddr(0xffff_f680_0000_0000 + (POOL.0 >> 12 & 0xf_ffff_ffff) * 8);
        let mut bytes = [0; 8];
        assert_eq!(memory.read(entry, &mut bytes), 8);
        let Translation::Mapped { at, .. } = memory.translate(POOL) else { panic!("mapped above") };
        assert_eq!(u64::from_le_bytes(bytes) & FRAME, at.0);
    }

    #[test]
    fn ram_ends() {
        let mut memory = VirtualMemory::new(0x10_4000, 0x100);
        let result = memory.map(POOL..POOL.offset(0x1000), Access::Read);
        assert_eq!(result, Err(OutOfMemory), "four tables and a page need five pages, three are free");
    }
}

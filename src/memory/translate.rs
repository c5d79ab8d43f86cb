//! Page tables, walked on this side: from a virtual address to a physical one, or why there is none.
//!
//! ```text
//!  bits 56..48      47..39      38..30      29..21      20..12     11..0
//!      PML5 -----> PML4 -----> PDPT -----> PD --------> PT ------> byte       Long5; Long4 begins at PML4
//!                 L0 -------> L1 -------> L2 -------> L3                    Arm64, granule of 4 KiB
//!                               CR3 of PAE: 4 entries, PD, PT                 Pae
//!                                31..22 (PS: 4 MiB) --> 21..12 (u32 entries)  X86
//! ```
//! An entry that is not valid may still lead to a page: one in transition (on the standby or modified list), one through a
//! prototype. Source: docs/dumps.md 4; AMD64 Architecture Programmer's Manual, volume 2, section 5.3; Arm Architecture
//! Reference Manual, D8.3.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use kd_protocol::{PhysAddr, VirtAddr};

use super::error::ReadCause;
use super::physical::PhysicalMemory;

/// How a processor translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// x64, four levels.
    Long4,
    /// x64, five levels (LA57).
    Long5,
    /// x86 with PAE.
    Pae,
    /// x86 without.
    X86,
    /// ARM64, four levels, pages of 4 KiB, as Windows has them: one top table, whose lower half is a process's (TTBR0), whose
    /// upper half is the kernel's (TTBR1).
    Arm64,
}

impl Paging {
    /// The lowest bit of an address that chooses an entry, level by level from the top one.
    pub(super) const fn shifts(self) -> &'static [u32] {
        match self {
            Self::Long5 => &[48, 39, 30, 21, 12],
            Self::Long4 | Self::Arm64 => &[39, 30, 21, 12],
            Self::Pae => &[30, 21, 12],
            Self::X86 => &[22, 12],
        }
    }

    const fn entry_len(self) -> u64 {
        if matches!(self, Self::X86) { 4 } else { 8 }
    }

    /// Entries of the table whose entries are chosen by the bits from `shift` on.
    pub(super) const fn entries(self, shift: u32) -> u64 {
        match (self, shift) {
            (Self::X86, _) => 1024,
            (Self::Pae, 30) => 4,
            _ => 512,
        }
    }

    /// Where a top table may begin: the other bits of CR3 are not of its address.
    const fn root_mask(self) -> u64 {
        match self {
            Self::Pae => 0xffff_ffe0,
            Self::X86 => 0xffff_f000,
            Self::Long4 | Self::Long5 => FRAME,
            // Above it is the number of the address space, below it a flag.
            Self::Arm64 => 0x0000_ffff_ffff_f000,
        }
    }

    /// Where the address of a frame is in an entry.
    const fn frame_mask(self) -> u64 {
        match self {
            Self::X86 => 0xffff_f000,
            Self::Pae | Self::Long4 | Self::Long5 => FRAME,
            Self::Arm64 => FRAME_ARM64,
        }
    }

    /// An address whose lower bits are known, with the upper ones that it must have.
    pub(super) const fn canonical(self, address: u64) -> u64 {
        match self {
            Self::Long4 | Self::Arm64 => ((address << 16) as i64 >> 16) as u64,
            Self::Long5 => ((address << 7) as i64 >> 7) as u64,
            Self::Pae | Self::X86 => address,
        }
    }

    /// True if the address has the form that this kind of processor takes.
    const fn takes(self, address: u64) -> bool {
        let sign = match self {
            Self::Long4 | Self::Arm64 => (address as i64) >> 47,
            Self::Long5 => (address as i64) >> 56,
            Self::Pae | Self::X86 => return address >> 32 == 0,
        };
        sign == 0 || sign == -1
    }
}

/// Where a virtual address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// To this byte; `left` bytes from it on are in the same page.
    Mapped {
        /// Where.
        at: PhysAddr,
        /// Bytes to the end of the page.
        left: u64,
    },
    /// Nowhere, and neither do the `left - 1` bytes behind it.
    Hole {
        /// Why.
        cause: ReadCause,
        /// Bytes to the end of what this entry covers.
        left: u64,
    },
}

/// Where an entry of a table leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To the table at this address.
    ToTable(u64),
    /// To the page at this address, of this many bytes.
    ToPage { at: u64, len: u64 },
}

/// Where a machine's top page table is, and how its processors translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    /// As CR3 has it.
    pub root: u64,
    /// Levels and widths.
    pub paging: Paging,
}

const PRESENT: u64 = 1;
const SWIZZLED_NOT: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const PROTOTYPE: u64 = 1 << 10;
const TRANSITION: u64 = 1 << 11;
/// ARM64: a valid entry is one of a table, or in the last level of a page. Without it: of a block, or in the last level none.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 51..12.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits 49..12; above them are attributes.
const FRAME_ARM64: u64 = 0x0003_ffff_ffff_f000;
/// What the kernel sets in frames of entries that are not valid, so that processors do not speculate on them.
const INVALID_PTE_MASK: u64 = 1 << 45;
const PAGE: u64 = 0x1000;
/// Pages whose place is remembered.
const RECENT: usize = 1024;
/// Table pages kept, 8 MiB.
const MAX_TABLES: usize = 2048;

/// A table's page, or why it cannot be read.
type Table = Result<Box<[u8; PAGE as usize]>, ReadCause>;

/// The page tables at one root.
#[derive(Debug)]
pub struct Translator {
    root: u64,
    paging: Paging,
    /// Those that were looked at, by frame.
    tables: Mutex<HashMap<u64, Table>>,
    /// Where pages were found lately, each in the place that the lower bits of its number say.
    recent: Mutex<Vec<Found>>,
}

/// A page that is mapped: its number, where it is, and how many bytes from its start on lie there together.
type Found = Option<(u64, u64, u64)>;

impl Translator {
    /// The tables that a processor with this `cr3` uses.
    #[must_use]
    pub fn new(cr3: u64, paging: Paging) -> Self {
        let recent = Mutex::new(vec![None; RECENT]);
        Self { root: cr3 & paging.root_mask(), paging, tables: Mutex::default(), recent }
    }

    /// Forgets every table that was looked at: the machine has run.
    pub fn forget(&self) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).fill(None);
    }

    /// Where `address` leads.
    pub fn translate(&self, physical: &dyn PhysicalMemory, address: VirtAddr) -> Translation {
        let (number, into) = (address.0 / PAGE, address.0 % PAGE);
        let place = number as usize % RECENT;
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, at, together)) = recent()[place]
            && of == number
        {
            return Translation::Mapped { at: PhysAddr(at + into), left: together - into };
        }
        let found = self.walk(physical, address, true);
        if let Translation::Mapped { at: PhysAddr(at), left } = found
            && let Some(start) = at.checked_sub(into)
        {
            recent()[place] = Some((number, start, left + into));
        }
        found
    }

    fn walk(&self, physical: &dyn PhysicalMemory, address: VirtAddr, follows: bool) -> Translation {
        let paging = self.paging;
        if !paging.takes(address.0) {
            // To where addresses are taken again.
            let next = match paging {
                Paging::Long4 | Paging::Arm64 => 0xffff_8000_0000_0000,
                Paging::Long5 => 0xff00_0000_0000_0000,
                Paging::Pae | Paging::X86 => u64::MAX,
            };
            return Translation::Hole { cause: ReadCause::NotMapped, left: next - address.0 };
        }
        let mut table = self.root;
        let shifts = paging.shifts();
        for (level, shift) in shifts.iter().copied().enumerate() {
            let left = (1_u64 << shift) - address.0 % (1 << shift);
            let index = (address.0 >> shift) % paging.entries(shift);
            let is_last = level + 1 == shifts.len();
            match self.look(physical, (table, index), shift, is_last, follows) {
                Ok(Leads::ToTable(next)) => table = next,
                Ok(Leads::ToPage { at, len }) => {
                    return Translation::Mapped { at: PhysAddr(at + address.0 % len), left };
                }
                Err(cause) => return Translation::Hole { cause, left },
            }
        }
        unreachable!("the last level leads to a page, or nowhere")
    }

    /// Where the entry at this index of a table leads, whose entries cover `1 << shift` bytes each.
    pub(super) fn look(
        &self,
        physical: &dyn PhysicalMemory,
        (table, index): (u64, u64),
        shift: u32,
        is_last: bool,
        follows: bool,
    ) -> Result<Leads, ReadCause> {
        let size = 1_u64 << shift;
        let entry = self.entry(physical, table + index * self.paging.entry_len())?;
        let frame = if entry & PRESENT != 0 {
            let may_be_large = match self.paging {
                Paging::X86 => shift == 22,
                Paging::Pae => shift == 21,
                Paging::Long4 | Paging::Long5 | Paging::Arm64 => shift == 30 || shift == 21,
            };
            let is_large = match self.paging {
                Paging::Arm64 => entry & TABLE_OR_PAGE == 0,
                _ => may_be_large && entry & LARGE != 0,
            };
            if is_large && !may_be_large {
                // What ARM64 keeps for later.
                return Err(ReadCause::NotMapped);
            }
            if is_large {
                let at = entry & self.paging.frame_mask() & !(size - 1);
                return Ok(Leads::ToPage { at, len: size });
            }
            entry & self.paging.frame_mask()
        } else {
            self.without_presence(physical, entry, is_last && follows)?
        };
        Ok(if is_last { Leads::ToPage { at: frame, len: PAGE } } else { Leads::ToTable(frame) })
    }

    pub(super) const fn root(&self) -> u64 {
        self.root
    }

    /// What it was made for.
    #[must_use]
    pub const fn page_tables(&self) -> PageTables {
        PageTables { root: self.root, paging: self.paging }
    }

    /// The frame of an entry that is not valid, where its page is in memory all the same.
    fn without_presence(
        &self,
        physical: &dyn PhysicalMemory,
        entry: u64,
        follows: bool,
    ) -> Result<u64, ReadCause> {
        if entry == 0 {
            return Err(ReadCause::NotMapped);
        }
        if entry & PROTOTYPE != 0 {
            return self.of_prototype(physical, entry, follows);
        }
        if entry & TRANSITION != 0 {
            let frame = entry & self.paging.frame_mask();
            let is_masked = frame >= physical.end().0 && entry & SWIZZLED_NOT == 0;
            return Ok(if is_masked { frame & !INVALID_PTE_MASK } else { frame });
        }
        if matches!(self.paging, Paging::X86) {
            // Page file in bits 1..4, its page in 12..31.
            return Err(paged_out(entry >> 1 & 0xf, entry >> 12));
        }
        Err(paged_out(entry >> 12 & 0xf, entry >> 32))
    }

    /// The frame that a prototype leads to: the real entry, somewhere in the kernel's own memory, valid or in transition.
    fn of_prototype(
        &self,
        physical: &dyn PhysicalMemory,
        entry: u64,
        follows: bool,
    ) -> Result<u64, ReadCause> {
        // Its address; all ones say that the kernel looks elsewhere for it, which only user memory has.
        let of_vad = entry >> 32 == 0xffff_ffff;
        let at = match self.paging {
            Paging::Long4 | Paging::Long5 | Paging::Arm64 => VirtAddr(((entry as i64) >> 16) as u64),
            Paging::Pae => VirtAddr(entry >> 32),
            Paging::X86 => return Err(ReadCause::NotMapped),
        };
        if !follows || of_vad {
            return Err(ReadCause::NotMapped);
        }
        let Translation::Mapped { at, left: 8.. } = self.walk(physical, at, false) else {
            return Err(ReadCause::NotMapped);
        };
        let mut real = [0; 8];
        physical.read(at, &mut real).map_err(|(_, cause)| cause)?;
        let real = u64::from_le_bytes(real);
        if real & PRESENT != 0 {
            return Ok(real & self.paging.frame_mask());
        }
        self.without_presence(physical, real, false)
    }

    fn entry(&self, physical: &dyn PhysicalMemory, at: u64) -> Result<u64, ReadCause> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() >= MAX_TABLES {
            tables.clear();
        }
        let table = match tables.entry(at / PAGE) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(room) => {
                let mut page = Box::new([0; PAGE as usize]);
                match physical.read(PhysAddr(at - at % PAGE), &mut page[..]) {
                    Ok(()) => room.insert(Ok(page)),
                    // It says nothing of the table: the next one who asks may get it.
                    Err((_, cause)) if cause.is_of_link() => return Err(cause),
                    Err((_, cause)) => room.insert(Err(cause)),
                }
            }
        };
        let bytes = table.as_ref().map_err(|cause| cause.clone())?;
        let from = (at % PAGE) as usize;
        let mut entry = [0; 8];
        let len = self.paging.entry_len() as usize;
        entry[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(u64::from_le_bytes(entry))
    }
}

/// What an entry of neither list says: its page is in a page file (or compressed in memory, which looks the same), or was
/// never touched.
fn paged_out(file: u64, page: u64) -> ReadCause {
    if file == 0 && page == 0 { ReadCause::NotMapped } else { ReadCause::PagedOut { file: file as u8 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RAM of a few pages.
    struct Ram(Vec<u8>);

    impl PhysicalMemory for Ram {
        fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
            let at = address.0 as usize;
            let bytes = self.0.get(at..at + buf.len()).ok_or((0, ReadCause::NotKept))?;
            buf.copy_from_slice(bytes);
            Ok(())
        }

        fn ranges(&self) -> Vec<std::ops::Range<u64>> {
            std::iter::once(0..self.0.len() as u64).collect()
        }

        fn end(&self) -> PhysAddr {
            PhysAddr(self.0.len() as u64)
        }
    }

    const VA: u64 = 0xffff_f880_0123_4000;
    /// Where an entry of another page's prototype lies, mapped by the large page below.
    const PROTOTYPES: u64 = 0xffff_f900_0000_0000;

    /// Tables at page 1 on; page 5 holds what is mapped. The last entry is `entry`.
    fn ram(entry: u64) -> Ram {
        let mut ram = Ram(vec![0; 0x60_0000]);
        let mut put = |table: u64, address: u64, shift: u32, entry: u64| {
            let at = (table * PAGE + (address >> shift & 0x1ff) * 8) as usize;
            ram.0[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        };
        put(1, VA, 39, 0x2000 | PRESENT);
        put(2, VA, 30, 0x3000 | PRESENT);
        put(3, VA, 21, 0x4000 | PRESENT);
        put(4, VA, 12, entry);
        put(1, PROTOTYPES, 39, 0x6000 | PRESENT);
        put(6, PROTOTYPES, 30, 0x7000 | PRESENT);
        // A page of 2 MiB at 0x200000.
        put(7, PROTOTYPES, 21, 0x20_0000 | LARGE | PRESENT);
        // Its first quadword: a real entry.
        ram.0[0x20_0000..0x20_0008].copy_from_slice(&(0x5000 | TRANSITION).to_le_bytes());
        ram
    }

    fn translate(entry: u64, address: u64) -> Translation {
        Translator::new(0x1002, Paging::Long4).translate(&ram(entry), VirtAddr(address))
    }

    fn cause(entry: u64) -> ReadCause {
        match translate(entry, VA) {
            Translation::Hole { cause, left: 0x1000 } => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_valid_page_and_one_in_transition_are_in_memory() {
        let at = |left| Translation::Mapped { at: PhysAddr(0x5123), left };
        assert_eq!(translate(0x5000 | PRESENT, VA + 0x123), at(0xedd));
        assert_eq!(translate(0x5000 | TRANSITION, VA + 0x123), at(0xedd));
        // The kernel's mask against speculation, which lies beyond RAM, goes; where the entry says that there is none, it stays.
        assert_eq!(translate(0x5000 | TRANSITION | INVALID_PTE_MASK, VA + 0x123), at(0xedd));
        let kept = translate(0x5000 | TRANSITION | INVALID_PTE_MASK | SWIZZLED_NOT, VA);
        assert_eq!(kept, Translation::Mapped { at: PhysAddr(0x5000 | INVALID_PTE_MASK), left: 0x1000 });
    }

    #[test]
    fn a_prototype_is_followed_once() {
        assert_eq!(
            translate(PROTOTYPES << 16 | PROTOTYPE, VA),
            Translation::Mapped { at: PhysAddr(0x5000), left: 0x1000 }
        );
        // One that leads to another prototype, and one that is to be looked for elsewhere.
        assert_eq!(cause((PROTOTYPES + 8) << 16 | PROTOTYPE), ReadCause::NotMapped);
        assert_eq!(cause(0xffff_ffff_0000_0000 | PROTOTYPE), ReadCause::NotMapped);
    }

    #[test]
    fn why_a_page_is_away_is_told_apart() {
        assert_eq!(cause(0), ReadCause::NotMapped);
        assert_eq!(cause(0x80), ReadCause::NotMapped);
        assert_eq!(cause(7 << 32 | 2 << 12), ReadCause::PagedOut { file: 2 });
    }

    #[test]
    fn large_pages_and_what_no_entry_covers_are_whole() {
        assert_eq!(
            translate(0, PROTOTYPES + 0x12_3456),
            Translation::Mapped { at: PhysAddr(0x32_3456), left: 0x20_0000 - 0x12_3456 }
        );
        let hole = |address| match translate(0, address) {
            Translation::Hole { left, .. } => left,
            other => panic!("{other:?}"),
        };
        assert_eq!(hole(0xffff_fa00_0000_0000), 1 << 39);
        assert_eq!(hole(0x8000_0000_0000), 0xffff_8000_0000_0000 - 0x8000_0000_0000, "no canonical address");
    }

    /// Arm Architecture Reference Manual, D8.3: bits 1 and 0 are 11 for a table or a page, 01 for a block, which L1 and L2
    /// have; the address is in bits 47 to 12, a block's above its size; attributes do not change where an entry leads.
    #[test]
    fn entries_of_arm64_lead_to_tables_blocks_and_pages() {
        const ATTRIBUTES: u64 = 0x0074_0000_0000_0f44;
        let entry_at = |table: u64, shift: u32| (table + (VA >> shift & 0x1ff) * 8) as usize;
        let translate = |level: u32, entry: u64| {
            let mut ram = Ram(vec![0; 0x6000]);
            for (table, shift, entry) in [
                (0x1000, 39, 0x2000 | ATTRIBUTES | 3),
                (0x2000, 30, 0x3000 | 3),
                (0x3000, 21, 0x4000 | 3),
                (0x4000, 12, 0x5000 | ATTRIBUTES | 3),
            ] {
                let entry = if shift == level { 0 } else { entry };
                ram.0[entry_at(table, shift)..][..8].copy_from_slice(&entry.to_le_bytes());
            }
            if level != 0 {
                let table = [(39, 0x1000), (30, 0x2000), (21, 0x3000), (12, 0x4000)];
                let (_, table) = table.into_iter().find(|(shift, _)| *shift == level).unwrap();
                ram.0[entry_at(table, level)..][..8].copy_from_slice(&entry.to_le_bytes());
            }
            // TTBR: a number of the address space above, a flag below.
            let translator = Translator::new(0x00ab_0000_0000_1001, Paging::Arm64);
            match translator.translate(&ram, VirtAddr(VA + 0x123)) {
                Translation::Mapped { at, left } => Ok((at.0, left)),
                Translation::Hole { cause, .. } => Err(cause),
            }
        };
        assert_eq!(translate(0, 0), Ok((0x5123, 0xedd)));
        let within = |size: u64| (VA + 0x123) % size;
        let block = |at: u64, size: u64| Ok((at + within(size), size - within(size)));
        assert_eq!(translate(30, 0x40_4000_0000 | ATTRIBUTES | 1), block(0x40_4000_0000, 1 << 30));
        assert_eq!(translate(21, 0x60_0000 | 1 << 16 | ATTRIBUTES | 1), block(0x60_0000, 1 << 21));
        assert_eq!(translate(39, 0x2000 | 1), Err(ReadCause::NotMapped), "no block is that large");
        assert_eq!(translate(12, 0x5000 | 1), Err(ReadCause::NotMapped), "kept for later");
        assert_eq!(translate(12, 2), Err(ReadCause::NotMapped), "not valid");
        assert_eq!(translate(12, 0x5000 | 1 << 11), Ok((0x5123, 0xedd)), "in transition");
    }

    /// A table page that is not in the dump is not "not mapped".
    #[test]
    fn a_table_that_is_not_kept_says_so() {
        let translator = Translator::new(0x1000, Paging::Long4);
        let mut ram = ram(0);
        let entry = (0x1000 + (VA >> 39 & 0x1ff) * 8) as usize;
        ram.0[entry..entry + 8].copy_from_slice(&(0x7000_0000_u64 | PRESENT).to_le_bytes());
        let missing = translator.translate(&ram, VirtAddr(VA));
        assert!(matches!(missing, Translation::Hole { cause: ReadCause::NotKept, .. }), "{missing:?}");
    }
}

//! Outstanding pool allocations of one driver: its pages of trackers.
//!
//! ```text
//!  PoolPageHeaders -> page -> page -> 0        newest page first
//!
//!  page, 4 KiB: | header | slot 1 | slot 2 | ... | slot 127 |       255 on x86, where a slot has 0x10 bytes
//!                 NextPage, VerifierEntry, Signature
//!  slot in use: VirtualAddress, CallingAddress, NumberOfBytes, Tag
//!  slot free:   NextFree -> next free slot, from PoolTrackers;  NumberOfBytes has bit 0 set
//! ```
//! A slot is in use if the list of free slots does not have it. The low bit alone would hide special-pool blocks of odd
//! size, whose exact size is stored; it decides only if the list of free slots breaks off. A page costs one read
//! at the most, and both lists are walked in the pages' bytes. A page that cannot be read hides those behind it, unless free slots lead
//! there.
//!
//! Source: verifier.md 3.2.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::drivers::Driver;
use super::frames::{Frame, shared_name, shared_stack};
use super::run_ahead::{PAGE, RunAhead};

use crate::output;
use crate::target::{
    Layout, Note, NoteCode, OfLink, Place, ReadError, Record, SListHead, SymbolAt, Target, TargetError,
    VirtAddr, WalkEnd, walk,
};

/// `_VI_POOL_PAGE_HEADER.Signature`, in every build.
const PAGE_SIGNATURE: u64 = 0x2132_1345;
/// Most pages of one driver: `Depth` wraps there.
pub(super) const MAX_PAGES: usize = 0x1_0000;
/// In a tag's last character: the block may be freed with its tag only.
const PROTECTED_POOL: u32 = 0x8000_0000;

/// What one driver has allocated and not freed, newest first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Allocations {
    /// The allocations.
    pub blocks: Vec<Block>,
    /// Pages of trackers that were read.
    pub pages: usize,
    /// How the walk along the pages ended.
    pub pages_end: WalkEnd,
    /// How the walk along the free slots ended.
    pub free_end: WalkEnd,
    /// Why blocks may be missing, in a few words each.
    pub gaps: Vec<String>,
}

/// One outstanding allocation.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Block {
    /// What the driver was given.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes, as tracked: for blocks larger than a page whole pages.
    pub size: u64,
    /// Four characters; what is not printable shows as a dot.
    pub tag: String,
    /// The same as the number that it is: not every tag can be printed.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_number: u32,
    /// Where the driver called from: a return address.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub caller: VirtAddr,
    /// `MyDriver!GetNecessaryObjects+0x3d`; nothing outside of every module.
    #[serde(serialize_with = "shared_name")]
    #[schemars(with = "Option<String>")]
    pub caller_symbol: Option<Arc<SymbolAt>>,
    /// Its tracker, a `_VI_POOL_ENTRY`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub tracker: VirtAddr,
    /// The whole stack of the allocation, where advanced pool tracking keeps it.
    #[serde(serialize_with = "shared_stack", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Frame>>")]
    pub stack: Option<Arc<[Frame]>>,
    /// The size is odd: a special-pool block, which the test of the low bit would take for a free slot.
    pub odd_size: bool,
}

impl Allocations {
    /// Reads the pages of `driver`, one request each. What is missing is noted.
    ///
    /// # Errors
    /// [`TargetError`] if the symbols lack the structures.
    pub fn read(target: &Target<'_>, driver: &Driver) -> Result<Self, TargetError> {
        let slots = SlotLayout::find(target)?;
        let unreadable =
            || WalkEnd::unreadable(target.shown(driver.verified_data), &"the list's head cannot be read");
        let mut pages = match driver.pool_pages {
            Some(head) => Pages::read(target, &slots, driver.verified_data, head),
            None => Pages { end: unreadable(), ..Pages::none() },
        };
        let (free, free_end) = match driver.free_trackers {
            Some(head) => pages.free_slots(target, &slots, driver.verified_data, head),
            None => (HashSet::new(), unreadable()),
        };
        let mut found = Self {
            blocks: Vec::new(),
            pages: pages.order.len(),
            pages_end: pages.end.clone(),
            free_end,
            gaps: Vec::new(),
        };
        let mut implausible = 0;
        for (page, bytes) in pages.in_order() {
            for (at, slot) in slots.of_page(page, bytes) {
                let Some(block) = slots.block(at, slot) else { continue };
                if free.contains(&at) || (!found.free_end.is_complete() && block.odd_size) {
                    continue;
                }
                // A slot that was taken but whose allocation is not finished holds the old link.
                if !target.is_kernel(block.address) || pages.contains(block.address) {
                    implausible += 1;
                    continue;
                }
                found.blocks.push(block);
            }
        }
        found.note_gaps(target, driver, &pages, implausible);
        Ok(found)
    }

    /// Compares what is listed with what `driver` counts. A list without gaps may differ by what is under way.
    pub(super) fn note_count(&self, target: &Target<'_>, driver: &Driver) {
        let pool = &driver.pool;
        let counters = pool.current_paged_allocations.value().zip(pool.current_nonpaged_allocations.value());
        let Some(counted) = counters.map(|(paged, nonpaged)| paged.saturating_add(nonpaged)) else { return };
        let (name, listed) = (driver.shown_name(), self.blocks.len());
        if counted == listed as u64 {
            return;
        }
        let why = match &self.gaps[..] {
            [] => "the target may have been stopped between the two".to_owned(),
            gaps => gaps.join(", "),
        };
        let text = format!("{name}: current allocations {counted}, listed {listed}: {why}");
        target.note(Note::partial(NoteCode::CountsDiffer, text));
    }

    /// Says what is missing of pages that were read over several stops.
    pub(super) fn note_over_stops(
        &mut self,
        target: &Target<'_>,
        driver: &Driver,
        cut: usize,
        under_way: usize,
    ) {
        let expected = driver.pool_pages.map_or(0, |head| head.depth);
        let (order, end) = (vec![VirtAddr(0); self.pages], self.pages_end.clone());
        let pages = Pages { order, end, expected, cut, ..Pages::none() };
        // The list of free trackers is of one moment, and was not walked.
        let free_end = std::mem::replace(&mut self.free_end, WalkEnd::Null);
        self.note_gaps(target, driver, &pages, under_way);
        self.free_end = free_end;
    }

    fn note_gaps(&mut self, target: &Target<'_>, driver: &Driver, pages: &Pages, implausible: usize) {
        let name = driver.shown_name();
        let expected = usize::from(pages.expected);
        let recovered = match pages.recovered {
            0 => String::new(),
            more => format!("; {more} more were found through the list of free trackers"),
        };
        let in_list = pages.order.len() - pages.recovered;
        if !self.pages_end.is_complete() {
            let text = format!(
                "{name}: the list of tracker pages breaks off after {in_list} of {expected}: {}{recovered}",
                self.pages_end
            );
            target.note(broken_list(text, &self.pages_end));
        } else if in_list & 0xffff != expected {
            target.note(Note::partial(
                NoteCode::ListBreaksOff,
                format!(
                    "{name}: the list of tracker pages has {in_list}, its header says {expected}{recovered}"
                ),
            ));
        }
        let state = if self.pages_end.is_complete() { "missing" } else { "unreadable" };
        match expected.saturating_sub(pages.order.len()) {
            0 => {}
            1 => self.gaps.push(format!("1 page {state}")),
            pages => self.gaps.push(format!("{pages} pages {state}")),
        }
        if pages.cut > 0 {
            self.gaps.push(format!("{} pages readable in part", pages.cut));
            let text = format!("{name}: {} tracker pages can be read in part only", pages.cut);
            target.note(Note::partial(NoteCode::Unreadable, text));
        }
        if !self.free_end.is_complete() {
            self.gaps.push("the list of free trackers is broken".to_owned());
            let text = format!(
                "{name}: the list of free trackers breaks off: {}. Trackers in use are told by the low bit of their \
                 size instead, so blocks of odd size in special pool are not listed",
                self.free_end
            );
            target.note(broken_list(text, &self.free_end));
        }
        if implausible > 0 {
            self.gaps.push(format!("trackers without an address: {implausible}"));
            target.note(Note::partial(NoteCode::UnderWay, format!(
                "{name}: {implausible} trackers hold no kernel address and are left out (allocations under way)"
            )));
        }
    }
}

/// That a list breaks off.
fn broken_list(text: String, end: &WalkEnd) -> Note {
    Note::partial(NoteCode::ListBreaksOff, text).broken_off_if(end.is_of_link())
}

/// Where a tracker's fields are.
pub(super) struct SlotLayout {
    pub(super) size: usize,
    header: Layout,
    pub(super) next_free: Place,
    address: Place,
    caller: Place,
    bytes: Place,
    tag: Place,
}

impl SlotLayout {
    pub(super) fn find(target: &Target<'_>) -> Result<Self, TargetError> {
        let entry = target.layout("nt!_VI_POOL_ENTRY")?;
        let in_use = |field: &str| entry.place(&format!("InUse.{field}"));
        let size = entry.size();
        if !(8..=PAGE / 2).contains(&size) {
            let wrong = format!("{size:#x} bytes each");
            let address = target.shown(VirtAddr(0));
            return Err(TargetError::Unexpected { what: "_VI_POOL_ENTRY in the symbols", address, wrong });
        }
        Ok(Self {
            size,
            header: target.layout("nt!_VI_POOL_PAGE_HEADER")?,
            next_free: entry.place("NextFree")?,
            address: in_use("VirtualAddress")?,
            caller: in_use("CallingAddress")?,
            bytes: in_use("NumberOfBytes")?,
            tag: in_use("Tag")?,
        })
    }

    /// The page behind the one at `at`, if that is one of `owner`'s; `missing` says why its end is not there.
    pub(super) fn next_page(
        &self,
        target: &Target<'_>,
        at: VirtAddr,
        bytes: &[u8],
        missing: Option<&ReadError>,
        owner: VirtAddr,
    ) -> Result<VirtAddr, TargetError> {
        let cause = missing.map(|error| error.cause.clone());
        let header = Record::new(self.header.clone(), at, bytes.into(), cause);
        let (signature, verifier_entry) = (header.uint("Signature")?, header.pointer("VerifierEntry")?);
        let unexpected =
            |wrong| TargetError::Unexpected { what: "tracker page", address: target.shown(at), wrong };
        if signature != PAGE_SIGNATURE {
            return Err(unexpected(format!("its signature is {signature:#x}, not {PAGE_SIGNATURE:#x}")));
        }
        if verifier_entry != owner {
            return Err(unexpected(format!(
                "it belongs to {}, not to {}",
                target.shown(verifier_entry),
                target.shown(owner)
            )));
        }
        header.pointer("NextPage")
    }

    /// The slots of a page but for the first, which holds the page's header.
    pub(super) fn of_page<'a>(
        &self,
        page: VirtAddr,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (VirtAddr, &'a [u8])> + use<'a> {
        let size = self.size as u64;
        let slots = (0..).zip(bytes.chunks_exact(self.size)).skip(1);
        slots.map(move |(index, slot): (u64, _)| (page.offset(index * size), slot))
    }

    pub(super) fn block(&self, tracker: VirtAddr, slot: &[u8]) -> Option<Block> {
        let size = self.bytes.uint(slot)?;
        Some(Block {
            // The kernel sets bit 0 for the time of a special-pool allocation.
            address: VirtAddr(self.address.uint(slot)? & !1),
            size,
            tag: tag(self.tag.uint(slot)? as u32),
            tag_number: self.tag.uint(slot)? as u32,
            caller: VirtAddr(self.caller.uint(slot)?),
            caller_symbol: None,
            tracker,
            stack: None,
            odd_size: size & 1 != 0,
        })
    }
}

/// The tracker pages of one driver.
struct Pages {
    bytes: BTreeMap<VirtAddr, Vec<u8>>,
    /// As the list has them, then those that were found otherwise.
    order: Vec<VirtAddr>,
    end: WalkEnd,
    /// How many the list's header says there are.
    expected: u16,
    /// Pages that the list doesn't lead to.
    recovered: usize,
    /// Pages of which only a part can be read.
    cut: usize,
    run_ahead: RunAhead,
}

impl Pages {
    fn none() -> Self {
        Self {
            bytes: BTreeMap::new(),
            order: Vec::new(),
            end: WalkEnd::Null,
            expected: 0,
            recovered: 0,
            cut: 0,
            run_ahead: RunAhead::default(),
        }
    }

    fn read(target: &Target<'_>, slots: &SlotLayout, owner: VirtAddr, head: SListHead) -> Self {
        let mut pages = Self { expected: head.depth, ..Self::none() };
        pages.end = walk::slist(target.pointer_size(), head.first, MAX_PAGES, |at| {
            pages.add(target, slots, owner, at)
        });
        pages
    }

    /// Reads a page, if it is one of `owner`; returns the one behind it.
    fn add(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        owner: VirtAddr,
        at: VirtAddr,
    ) -> Result<VirtAddr, TargetError> {
        let left = usize::from(self.expected).saturating_sub(self.order.len());
        let (bytes, missing) = self.run_ahead.read(target, at, left);
        let next = slots.next_page(target, at, &bytes, missing.as_ref(), owner)?;
        self.cut += usize::from(missing.is_some());
        self.order.push(at);
        self.bytes.insert(at, bytes);
        Ok(next)
    }

    /// Reads a page that the list does not lead to, and those behind it.
    fn recover(&mut self, target: &Target<'_>, slots: &SlotLayout, owner: VirtAddr, page: VirtAddr) {
        let before = self.order.len();
        let room = usize::from(self.expected).saturating_sub(before);
        // However it ends: that the list is broken has been said.
        walk::slist(target.pointer_size(), page, room, |at| match self.bytes.contains_key(&at) {
            true => Ok(VirtAddr(0)),
            false => self.add(target, slots, owner, at),
        });
        self.recovered += self.order.len() - before;
    }

    /// Pages as the list has them, newest first.
    fn in_order(&self) -> impl Iterator<Item = (VirtAddr, &[u8])> {
        self.order.iter().map(|at| (*at, &self.bytes[at][..]))
    }

    /// The bytes from `address` on, if it lies in one of the pages.
    fn from(&self, address: VirtAddr) -> Option<&[u8]> {
        let (page, bytes) = self.bytes.range(..=address).next_back()?;
        bytes.get(usize::try_from(address.since(*page)).ok()?..).filter(|rest| !rest.is_empty())
    }

    fn contains(&self, address: VirtAddr) -> bool {
        self.from(address).is_some()
    }

    /// The free slots, walked in the pages' bytes. Where the list of pages has lost some, free slots lead to them.
    fn free_slots(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        owner: VirtAddr,
        head: SListHead,
    ) -> (HashSet<VirtAddr>, WalkEnd) {
        let mut free = HashSet::new();
        let limit = self.order.len().max(self.expected.into()) * (PAGE / slots.size);
        let end = walk::slist(target.pointer_size(), head.first, limit, |at| {
            if !self.contains(at) && self.order.len() < usize::from(self.expected) {
                self.recover(target, slots, owner, VirtAddr(at.0 & !(PAGE as u64 - 1)));
            }
            let slot = self.from(at).and_then(|bytes| slots.next_free.uint(bytes));
            let next = slot.ok_or("it lies in none of the driver's tracker pages")?;
            free.insert(at);
            Ok::<_, &str>(VirtAddr(next))
        });
        (free, end)
    }
}

/// A pool tag's four characters, the lowest byte first; padding at the end is dropped.
pub(super) fn tag(tag: u32) -> String {
    let characters = (tag & !PROTECTED_POOL).to_le_bytes();
    let shown =
        characters.map(|byte| if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' });
    let text: String = shown.into_iter().collect();
    text.trim_end_matches(if characters[3] == 0 { '.' } else { '\0' }).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_from_its_lowest_byte() {
        assert_eq!(tag(u32::from_le_bytes(*b"Leak")), "Leak");
        assert_eq!(tag(u32::from_le_bytes(*b"Leak") | PROTECTED_POOL), "Leak");
        assert_eq!(tag(u32::from_le_bytes(*b"Io  ")), "Io  ");
        assert_eq!(tag(u32::from_le_bytes(*b"Ab\0\0")), "Ab");
        assert_eq!(
            tag(u32::from_le_bytes([1, 0x1b, b'x', b'y'])),
            "..xy",
            "nothing reaches a terminal as it is"
        );
        assert_eq!(tag(0), "");
    }
}

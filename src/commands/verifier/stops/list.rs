//! The tracker pages of one driver, read over several stops.
//!
//! ```text
//!   first pass    head -> page -> page -> ... -> 0        each at some stop
//!   at the end    head -> new  -> page                    pages that came meanwhile, and again those with free trackers
//! ```
//! A tracker does not move while its block is outstanding, and a page stays where it is as long as its driver is loaded.
//! Which trackers are free is told by themselves: a free one links to another tracker, or to none; the list of free ones
//! is of one moment, and the pages are not.

use std::collections::{BTreeMap, HashSet};

use super::super::allocations::{Block, MAX_PAGES, SlotLayout};
use super::super::drivers::Driver;
use super::super::run_ahead::PAGE;
use crate::target::{OfLink, ReadCause, SListHead, Target, TargetError, VirtAddr, WalkEnd};

/// A page, and when it was read.
struct Page {
    bytes: Vec<u8>,
    next: VirtAddr,
    /// Events since the first stop.
    read_at: u64,
    is_cut: bool,
}

/// One driver's pages.
pub(super) struct List {
    pub(super) driver: Driver,
    pages: BTreeMap<VirtAddr, Page>,
    /// As the list had them in the first pass, then those that came.
    order: Vec<VirtAddr>,
    next: VirtAddr,
    end: Option<WalkEnd>,
    /// The heads of its lists when they were first read.
    heads: [Option<SListHead>; 2],
    /// When the head and the counters were read last.
    pub(super) head_at: u64,
    /// Every page was read that there was when the head was read last.
    is_complete: bool,
}

/// A block, and when its tracker was read.
pub(super) struct ReadBlock {
    pub(super) block: Block,
    pub(super) read_at: u64,
}

impl List {
    pub(super) fn new(driver: Driver) -> Self {
        let heads = [driver.pool_pages, driver.free_trackers];
        let next = driver.pool_pages.map_or(VirtAddr(0), |head| head.first);
        Self {
            driver,
            pages: BTreeMap::new(),
            order: Vec::new(),
            next,
            end: None,
            heads,
            head_at: 0,
            is_complete: true,
        }
    }

    /// Reads the heads of its lists anew, and its counters.
    pub(super) fn read_head(&mut self, target: &Target<'_>, now: u64) -> Result<(), TargetError> {
        self.driver.read_again(target)?;
        self.head_at = now;
        Ok(())
    }

    /// The page that the first pass reads next; nothing at its end.
    pub(super) fn next_page(&mut self, target: &Target<'_>) -> Option<VirtAddr> {
        let shown = target.shown(self.next);
        let aligned = self.next.0.is_multiple_of(2 * target.pointer_size() as u64);
        let end = match () {
            () if self.end.is_some() => return None,
            () if self.driver.pool_pages.is_none() => {
                let at = target.shown(self.driver.verified_data);
                WalkEnd::unreadable(at, &"the list's head cannot be read")
            }
            () if self.next.is_null() => WalkEnd::Null,
            () if !aligned => WalkEnd::unreadable(shown, &"no element has such an address"),
            () if self.pages.contains_key(&self.next) => WalkEnd::Cycle(shown),
            () if self.order.len() == MAX_PAGES => WalkEnd::Limit(MAX_PAGES),
            () => return Some(self.next),
        };
        self.end = Some(end);
        None
    }

    /// Reads the page that the first pass has come to.
    pub(super) fn read_next(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        now: u64,
    ) -> Result<(), ReadCause> {
        match self.read(target, slots, self.next, now) {
            Ok(next) => {
                self.order.push(self.next);
                self.next = next;
            }
            Err(end) if end.is_of_link() => return Err(broken_off(target)),
            Err(end) => self.end = Some(end),
        }
        Ok(())
    }

    fn read(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        at: VirtAddr,
        now: u64,
    ) -> Result<VirtAddr, WalkEnd> {
        let (bytes, missing) = target.read_some(at, PAGE);
        let next = slots.next_page(target, at, &bytes, missing.as_ref(), self.driver.verified_data);
        let next = next.map_err(|error| WalkEnd::unreadable(target.shown(at), &error))?;
        self.pages.insert(at, Page { bytes, next, read_at: now, is_cut: missing.is_some() });
        Ok(next)
    }

    /// True if pages may be there that are not known: a free tracker may link to one in them.
    pub(super) fn is_behind(&self) -> bool {
        !self.is_complete || self.pages.values().any(|page| page.read_at > self.head_at)
    }

    /// Reads the pages that came before those of the first pass, with the heads of this stop. False if not all fit into it.
    pub(super) fn read_new(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        now: u64,
        page_requests: u64,
    ) -> Result<bool, ReadCause> {
        self.is_complete = false;
        let Some(head) = self.driver.pool_pages else { return Ok(true) };
        let first_pass: HashSet<_> = self.order.iter().copied().collect();
        let mut at = head.first;
        let mut new = Vec::new();
        while !at.is_null() && !first_pass.contains(&at) && new.len() < MAX_PAGES {
            if new.contains(&at) {
                self.changed(target, at);
                break;
            }
            let next = match self.pages.get(&at) {
                Some(page) => page.next,
                None if target.room() < page_requests => return Ok(false),
                None => match self.read(target, slots, at, now) {
                    Ok(next) => next,
                    Err(end) if end.is_of_link() => return Err(broken_off(target)),
                    Err(end) => {
                        self.end = Some(end);
                        break;
                    }
                },
            };
            new.push(at);
            at = next;
        }
        if at.is_null() && !first_pass.is_empty() {
            self.changed(target, head.first);
        }
        new.append(&mut self.order);
        self.order = new;
        self.is_complete = true;
        Ok(true)
    }

    /// The list does not lead to the pages that it had.
    fn changed(&mut self, target: &Target<'_>, at: VirtAddr) {
        let why =
            "the list was changed while the target was let run, and does not lead to the pages that it had";
        self.end = Some(WalkEnd::unreadable(target.shown(at), &why));
    }

    /// True if its lists are not as they were when they were first read.
    pub(super) fn has_moved(&self) -> bool {
        self.heads != [self.driver.pool_pages, self.driver.free_trackers]
    }

    /// Pages that were read before `now` and have free trackers, which may have been taken since: the one whose tracker is
    /// taken next first, then those with the most.
    pub(super) fn stale(&self, slots: &SlotLayout, now: u64) -> Vec<VirtAddr> {
        let first_free = self.driver.free_trackers.map_or(VirtAddr(0), |head| head.first);
        let of_page = |(at, page): (&VirtAddr, &Page)| {
            let is_free = |(tracker, slot): &(VirtAddr, &[u8])| {
                slots
                    .block(*tracker, slot)
                    .is_some_and(|block| block.odd_size || !self.is_in_use(slots, slot))
            };
            let free = slots.of_page(*at, &page.bytes).filter(is_free).count();
            let is_next = first_free.since(*at) < PAGE as u64;
            (page.read_at < now && (free > 0 || is_next)).then_some((!is_next, std::cmp::Reverse(free), *at))
        };
        let mut stale: Vec<_> = self.pages.iter().filter_map(of_page).collect();
        stale.sort_unstable();
        stale.into_iter().map(|(.., at)| at).collect()
    }

    /// Reads a page once more.
    pub(super) fn read_again(
        &mut self,
        target: &Target<'_>,
        slots: &SlotLayout,
        at: VirtAddr,
        now: u64,
    ) -> Result<(), ReadCause> {
        match self.read(target, slots, at, now) {
            Ok(_) => Ok(()),
            Err(end) if end.is_of_link() => Err(broken_off(target)),
            // It was a page of this driver's, and is none any more.
            Err(end) => {
                self.pages.remove(&at);
                self.order.retain(|page| *page != at);
                self.end = Some(end);
                Ok(())
            }
        }
    }

    /// False for a free tracker: it links to another of the driver's, or to none.
    fn is_in_use(&self, slots: &SlotLayout, slot: &[u8]) -> bool {
        slots.next_free.uint(slot).is_some_and(|link| link != 0 && !self.has(VirtAddr(link)))
    }

    /// True if an address lies in one of the pages.
    fn has(&self, address: VirtAddr) -> bool {
        let page = self.pages.range(..=address).next_back();
        page.is_some_and(|(at, _)| address.since(*at) < PAGE as u64)
    }

    pub(super) fn pages(&self) -> usize {
        self.order.len()
    }

    /// Pages of which only a part can be read.
    pub(super) fn cut(&self) -> usize {
        self.pages.values().filter(|page| page.is_cut).count()
    }

    /// How the walks along the pages ended.
    pub(super) fn end(&self) -> WalkEnd {
        self.end.clone().unwrap_or(WalkEnd::Null)
    }

    /// What its trackers had, each when it was read, and how many were taken without an address yet.
    pub(super) fn blocks(&self, target: &Target<'_>, slots: &SlotLayout) -> (Vec<ReadBlock>, usize) {
        let is_whole = self.end().is_complete() && !self.is_behind();
        let (mut blocks, mut under_way) = (Vec::new(), 0);
        for at in &self.order {
            let Some(page) = self.pages.get(at) else { continue };
            for (tracker, slot) in slots.of_page(*at, &page.bytes) {
                let Some(block) = slots.block(tracker, slot) else { continue };
                let is_in_use = self.is_in_use(slots, slot) && target.is_kernel(block.address);
                match (is_in_use, block.odd_size) {
                    // Where the pages are not all known, a link may lead to one that is not.
                    (true, odd) if !odd || is_whole => {
                        blocks.push(ReadBlock { block, read_at: page.read_at })
                    }
                    (false, false) => under_way += 1,
                    _ => {}
                }
            }
        }
        (blocks, under_way)
    }
}

/// What ended all reading.
fn broken_off(target: &Target<'_>) -> ReadCause {
    target.over().cloned().unwrap_or(ReadCause::NotKnown)
}

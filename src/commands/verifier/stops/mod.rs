//! What drivers hold at one moment, read over several short stops.
//!
//! ```text
//!   stop 1          stop 2          ...   stop n = the moment              further stops
//!   index, pages    index, pages          index, counters, list heads,     the log's entries up to the moment,
//!                                         new pages, those that changed    oldest first
//! ```
//! The target runs between the stops. What the pages told earlier is brought to the moment by the log ([`redo`]), which may
//! be read after it: entries do not change until the log comes round. So no stop has to hold more than one page, and the
//! number of stops is that of the pages and of the entries up to the moment. Pages with free trackers, where new blocks
//! find their places, are read once more at the moment; a block that came meanwhile in another page is known from the log
//! alone, and named. What the log lost is said, block for block, as far as blocks are known.
//!
//! Source: verifier.md 3.2, 4.1.

mod entries;
mod list;
mod redo;
mod report;

use std::collections::HashMap;

use self::entries::{Entries, Entry};
use self::list::List;
pub use self::redo::Why;
use self::redo::{Did, Event, Fate, Tracked, settle};
pub use self::report::{OneMoment, Undecided};
use super::allocations::{Allocations, Block, SlotLayout};
use super::common::failed;
use super::drivers::Driver;
use super::frames::{Frame, Names};
use super::pool_log::{Kind, Log, begins, is_mixed, is_of_kernel};
use super::run_ahead::PAGE;
use super::settings::Settings;
use crate::commands::error::QueryError;
use crate::memory::reply_len;
use crate::target::{Note, NoteCode, OfLink, ReadCause, Target, VirtAddr};

/// How often it is tried to read all pages that came, at one moment.
const MOMENTS: usize = 8;
/// Requests that level and counters of all drivers take.
const SETTINGS: u64 = 2;
/// Requests that naming the stacks takes at the most: the list of modules, the headers of those that are met.
pub(super) const NAMING: u64 = 24;
/// Addresses that a sentence names.
const NAMED: usize = 8;

/// What drivers hold.
pub(super) struct Gathered {
    /// With the counters of the moment.
    pub(super) drivers: Vec<(Driver, Allocations)>,
    /// Level and counters of all drivers at the moment, if it is not that in which they were read first.
    pub(super) settings: Option<Settings>,
    /// Nothing if one stop was enough.
    pub(super) moment: Option<OneMoment>,
    /// The allocations of blocks that are there, as far as the log told them.
    pub(super) logged: HashMap<VirtAddr, Logged>,
}

/// The entry of the log that allocated a block.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    /// `VfPoolTracesIndex` when it was written.
    pub(super) event: u32,
    pub(super) thread: VirtAddr,
    pub(super) stack: Vec<VirtAddr>,
}

/// Reads what `drivers` hold, which were read after so many `breaths`; `others` are verified too, as far as is known.
pub(super) fn gather(
    target: &Target<'_>,
    mut drivers: Vec<Driver>,
    others: &[Driver],
    breaths: u64,
) -> Result<Gathered, QueryError> {
    let page_requests = (PAGE as u64).div_ceil(reply_len(target.memory()));
    let pages: u64 = drivers.iter().filter_map(|it| it.pool_pages).map(|head| u64::from(head.depth)).sum();
    let whole = pages * page_requests + drivers.len() as u64 + SETTINGS;
    target.make_room(whole).map_err(QueryError::Lost)?;
    let now = target.breaths();
    if now != breaths {
        // They are of stops before.
        for driver in &mut drivers {
            target.make_room(1).map_err(QueryError::Lost)?;
            driver.read_again(target).map_err(failed)?;
        }
    }
    if target.breaths() == now && target.room() >= whole {
        let read = |driver: Driver| Ok((Allocations::read(target, &driver).map_err(failed)?, driver));
        let drivers: Result<Vec<_>, QueryError> = drivers.into_iter().map(read).collect();
        let drivers = drivers?.into_iter().map(|(found, driver)| (driver, found)).collect();
        let settings = (now != breaths).then(|| Settings::read(target)).transpose().map_err(failed)?;
        return Ok(Gathered { drivers, settings, moment: None, logged: HashMap::new() });
    }
    let entries = match Log::read(target) {
        Ok(log) => Some(Entries::new(log)),
        Err(error) if error.is_of_link() => return Err(error),
        Err(_) => None,
    };
    let mut gather = Gather {
        target,
        slots: SlotLayout::find(target).map_err(failed)?,
        page_requests,
        pages,
        lists: drivers.into_iter().map(List::new).collect(),
        entries,
        stops: 1,
        moment: 0,
        settings: None,
    };
    gather.read_pages().and_then(|()| gather.find_moment()).map_err(QueryError::Lost)?;
    gather.read_entries().map_err(QueryError::Lost)?;
    gather.settle(others)
}

struct Gather<'a> {
    target: &'a Target<'a>,
    slots: SlotLayout,
    /// Requests that a page takes.
    page_requests: u64,
    /// Pages that there were.
    pages: u64,
    lists: Vec<List>,
    /// Nothing where the kernel keeps no log.
    entries: Option<Entries>,
    stops: u64,
    /// Events since the first stop.
    moment: u64,
    settings: Option<Settings>,
}

impl Gather<'_> {
    fn now(&self) -> u64 {
        self.entries.as_ref().map_or(self.stops, Entries::now)
    }

    fn breathe(&mut self) -> Result<(), ReadCause> {
        self.target.breathe()?;
        self.stops += 1;
        if let Some(entries) = &mut self.entries {
            entries.next_stop(self.target)?;
        }
        Ok(())
    }

    /// Every page once, each at the stop that it fits into.
    fn read_pages(&mut self) -> Result<(), ReadCause> {
        let mut done = 0;
        for number in 0..self.lists.len() {
            while self.lists[number].next_page(self.target).is_some() {
                if self.target.room() < self.page_requests {
                    self.breathe()?;
                    self.keep_up()?;
                }
                let now = self.now();
                self.lists[number].read_next(self.target, &self.slots, now)?;
                done += 1;
                self.target.advance("tracker pages", done, self.pages.max(done));
            }
        }
        Ok(())
    }

    /// Reads of the log before it is written over.
    fn keep_up(&mut self) -> Result<(), ReadCause> {
        let Some(entries) = self.entries.as_mut().filter(|entries| entries.is_pressing()) else {
            return Ok(());
        };
        let half = (self.target.room() / 2).max(1);
        entries.read(self.target, entries.now(), half)
    }

    /// A stop of its own, at which the lists are looked through for what came since, and the counters are read: those of the
    /// drivers that have worked since they were read last, where there is no room for all.
    fn find_moment(&mut self) -> Result<(), ReadCause> {
        for _ in 0..MOMENTS {
            self.breathe()?;
            let mut lists: Vec<_> = (0..self.lists.len()).collect();
            if lists.len() as u64 > self.target.room() / 2 {
                for number in &lists {
                    if self.target.room() == 0 {
                        self.breathe()?;
                        self.keep_up()?;
                    }
                    self.read_head(*number)?;
                }
                self.breathe()?;
                lists.retain(|number| self.lists[*number].has_moved());
            }
            self.moment = self.now();
            self.settings = Settings::read(self.target).ok();
            if self.look_for_new_pages(&lists)? {
                return self.read_stale_pages(lists);
            }
        }
        let behind = self.lists.iter().filter(|list| list.is_behind()).map(|list| list.driver.shown_name());
        let text = format!(
            "Tracker pages came faster than they could be read in short stops ({}): what is in the last of them only the pool \
             log tells, and blocks of odd size in special pool are not listed",
            behind.collect::<Vec<_>>().join(", ")
        );
        self.target.note(Note::partial(NoteCode::ListBreaksOff, text));
        Ok(())
    }

    /// The head of a list and its driver's counters. False if they cannot be read.
    fn read_head(&mut self, number: usize) -> Result<bool, ReadCause> {
        let now = self.now();
        let list = &mut self.lists[number];
        let Err(error) = list.read_head(self.target, now) else { return Ok(true) };
        if error.is_of_link() {
            return Err(self.target.over().cloned().unwrap_or(ReadCause::NotKnown));
        }
        let name = list.driver.shown_name();
        self.target.note(Note::partial(NoteCode::Damaged, format!("{name}: {error}")));
        Ok(false)
    }

    /// False if not all of it fits into this stop: pages that are not read now hold nothing that the log does not tell of.
    fn look_for_new_pages(&mut self, lists: &[usize]) -> Result<bool, ReadCause> {
        let now = self.now();
        for (place, number) in lists.iter().enumerate() {
            if place > 0 && self.target.room() == 0 {
                return Ok(false);
            }
            if self.read_head(*number)?
                && !self.lists[*number].read_new(self.target, &self.slots, now, self.page_requests)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The pages of these lists where blocks may have come, as many as fit into this stop; those of drivers that worked first.
    fn read_stale_pages(&mut self, mut order: Vec<usize>) -> Result<(), ReadCause> {
        let now = self.now();
        order.sort_by_key(|number| !self.lists[*number].has_moved());
        for number in order {
            for page in self.lists[number].stale(&self.slots, now) {
                if self.target.room() < self.page_requests {
                    return Ok(());
                }
                self.lists[number].read_again(self.target, &self.slots, page, now)?;
            }
        }
        Ok(())
    }

    /// The log up to the moment.
    fn read_entries(&mut self) -> Result<(), ReadCause> {
        while let Some(entries) = &mut self.entries
            && entries.read_to < self.moment
        {
            let room = self.target.room();
            if room == 0 || entries.readable(self.moment) == 0 {
                self.breathe()?;
            } else {
                entries.read(self.target, self.moment, room)?;
                self.target.advance("log entries", entries.read_to, self.moment);
                continue;
            }
            // One entry at the least, however short the stop.
            if let Some(entries) = &mut self.entries {
                entries.read(self.target, self.moment, self.target.room().max(1))?;
            }
        }
        self.target.make_room(NAMING).map(|has_run| self.stops += u64::from(has_run))
    }

    /// Brings everything to the moment.
    fn settle(self, others: &[Driver]) -> Result<Gathered, QueryError> {
        let Self { target, slots, mut lists, entries, stops, moment, settings, .. } = self;
        let mut names = Names::new(target);
        let mut logged = Told::default();
        if let Some(entries) = entries {
            logged = Told::of(entries, moment, &mut names);
        }
        names.tell();
        let mut report = OneMoment {
            stops,
            event: logged.index,
            replayed: logged.events.len() as u64,
            lost: logged.lost.iter().map(|range| range.end - range.start).sum(),
            ..OneMoment::default()
        };
        let mut blocks = Vec::new();
        let mut under_way = Vec::new();
        for (number, list) in lists.iter().enumerate() {
            let (read, unfinished) = list.blocks(target, &slots);
            under_way.push(unfinished);
            blocks.extend(read.into_iter().map(|it| (number, it)));
        }
        let tracked: Vec<_> =
            blocks.iter().map(|(_, it)| Tracked { address: it.block.address, read_at: it.read_at }).collect();
        let tracked_by: HashMap<_, _> =
            blocks.iter().map(|(number, it)| (it.block.address, *number)).collect();
        let settled = settle(&tracked, &logged.events, &logged.lost);
        let mut found: Vec<Vec<Block>> = lists.iter().map(|_| Vec::new()).collect();
        for ((number, read), fate) in blocks.into_iter().zip(settled.fates) {
            match fate {
                Fate::Outstanding => found[number].push(read.block),
                Fate::Gone => {}
                Fate::Undecided(why) => report.undecided.push(Undecided {
                    address: read.block.address,
                    driver: lists[number].driver.shown_name(),
                    why,
                }),
            }
        }
        let owners = logged.owners(&lists, others);
        outdate_counters(&mut lists, moment, &tracked_by, &logged, &owners);
        // The newest is first in a list.
        for event in settled.appeared.iter().copied() {
            let Some((number, frame)) = &owners[event] else { continue };
            let block = logged.block(event, frame.clone());
            report.from_log.push(block.address);
            found[*number].insert(0, block);
        }
        for (event, why) in settled.unclear {
            let Some((number, _)) = &owners[event] else { continue };
            let (address, driver) = (logged.entries[event].address, lists[*number].driver.shown_name());
            report.undecided.push(Undecided { address, driver, why });
        }
        tell(&report, target);
        let mut drivers = Vec::new();
        for ((list, blocks), under_way) in lists.into_iter().zip(found).zip(under_way) {
            let mut allocations = Allocations {
                blocks,
                pages: list.pages(),
                pages_end: list.end(),
                free_end: list.end(),
                gaps: Vec::new(),
            };
            allocations.note_over_stops(target, &list.driver, list.cut(), under_way);
            drivers.push((list.driver, allocations));
        }
        let there: std::collections::HashSet<_> =
            drivers.iter().flat_map(|(_, it)| &it.blocks).map(|block| block.address).collect();
        Ok(Gathered { drivers, settings, moment: Some(report), logged: logged.into_allocations(&there) })
    }
}

/// The log up to the moment, and what its entries did.
#[derive(Default)]
struct Told {
    index: Option<u32>,
    /// The index at the first stop.
    first: u32,
    entries: Vec<Entry>,
    events: Vec<Event>,
    stacks: Vec<Vec<Frame>>,
    lost: Vec<std::ops::Range<u64>>,
}

impl Told {
    fn of(log: Entries, moment: u64, names: &mut Names<'_>) -> Self {
        let (first, index) = (log.index_at(0), Some(log.index_at(moment)));
        let mut stacks = log.stacks;
        names.name_all(stacks.iter_mut().flatten());
        let did: Vec<_> = stacks.iter().map(|stack| did(stack)).collect();
        let (mut entries, mut events) = (Vec::new(), Vec::new());
        for entry in log.entries.into_iter().filter(|entry| entry.at <= moment) {
            let Some(mut did) = did[entry.stack] else { continue };
            if entry.size == 0 || entry.thread.is_null() {
                did = Did::Torn;
            }
            events.push(Event { at: entry.at, address: entry.address, did });
            entries.push(entry);
        }
        Self { index, first, entries, events, stacks, lost: log.lost }
    }

    /// Of each event, the list whose block it is about, and the frame in its driver that called: the innermost outside of the
    /// kernel. Nothing where that is another's: the log has frees of everybody.
    fn owners(&self, lists: &[List], others: &[Driver]) -> Vec<Option<(usize, Frame)>> {
        let lies_in = |driver: &Driver, frame: &Frame| {
            driver.size.value().is_some_and(|size| frame.address.since(driver.base) < size)
        };
        let of_stack = |stack: &Vec<Frame>| {
            // Not every verified driver is known where one was asked for by name.
            let frame = stack.iter().find(|frame| {
                let is_known = |driver: &Driver| lies_in(driver, frame);
                !is_of_kernel(frame)
                    || lists.iter().any(|it| is_known(&it.driver))
                    || others.iter().any(is_known)
            })?;
            let number = lists.iter().position(|list| lies_in(&list.driver, frame))?;
            Some((number, frame.clone()))
        };
        let of_stacks: Vec<_> = self.stacks.iter().map(of_stack).collect();
        self.entries.iter().map(|entry| of_stacks[entry.stack].clone()).collect()
    }

    /// A block of which the log alone tells.
    fn block(&self, event: usize, caller: Frame) -> Block {
        let entry = self.entries[event];
        Block {
            address: entry.address,
            size: entry.size,
            tag: String::new(),
            tag_number: 0,
            caller: caller.address,
            caller_symbol: caller.symbol,
            tracker: VirtAddr(0),
            stack: None,
            odd_size: false,
        }
    }

    /// The newest events about the blocks that are there, where they are allocations.
    fn into_allocations(self, there: &std::collections::HashSet<VirtAddr>) -> HashMap<VirtAddr, Logged> {
        let mut newest = HashMap::new();
        for (entry, event) in self.entries.iter().zip(&self.events) {
            if !there.contains(&entry.address) {
                continue;
            }
            let logged = Logged {
                event: self.first.wrapping_add(entry.at as u32),
                thread: entry.thread,
                stack: self.stacks[entry.stack].iter().map(|frame| frame.address).collect(),
            };
            match event.did {
                Did::Allocated | Did::Unknown => newest.insert(entry.address, logged),
                Did::Freed | Did::Torn => newest.remove(&entry.address),
            };
        }
        newest
    }
}

/// Counters that were read before the moment say nothing of it, unless their driver did nothing in between.
fn outdate_counters(
    lists: &mut [List],
    moment: u64,
    tracked_by: &HashMap<VirtAddr, usize>,
    logged: &Told,
    owners: &[Option<(usize, Frame)>],
) {
    let mut allocated_by = HashMap::new();
    let mut worked_at = vec![0; lists.len()];
    for (number, event) in logged.events.iter().enumerate() {
        let owner = match (&owners[number], event.did) {
            (Some((owner, _)), did) if did != Did::Freed => {
                allocated_by.insert(event.address, *owner);
                Some(*owner)
            }
            _ => allocated_by.get(&event.address).or_else(|| tracked_by.get(&event.address)).copied(),
        };
        if let Some(owner) = owner {
            worked_at[owner] = event.at;
        }
    }
    let is_lost_behind = |at: u64| logged.lost.iter().any(|range| range.end > at + 1);
    for (list, worked_at) in lists.iter_mut().zip(worked_at) {
        if list.head_at < moment && (worked_at > list.head_at || is_lost_behind(list.head_at)) {
            list.driver.pool.of_another_moment();
        }
    }
}

/// What an event with this stack did to a pool block; nothing if it was about something else.
fn did(stack: &[Frame]) -> Option<Did> {
    if is_mixed(stack) {
        return Some(Did::Torn);
    }
    match Kind::of(stack) {
        // What is mapped, or described by a list, has no tracker.
        Kind::Allocation => (begins(stack) == Some(Kind::Allocation)).then_some(Did::Allocated),
        Kind::Free => Some(Did::Freed),
        Kind::Unknown => Some(Did::Unknown),
    }
}

/// Says of which moment it is, and what is not known of that.
fn tell(report: &OneMoment, target: &Target<'_>) {
    let OneMoment { stops, event, replayed, lost, from_log, undecided } = report;
    match event {
        Some(event) => target.note(Note::remark(NoteCode::ShortStops, format!(
            "Read over {stops} stops; what is listed is of one moment, event {event:#x} of the pool log: {replayed} of its \
             entries brought to it what was read before"
        ))),
        None => target.note(Note::partial(NoteCode::ShortStops, format!(
            "Read over {stops} stops; this kernel keeps no pool log that tells what was allocated and freed meanwhile, so that \
             what is listed is of no one moment"
        ))),
    }
    let named = |addresses: &mut dyn Iterator<Item = VirtAddr>, count: usize| {
        let names: Vec<_> = addresses.take(NAMED).map(|address| target.shown(address).to_string()).collect();
        let more = if count > names.len() { ", .." } else { "" };
        format!("{}{more}", names.join(", "))
    };
    if *lost > 0 {
        target.note(Note::partial(NoteCode::Undecided, format!(
            "{lost} entries of the pool log were written over before they were read, or cannot be read: blocks that only those \
             tell of are missing, or undecided"
        )));
    }
    if !from_log.is_empty() {
        let named = named(&mut from_log.iter().copied(), from_log.len());
        target.note(Note::partial(NoteCode::FromLogAlone, format!(
            "{} blocks came while the target was let run, and only the pool log tells of them: their sizes are what was asked \
             for, and their tags are not known: {named}",
            from_log.len()
        )));
    }
    if !undecided.is_empty() {
        let named = named(&mut undecided.iter().map(|it| it.address), undecided.len());
        target.note(Note::partial(NoteCode::Undecided, format!(
            "Of {} blocks it is not known whether they were outstanding at that moment, and they are not listed: {named}",
            undecided.len()
        )));
    }
}

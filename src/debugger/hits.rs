//! Waiting for uses of a pool tag: the tag is set, the target runs, stops at each use, is read and let run; the tag is taken
//! back.
//!
//! ```text
//!   stopped --> watch_tag --> collect_hits: go, hit, go, hit .. --> stop_watching --> stopped, or the next leave sees to it
//!                                               `-- it restarts, is lost, stops for something else: that ends it
//! ```
//! The session answers for the tag: whatever ends it takes the tag back before the target is let run for good. A tag that
//! somebody else has left is told of and taken away at a stop that came of it, and before the target is let run for good.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::MachineType;
use kd_protocol::kd::{NtStatus, StateChange};

use super::error::{AskError, HitsError};
use super::step_off::{Stepped, step_off};
use super::stop::{INT3, is_exception, reported};
use crate::commands::pool::PoolTag;
use crate::commands::pool::hits::{
    self, Hit, HitAccount, HitEnd, HitKind, HitOptions, HitReport, StoodStill, VARIABLE,
};
use crate::commands::{BugCheckQuery, Query};
use crate::memory::{ReadCause, VirtAddr};
use crate::source::{BootId, Control, Halt, IGNORE, PlantError, Planted, Resumed, Source, Wait};
use crate::target::{Target, TargetError};

/// Allocations that are followed back at once: more are only counted.
const MOST_RETURNING: usize = 16;
/// What the variable is cleared with where nothing better is known, as WinDbg's users clear it.
const NONE: [u8; 4] = [0; 4];

/// The debugger, as far as it is needed here.
pub(super) trait Waiter {
    fn source(&self) -> &dyn Source;
    /// The target of the present stop.
    fn target(&self) -> Option<Target<'_>>;
    fn why_not_stopped(&self) -> AskError;
    fn go(&self) -> Resumed;
    /// Somebody writes to the target.
    fn forget_memory(&self);
    /// Why the target could not be asked since the last call.
    fn take_failure(&self) -> Option<ReadCause>;
    fn break_in_timeout(&self) -> Duration;
}

/// A tag that somebody has left, and whether it was taken away.
#[derive(Debug)]
pub(super) struct TagLeft {
    pub(super) tag: PoolTag,
    pub(super) cleared: Result<(), PlantError>,
}

/// Who waits for hits.
pub trait HitObserver {
    /// There was one more.
    fn hit(&mut self, account: &HitAccount);

    /// True once nobody waits any more.
    fn is_told_to_end(&self) -> bool;
}

/// Hits that are being collected.
#[derive(Debug)]
pub struct Hits {
    options: HitOptions,
    account: HitAccount,
    stood_still: StoodStill,
    /// Allocations on their way back to whoever asked, which then has the block.
    returning: Vec<Returning>,
    /// Where breakpoints were set for that.
    met_at: BTreeSet<VirtAddr>,
}

/// An allocation whose block is not known yet.
#[derive(Clone, Copy, Debug)]
struct Returning {
    /// Where its thread goes on, with a stack pointer not below this.
    address: VirtAddr,
    stack: u64,
    thread: VirtAddr,
    /// Of which group it is.
    group: usize,
}

/// How a wait of the collection ended.
enum Waited {
    Hit(Box<StateChange>),
    /// Somebody came by a place that allocations return to.
    Return(Box<StateChange>),
    /// A break-in too many, which is nobody's.
    Nothing,
    End(HitEnd),
}

impl Hits {
    /// None so far.
    #[must_use]
    pub fn new(options: HitOptions) -> Self {
        let account = HitAccount::new(options.tag);
        Self {
            options,
            account,
            stood_still: StoodStill::default(),
            returning: Vec::new(),
            met_at: BTreeSet::new(),
        }
    }

    /// Those so far.
    #[must_use]
    pub const fn account(&self) -> &HitAccount {
        &self.account
    }

    /// What came of them after `elapsed`.
    #[must_use]
    pub fn report(&self, end: HitEnd, elapsed: Duration) -> HitReport {
        let report = self.account.report(end, elapsed, self.stood_still);
        HitReport { files: self.options.files.clone(), ..report }
    }

    const fn counts(&self, kind: HitKind) -> bool {
        self.options.frees || !matches!(kind, HitKind::Free)
    }

    /// Hits that count.
    fn counted(&self) -> u64 {
        let counted = self.account.counted();
        if self.options.frees { counted.hits } else { counted.hits - counted.frees }
    }

    fn stood(&mut self, stop: Duration) {
        let stop = u64::try_from(stop.as_micros()).unwrap_or(u64::MAX);
        self.stood_still.stops += 1;
        self.stood_still.total_us = self.stood_still.total_us.saturating_add(stop);
        self.stood_still.longest_us = self.stood_still.longest_us.max(stop);
    }
}

/// Makes the stopped target stop at each use of `tag` from now on. A tag that somebody has left there is returned: it is taken
/// away.
pub(super) fn watch_tag(waiter: &dyn Waiter, tag: PoolTag) -> Result<Option<TagLeft>, HitsError> {
    let control = waiter.source().control().ok_or(HitsError::Plant(PlantError::NotLive))?;
    let target = waiter.target().ok_or_else(|| HitsError::NotStopped(waiter.why_not_stopped()))?;
    let machine = target.kernel().version().machine;
    if machine != MachineType::AMD64 {
        return Err(HitsError::Machine(machine));
    }
    let (address, there) = tag_there(&target).map_err(HitsError::Variable)?;
    drop(target);
    let left = hits::left_behind(there);
    // A tag that was left is not given back.
    let before = if left.is_some() { NONE } else { there };
    waiter.forget_memory();
    let planted = Planted { name: VARIABLE.to_owned(), address, value: tag.bytes(), before };
    control.plant(planted).map_err(HitsError::Plant)?;
    Ok(left.map(|tag| TagLeft { tag, cleared: Ok(()) }))
}

/// Lets the target run and takes each use of the tag until something ends that; says what. The target is stopped afterwards if
/// it stopped, and the tag may still be set.
pub(super) fn collect(waiter: &dyn Waiter, hits: &mut Hits, observer: &mut dyn HitObserver) -> HitEnd {
    let source = waiter.source();
    let Some(control) = source.control() else { return HitEnd::Lost("it never runs".into()) };
    let boot = source.boot();
    // Somebody at a prompt has stopped it for his own reasons: what he asks for begins here.
    let mut before = source.stopped_for();
    let deadline = hits.options.length.map(|length| control.deadline_after(length));
    loop {
        let stopped_for = source.stopped_for().saturating_sub(std::mem::take(&mut before));
        let frozen = source.frozen();
        match go_on(waiter, control, hits) {
            Resumed::Running => {}
            Resumed::NeverRuns => return HitEnd::Lost("it never runs".into()),
            Resumed::MayBeStopped(why) => return HitEnd::Lost(why),
        }
        hits.stood(stopped_for + source.frozen().saturating_sub(frozen));
        let change = match wait_for_hit(waiter, control, hits, boot, deadline, observer) {
            Waited::Hit(change) => change,
            Waited::Return(change) => {
                take_return(waiter, hits, &change);
                continue;
            }
            Waited::Nothing => continue,
            Waited::End(end) => return end,
        };
        let end = take_hit(waiter, hits, &change);
        observer.hit(&hits.account);
        let is_enough = hits.options.count.is_some_and(|count| hits.counted() >= count);
        let is_over = deadline.is_some_and(|deadline| deadline <= control.deadline_after(Duration::ZERO));
        match end {
            Some(end) => return end,
            None if is_enough => return HitEnd::Count,
            None if observer.is_told_to_end() => return HitEnd::Interrupted,
            None if is_over => return HitEnd::Time,
            None => {}
        }
    }
}

/// Lets the target run. Where allocations are on their way back, it stops there too.
fn go_on(waiter: &dyn Waiter, control: &dyn Control, hits: &mut Hits) -> Resumed {
    let places: BTreeSet<VirtAddr> = hits.returning.iter().map(|it| it.address).collect();
    if places.is_empty() {
        return waiter.go();
    }
    let source = waiter.source();
    let place = |change: &StateChange| Some(waiter.target()?.address(change.program_counter.0));
    let is_at_one = |change: &StateChange| place(change).is_some_and(|at| places.contains(&at));
    let mut stands_at_one = source.stopped().is_some_and(|change| is_at_one(&change));
    while std::mem::take(&mut stands_at_one) {
        match step_off(control, source.boot(), place, |at| places.contains(&at)) {
            Stepped::Off => {}
            Stepped::AtAnother => {
                let stopped = source.stopped();
                stopped.iter().for_each(|change| take_return(waiter, hits, change));
                stands_at_one = stopped.is_some();
            }
            Stepped::Elsewhere => return Resumed::Running,
            Stepped::Not(resumed) => return resumed,
        }
    }
    waiter.forget_memory();
    for address in places {
        match control.set_breakpoint(address) {
            Ok(()) => drop(hits.met_at.insert(address)),
            // Its block stays unknown.
            Err(_) => hits.returning.retain(|it| it.address != address),
        }
    }
    waiter.go()
}

fn wait_for_hit(
    waiter: &dyn Waiter,
    control: &dyn Control,
    hits: &Hits,
    boot: BootId,
    deadline: Option<Instant>,
    observer: &dyn HitObserver,
) -> Waited {
    loop {
        match control.wait_for_halt(Some(boot), deadline) {
            Wait::Done(Halt::Stopped(change)) => return seen(waiter, control, hits, change),
            Wait::Done(Halt::Restarted) => return Waited::End(HitEnd::Restarted),
            Wait::Done(Halt::Prompt(prompt)) => {
                control.answer_prompt(prompt, Bytes::from_static(IGNORE));
            }
            Wait::TimedOut => return Waited::End(HitEnd::Time),
            Wait::Interrupted if observer.is_told_to_end() => return Waited::End(HitEnd::Interrupted),
            // Nobody else cuts a wait short: the keeper has let the target run for good meanwhile.
            Wait::Interrupted => return Waited::End(HitEnd::Suspended),
            Wait::Ended(why) => return Waited::End(HitEnd::Lost(why)),
        }
    }
}

fn seen(waiter: &dyn Waiter, control: &dyn Control, hits: &Hits, change: Box<StateChange>) -> Waited {
    if control.planted().is_none() {
        return Waited::End(HitEnd::Suspended);
    }
    disarm(waiter, control);
    let Some(target) = waiter.target() else { return Waited::End(HitEnd::Restarted) };
    let at = target.address(change.program_counter.0);
    // Its breakpoint is gone by the report; one that is met late has been taken out meanwhile.
    let is_own = hits.met_at.contains(&at) && reported(&change, &target).first() != Some(&INT3);
    if is_own && is_exception(&change, NtStatus::BREAKPOINT) {
        return Waited::Return(change);
    }
    if is_hit(&change, &target) {
        return Waited::Hit(change);
    }
    let at = target.symbol_at(at);
    let is_stray = hits::is_break_in(&at) && !control.is_break_in();
    // A bug check stops there too.
    if is_stray && BugCheckQuery.run(&target).is_ok_and(|it| !it.happened()) {
        return Waited::Nothing;
    }
    Waited::End(HitEnd::OtherStop)
}

/// Takes out the breakpoints that followed allocations back.
fn disarm(waiter: &dyn Waiter, control: &dyn Control) {
    if !control.breakpoints().is_empty() {
        // What fails is tried again when the target is let run for good.
        let _ = control.clear_breakpoints();
        waiter.forget_memory();
    }
}

/// True for a stop at a use of the tag in the variable, provided that one is there. What only x64 targets report is needed for it.
fn is_hit(change: &StateChange, target: &Target<'_>) -> bool {
    let is_int3 = reported(change, target).first() == Some(&INT3);
    let is_breakpoint = is_exception(change, NtStatus::BREAKPOINT);
    is_int3 && is_breakpoint && hits::is_pool_hit(target.address(change.program_counter.0), target)
}

fn bare(change: &StateChange, target: &Target<'_>) -> Hit {
    let kind = hits::kind_at(target.address(change.program_counter.0), target);
    Hit::bare(kind, change.processor, change.thread)
}

/// Takes one in. What ends the collection, if reading it showed that.
fn take_hit(waiter: &dyn Waiter, hits: &mut Hits, change: &StateChange) -> Option<HitEnd> {
    let Some(target) = waiter.target() else { return Some(HitEnd::Restarted) };
    waiter.take_failure();
    let bare = bare(change, &target);
    let is_due = hits.counts(bare.kind) && hits.counted().is_multiple_of(hits.options.every);
    let hit = if is_due { hits::read(bare, hits.options.tag, hits.options.frames, &target) } else { bare };
    let returns_to = hit.stack.as_ref().and_then(|stack| stack.returns_to);
    let is_followed = hits.options.frees && hit.kind == HitKind::Allocation;
    let (group, thread) = (hits.account.add(hit), change.thread);
    if let Some((address, stack)) =
        returns_to.filter(|_| is_followed && hits.returning.len() < MOST_RETURNING)
    {
        hits.returning.push(Returning { address, stack, thread, group });
    }
    match waiter.take_failure() {
        None | Some(ReadCause::FreezeBudget) => None,
        Some(ReadCause::Interrupted) => Some(HitEnd::Interrupted),
        Some(ReadCause::TargetRestarted) => Some(HitEnd::Restarted),
        Some(why) => Some(HitEnd::Lost(why.to_string())),
    }
}

/// Takes the block that an allocation has come to, if it is one of those that are followed.
fn take_return(waiter: &dyn Waiter, hits: &mut Hits, change: &StateChange) {
    let Some(target) = waiter.target() else { return };
    let at = target.address(change.program_counter.0);
    let Ok(registers) = target.registers() else { return };
    let stack = registers.stack_pointer().0;
    let is_it = |it: &Returning| it.address == at && it.thread == change.thread && stack >= it.stack;
    let Some(number) = hits.returning.iter().position(is_it) else { return };
    let Returning { group, .. } = hits.returning.swap_remove(number);
    // Of one that failed there is none.
    if let Some(block) = registers.get("rax").map(|it| it.value).filter(|block| *block != 0) {
        hits.account.returned(group, VirtAddr(block));
    }
}

/// Takes the tag back. A target that runs is stopped for that, and stays so; a use of the tag that comes before is still
/// counted. What fails here is tried again when the target is let run for good. False if the target has restarted meanwhile, and
/// the tag is gone with its boot.
pub(super) fn stop_watching(waiter: &dyn Waiter, hits: &mut Hits) -> Result<bool, HitsError> {
    let Some(control) = waiter.source().control() else { return Ok(true) };
    if control.planted().is_none() {
        return Ok(true);
    }
    if waiter.source().stopped().is_none() && !stop_for_it(waiter, control, hits)? {
        return Ok(false);
    }
    waiter.forget_memory();
    control.take_back().map_err(HitsError::Plant)?;
    Ok(true)
}

/// False if the target restarts instead.
fn stop_for_it(waiter: &dyn Waiter, control: &dyn Control, hits: &mut Hits) -> Result<bool, HitsError> {
    let (boot, timeout) = (waiter.source().boot(), waiter.break_in_timeout());
    control.request_break_in();
    let deadline = control.deadline_after(timeout);
    loop {
        match control.wait_for_halt(Some(boot), Some(deadline)) {
            Wait::Done(Halt::Stopped(change)) => {
                disarm(waiter, control);
                if let Some(target) = waiter.target().filter(|target| is_hit(&change, target)) {
                    hits.account.add(bare(&change, &target));
                }
                return Ok(true);
            }
            Wait::Done(Halt::Prompt(prompt)) => {
                control.answer_prompt(prompt, Bytes::from_static(IGNORE));
            }
            Wait::Done(Halt::Restarted) => {
                control.cancel_break_in();
                return Ok(false);
            }
            wait => {
                return Err(HitsError::NotReached(control.gave_up_break_in(wait.map(drop), timeout)));
            }
        }
    }
}

/// Takes away a tag that somebody has left, at a stop that came of it: a debugger that was killed, perhaps.
pub(super) fn take_left_away_at(waiter: &dyn Waiter, change: &StateChange) -> Option<TagLeft> {
    waiter.target().filter(|target| is_hit(change, target))?;
    take_left_away(waiter)
}

/// The same at any stop, for a request: a target that is let run for good must not meet a tag that nobody answers for.
pub(super) fn take_left_away(waiter: &dyn Waiter) -> Option<TagLeft> {
    let control = waiter.source().control()?;
    if control.planted().is_some() || control.lost().is_some() {
        return None;
    }
    let (address, value) = tag_there(&waiter.target()?).ok()?;
    let tag = hits::left_behind(value)?;
    // From here on the session answers for it: what fails now is tried again when the target is let run.
    control.adopt(Planted { name: VARIABLE.to_owned(), address, value, before: NONE }).ok()?;
    waiter.forget_memory();
    Some(TagLeft { tag, cleared: control.take_back() })
}

/// Answers from now on for a tag that a person has written by hand; for none any more where that was taken away.
pub(super) fn answer_for_written(waiter: &dyn Waiter, written: &[(VirtAddr, usize)]) {
    let Some(control) = waiter.source().control() else { return };
    let Some(target) = waiter.target() else { return };
    let Ok(at) = target.address_of(VARIABLE) else { return };
    let end = at.offset(NONE.len() as u64);
    if !written.iter().any(|(from, len)| *from < end && at < from.offset(*len as u64)) {
        return;
    }
    let Ok((address, value)) = tag_there(&target) else { return };
    drop(target);
    // What cannot be done is found out, and told, by whoever lets the target run.
    let _ = match hits::left_behind(value) {
        Some(_) => control.adopt(Planted { name: VARIABLE.to_owned(), address, value, before: NONE }),
        None => control.take_back(),
    };
}

fn tag_there(target: &Target<'_>) -> Result<(VirtAddr, [u8; 4]), TargetError> {
    let address = target.address_of(VARIABLE)?;
    let mut there = [0; 4];
    let read = target.memory().read_virtual(address, &mut there);
    read.map_err(|error| TargetError::read(VARIABLE, error))?;
    Ok((address, there))
}

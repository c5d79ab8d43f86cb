//! Short stops: a question that takes long lets the target run in between, and no stop takes longer than it may.
//!
//! ```text
//!   |<------------- longest ------------->|
//!   | asked, asked, asked ...  | margin    |   runs for a breath   | asked, asked ...
//!   stop                       no room     go                      stop
//! ```
//! What a request takes and what letting it run takes is measured as it goes, on the clock of whoever keeps the time that
//! the target stands still; the margin is what letting it run took before, and one request. A machine that stops by itself,
//! restarts or falls silent in between ends the question: nothing of one boot or moment is told as another's.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use crate::memory::ReadCause;
use crate::source::{BootId, BreakInError, Control, Halt, IGNORE, Resumed, Source, Wait};
use crate::target::{Breathing, Note, NoteCode, Target};

/// A request is thought to take this long before one was measured.
const FIRST_REQUEST: Duration = Duration::from_millis(2);
/// So many requests fit into a stop in which nothing was asked yet, however short it may be: a question has to come to its end.
const LEAST: u64 = 4;
/// Letting the target run is thought to take as many requests before it was measured.
const FIRST_RESUME: u32 = 4;

/// How long one stop of a question may take, and how long the target runs between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortStops {
    /// The longest stop.
    pub longest: Duration,
    /// The time between two.
    pub breath: Duration,
}

impl ShortStops {
    /// How long a target runs between two stops unless told otherwise.
    pub const BREATH: Duration = Duration::from_millis(200);
}

/// The stops of one question.
pub(super) struct Stops<'a> {
    source: &'a dyn Source,
    control: &'a dyn Control,
    limits: ShortStops,
    /// How long the target may take to stop.
    timeout: Duration,
    /// Looks at the stop that has come: true if the machine has bug-checked; nothing if it is not the one that it was.
    look: &'a dyn Fn() -> Option<bool>,
    boot: BootId,
    /// How long the first stop had taken before anything was asked, where that alone was too long: somebody at a prompt
    /// has his own reasons, and what is asked there begins to count when it is asked.
    before: Cell<Duration>,
    pace: Cell<Pace>,
    over: Cell<StopsOver>,
}

/// What things take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    request: Duration,
    resume: Duration,
    /// How long the stop had taken when it was looked last, and how many requests there had been.
    looked_at: Duration,
    requests: u64,
    /// How many there had been when the question could go on in this stop.
    first: Option<u64>,
}

/// Stops of one question that are over: all but the one in which it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopsOver {
    /// How many.
    pub stops: u64,
    /// The longest.
    pub longest: Duration,
    /// All together.
    pub total: Duration,
    /// The machine stopped by itself while it was let run, which ended the question: it stands in a stop of its own.
    pub by_itself: bool,
}

impl StopsOver {
    fn add(&mut self, stop: Duration) {
        self.stops += 1;
        self.longest = self.longest.max(stop);
        self.total += stop;
    }
}

impl<'a> Stops<'a> {
    pub(super) fn new(
        source: &'a dyn Source,
        control: &'a dyn Control,
        limits: ShortStops,
        timeout: Duration,
        look: &'a dyn Fn() -> Option<bool>,
    ) -> Self {
        let pace = Pace {
            request: FIRST_REQUEST,
            resume: FIRST_REQUEST * FIRST_RESUME,
            looked_at: source.stopped_for(),
            requests: source.counters().requests,
            first: None,
        };
        let boot = source.boot();
        let before = Some(pace.looked_at).filter(|before| *before >= limits.longest);
        let before = Cell::new(before.unwrap_or_default());
        let (pace, over) = (Cell::new(pace), Cell::default());
        Self { source, control, limits, timeout, look, boot, before, pace, over }
    }

    /// How long the present stop has taken for this question.
    fn taken(&self) -> Duration {
        self.source.stopped_for().saturating_sub(self.before.get())
    }

    /// The stops that are over.
    pub(super) const fn over(&self) -> StopsOver {
        self.over.get()
    }

    /// True if the present stop is one that nobody but this side wanted.
    pub(super) fn may_let_run(&self) -> bool {
        self.control.is_break_in()
    }

    /// Says in how many stops the question was answered, if in more than one, or that it was one that cannot be cut.
    pub(super) fn note(&self, target: &Target<'_>) {
        let mut over = self.over.get();
        let taken = self.taken();
        let limit = self.limits.longest;
        let text = if over.stops == 0 {
            if taken <= limit {
                return;
            }
            format!(
                "This question is not cut into short stops: the target stood still for {taken:.1?} of it, longer than {limit:?}"
            )
        } else {
            over.add(taken);
            let StopsOver { stops, longest, total, .. } = over;
            let breath = self.limits.breath;
            format!(
                "Short stops: {stops}, the longest {longest:.1?} of {limit:?}, {total:.1?} in all; the target ran for \
                 {breath:?} in between"
            )
        };
        target.note(Note::remark(NoteCode::ShortStops, text));
    }

    /// Learns what requests take from those since the last look.
    fn look(&self) -> Pace {
        let source = self.source;
        let (at, requests) = (source.stopped_for(), source.counters().requests);
        let mut pace = self.pace.get();
        let count = u32::try_from(requests.saturating_sub(pace.requests)).unwrap_or(u32::MAX);
        if count > 0 {
            pace.request = learn(pace.request, at.saturating_sub(pace.looked_at) / count);
        }
        (pace.looked_at, pace.requests) = (at, requests);
        self.pace.set(pace);
        pace
    }

    fn let_run(&self) -> Result<(), ReadCause> {
        let source = self.source;
        let (stop, frozen) = (self.taken(), source.frozen());
        match self.control.go() {
            Resumed::Running | Resumed::NeverRuns => {}
            Resumed::MayBeStopped(why) => return Err(ReadCause::MayBeStopped(why.into())),
        }
        let resume = source.frozen().saturating_sub(frozen);
        let mut pace = self.pace.get();
        let mut over = self.over.get();
        pace.resume = if over.stops == 0 { resume } else { learn(pace.resume, resume) };
        self.pace.set(pace);
        over.add(stop + resume);
        self.over.set(over);
        self.before.set(Duration::ZERO);
        Ok(())
    }

    fn run_for_a_breath(&self) -> Result<(), ReadCause> {
        let deadline = self.control.deadline_after(self.limits.breath);
        loop {
            match self.control.wait_for_halt(Some(self.boot), Some(deadline)) {
                Wait::TimedOut => return Ok(()),
                Wait::Done(Halt::Stopped(_)) => return Err(ReadCause::StoppedByItself),
                Wait::Done(Halt::Restarted) => return Err(ReadCause::TargetRestarted),
                Wait::Done(Halt::Prompt(prompt)) => {
                    self.control.answer_prompt(prompt, Bytes::from_static(IGNORE));
                }
                Wait::Interrupted => return Err(ReadCause::Interrupted),
                Wait::Ended(_) => return Err(ReadCause::SessionEnded),
            }
        }
    }

    fn stop_again(&self) -> Result<(), ReadCause> {
        let timeout = self.timeout;
        self.control.request_break_in();
        let deadline = self.control.deadline_after(timeout);
        loop {
            match self.control.wait_for_halt(Some(self.boot), Some(deadline)) {
                Wait::Done(Halt::Stopped(_)) => break,
                Wait::Done(Halt::Prompt(prompt)) => {
                    self.control.answer_prompt(prompt, Bytes::from_static(IGNORE));
                }
                Wait::Done(Halt::Restarted) => {
                    self.control.cancel_break_in();
                    return Err(ReadCause::TargetRestarted);
                }
                wait => {
                    return Err(match self.control.gave_up_break_in(wait.map(drop), timeout) {
                        BreakInError::Interrupted => ReadCause::Interrupted,
                        BreakInError::Ended(_) => ReadCause::SessionEnded,
                        why => ReadCause::NotStoppedAgain(why.to_string().into()),
                    });
                }
            }
        }
        let pace = Pace {
            looked_at: self.source.stopped_for(),
            requests: self.source.counters().requests,
            ..self.pace.get()
        };
        self.pace.set(pace);
        // One that bug-checked while it was being stopped stands where a break-in would have stopped it.
        let is_bug_check = (self.look)().ok_or(ReadCause::TargetRestarted)?;
        // What ends the stop while it is looked at is no stop that the machine made by itself.
        if self.source.boot() != self.boot {
            return Err(ReadCause::TargetRestarted);
        }
        if self.source.stopped().is_none() {
            return Err(ReadCause::NotKnown);
        }
        if is_bug_check || !self.control.is_break_in() {
            return Err(ReadCause::StoppedByItself);
        }
        self.pace.set(Pace { first: Some(self.source.counters().requests), ..self.pace.get() });
        Ok(())
    }
}

impl Breathing for Stops<'_> {
    fn room(&self) -> u64 {
        let pace = self.look();
        let spent = self.taken() + pace.resume + pace.request;
        let left = self.limits.longest.saturating_sub(spent);
        let request = pace.request.as_nanos().max(1);
        let room = u64::try_from(left.as_nanos() / request).unwrap_or(u64::MAX);
        if pace.first == Some(pace.requests) { room.max(LEAST) } else { room }
    }

    fn breathe(&self) -> Result<(), ReadCause> {
        self.let_run()?;
        let stopped = self.run_for_a_breath().and_then(|()| self.stop_again());
        if stopped == Err(ReadCause::StoppedByItself) {
            self.over.set(StopsOver { by_itself: true, ..self.over.get() });
        }
        stopped
    }
}

/// What something takes, from what it was thought to take and what it took: slower is believed sooner than faster.
fn learn(thought: Duration, took: Duration) -> Duration {
    if took > thought { (thought + took) / 2 } else { (thought * 3 + took) / 4 }
}

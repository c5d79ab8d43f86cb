//! Making a target stop and run.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::VirtAddr;
use kd_protocol::kd::{DebugIo, StateChange};
use kd_protocol::link::RequestError;

use super::boot::BootId;
use super::breakpoint::{Armed, BreakpointError, DebugRegister};
use super::planted::{PlantError, Planted};

/// What a target that asks about a failed assertion is answered if nobody says otherwise: go on.
pub const IGNORE: &[u8] = b"i";

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait<T> {
    /// With what was waited for.
    Done(T),
    /// The deadline passed.
    TimedOut,
    /// Ctrl+C, or the program is to end.
    Interrupted,
    /// The session is over, for this reason.
    Ended(String),
}

impl<T> Wait<T> {
    /// The same with what was waited for changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Wait<U> {
        match self {
            Self::Done(it) => Wait::Done(change(it)),
            Self::TimedOut => Wait::TimedOut,
            Self::Interrupted => Wait::Interrupted,
            Self::Ended(why) => Wait::Ended(why),
        }
    }
}

/// A target that stands still, and wants something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It takes requests.
    Stopped(Box<StateChange>),
    /// It waits for an answer, and takes nothing else. Only where somebody is asked about prompts.
    Prompt(DebugIo),
    /// It is not the boot that was waited for.
    Restarted,
}

/// What became of a target that was told to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It said that it runs, or was not held.
    Running,
    /// It may stand still: this is why nobody knows, or why it does.
    MayBeStopped(String),
    /// It never runs: a memory image.
    NeverRuns,
}

/// What is waited for: an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Idle,
    /// A target to connect.
    Connect,
    /// The target to stop.
    BreakIn,
    /// A reply to this request.
    Reply(String),
    /// The target to run.
    Resume,
    /// The target to stop by itself.
    Stop,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("nothing of the target"),
            Self::Connect => f.write_str("a target to connect"),
            Self::BreakIn => f.write_str("the target to stop"),
            Self::Reply(request) => write!(f, "the reply to {request}"),
            Self::Resume => f.write_str("the target to say that it runs"),
            Self::Stop => f.write_str("the target to stop by itself"),
        }
    }
}

/// Why a target did not stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakInError {
    /// It does not react.
    #[error(
        "the target at {place} did not stop within {after:?}. It may hang with interrupts disabled, or be gone; \
         its last sign of life: {last_heard}"
    )]
    NoReaction {
        /// Where it is.
        place: String,
        /// How long it was waited for.
        after: Duration,
        /// When its last datagram came, in words.
        last_heard: String,
    },
    /// It is one that nobody can stop, and is not stopped.
    #[error("the target at {0} cannot be stopped: it never runs")]
    NoControl(String),
    /// Ctrl+C, or a request to end.
    #[error("interrupted while waiting for the target to stop")]
    Interrupted,
    /// The session is over.
    #[error("the session has ended: {0}")]
    Ended(String),
}

/// What makes a target stop and run. Whoever stops one lets it run again.
///
/// ```text
///   request_break_in --> wait_for_halt --> stopped, or at a prompt, which is answered and waited for again
///          ^                   `---------> anything else: gave_up_break_in says why
///   go, leave: it runs, or it is said that nobody knows
/// ```
pub trait Control: Send + Sync {
    /// Starts to stop the target.
    fn request_break_in(&self);

    /// Gives up stopping the target. One that stops all the same is let run.
    fn cancel_break_in(&self);

    /// True if the present stop came of a break-in: it is nobody's but this side's. A machine that stopped by itself has
    /// something to say, and is not let run before somebody says so.
    fn is_break_in(&self) -> bool;

    /// Somebody has found out that the machine stopped by itself, though a break-in was on its way to it: it is left like one that
    /// may stop again.
    fn stopped_by_itself(&self) {}

    /// Gives up a break-in that has not stopped the target: why, for whoever wanted it.
    fn gave_up_break_in(&self, wait: Wait<()>, after: Duration) -> BreakInError;

    /// Waits until the target stands still, or until a boot other than `boot` has begun, if one is named.
    fn wait_for_halt(&self, boot: Option<BootId>, deadline: Option<Instant>) -> Wait<Halt>;

    /// The moment that is this far from now.
    fn deadline_after(&self, time: Duration) -> Instant;

    /// What is waited for from now on.
    fn begin(&self, step: Step);

    /// What is waited for, or was given up last.
    fn step(&self) -> Step;

    /// The prompt that the target waits at, if nobody has answered it.
    fn prompt(&self) -> Option<DebugIo>;

    /// True while the target waits at a prompt: nobody has answered it, or the answer has not been taken.
    fn waits_at_prompt(&self) -> bool;

    /// Answers a prompt of the target.
    fn answer_prompt(&self, prompt: DebugIo, answer: Bytes);

    /// Lets the stopped target run and waits until it says so.
    fn go(&self) -> Resumed;

    /// Lets the target run for good: also one that stops again at once, as long as that takes.
    fn leave(&self) -> Resumed;

    /// Writes something into the stopped target's memory that makes it stop for this side. It is taken back before the target
    /// is let run for good, whatever ends the session. One thing at a time.
    ///
    /// # Errors
    /// [`PlantError`]. After [`PlantError::Request`] it may be there all the same, and is taken back like one that is.
    fn plant(&self, _planted: Planted) -> Result<(), PlantError> {
        Err(PlantError::NotLive)
    }

    /// Answers from now on for something that is in the target's memory already.
    ///
    /// # Errors
    /// [`PlantError::NotLive`].
    fn adopt(&self, _planted: Planted) -> Result<(), PlantError> {
        Err(PlantError::NotLive)
    }

    /// Takes back what is planted, if anything is: the target must be stopped.
    ///
    /// # Errors
    /// [`PlantError`]; what is still there is tried again when the target is let run for good.
    fn take_back(&self) -> Result<(), PlantError> {
        Ok(())
    }

    /// What this side has in the target's memory.
    fn planted(&self) -> Option<Planted> {
        None
    }

    /// Sets a breakpoint in the stopped target's code. It is taken out before the target is let run for good, whatever ends the
    /// session.
    ///
    /// # Errors
    /// [`BreakpointError`]. After [`BreakpointError::Request`] it may be there all the same, and is taken out like one that is.
    fn set_breakpoint(&self, _address: VirtAddr) -> Result<(), BreakpointError> {
        Err(BreakpointError::NotLive)
    }

    /// Takes out all that are set: the target must be stopped. A request each.
    ///
    /// # Errors
    /// [`BreakpointError`]; what is still there is tried again when the target is let run for good.
    fn clear_breakpoints(&self) -> Result<(), BreakpointError> {
        Ok(())
    }

    /// Takes out whatever anybody has set, a debugger that was killed perhaps: a request for each slot. How many there were.
    ///
    /// # Errors
    /// [`BreakpointError`].
    fn clear_every_breakpoint(&self) -> Result<usize, BreakpointError> {
        Ok(0)
    }

    /// Has debug registers of every processor watch these when the target runs: two requests a processor where they do not hold
    /// the addresses yet. They are switched off as breakpoints are taken out.
    ///
    /// # Errors
    /// [`BreakpointError`]: none of them watches.
    fn watch(&self, _watched: &[(VirtAddr, DebugRegister)]) -> Result<(), BreakpointError> {
        Err(BreakpointError::NotLive)
    }

    /// Where the target stops for this side when it runs.
    fn breakpoints(&self) -> Vec<Armed> {
        Vec::new()
    }

    /// Lets the processor that stopped carry out one instruction, and the others run meanwhile: a stop follows, that one's as a
    /// rule.
    fn trace(&self) -> Resumed {
        Resumed::NeverRuns
    }

    /// What a person can do to let it run where nothing here could.
    fn last_resort(&self) -> &'static str {
        "attach once more, for example by verikd -k ... -b -c q; otherwise restart the machine"
    }

    /// Leaves the target as it is, stopped: whoever decided so has said it. What ends after this lets it run no more.
    fn leave_stopped(&self) {}

    /// The target is let run as fast as that goes from now on: somebody waits for the program to end.
    fn hurry(&self);

    /// Restarts the stopped machine. It connects again by itself when it is back.
    ///
    /// # Errors
    /// [`RequestError`].
    fn reboot(&self) -> Result<(), RequestError>;

    /// The request that the target has left unanswered: what is asked after it fails at once, until the target stops anew
    /// or [`try_again`](Self::try_again).
    fn lost(&self) -> Option<RequestError>;

    /// Asks a target again that has left a request unanswered.
    fn try_again(&self);

    /// When the target was last heard, in words: `3 s ago`, `never`.
    fn last_heard(&self) -> String;

    /// Why the line to the target is gone, if it is: nothing can be said to the target, nor heard of it.
    fn line_is_gone(&self) -> Option<String>;
}

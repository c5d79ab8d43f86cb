//! Breakpoints: a list that a person keeps, and what is known of those that are in the target's code while that runs. What is done
//! with them: `running.rs`.
//!
//! ```text
//!   bp --> the list --> go: one instruction where it stands at one of them, all set, let run
//!             ^                                                          |
//!             `-- taken out at the next stop, whatever it is for --------'   a pass, or another thread: it goes on
//! ```
//! While the target stands still its code is its own: what is read is what the image has, and a debugger that is killed then
//! leaves nothing behind. The session answers for those that are set. Source: docs/execution.md.

use std::collections::BTreeSet;

use crate::commands::{Breakpoint, BreakpointOrder, Breakpoints, ControlCommand, QueryError, Watched};
use crate::memory::{Access, VirtAddr};
use crate::source::{Armed, BootId, BreakpointError, DEBUG_REGISTERS, DebugRegister};

/// Why a target stopped, as far as the person before it wanted that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopCause {
    /// Nobody here did.
    #[default]
    Event,
    /// It came by the breakpoint with this number.
    Breakpoint(u32),
    /// A step is over, or the address reached that it was let run to.
    Arrived,
}

/// Something about breakpoints that is said while the target is let run or stops.
#[derive(Debug)]
pub enum BreakpointNews<'a> {
    /// The target has taken the first one of this session.
    First,
    /// It is not set, and the target runs without it.
    NotSet {
        /// Where, and how many bytes a pointer has there.
        address: (VirtAddr, usize),
        /// Why not.
        why: &'a BreakpointError,
    },
    /// All that are to watch for an access; the target runs without them.
    NotWatched {
        /// How many.
        count: usize,
        /// Why not.
        why: &'a BreakpointError,
    },
    /// The condition of one could not be told: the target stops.
    NoCondition {
        /// Its number.
        number: u32,
        /// Why not.
        why: &'a QueryError,
    },
    /// The target took it, and its code has not changed.
    NotWritten {
        /// Where, and how many bytes a pointer has there.
        address: (VirtAddr, usize),
    },
    /// Those that are set could not be taken out.
    NotCleared(&'a BreakpointError),
    /// There were breakpoints that nobody here has set.
    Left {
        /// How many.
        count: usize,
    },
    /// There were breakpoints that nobody here has set, and the target has met none of them yet.
    LeftUnmet {
        /// How many.
        count: usize,
    },
    /// A debug register that nobody here has set stopped the machine.
    LeftWatching,
    /// Its place is of an earlier boot.
    OfAnotherBoot {
        /// Its number.
        number: u32,
        /// What was typed.
        place: &'a str,
    },
    /// The instruction at a breakpoint takes long: the target runs without its breakpoints.
    NotStepped,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
    pub(super) temporary: Option<Temporary>,
    pub(super) stepping: Stepping,
    /// What follows when the present step is over.
    pub(super) more: Option<MoreSteps>,
    /// Where breakpoints were set in this boot.
    pub(super) set: BTreeSet<VirtAddr>,
    /// Those whose code was seen to have changed.
    pub(super) seen: BTreeSet<VirtAddr>,
    /// Those of which it was told that it had not.
    pub(super) told: BTreeSet<VirtAddr>,
    boot: BootId,
    pub(super) is_first_told: bool,
}

/// One of the list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) order: BreakpointOrder,
    pub(super) name: String,
    pub(super) is_enabled: bool,
    pub(super) hits: u64,
}

/// One that is there for a single run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temporary {
    pub(super) address: VirtAddr,
    /// Who is to come by, and with a stack pointer not below this; anybody if nothing.
    pub(super) by: Option<(VirtAddr, u64)>,
}

/// Whether a processor carries out one instruction, from where, and whose wish that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stepping {
    #[default]
    No,
    /// The next stop of a single step is wanted.
    Wanted { from: VirtAddr },
    /// It was let off a place where it is to stop, and stands at another.
    Off { from: VirtAddr },
}

impl Stepping {
    pub(super) const fn from(self) -> Option<VirtAddr> {
        match self {
            Self::No => None,
            Self::Wanted { from } | Self::Off { from } => Some(from),
        }
    }
}

/// Steps of one command that are still to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoreSteps {
    pub(super) command: ControlCommand,
    pub(super) count: u64,
}

/// What a stop has to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The target stops.
    Stop(StopCause),
    /// It is to go on.
    Passing,
}

impl Entry {
    /// True if a debug register stops whoever comes to execute what is at `at`.
    pub(super) fn is_executed_at(&self, at: VirtAddr) -> bool {
        let is_execute = self.order.access.is_some_and(|it| it.access == Access::Execute);
        self.is_enabled && is_execute && self.order.address == Some(at)
    }

    fn shown(&self) -> Breakpoint {
        let passes = self.order.passes;
        Breakpoint {
            number: self.number,
            enabled: self.is_enabled,
            address: self.order.address,
            why_deferred: self.order.why_deferred.clone(),
            passes_left: u32::try_from(u64::from(passes).saturating_sub(self.hits)).unwrap_or(passes).max(1),
            passes,
            place: self.name.as_str().into(),
            commands: self.order.commands.clone(),
            one_shot: self.order.is_one_shot,
            condition: self.order.condition.clone(),
            access: self.order.access.map(|it| it.access),
            size: self.order.access.map(|it| it.size),
            hits: self.hits,
        }
    }
}

impl Table {
    pub(super) fn shown(&self, is_list: bool, fits: impl Fn(&Entry) -> bool) -> Breakpoints {
        let breakpoints = self.entries.iter().filter(|it| fits(it)).map(Entry::shown).collect();
        Breakpoints { breakpoints, is_list }
    }

    /// What is to be in the code of the target when it runs.
    pub(super) fn wanted(&self) -> BTreeSet<VirtAddr> {
        let entries = self.entries.iter().filter(|it| it.is_enabled && it.order.access.is_none());
        let entries = entries.filter_map(|it| it.order.address);
        entries.chain(self.temporary.map(|it| it.address)).collect()
    }

    /// What debug registers are to watch then.
    pub(super) fn watched(&self) -> Vec<(VirtAddr, DebugRegister)> {
        let entries = self.entries.iter().filter(|it| it.is_enabled);
        let watched = entries.filter_map(|it| Some((it.order.address?, it.order.access?)));
        let numbered = watched.take(DEBUG_REGISTERS).enumerate();
        numbered
            .map(|(number, (address, Watched { access, size }))| {
                (address, DebugRegister { number, access, size })
            })
            .collect()
    }

    /// True if the processor would stop again at once where it stands: before the instruction there.
    pub(super) fn stops_before(&self, at: VirtAddr) -> bool {
        self.wanted().contains(&at) || self.entries.iter().any(|it| it.is_executed_at(at))
    }

    /// True if one instruction is being carried out.
    pub(super) fn is_stepping(&self) -> bool {
        matches!(self.stepping, Stepping::Wanted { .. }) || self.temporary.is_some()
    }

    /// True if the target is to stop anywhere.
    pub(super) fn has_enabled(&self) -> bool {
        self.entries.iter().any(|it| it.is_enabled)
    }

    /// What is known of another boot is known no more.
    pub(super) fn begin_boot(&mut self, boot: BootId) {
        if self.boot == boot {
            return;
        }
        let is_first = self.boot == BootId::default();
        self.boot = boot;
        self.set.clear();
        self.seen.clear();
        self.told.clear();
        self.temporary = None;
        self.stepping = Stepping::No;
        self.more = None;
        if is_first {
            return;
        }
        for entry in &mut self.entries {
            entry.order.address = None;
            entry.order.why_deferred = None;
            entry.name.clone_from(&entry.order.place);
        }
    }

    /// The enabled breakpoint in the code at an address.
    pub(super) fn at(&self, at: VirtAddr) -> Option<&Entry> {
        let is_it = |it: &&Entry| it.is_enabled && it.order.access.is_none() && it.order.address == Some(at);
        self.entries.iter().find(is_it)
    }

    /// The one for which a debug register watches, if it is still there.
    pub(super) fn of(&self, armed: &Armed) -> Option<&Entry> {
        let register = armed.register()?;
        let watched = Watched { access: register.access, size: register.size };
        let is_it = |it: &&Entry| {
            it.is_enabled && it.order.address == Some(armed.address) && it.order.access == Some(watched)
        };
        self.entries.iter().find(is_it)
    }

    /// Counts a pass of the breakpoint with this number: what that means. Nothing if there is none.
    pub(super) fn pass(&mut self, number: u32) -> Option<Met> {
        let entry = self.entries.iter_mut().find(|it| it.number == number)?;
        entry.hits += 1;
        let is_due = entry.hits >= u64::from(entry.order.passes);
        Some(if is_due { Met::Stop(StopCause::Breakpoint(entry.number)) } else { Met::Passing })
    }

    /// What is run at a stop for this reason, and forgets the breakpoint if it was for one stop.
    pub(super) fn take_commands(&mut self, cause: StopCause) -> Option<String> {
        let StopCause::Breakpoint(number) = cause else { return None };
        let commands = self.entries.iter().find(|it| it.number == number)?.order.commands.clone();
        self.entries.retain(|it| it.number != number || !it.order.is_one_shot);
        commands
    }
}

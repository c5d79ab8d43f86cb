//! Breakpoints and steps: what is done to let a target run as a person wants it, and what a stop has to do with that.
//!
//! ```text
//!   bp --> the list --> go: one instruction where it stands at one of them, all set, let run
//!             ^                                                          |
//!             `-- taken out at the next stop, whatever it is for --------'   a pass, or another thread: it goes on
//! ```
//! Source: docs/execution.md.

use kd_protocol::MachineType;
use kd_protocol::kd::{NtStatus, StateChange};

use super::breakpoints::{BreakpointNews, Entry, Met, MoreSteps, Stepping, StopCause, Temporary};
use super::error::{AskError, DebugError};
use super::step_off::{Stepped, step_off};
use super::stop::{INT3, is_exception, reported};
use super::{Debugger, Notice, Observer};
use crate::commands::line::{Line, lines};
use crate::commands::{
    BreakpointOrder, Breakpoints, ControlCommand, Place, QueryError, Which, address_of_go, condition_holds,
    end_of_call, find, number, resolve, steps,
};
use crate::memory::{Access, ReadCause, VirtAddr};
use crate::source::{Armed, BreakpointError, Control, DEBUG_REGISTERS, DebugRegister, Resumed};
use crate::target::Target;

/// Of Dr6: a bit for each debug register that stopped the processor.
const REGISTERS_OF_DR6: u64 = 0xf;

/// How the target is let run.
enum Way<'a> {
    /// As it goes.
    Free,
    /// To this address.
    To(&'a str),
    /// One instruction.
    Trace,
    /// The same, a call to its end.
    Over,
    /// Until the function returns.
    Out,
}

/// What came of setting all that the target is to stop at.
enum Armament {
    /// It is set, but for these.
    Set(Vec<Lack>),
    /// The instruction where it stood was not over, or led elsewhere.
    Gone(Resumed),
}

/// Something that could not be set.
enum Lack {
    Breakpoint {
        address: VirtAddr,
        why: BreakpointError,
    },
    /// Everything that debug registers are to watch for.
    Watches {
        count: usize,
        why: BreakpointError,
    },
}

impl Debugger {
    /// Sets a breakpoint, as `bp` or `ba` is told, which is `command`: it is armed whenever the target runs. If it was there
    /// already, that in words.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn set_breakpoint(
        &mut self,
        command: ControlCommand,
        arguments: &str,
    ) -> Result<(Breakpoints, Option<String>), AskError> {
        let target = self.target().ok_or_else(|| self.why_not_stopped())?;
        let order = BreakpointOrder::parse(arguments, command, &target)?;
        // Else that would come out at the stop, which may be hours away.
        if let Some(why) = order.commands.as_deref().and_then(refused_command) {
            let reason = format!("The breakpoint is not set, because its commands are refused: {why}");
            return Err(QueryError::Line { reason }.into());
        }
        if order.access.is_some() && target.kernel().version().machine != MachineType::AMD64 {
            return Err(AskError::NotRun("debug registers are set on x64 machines only".into()));
        }
        let name = order.address.map_or_else(|| order.place.clone(), |at| target.symbol_at(at).to_string());
        drop(target);
        self.source.rest();
        let boot = self.source.boot();
        let table = &mut self.breakpoints;
        table.begin_boot(boot);
        let is_there = |it: &Entry| {
            let is_same = order.access == it.order.access;
            is_same && order.address.map_or(it.order.place == order.place, |at| it.order.address == Some(at))
        };
        let is_other = |it: &&Entry| it.order.access.is_some() && !is_there(it);
        if order.access.is_some() && table.entries.iter().filter(is_other).count() >= DEBUG_REGISTERS {
            let why = format!("all {DEBUG_REGISTERS} debug registers are in use; bc takes one back");
            return Err(AskError::NotRun(why));
        }
        let there = table.entries.iter().find(|it| is_there(it)).map(|it| it.number);
        table.entries.retain(|it| !is_there(it));
        let is_free = |number: &u32| table.entries.iter().all(|it| it.number != *number);
        let number = there.unwrap_or_else(|| (0..).find(is_free).unwrap_or(u32::MAX));
        table.entries.push(Entry { number, order, name, is_enabled: true, hits: 0 });
        table.entries.sort_by_key(|it| it.number);
        let redefined = there.map(|number| format!("breakpoint {number} redefined"));
        Ok((table.shown(false, |it| it.number == number), redefined))
    }

    /// All breakpoints.
    #[must_use]
    pub fn breakpoints(&self) -> Breakpoints {
        self.breakpoints.shown(true, |_| true)
    }

    /// Removes, disables or enables breakpoints, as `bc`, `bd` or `be` is told: those that are left of them.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn change_breakpoints(
        &mut self,
        command: ControlCommand,
        arguments: &str,
    ) -> Result<Breakpoints, AskError> {
        let which = Which::parse(arguments, command)?;
        let table = &mut self.breakpoints;
        let found: Vec<u32> = table.entries.iter().map(|it| it.number).filter(|it| which.has(*it)).collect();
        if found.is_empty() && which != Which::All {
            return Err(AskError::NotRun("there is no breakpoint with such a number; bl lists them".into()));
        }
        if command == ControlCommand::ClearBreakpoints {
            table.entries.retain(|it| !found.contains(&it.number));
        }
        for entry in table.entries.iter_mut().filter(|it| found.contains(&it.number)) {
            entry.is_enabled = command == ControlCommand::EnableBreakpoints;
        }
        // What is deferred was told when it was set.
        Ok(table.shown(false, |it| found.contains(&it.number) && it.order.address.is_some()))
    }

    /// True if the target is to stop at a breakpoint.
    #[must_use]
    pub fn has_breakpoints(&self) -> bool {
        self.breakpoints.has_enabled()
    }

    /// True if a processor carries out one instruction.
    #[must_use]
    pub const fn is_tracing(&self) -> bool {
        matches!(self.breakpoints.stepping, Stepping::Wanted { .. })
    }

    /// True if the target runs to the end of a step, or to an address.
    #[must_use]
    pub fn is_stepping(&self) -> bool {
        self.breakpoints.is_stepping()
    }

    /// What is to be run at a stop for this reason: once a stop.
    pub fn commands_at(&mut self, cause: StopCause) -> Option<String> {
        self.breakpoints.take_commands(cause)
    }

    /// Lets the stopped target run with all breakpoints set: to an address, if one is named.
    ///
    /// # Errors
    /// [`AskError`]: the target stands still.
    pub fn go_to(&mut self, place: &str, observer: &mut dyn Observer) -> Result<Resumed, AskError> {
        let way = if place.is_empty() { Way::Free } else { Way::To(place) };
        self.breakpoints.more = None;
        self.go_this_way(&way, observer)
    }

    /// Lets the stopped target run for one instruction (`t`), the same with calls to their ends (`p`), until the function
    /// returns (`gu`): another command is a bug. A stop follows; behind it [`step_on`](Self::step_on) makes the next one, if
    /// `arguments` tell it to make several.
    ///
    /// # Errors
    /// [`AskError`]: the target stands still.
    pub fn step(
        &mut self,
        command: ControlCommand,
        arguments: &str,
        observer: &mut dyn Observer,
    ) -> Result<Resumed, AskError> {
        let target = self.target().ok_or_else(|| self.why_not_stopped())?;
        let count = steps(command, arguments, &target)?;
        drop(target);
        let stopped = self.source.stopped().map(|change| change.processor);
        if let Some(stopped) = stopped.filter(|stopped| *stopped != self.processor()) {
            let why =
                format!("processor {stopped} stopped, and only that one steps: ~{stopped}s chooses it again");
            return Err(AskError::NotRun(why));
        }
        self.breakpoints.more = Some(MoreSteps { command, count });
        self.step_on(observer)
    }

    /// How many steps of the last command are still to be made: none once something else has stopped the target.
    #[must_use]
    pub fn steps_left(&self) -> u64 {
        self.breakpoints.more.map_or(0, |it| it.count)
    }

    /// Makes none of them.
    pub const fn drop_steps(&mut self) {
        self.breakpoints.more = None;
    }

    /// Makes the next of them.
    ///
    /// # Errors
    /// [`AskError`]: the target stands still, and there are none left.
    pub fn step_on(&mut self, observer: &mut dyn Observer) -> Result<Resumed, AskError> {
        let more = self.breakpoints.more.take();
        let Some(MoreSteps { command, count: count @ 1.. }) = more else { return Ok(Resumed::Running) };
        let way = match command {
            ControlCommand::Trace => Way::Trace,
            ControlCommand::StepOver => Way::Over,
            ControlCommand::StepOut => Way::Out,
            _ => panic!("{command:?} does not step"),
        };
        let resumed = self.go_this_way(&way, observer)?;
        self.breakpoints.more = Some(MoreSteps { command, count: count - 1 });
        Ok(resumed)
    }

    fn go_this_way(&mut self, way: &Way<'_>, observer: &mut dyn Observer) -> Result<Resumed, AskError> {
        self.breakpoints.temporary = None;
        self.breakpoints.stepping = Stepping::No;
        if !matches!(way, Way::Free) {
            let (aim, from) = {
                let target = self.target().ok_or_else(|| self.why_not_stopped())?;
                let change = self.source.stopped().ok_or_else(|| self.why_not_stopped())?;
                (aim(way, &target, &change)?, target.address(change.program_counter.0))
            };
            self.source.rest();
            if aim.is_none() {
                self.breakpoints.stepping = Stepping::Wanted { from };
                self.choose_none();
                return Ok(self.control().map_or(Resumed::NeverRuns, Control::trace));
            }
            self.breakpoints.temporary = aim;
        }
        self.go_with_all(observer)
    }

    /// Lets the stopped target run with all breakpoints set. Where one cannot be set it stays where it is, as with WinDbg: whoever
    /// waits for that one would wait for ever.
    fn go_with_all(&mut self, observer: &mut dyn Observer) -> Result<Resumed, AskError> {
        let lacks = match self.arm(observer) {
            Armament::Gone(resumed) => return Ok(resumed),
            Armament::Set(lacks) => lacks,
        };
        let Some(first) = lacks.first() else { return Ok(self.go()) };
        let why = self.why_it_stays(first);
        self.breakpoints.temporary = None;
        if let Some(control) = self.control() {
            // What fails here is tried again when the target is let run.
            let _ = control.clear_breakpoints();
        }
        self.memory.forget();
        Err(AskError::NotRun(why))
    }

    /// The same where nobody is there to be asked: what cannot be set is told, and the target runs without it.
    pub(super) fn go_on(&mut self, observer: &mut dyn Observer) -> Resumed {
        let lacks = match self.arm(observer) {
            Armament::Gone(resumed) => return resumed,
            Armament::Set(lacks) => lacks,
        };
        for lack in lacks {
            let news = match &lack {
                Lack::Breakpoint { address, why } => {
                    BreakpointNews::NotSet { address: self.shown(*address), why }
                }
                Lack::Watches { count, why } => BreakpointNews::NotWatched { count: *count, why },
            };
            observer.notice(&Notice::Breakpoint(news));
        }
        self.go()
    }

    /// Sets everything that the stopped target is to stop at when it is let run, behind the instruction where it stands at one.
    fn arm(&mut self, observer: &mut dyn Observer) -> Armament {
        self.choose_none();
        let boot = self.source.boot();
        self.breakpoints.begin_boot(boot);
        self.resolve_again(observer);
        let (wanted, watched) = (self.breakpoints.wanted(), self.breakpoints.watched());
        let mut lacks = Vec::new();
        let at = self.target().zip(self.source.stopped());
        let at = at.map(|(target, change)| target.address(change.program_counter.0));
        let Some(at) = at.filter(|_| !wanted.is_empty() || !watched.is_empty()) else {
            return Armament::Set(lacks);
        };
        if self.breakpoints.stops_before(at) {
            match self.step_off() {
                Stepped::Off => {}
                Stepped::AtAnother => {
                    self.breakpoints.stepping = Stepping::Off { from: at };
                    return Armament::Gone(Resumed::Running);
                }
                Stepped::Elsewhere => return Armament::Gone(Resumed::Running),
                Stepped::Not(resumed) => {
                    if resumed == Resumed::Running {
                        observer.notice(&Notice::Breakpoint(BreakpointNews::NotStepped));
                    }
                    return Armament::Gone(resumed);
                }
            }
        }
        for address in wanted {
            if let Err(why) = self.set_in_code(address, observer) {
                lacks.push(Lack::Breakpoint { address, why });
            }
        }
        if !watched.is_empty()
            && let Some(Err(why)) = self.control().map(|control| control.watch(&watched))
        {
            lacks.push(Lack::Watches { count: watched.len(), why });
        }
        Armament::Set(lacks)
    }

    /// What keeps the target where it is, and what helps: nothing that is typed where it does not answer.
    fn why_it_stays(&self, lack: &Lack) -> String {
        let is_unanswered = |why: &BreakpointError| matches!(why, BreakpointError::Request(_));
        let (address, why) = match lack {
            Lack::Watches { count, why } => {
                let way = if is_unanswered(why) { "" } else { "; bd takes what is not to be watched for" };
                return format!("no access is watched for, of {count}: {why}{way}");
            }
            Lack::Breakpoint { address, why } => (*address, why),
        };
        let at = format!("{:0width$x}", address.0, width = 2 * self.shown(address).1);
        match self.breakpoints.at(address) {
            Some(Entry { number, .. }) if is_unanswered(why) => {
                format!("setting breakpoint {number} at {at}: {why}; whether it is set is not known")
            }
            Some(Entry { number, .. }) => format!(
                "breakpoint {number} at {at} is not set: {why}; `bd {number}` lets the target run without it"
            ),
            None if is_unanswered(why) => {
                format!(
                    "setting the breakpoint at {at}, where it is to stop: {why}; whether it is set is not known"
                )
            }
            None => format!("the breakpoint at {at}, where it is to stop, is not set: {why}"),
        }
    }

    /// Looks again for the places of those that have none in this boot.
    fn resolve_again(&mut self, observer: &mut dyn Observer) {
        let mut entries = std::mem::take(&mut self.breakpoints.entries);
        if let Some(target) = self.target() {
            for entry in entries.iter_mut().filter(|it| it.is_enabled && it.order.address.is_none()) {
                match resolve(&entry.order.place, &target) {
                    Ok(Place::At(address)) if is_by_name(&entry.order.place) => {
                        entry.order.address = Some(address);
                        entry.order.why_deferred = None;
                        entry.name = target.symbol_at(address).to_string();
                    }
                    Ok(Place::NotKnown { why }) => entry.order.why_deferred = Some(why),
                    Ok(Place::At(_)) | Err(_) => {
                        entry.is_enabled = false;
                        let news =
                            BreakpointNews::OfAnotherBoot { number: entry.number, place: &entry.order.place };
                        observer.notice(&Notice::Breakpoint(news));
                    }
                }
            }
        }
        self.breakpoints.entries = entries;
    }

    /// Has the processor carry out the instruction that a breakpoint is at, while none is set.
    fn step_off(&self) -> Stepped {
        let Some(control) = self.control() else { return Stepped::Not(Resumed::NeverRuns) };
        let place = |change: &StateChange| Some(self.target()?.address(change.program_counter.0));
        step_off(control, self.source.boot(), place, |at| self.breakpoints.stops_before(at))
    }

    fn set_in_code(&mut self, address: VirtAddr, observer: &mut dyn Observer) -> Result<(), BreakpointError> {
        self.memory.forget();
        let Some(control) = self.control() else { return Ok(()) };
        let mut set = control.set_breakpoint(address);
        if let Err(BreakpointError::Refused { status }) = set {
            if self.target().is_some_and(|target| is_unmapped(&target, address)) {
                return Err(BreakpointError::NotMapped { status });
            }
            // Slots may be taken by a debugger that was killed.
            if control.breakpoints().is_empty() {
                set = control.clear_every_breakpoint().and_then(|_| control.set_breakpoint(address));
            }
        }
        set?;
        if !std::mem::replace(&mut self.breakpoints.is_first_told, true) {
            observer.notice(&Notice::Breakpoint(BreakpointNews::First));
        }
        self.breakpoints.set.insert(address);
        if self.breakpoints.seen.contains(&address) {
            return Ok(());
        }
        // The target takes one that it cannot write, and says nothing. Of what could not be asked nothing is known.
        let is_written = self.target().and_then(|target| is_breakpoint_at(&target, address));
        self.memory.forget();
        if is_written == Some(true) {
            self.breakpoints.seen.insert(address);
        } else if is_written == Some(false) && self.breakpoints.told.insert(address) {
            let address = self.shown(address);
            observer.notice(&Notice::Breakpoint(BreakpointNews::NotWritten { address }));
        }
        Ok(())
    }

    /// An address, and how many bytes pointers have there.
    fn shown(&self, address: VirtAddr) -> (VirtAddr, usize) {
        (address, self.stamp().pointer_size.unwrap_or(size_of::<u64>()))
    }

    /// Takes out the breakpoints that are set. Why the target stopped; nothing for a pass.
    pub(super) fn meet(
        &mut self,
        change: &StateChange,
        observer: &mut dyn Observer,
    ) -> Result<Option<StopCause>, DebugError> {
        self.know_boot(observer)?;
        let met = self.met(change, observer);
        if !matches!(met, Met::Passing | Met::Stop(StopCause::Arrived)) {
            self.breakpoints.more = None;
        }
        Ok(match met {
            Met::Stop(cause) => Some(cause),
            Met::Passing => None,
        })
    }

    fn met(&mut self, change: &StateChange, observer: &mut dyn Observer) -> Met {
        let Some(control) = self.control() else { return Met::Stop(StopCause::Event) };
        let armed = control.breakpoints();
        if !armed.is_empty()
            && let Err(why) = control.clear_breakpoints()
        {
            observer.notice(&Notice::Breakpoint(BreakpointNews::NotCleared(&why)));
        }
        let boot = self.source.boot();
        self.breakpoints.begin_boot(boot);
        let Some(target) = self.target() else { return Met::Stop(StopCause::Event) };
        let at = target.address(change.program_counter.0);
        let thread = target.address(change.thread.0);
        let is_left = is_left_behind(change, &target);
        let is_x64 = target.kernel().version().machine == MachineType::AMD64;
        drop(target);
        let stepping = std::mem::take(&mut self.breakpoints.stepping);
        let is_stepping = matches!(stepping, Stepping::Wanted { .. });
        let is_step = is_exception(change, NtStatus::SINGLE_STEP);
        // The registers that stopped it, whether it was stepping or not.
        let dr6 = if is_step && is_x64 { change.control_report.dr6 & REGISTERS_OF_DR6 } else { 0 };
        let registers = armed.iter().filter(|it| it.register().is_some_and(|it| dr6 >> it.number & 1 != 0));
        let registers: Vec<Armed> = registers.copied().collect();
        // One instruction is over, with nothing armed, and the processor stands before the next. A repeated one stands where it stood.
        let has_stepped = is_step && registers.is_empty() && stepping != Stepping::No;
        let has_come = has_stepped && stepping.from() != Some(at);
        let is_breakpoint = is_exception(change, NtStatus::BREAKPOINT);
        let is_in_code = armed.iter().any(|it| it.register().is_none() && it.address == at);
        // A register stops it before the instruction that the breakpoint is, and it is let go on behind that.
        let is_execute = |it: DebugRegister| it.access == Access::Execute;
        let is_before = registers.iter().any(|it| it.address == at && it.register().is_some_and(is_execute));
        let is_there = is_breakpoint || is_before || has_come;
        let temporary = self.breakpoints.temporary.filter(|it| is_there && it.address == at);
        let entries = registers.iter().filter_map(|it| self.breakpoints.of(it));
        let executed = self.breakpoints.entries.iter().filter(|it| has_come && it.is_executed_at(at));
        // A step needs no byte there.
        let is_written = is_breakpoint || has_come || !self.breakpoints.told.contains(&at);
        let in_code = self.breakpoints.at(at).filter(|_| is_there && (is_in_code || has_come) && is_written);
        let entries = entries.chain(executed).chain(in_code);
        let entries: Vec<_> = entries.map(|it| (it.number, it.order.condition.clone())).collect();
        let entry = self.passed(&entries, observer);
        let met = match (entry, temporary) {
            (Some(Met::Stop(cause)), _) => Met::Stop(cause),
            (_, Some(temporary)) if self.arrives(temporary, thread) => Met::Stop(StopCause::Arrived),
            // A step is over all the same.
            (Some(Met::Passing), _) if is_stepping => Met::Stop(StopCause::Arrived),
            _ if is_stepping && has_stepped => Met::Stop(StopCause::Arrived),
            (Some(Met::Passing), _) | (_, Some(_)) => return Met::Passing,
            _ if has_stepped => return Met::Passing,
            // It was removed from the list while the target ran, or taken out when another processor had met it already.
            _ if is_breakpoint && (is_in_code || is_left && self.breakpoints.set.contains(&at)) => {
                return Met::Passing;
            }
            (None, None) => Met::Stop(StopCause::Event),
        };
        self.breakpoints.temporary = None;
        if met == Met::Stop(StopCause::Event) && is_left {
            self.take_met_away(observer);
        }
        if met == Met::Stop(StopCause::Event) && dr6 != 0 {
            observer.notice(&Notice::Breakpoint(BreakpointNews::LeftWatching));
        }
        met
    }

    /// Counts a pass of each of these whose condition holds: what that means together. Nothing if there are none.
    fn passed(&mut self, entries: &[(u32, Option<String>)], observer: &mut dyn Observer) -> Option<Met> {
        let mut met = None;
        for (number, condition) in entries {
            let holds = match (condition, self.target()) {
                (Some(condition), Some(target)) => condition_holds(condition, &target),
                _ => Ok(true),
            };
            let passed = match holds {
                Ok(true) => self.breakpoints.pass(*number),
                Ok(false) => Some(Met::Passing),
                Err(why) => {
                    let news = BreakpointNews::NoCondition { number: *number, why: &why };
                    observer.notice(&Notice::Breakpoint(news));
                    Some(Met::Stop(StopCause::Breakpoint(*number)))
                }
            };
            if !matches!(met, Some(Met::Stop(_))) {
                met = passed.or(met);
            }
        }
        met
    }

    /// Takes out what a debugger has left that was killed, which the target has just stopped at.
    fn take_met_away(&self, observer: &mut dyn Observer) {
        if let Some(Ok(count)) = self.control().map(Control::clear_every_breakpoint) {
            // The stop has taken out the one that it is for.
            observer.notice(&Notice::Breakpoint(BreakpointNews::Left { count: count + 1 }));
        }
        self.memory.forget();
    }

    /// The same for those that nobody has met, where the kernel's own table of breakpoints is not empty. What its entries are no
    /// public symbols say: the target is asked to take out whatever it has.
    pub(super) fn take_left_breakpoints_away(&self, observer: &mut dyn Observer) {
        /// 32 entries of 0x20 bytes, as in ReactOS; Windows 7 has as many bytes up to its next symbol.
        const TABLE: usize = 0x400;
        let Some(control) = self.control().filter(|it| it.breakpoints().is_empty() && it.lost().is_none())
        else {
            return;
        };
        let is_empty = self.target().is_none_or(|target| {
            let Ok(table) = target.address_of("nt!KdpBreakpointTable") else { return true };
            let mut bytes = [0; TABLE];
            target.memory().read_virtual(table, &mut bytes).is_err() || bytes == [0; TABLE]
        });
        if is_empty {
            return;
        }
        if let Ok(count @ 1..) = control.clear_every_breakpoint() {
            observer.notice(&Notice::Breakpoint(BreakpointNews::LeftUnmet { count }));
        }
        self.memory.forget();
    }

    /// True if it is the thread that is waited for, back from all that it called.
    fn arrives(&self, temporary: Temporary, thread: VirtAddr) -> bool {
        let Some((by, stack)) = temporary.by else { return true };
        if by != thread {
            return false;
        }
        let Some(target) = self.target() else { return true };
        let Ok(registers) = target.registers() else { return true };
        registers.stack_pointer().0 >= stack
    }
}

/// Why some of a breakpoint's commands would be refused.
fn refused_command(commands: &str) -> Option<String> {
    lines(commands).into_iter().find_map(|line| match line {
        Line::Refused { reason, .. } => Some(format!("{reason} /w \"CONDITION\" stops only where it holds.")),
        Line::Commands(commands) => commands.iter().find_map(|it| Some(find(it).err()?.to_string())),
    })
}

/// Where a step ends; nothing if after one instruction.
fn aim(way: &Way<'_>, target: &Target<'_>, change: &StateChange) -> Result<Option<Temporary>, AskError> {
    let of_target = |command, source| AskError::from(QueryError::Target { command, source });
    let pc = target.address(change.program_counter.0);
    let by = |stack: u64| Some((target.address(change.thread.0), stack));
    match way {
        Way::To(text) => Ok(Some(Temporary { address: address_of_go(text, target)?, by: None })),
        Way::Over => {
            let Some(address) = end_of_call(target, pc, reported(change, target)) else { return Ok(None) };
            let registers = target.registers().map_err(|why| of_target("p", why))?;
            Ok(Some(Temporary { address, by: by(registers.stack_pointer().0) }))
        }
        Way::Out => {
            let stack = target.stack(None, 2).map_err(|why| of_target("gu", why))?;
            let caller = stack.frames.first().and_then(|frame| frame.return_address);
            let (Some(address), Some(caller_frame)) = (caller, stack.frames.get(1)) else {
                return Err(AskError::NotRun(
                    "the caller of this function is not known (k shows why)".into(),
                ));
            };
            Ok(Some(Temporary { address, by: by(caller_frame.stack_pointer.0) }))
        }
        Way::Free | Way::Trace => Ok(None),
    }
}

/// True if a place is where it is in every boot: a number, a register or what lies in memory is another thing there.
fn is_by_name(place: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '`' | '$' | '@' | '?');
    let mut words = place.split(|c| !is_word(c)).filter(|it| !it.is_empty());
    let reads = ["poi", "by", "wo", "dwo", "qwo"];
    let is_moving = place.contains('@') || place.trim() == "." || words.clone().any(|it| reads.contains(&it));
    !is_moving && words.any(|it| number(it).is_none())
}

/// False also if that is not known.
fn is_unmapped(target: &Target<'_>, address: VirtAddr) -> bool {
    let read = target.memory().read_virtual(address, &mut [0]);
    read.is_err_and(|error| matches!(error.cause, ReadCause::NotMapped | ReadCause::Status(_)))
}

/// Nothing if that is not known.
fn is_breakpoint_at(target: &Target<'_>, address: VirtAddr) -> Option<bool> {
    let mut byte = [0];
    match target.memory().read_virtual(address, &mut byte) {
        Ok(()) => Some(byte == [INT3] || target.kernel().version().machine == MachineType::ARM64),
        Err(error) if error.cause.is_of_link() => None,
        // Its page is away.
        Err(_) => Some(false),
    }
}

/// True at a breakpoint of a target's own list: what it reports of its code there has no `int 3`. Only x64 targets report that.
fn is_left_behind(change: &StateChange, target: &Target<'_>) -> bool {
    let code = reported(change, target);
    is_exception(change, NtStatus::BREAKPOINT) && code.first().is_some_and(|first| *first != INT3)
}

#[cfg(test)]
mod tests {
    use super::is_by_name;

    #[test]
    fn only_a_name_leads_to_the_same_place_in_every_boot() {
        for place in ["nt!KeBugCheckEx", "KeBugCheckEx+10", "nt", "myfault+0x10", "nt!X+fffff"] {
            assert!(is_by_name(place), "{place}");
        }
        for place in ["fffff80001234567", "fffff800`01234567+10", "@rip", ".", "poi(nt!X)", "nt+@rax", "0n12"]
        {
            assert!(!is_by_name(place), "{place}");
        }
    }
}

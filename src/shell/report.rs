//! What a person or a script is shown: answers on one stream, everything else on the other.

use std::sync::Arc;
use std::time::Duration;

use kd_protocol::kd::{DebugIo, StateDetail};
use kd_protocol::link::{Event, Peer};

use super::format::Format;
use super::in_doubt::InDoubt;
use super::line;
use super::rest::Rest;
use super::writer::{Stream, Writer};
use crate::commands::Style;
use crate::debugger::{Answered, AskError, BreakpointNews, Notice, Stamp, Stats, Stop, StopCause};
use crate::leaks::Room;
use crate::memory::VirtAddr;
use crate::output;
use crate::session::News;
use crate::source::KernelVersion;

/// Where a shell writes, and how.
#[derive(Clone)]
pub struct Report {
    writer: Writer,
    format: Format,
    /// What each command cost is shown too.
    shows_costs: bool,
    /// Who may still stand still, as was said.
    pub(super) in_doubt: InDoubt,
}

impl Report {
    /// Answers go to the writer's first stream in `format`, everything else to its second as text.
    #[must_use]
    pub fn new(format: Format, writer: Writer) -> Self {
        Self { writer, format, shows_costs: false, in_doubt: InDoubt::default() }
    }

    /// The same, showing in text what each command cost; JSON has it always.
    #[must_use]
    pub fn with_costs(self, shows_costs: bool) -> Self {
        Self { shows_costs, ..self }
    }

    /// Where it writes.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// How answers are written.
    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// Shows what the last command cost, if that is wanted.
    pub(super) fn cost(&self, stats: Stats) {
        match self.format {
            Format::Text if self.shows_costs => self.status(&format!("stats: {stats}")),
            Format::Text | Format::Json => {}
        }
    }

    /// Shows what was paid beside commands, if that is wanted: `(stop)` or `(resume)`.
    pub(super) fn cost_beside(&self, what: &'static str, stats: Stats, stamp: Stamp) {
        match self.format {
            _ if !self.shows_costs => {}
            Format::Text => self.status(&format!("stats: {what} {stats}")),
            Format::Json => self.writer.text(Stream::Out, line::beside(what, stats, stamp)),
        }
    }

    /// True if that is written when the session ends: in JSON each command has its lines, in order.
    pub(super) fn keeps_cost_beside(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a stop that came behind a command as a line of its own: text has it beside the answers.
    pub(super) fn stop_behind(&self, what: &'static str, event: &Answered) {
        if self.format == Format::Json {
            self.writer.text(Stream::Out, line::answered(what, event));
        }
    }

    /// Writes a command's answer; in text with these `notes`, in JSON with its own. The text is made by the thread that writes it: a
    /// machine that stands still does not wait for it.
    pub(super) fn answer(
        &self,
        command: &str,
        answer: Answered,
        notes: &[String],
        style: Style,
        cut: Option<(Rest, Room)>,
    ) {
        let answer = Arc::new(answer);
        let shown = Arc::clone(&answer);
        if self.format == Format::Json {
            let command = command.to_owned();
            self.writer.put(Stream::Out, Box::new(move || line::answered(&command, &shown)));
            return self.write_files(answer);
        }
        let writer = self.writer.clone();
        self.writer.put(
            Stream::Out,
            Box::new(move || {
                let mut text = String::new();
                shown.write_text(style, &mut text).expect("a String takes any text");
                let Some((rest, room)) = cut else { return text };
                let (text, told) = rest.cut(text, room);
                told.into_iter().for_each(|told| writer.text(Stream::Aside, told + "\n"));
                text
            }),
        );
        notes.iter().for_each(|note| self.status(note));
        self.write_files(answer);
    }

    /// Writes the files that were asked for with an answer, and says so. One that cannot be written is remembered: it
    /// decides the exit code.
    fn write_files(&self, answer: Arc<Answered>) {
        if answer.facts.files().is_empty() {
            return;
        }
        let writer = self.writer.clone();
        let write = move || {
            let mut text = String::new();
            for written in answer.write_files() {
                let line = written.unwrap_or_else(|why| {
                    writer.lacks_file();
                    why
                });
                text += &output::screened(&line);
                text.push('\n');
            }
            text
        };
        self.writer.put(Stream::Aside, Box::new(write));
    }

    /// Writes why a command has no answer.
    pub(super) fn error(&self, command: &str, error: &AskError, stamp: Stamp, stats: Stats) {
        match (self.format, error) {
            (Format::Json, _) => {
                self.writer.text(Stream::Out, line::failed(command, error, stamp, stats));
            }
            // Whoever reads it sees no other command near.
            (Format::Text, AskError::NotRun(_)) => self.status(&format!("error: {command}: {error}")),
            (Format::Text, _) => self.status(&format!("error: {error}")),
        }
    }

    /// Shows a command that is about to run, as the prompt would.
    pub(super) fn echo(&self, prompt: &str, command: &str) {
        self.aside(&format!("{prompt}{command}\n"));
    }

    /// Keeps a command that was typed, and is on the terminal, in the log file if there is one.
    pub(super) fn echo_to_log(&self, prompt: &str, command: &str) {
        self.writer.to_log(output::screened(&format!("{prompt}{command}\n")));
    }

    /// Says something that is no answer.
    pub fn status(&self, text: &str) {
        self.aside(&format!("{text}\n"));
    }

    /// Shows what the debugger says while it works.
    pub(super) fn notice(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Target { place, version, is_live } => self.banner(place, version, *is_live),
            Notice::MissingSymbols(missing) => self.status(&missing.to_string()),
            Notice::Fetching { what, is_running: true } => {
                self.status(&format!("Fetching {what}; the target runs meanwhile"));
            }
            Notice::Fetching { what, is_running: false } => self.status(&format!("Fetching {what}")),
            Notice::TagLeft { tag, cleared: Ok(()) } => self.status(&format!(
                "nt!PoolHitTag held the tag {tag}, which nobody here has written: a debugger that was killed, or lost this target, left \
                 it, and the machine stops at each use of it. It is cleared"
            )),
            Notice::TagLeft { tag, cleared: Err(why) } => self.status(&format!(
                "nt!PoolHitTag holds the tag {tag}, which nobody here has written: the machine stops at each use of it. It could not be \
                 cleared: {why}; it is tried again when the target is let run. With WinDbg: ed nt!PoolHitTag 0"
            )),
            Notice::Breakpoint(news) => self.breakpoint(news),
            Notice::RestartedMeanwhile => {
                self.status("The target restarted while it was being stopped; breaking in again");
            }
        }
    }

    fn breakpoint(&self, news: &BreakpointNews<'_>) {
        let at = |&(address, pointer_size): &(VirtAddr, usize)| output::Address { address, pointer_size };
        match news {
            BreakpointNews::First => self.status(
                "Breakpoints are written into the target's code while it runs. Where no debugger was attached when the machine booted, \
                 patch protection may answer one in the kernel with bug check 109, minutes later; with memory integrity (HVCI) code \
                 may not be writable. What holds on this machine is not known",
            ),
            BreakpointNews::NotSet { address, why } => {
                self.status(&format!("The breakpoint at {} is not set: {why}", at(address)));
            }
            BreakpointNews::NotWritten { address } => self.status(&format!(
                "The target has taken the breakpoint at {0}, but its code there has not changed: the page is not in memory, and it \
                 is written when that comes in, or it is protected: `ba e 1 {0}` takes a debug register instead",
                at(address)
            )),
            BreakpointNews::NotWatched { count, why } => self.status(&format!(
                "No access is watched for, of {}: {why}",
                output::counted(*count as u64, "breakpoint")
            )),
            BreakpointNews::NoCondition { number, why } => self.status(&format!(
                "Whether the condition of breakpoint {number} holds is not known, so that the machine stands still: {why}"
            )),
            BreakpointNews::LeftWatching => self.status(
                "It stopped for a debug register that nobody here has set, of a debugger that was killed, or lost this target, or the \
                 machine's own. Debug registers are switched off when it is let run",
            ),
            BreakpointNews::NotCleared(why) => self.status(&format!(
                "The breakpoints could not be taken out of the target's code: {why}; it is tried again when the target is let run"
            )),
            BreakpointNews::Left { count } => self.status(&format!(
                "It stopped at a breakpoint that nobody here has set: a debugger that was killed, or lost this target, left {count} in its \
                 code. They are taken out"
            )),
            BreakpointNews::LeftUnmet { count } => self.status(&format!(
                "A debugger that was killed, or lost this target, left {} in its code: taken out before it is let run",
                output::counted(*count as u64, "breakpoint")
            )),
            BreakpointNews::OfAnotherBoot { number, place } => self.status(&format!(
                "Breakpoint {number} at {place} is of an earlier boot, where that was another place; it is disabled"
            )),
            BreakpointNews::NotStepped => self.status(
                "The instruction at the breakpoint takes long; the target runs without its breakpoints until it stops the next time",
            ),
        }
    }

    /// Says who connected.
    fn banner(&self, place: &str, version: &KernelVersion, is_live: bool) {
        let is_64_bit = version.is_64_bit();
        let address = |address| {
            let pointer_size = if is_64_bit { 8 } else { 4 };
            output::Address { address, pointer_size }
        };
        let build = match version.build {
            0 => "(build not known)".to_owned(),
            build => format!("build {build}"),
        };
        self.status(&format!(
            "{} Windows {build} {} target {} {place}, ptr64 {}",
            if is_live { "Connected to" } else { "Opened" },
            version.machine,
            if is_live { "at" } else { "in" },
            if is_64_bit { "TRUE" } else { "FALSE" }
        ));
        let list = match version.module_list {
            list if list.is_null() => "not known".to_owned(),
            list => address(list).to_string(),
        };
        self.status(&format!("Kernel base = {} PsLoadedModuleList = {list}", address(version.base)));
    }

    /// Says why and where the target stopped. The kernel may have printed its bug check itself.
    pub(super) fn stop(&self, stop: &Stop, is_bug_check_told: bool) {
        if let Some(bug_check) = &stop.bug_check {
            if !is_bug_check_told {
                self.status(&bug_check.announcement(stop.pointer_size));
            }
            if let Some(hint) = bug_check.hint(stop.driver_at_fault.as_deref()) {
                self.status(&hint);
            }
        }
        if matches!(stop.change.detail, StateDetail::Exception(_)) && stop.cause != StopCause::Arrived {
            self.status(&event_of(stop));
        }
        if is_nowhere(stop) {
            return;
        }
        let at = output::Address { address: stop.program_counter, pointer_size: stop.pointer_size };
        match &stop.instruction {
            Some(instruction) => self.status(&format!("{}:\n{at} {instruction}", stop.symbol)),
            None => self.status(&format!("{}:\n{at}", stop.symbol)),
        }
    }

    /// Shows what has happened.
    pub fn news(&self, news: &News) {
        match news {
            News::Event(event) => self.event(event),
            News::Answered(prompt, answer) => self.answered(prompt, answer),
            News::Silent(time) => self.status(&format!(
                "Nothing was heard of the target for {} s, although it says something every three seconds: it hangs, is \
                 off or suspended, or the network is cut",
                time.as_secs()
            )),
            News::HeardAgain => self.status("The target is heard again"),
            News::Asks(address) => self.status(&format!(
                "The target at {address} is asked for an offer every three seconds, which may end a session that it has with another \
                 debugger. ReactOS' source answers that, no Windows was seen to; its own offers are heard as well"
            )),
            News::LineEndsAtOnce(why) => self.status(&format!(
                "The line to the target takes the connection and ends it at once ({why}); trying again, less and less often"
            )),
            News::LineLost(why) => self.status(&format!(
                "The line to the target has ended ({why}); with `reconnect` in -k it would be waited for"
            )),
            News::LineHolds { after } => self.status(&format!(
                "The line to the target holds again, after {after} attempt{} that ended at once",
                if *after == 1 { "" } else { "s" }
            )),
        }
    }

    fn event(&self, event: &Event) {
        match event {
            Event::DebugPrint(text) => self.aside(&printable(text)),
            Event::Restarted(Peer::Kdnet(peer)) => {
                self.status(&format!("The target restarted and is connected again, at {}", peer.address));
            }
            Event::Restarted(Peer::Kdcom) => {
                self.status("The target restarted, or had given its debugger up, and is connected again");
            }
            Event::Disconnected => self.status("The line to the target has ended; waiting for it"),
            Event::Reconnected => self.status("The line to the target is there again"),
            Event::Rebooting => self.status("The target shuts down or restarts; waiting for it to come back"),
            Event::FileRefused(path) => {
                self.status(&format!(
                    "The target asked for the file {path:?}; it was told that there is none"
                ));
            }
            Event::SecondTarget { address } => self.status(&format!(
                "A second machine with the same key offers itself, at {address}: a cloned virtual machine, perhaps. It is left \
                 alone while the first is there. Give each machine a key and a port of its own (bcdedit /dbgsettings)"
            )),
            Event::ForeignOffer { address, version, len } => self.status(&format!(
                "The target at {address} speaks a dialect of KDNET that verikd does not know: version {version}, offers of {len} \
                 bytes. It is answered as far as that can be done"
            )),
            Event::TakenOver(by) => {
                self.status(&format!(
                    "The target's offers name another debugger, {by}: it may have taken the session"
                ));
            }
            _ => {}
        }
    }

    /// Shows a prompt of the target and its answer.
    fn answered(&self, prompt: &DebugIo, answer: &[u8]) {
        self.aside(&format!("{} (answered: {})\n", printable(&prompt.text), printable(answer)));
    }

    fn aside(&self, text: &str) {
        self.writer.text(Stream::Aside, output::screened(text));
    }
}

/// True for a file that has no processor's registers.
pub(super) fn is_nowhere(stop: &Stop) -> bool {
    let is_none = |it: &StateDetail| matches!(it, StateDetail::Exception(it) if it.exception_code.0 == 0);
    stop.program_counter.is_null() && is_none(&stop.change.detail)
}

/// A stop in WinDbg's words.
pub(super) fn event_of(stop: &Stop) -> String {
    match &stop.change.detail {
        _ if let StopCause::Breakpoint(number) = stop.cause => format!("Breakpoint {number} hit"),
        _ if is_nowhere(stop) => {
            "No processor's registers are known of it: where the machine stood is not known".into()
        }
        StateDetail::Exception(exception) => {
            let chance = if exception.first_chance == 0 { "!!! second chance !!!" } else { "first chance" };
            format!("{} ({chance})", output::exception(exception.exception_code.0))
        }
        StateDetail::LoadSymbols(_) => "a module was loaded or unloaded".into(),
        _ => "the target stopped".into(),
    }
}

/// The target's bytes as text that cannot move the cursor or change the terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    output::screened(&String::from_utf8_lossy(bytes).replace("\r\n", "\n"))
}

/// `1.5 s`, `200 ms`, as a person says it.
pub(super) fn spoken(time: Duration) -> String {
    format!("{time:?}")
}

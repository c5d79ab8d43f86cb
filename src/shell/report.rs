//! What a person or a script is shown: answers on one stream, everything else on the other.

use std::io::Write;

use kd_protocol::kd::{DebugIo, GetVersion64, NtStatus, StateChange, StateDetail, VersionFlags};
use kd_protocol::link::{Event, Peer};
use serde_json::json;

use super::{Format, ShellError, Stats};
use crate::commands::{AnyAnswer, NoteKind, Style};

/// Where a shell writes.
pub struct Report<'a> {
    format: Format,
    /// Answers.
    out: &'a mut dyn Write,
    /// Status, the target's own lines, errors.
    aside: &'a mut dyn Write,
    /// What each command cost is shown too.
    shows_costs: bool,
    /// What the reader chose about texts.
    pub(super) style: Style,
}

impl<'a> Report<'a> {
    /// Answers go to `out` in `format`, everything else to `aside` as text.
    #[must_use]
    pub fn new(format: Format, out: &'a mut dyn Write, aside: &'a mut dyn Write) -> Self {
        Self { format, out, aside, shows_costs: false, style: Style::default() }
    }

    /// The same with texts in this style.
    #[must_use]
    pub fn with_style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// The same, showing what each command cost: as a line of its own, in JSON as an object of its own.
    #[must_use]
    pub fn with_costs(self, shows_costs: bool) -> Self {
        Self { shows_costs, ..self }
    }

    /// Shows what the last command cost, if that is wanted.
    pub(super) fn cost(&mut self, stats: Stats) {
        match self.format {
            _ if !self.shows_costs => {}
            Format::Text => self.status(&format!("stats: {stats}")),
            Format::Json => {
                // A closed output is noticed at the next answer.
                let _ = self.out(&format!("{}\n", json!({ "stats": stats })));
            }
        }
    }

    /// Writes a command's answer and its notes.
    pub(super) fn answer(&mut self, command: &str, answer: &dyn AnyAnswer) -> Result<(), ShellError> {
        if self.format == Format::Json {
            let answer = answer.to_json().map_err(std::io::Error::from)?;
            return self.out(&format!("{}\n", json!({ "command": command, "answer": answer })));
        }
        let mut text = String::new();
        answer.write_styled(&self.style, &mut text).expect("a String takes any text");
        self.out(&text)?;
        for note in answer.notes() {
            let kind = match note.kind {
                NoteKind::Remark => "note",
                NoteKind::Partial => "incomplete",
                NoteKind::Failed => "error",
            };
            self.status(&format!("{kind}: {}", note.text));
        }
        Ok(())
    }

    /// Writes why a command has no answer.
    pub(super) fn error(&mut self, command: &str, error: &str) -> Result<(), ShellError> {
        if self.format == Format::Json {
            return self.out(&format!("{}\n", json!({ "command": command, "error": error })));
        }
        self.status(&format!("error: {error}"));
        Ok(())
    }

    /// Shows a command that is about to run, as the prompt would.
    pub(super) fn echo(&mut self, prompt: &str, command: &str) {
        self.aside(&format!("{prompt}{command}\n"));
    }

    /// Says something that is no answer.
    pub(super) fn status(&mut self, text: &str) {
        self.aside(&format!("{text}\n"));
    }

    /// Says who connected.
    pub(super) fn banner(&mut self, place: &str, version: &GetVersion64) {
        let machine = match version.machine_type {
            0x8664 => "x64".into(),
            0xaa64 => "ARM64".into(),
            0x14c => "x86".into(),
            other => format!("machine {other:#x}"),
        };
        let is_64_bit = if version.flags.contains(VersionFlags::PTR64) { "TRUE" } else { "FALSE" };
        let (build, base) = (version.minor_version, version.kern_base);
        self.status(&format!(
            "Connected to Windows build {build} {machine} target at {place}, ptr64 {is_64_bit}"
        ));
        self.status(&format!("Kernel base = {base} PsLoadedModuleList = {}", version.ps_loaded_module_list));
    }

    /// Says why and where the target stopped.
    pub(super) fn stop(&mut self, change: &StateChange, symbol: &str) {
        if let StateDetail::Exception(exception) = &change.detail {
            let what = match exception.exception_code {
                NtStatus::BREAKPOINT => "Break instruction exception".into(),
                NtStatus::SINGLE_STEP => "Single step exception".into(),
                code => format!("Exception {code}"),
            };
            let chance = if exception.first_chance == 0 { "second" } else { "first" };
            let code = exception.exception_code.0;
            self.status(&format!("{what} - code {code:08x} ({chance} chance)"));
        }
        self.status(&format!("{symbol}:\n{}", change.program_counter));
    }

    /// Shows what happened on the link.
    pub(super) fn event(&mut self, event: &Event) {
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
            Event::ResumeUnproven { after, tries } => {
                self.status(&format!(
                    "The target was told to run {tries} times in {} s, and nothing shows that it does: it may be stopped still",
                    after.as_secs()
                ));
            }
            Event::FileRefused(path) => {
                self.status(&format!(
                    "The target asked for the file {:?}; it was told that there is none",
                    path
                ));
            }
            Event::TakenOver(by) => {
                self.status(&format!(
                    "The target's offers name another debugger, {by}: it may have taken the session"
                ));
            }
            _ => {}
        }
    }

    /// Shows a prompt of the target and its answer.
    pub(super) fn prompt_answered(&mut self, prompt: &DebugIo, answer: &str) {
        self.aside(&format!("{} (answered: {answer})\n", printable(&prompt.text)));
    }

    fn out(&mut self, text: &str) -> Result<(), ShellError> {
        Ok(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())?)
    }

    fn aside(&mut self, text: &str) {
        // Status that cannot be shown must not end a session that holds a stopped machine.
        let _ = self.aside.write_all(text.as_bytes()).and_then(|()| self.aside.flush());
    }
}

/// The target's bytes as text that cannot move the cursor or change the terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect()
}

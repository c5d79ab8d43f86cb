//! The prompt of the line that is being typed: it shows how the target stands, also when that changes meanwhile.
//!
//! ```text
//!  0: kd> !veri     stopped: a command, asked of the target
//!  *BUSY* .help     it runs: a command that needs no stopped target; Ctrl+C breaks in
//!  *ASKS* i         it asks, and stands still until it is answered: what is typed is the answer
//! ```
//! A line that was begun as a command stays one: what somebody types must not become the answer to a question that came
//! meanwhile. Only an empty line changes its kind. The texts are of one width, because the editor has placed the line by it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::Prompt;

/// How the target stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// It runs, or nobody knows.
    #[default]
    Busy,
    /// It waits for an answer.
    Asks,
    /// It is stopped; this processor reported it.
    Stopped(u16),
}

/// Processors that have a prompt of their own; others share one without a number.
const NUMBERED: u16 = 1000;
/// Characters of each prompt.
const WIDTH: usize = 7;
/// The editor takes the terminal within this, or has none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shared by whoever knows the target and whoever reads the line.
#[derive(Clone, Debug, Default)]
pub(super) struct LineState(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    wanted: Kind,
    shown: Kind,
    is_empty: bool,
    is_answer: bool,
    /// The editor is about to take the terminal, which it has done when it draws its prompt.
    begins: bool,
    /// Nobody wants a line any more.
    is_over: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            wanted: Kind::Busy,
            shown: Kind::Busy,
            is_empty: true,
            is_answer: false,
            begins: false,
            is_over: false,
        }
    }
}

impl LineState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the target stands. It is shown when the line is drawn the next time.
    pub(super) fn stands(&self, kind: Kind) {
        self.lock().wanted = kind;
    }

    /// The line has a text by now, or none.
    pub(super) fn line_is(&self, text: &str) {
        self.lock().is_empty = text.is_empty();
    }

    /// True if the line is an answer to the target.
    pub(super) fn is_answer(&self) -> bool {
        self.lock().is_answer
    }

    /// False if the editor must not take the terminal any more.
    pub(super) fn may_begin(&self) -> bool {
        let mut state = self.lock();
        state.begins = !state.is_over;
        state.begins
    }

    /// The editor has taken the terminal, or has given it back.
    pub(super) fn has_begun(&self) {
        self.lock().begins = false;
        self.0.1.notify_all();
    }

    /// From now on the editor does not take the terminal; if it is about to, waits until it has.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_over = true;
        drop(self.0.1.wait_timeout_while(state, PATIENCE, |state| state.begins));
    }

    /// What is shown from now on.
    fn settled(&self) -> Kind {
        let mut state = self.lock();
        let keeps = !state.is_empty && (state.is_answer || state.wanted == Kind::Asks);
        if !keeps {
            state.shown = state.wanted;
            state.is_answer = state.shown == Kind::Asks;
        }
        state.shown
    }
}

/// The prompt of one line.
pub(super) struct LivePrompt {
    state: LineState,
    /// Of a running target, of one that asks, of a stopped one by its processor; without a number.
    texts: Vec<String>,
}

impl LivePrompt {
    pub(super) fn new(state: &LineState) -> Self {
        let numbered = (0..NUMBERED).map(numbered);
        let texts =
            ["*BUSY* ".into(), "*ASKS* ".into()].into_iter().chain(numbered).chain(["kd>    ".into()]);
        Self { state: state.clone(), texts: texts.collect() }
    }
}

/// `0: kd> `, and of many processors `10:kd> `, `100:kd>`.
fn numbered(processor: u16) -> String {
    let spaced = format!("{processor}: kd> ");
    let narrow = if spaced.len() > WIDTH { spaced.replace(": ", ":") } else { spaced };
    narrow.chars().take(WIDTH).collect()
}

impl Prompt for LivePrompt {
    fn raw(&self) -> &str {
        self.state.has_begun();
        let place = match self.state.settled() {
            Kind::Busy => 0,
            Kind::Asks => 1,
            Kind::Stopped(processor) => 2 + usize::from(processor.min(NUMBERED)),
        };
        &self.texts[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_is_of_one_width() {
        let prompt = LivePrompt::new(&LineState::default());
        assert!(prompt.texts.iter().all(|text| text.len() == WIDTH), "{:?}", prompt.texts);
        assert_eq!(prompt.raw(), "*BUSY* ");
        prompt.state.stands(Kind::Stopped(3));
        assert_eq!(prompt.raw(), "3: kd> ");
        prompt.state.stands(Kind::Stopped(u16::MAX));
        assert_eq!(prompt.raw().trim(), "kd>");
    }

    #[test]
    fn the_terminal_is_not_taken_any_more_once_nobody_wants_a_line() {
        let state = LineState::default();
        assert!(state.may_begin());
        let editor = {
            let prompt = LivePrompt::new(&state);
            std::thread::spawn(move || prompt.raw().to_owned())
        };
        state.close();
        assert!(!state.lock().begins, "it was waited for");
        assert!(!state.may_begin());
        editor.join().unwrap();
    }

    #[test]
    fn a_line_that_was_begun_as_a_command_is_no_answer() {
        let state = LineState::default();
        let prompt = LivePrompt::new(&state);
        state.stands(Kind::Stopped(0));
        assert_eq!(prompt.raw(), "0: kd> ");
        state.line_is("!veri");
        state.stands(Kind::Busy);
        assert_eq!(prompt.raw(), "*BUSY* ");
        state.stands(Kind::Asks);
        assert_eq!((prompt.raw(), state.is_answer()), ("*BUSY* ", false));
        state.line_is("");
        assert_eq!((prompt.raw(), state.is_answer()), ("*ASKS* ", true));
        state.line_is("i");
        state.stands(Kind::Busy);
        assert_eq!((prompt.raw(), state.is_answer()), ("*ASKS* ", true));
        state.line_is("");
        assert_eq!((prompt.raw(), state.is_answer()), ("*BUSY* ", false));
    }
}

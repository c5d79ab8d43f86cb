//! Reads lines from the terminal on a thread of its own: while somebody thinks about what to type, the target may restart,
//! the program may be told to end.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{
    Behavior, Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext,
    EventHandler, ExternalPrinter, Helper, KeyEvent, Movement, RepeatCount,
};

use super::history;
use super::live_prompt::{Kind, LineState, LivePrompt};
use super::terminal::Terminal;
use super::writer::ShowAbove;
use crate::commands::{Completions, completions, hint};
use crate::session::Watcher;

/// What only the target knows is waited for this long at Tab.
const TAB_PATIENCE: Duration = Duration::from_secs(2);

/// What was typed.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl+C.
    Interrupted,
    /// Ctrl+D.
    End,
    Failed(io::Error),
    /// Tab, behind this text: what the target knows is wanted, by [`Typist::completes`] with the same number.
    Tab(u64, String),
}

/// Whoever types.
pub(super) struct Typist {
    wanted: mpsc::Sender<()>,
    typed: mpsc::Receiver<(Typed, bool)>,
    completed: mpsc::Sender<(u64, Completions)>,
    state: LineState,
    is_typing: bool,
    terminal: Terminal,
}

/// Edits a line.
type LineEditor = Editor<Keys, DefaultHistory>;

/// What Tab does, and what is hinted at.
struct Keys {
    state: LineState,
    ask: mpsc::Sender<(Typed, bool)>,
    completed: Mutex<(u64, mpsc::Receiver<(u64, Completions)>)>,
    watcher: Watcher,
    has_colours: bool,
    listing: Listing,
}

impl Keys {
    /// What the target knows, if whoever has it answers in time.
    fn of_target(&self, line: &str) -> Option<Completions> {
        let mut completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, answers) = &mut *completed;
        *number += 1;
        self.ask.send((Typed::Tab(*number, line.to_owned()), false)).ok()?;
        self.watcher.wake();
        let until = Instant::now() + TAB_PATIENCE;
        loop {
            let answer = answers.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            if answer.0 == *number {
                return Some(answer.1);
            }
        }
    }
}

impl Completer for Keys {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let line = &line[..cursor];
        // Answers to the target are not completed.
        if self.state.is_answer() {
            return Ok((cursor, Vec::new()));
        }
        Ok(match completions(line) {
            Completions { needs_target: true, .. } => {
                self.of_target(line).unwrap_or_else(|| Completions::none(line)).into_parts()
            }
            known => known.into_parts(),
        })
    }
}

/// A text behind the cursor; the arrow to the right takes the name of a command, not the form of its arguments.
struct Hinted {
    text: String,
    is_typed: bool,
}

impl Hint for Hinted {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_typed.then_some(&self.text)
    }
}

impl Hinter for Keys {
    type Hint = Hinted;

    fn hint(&self, line: &str, cursor: usize, _: &rustyline::Context<'_>) -> Option<Hinted> {
        self.state.line_is(line);
        // Without colours nobody could tell it from what was typed.
        if !self.has_colours || cursor < line.len() || self.state.is_answer() {
            return None;
        }
        let (text, is_typed) = hint(line)?;
        let columns = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        // A hint must not make the line longer than the window: it would wrap.
        let room = columns.saturating_sub(line.chars().count() + 10);
        (text.chars().count() < room).then_some(Hinted { text, is_typed })
    }
}

impl Highlighter for Keys {
    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        self.listing.0.store(true, Ordering::Relaxed);
        Cow::Borrowed(candidate)
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.listing.0.store(false, Ordering::Relaxed);
        Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m"))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Keys {}
impl Helper for Keys {}

impl Typist {
    /// Starts to listen to the terminal; `watcher` is woken when something was typed. Also returns what shows text above
    /// the line.
    pub(super) fn start(watcher: Watcher) -> io::Result<(Self, Option<ShowAbove>)> {
        let terminal = Terminal::as_it_is();
        let is_shown = io::stdout().is_terminal();
        let config = Config::builder().max_history_size(history::KEPT).map_err(terminal_error)?;
        // Whoever keeps the answers (`| tee log`) still has a prompt, and may go before verikd does.
        let behavior = if is_shown { Behavior::Stdio } else { Behavior::PreferTerm };
        // A long list is shown a screen at a time; that it is long need not be asked about before.
        let config = config.completion_type(CompletionType::List).completion_prompt_limit(usize::MAX);
        let config = config.behavior(behavior).build();
        let mut editor = LineEditor::with_config(config).map_err(terminal_error)?;
        let suspended = Suspended::default();
        let handler = EventHandler::Conditional(Box::new(suspended.clone()));
        editor.bind_sequence(Event::from(KeyEvent::ctrl('Z')), handler);
        let listing = Listing::default();
        let handler = EventHandler::Conditional(Box::new(listing.clone()));
        editor.bind_sequence(Event::from(KeyEvent::ctrl('C')), handler);
        let file = history::file();
        if let Some(file) = &file {
            // No history yet is the normal case; one that cannot be kept is not worth a word.
            let _ = history::shorten(file);
            let _ = editor.load_history(file);
        }
        let printer = editor.create_external_printer().ok();
        let show = printer.map(|mut printer| Box::new(move |text| printer.print(text).is_ok()) as ShowAbove);
        let (wanted, wants) = mpsc::channel::<()>();
        let (tell, typed) = mpsc::channel();
        let (completed, answers) = mpsc::channel();
        let state = LineState::default();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let keys = Keys {
            state: state.clone(),
            ask: tell.clone(),
            completed: Mutex::new((0, answers)),
            watcher: watcher.clone(),
            listing,
            has_colours: !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        };
        editor.set_helper(Some(keys));
        let line_state = state.clone();
        std::thread::Builder::new().name("typist".into()).spawn(move || {
            for () in wants {
                let line = read_line(&mut editor, &line_state, &suspended, &watcher);
                let is_answer = line_state.is_answer();
                line_state.line_is("");
                if let Typed::Line(line) = &line
                    && !is_answer
                {
                    let _ = editor.add_history_entry(line);
                    let _ = file.as_ref().map(|file| history::add(file, line));
                }
                if tell.send((line, is_answer)).is_err() {
                    return;
                }
                watcher.wake();
            }
        })?;
        Ok((Self { wanted, typed, completed, state, is_typing: false, terminal }, show))
    }

    /// How the target stands: the prompt shows it, also that of a line that is being typed.
    pub(super) fn stands(&self, kind: Kind) {
        self.state.stands(kind);
    }

    /// True if nobody can type any more.
    pub(super) fn is_closed(&self) -> bool {
        self.terminal.is_closed()
    }

    /// Asks for a line, unless one is being typed.
    pub(super) fn ask(&mut self) {
        if !self.is_typing {
            self.is_typing = self.wanted.send(()).is_ok();
        }
    }

    /// True while a line is being typed.
    pub(super) const fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// What was typed since the last call, and whether it answers the target.
    pub(super) fn typed(&mut self) -> Option<(Typed, bool)> {
        let (typed, is_answer) = self.typed.try_recv().ok()?;
        self.is_typing &= matches!(typed, Typed::Tab(..));
        Some((typed, is_answer))
    }

    /// Answers a Tab.
    pub(super) fn completes(&self, number: u64, completions: Completions) {
        // Whoever does not wait any more needs none.
        let _ = self.completed.send((number, completions));
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // A line may still be being typed, in the editor's own mode of the terminal, or be about to.
        self.state.close();
        self.terminal.restore();
    }
}

fn read_line(editor: &mut LineEditor, state: &LineState, suspended: &Suspended, watcher: &Watcher) -> Typed {
    let mut begun = (String::new(), String::new());
    while state.may_begin() {
        let prompt = LivePrompt::new(state);
        let line = editor.readline_with_initial(&prompt, (&begun.0, &begun.1));
        state.has_begun();
        match line {
            Ok(line) => return Typed::Line(line),
            Err(ReadlineError::Interrupted) => match suspended.take() {
                Some(line) => begun = line,
                None => return Typed::Interrupted,
            },
            Err(ReadlineError::Eof) => return Typed::End,
            Err(error) => return Typed::Failed(terminal_error(error)),
        }
        watcher.suspend();
        // The target was let run for it; whoever knows better says so.
        state.stands(Kind::Busy);
    }
    Typed::End
}

/// The line that was being typed when Ctrl+Z was pressed, before and behind the cursor.
///
/// The editor's own way to suspend takes the terminal back at once, while the target is still being let run: the shell would
/// be left with a terminal that shows nothing of what is typed. So Ctrl+Z ends the line here, and it is begun again afterwards.
#[derive(Clone, Default)]
struct Suspended(Arc<Mutex<Option<(String, String)>>>);

impl Suspended {
    fn take(&self) -> Option<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConditionalEventHandler for Suspended {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let (before, behind) = context.line().split_at(context.pos());
        let line = (before.to_owned(), behind.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(line);
        Some(Cmd::Interrupt)
    }
}

/// True while what Tab has found is listed, a screen at a time. The editor knows no Ctrl+C then: it is told to list no more.
#[derive(Clone, Default)]
struct Listing(Arc<AtomicBool>);

impl ConditionalEventHandler for Listing {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext) -> Option<Cmd> {
        // The Backspace key ends a list too, and is not taken for what was typed last.
        self.0.swap(false, Ordering::Relaxed).then_some(Cmd::Kill(Movement::BackwardChar(1)))
    }
}

fn terminal_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

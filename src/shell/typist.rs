//! Reads lines from the terminal on a thread of its own: while somebody thinks about what to type, the target may restart,
//! the program may be told to end.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{DefaultHistory, History, SearchDirection};
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler,
    ExternalPrinter, Helper, KeyEvent, RepeatCount,
};

use super::terminal::Terminal;
use super::writer::ShowAbove;
use crate::commands::completions;
use crate::session::Watcher;

/// Lines kept from session to session.
const HISTORY_LEN: usize = 1000;

/// What was typed.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl+C.
    Interrupted,
    /// Ctrl+D.
    End,
    Failed(io::Error),
}

/// Whoever types.
pub(super) struct Typist {
    wanted: mpsc::Sender<Wanted>,
    typed: mpsc::Receiver<Typed>,
    is_typing: bool,
    terminal: Terminal,
}

/// Edits a line.
type LineEditor = Editor<Tab, DefaultHistory>;

/// What Tab does: it completes commands, not answers to the target.
struct Tab {
    is_command: bool,
}

impl Completer for Tab {
    type Candidate = &'static str;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Self::Candidate>)> {
        Ok(if self.is_command { completions(&line[..cursor]) } else { (cursor, Vec::new()) })
    }
}

impl Hinter for Tab {
    type Hint = String;
}

impl Highlighter for Tab {}
impl Validator for Tab {}
impl Helper for Tab {}

/// A line that is wanted.
struct Wanted {
    prompt: String,
    is_command: bool,
}

impl Typist {
    /// Starts to listen to the terminal; `watcher` is woken when something was typed. Also returns what shows text above
    /// the line.
    pub(super) fn start(watcher: Watcher) -> io::Result<(Self, Option<ShowAbove>)> {
        let terminal = Terminal::as_it_is();
        let config = Config::builder().max_history_size(HISTORY_LEN).map_err(terminal_error)?;
        let config = config.completion_type(CompletionType::List).build();
        let mut editor = LineEditor::with_config(config).map_err(terminal_error)?;
        let suspended = Suspended::default();
        let handler = EventHandler::Conditional(Box::new(suspended.clone()));
        editor.bind_sequence(Event::from(KeyEvent::ctrl('Z')), handler);
        let history = history_file();
        if let Some(file) = &history {
            // No history yet is the normal case.
            let _ = editor.load_history(file);
        }
        let printer = editor.create_external_printer().ok();
        let show = printer.map(|mut printer| Box::new(move |text| printer.print(text).is_ok()) as ShowAbove);
        let (wanted, wants) = mpsc::channel::<Wanted>();
        let (tell, typed) = mpsc::channel();
        std::thread::Builder::new().name("typist".into()).spawn(move || {
            for Wanted { prompt, is_command } in wants {
                editor.set_helper(Some(Tab { is_command }));
                let line = read_line(&mut editor, &prompt, &suspended, &watcher);
                if let Typed::Line(line) = &line
                    && is_command
                {
                    keep(&mut editor, line, history.as_ref());
                }
                if tell.send(line).is_err() {
                    return;
                }
                watcher.wake();
            }
        })?;
        Ok((Self { wanted, typed, is_typing: false, terminal }, show))
    }

    /// Asks for a line, unless one is being typed.
    pub(super) fn ask(&mut self, prompt: &str, is_command: bool) {
        if !self.is_typing {
            self.is_typing = self.wanted.send(Wanted { prompt: prompt.to_owned(), is_command }).is_ok();
        }
    }

    /// True while a line is being typed.
    pub(super) const fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// What was typed since the last call.
    pub(super) fn typed(&mut self) -> Option<Typed> {
        let typed = self.typed.try_recv().ok()?;
        self.is_typing = false;
        Some(typed)
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // A line may still be being typed, in the editor's own mode of the terminal.
        self.terminal.restore();
    }
}

fn read_line(editor: &mut LineEditor, prompt: &str, suspended: &Suspended, watcher: &Watcher) -> Typed {
    let mut begun = (String::new(), String::new());
    loop {
        match editor.readline_with_initial(prompt, (&begun.0, &begun.1)) {
            Ok(line) => return Typed::Line(line),
            Err(ReadlineError::Interrupted) => match suspended.take() {
                Some(line) => begun = line,
                None => return Typed::Interrupted,
            },
            Err(ReadlineError::Eof) => return Typed::End,
            Err(error) => return Typed::Failed(terminal_error(error)),
        }
        watcher.suspend();
    }
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

/// Keeps a line for the next session. What may be a secret stays here: keys, passwords in the addresses of servers.
fn keep(editor: &mut LineEditor, line: &str, file: Option<&PathBuf>) {
    let _ = editor.add_history_entry(line);
    let Some(file) = file else { return };
    // A history that cannot be kept is not worth a word in the middle of a session.
    let _ = save(editor, file);
}

fn save(editor: &mut LineEditor, file: &PathBuf) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut text = String::from("#V2\n");
    let history = editor.history();
    for index in 0..history.len() {
        let Ok(Some(entry)) = history.get(index, SearchDirection::Forward) else { continue };
        if !may_be_secret(&entry.entry) {
            text += &entry.entry.replace('\\', "\\\\").replace('\n', "\\n");
            text.push('\n');
        }
    }
    write_private(file, text.as_bytes())
}

/// Writes a file that nobody else can read, whatever it was before.
fn write_private(file: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(file)?;
    #[cfg(unix)]
    open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    open.write_all(bytes)
}

/// True for lines with a key, or with a name and a password in a URL.
fn may_be_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    let has_user = line.match_indices("://").any(|(at, _)| {
        let authority = line[at + 3..].split(['/', '*', ' ', ';', '"']).next().unwrap_or_default();
        authority.contains('@')
    });
    has_user || line.contains("key=") || line.contains("password") || line.contains("token")
}

fn terminal_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn history_file() -> Option<PathBuf> {
    Some(directories::ProjectDirs::from("", "", "verikd")?.data_local_dir().join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        for line in [
            ".sympath srv*/tmp*https://user:secret@symbols.example/x",
            ".sympath+ https://token@symbols.example",
            "x key=1.2.3.4",
        ] {
            assert!(may_be_secret(line), "{line}");
        }
        for line in ["!verifier 3 myfault.sys", ".sympath srv*/a@b*https://symbols.example/@x", "lm"] {
            assert!(!may_be_secret(line), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_the_history() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

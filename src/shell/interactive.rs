//! The prompt.

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::{After, Shell, ShellError};
use crate::commands::line::lines;
use crate::session::Session;
use kd_protocol::link::RunState;

/// Lines kept from session to session.
const HISTORY_LEN: usize = 1000;

/// Reads commands from the terminal until the user quits. The target runs afterwards.
///
/// # Errors
/// [`ShellError`] if the target is lost or answers cannot be written.
pub fn prompt(shell: &mut Shell<'_>, session: &Session) -> Result<(), ShellError> {
    let config = Config::builder()
        .auto_add_history(true)
        .max_history_size(HISTORY_LEN)
        .map_err(terminal_error)?
        .build();
    let mut editor = DefaultEditor::with_config(config).map_err(terminal_error)?;
    let history = history_file();
    if let Some(file) = &history {
        // No history yet is the normal case.
        let _ = editor.load_history(file);
    }
    let result = read_lines(shell, session, &mut editor);
    if let Some(file) = &history {
        let saved = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = saved.map_err(ReadlineError::Io).and_then(|()| editor.save_history(file)) {
            shell.report.status(&format!("cannot save the history in {}: {error}", file.display()));
        }
    }
    shell.go();
    result
}

fn read_lines(
    shell: &mut Shell<'_>,
    session: &Session,
    editor: &mut DefaultEditor,
) -> Result<(), ShellError> {
    loop {
        if session.state() != RunState::Stopped {
            shell.report.status("The target is running; Ctrl+C breaks in");
            if !shell.wait_for_stop_asking(&mut |text| answer_of_user(editor, text))? {
                return Ok(());
            }
        }
        shell.show_events();
        let line = match editor.readline(&shell.prompt_text()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                shell.report.status("The target is stopped; g lets it run, qd lets it run and ends verikd");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal_error(error)),
        };
        session.clear_interrupt();
        'typed: for line in lines(&line) {
            let mut is_whole = shell.takes(&line)?;
            for command in line.commands() {
                if shell.holds_back(command, is_whole)? {
                    break;
                }
                match shell.run(command)? {
                    After::Next => is_whole &= shell.went_well(),
                    After::Running => break 'typed,
                    After::Quit => return Ok(()),
                }
            }
        }
        if session.is_terminating() {
            return Ok(());
        }
    }
}

/// What the user answers a prompt of the target, which stands still until then. Ctrl+C breaks into it, an empty line or
/// the end of the input ignores what it asks about.
fn answer_of_user(editor: &mut DefaultEditor, text: &str) -> String {
    // Only the last line can be typed behind.
    let text = text.trim_end();
    let (above, last) = text.rsplit_once('\n').unwrap_or(("", text));
    if !above.is_empty() {
        eprintln!("{above}");
    }
    match editor.readline(&format!("{last} ")) {
        Ok(answer) if !answer.trim().is_empty() => answer.trim().to_owned(),
        Err(ReadlineError::Interrupted) => "b".into(),
        _ => "i".into(),
    }
}

fn terminal_error(error: ReadlineError) -> ShellError {
    ShellError::Output(match error {
        ReadlineError::Io(error) => error,
        other => std::io::Error::other(format!("the terminal: {other}")),
    })
}

fn history_file() -> Option<std::path::PathBuf> {
    Some(directories::ProjectDirs::from("", "", "verikd")?.data_local_dir().join("history"))
}

//! Commands from the command line or a file: run, answer, end with the target running.

use super::{After, Shell, ShellError};
use crate::commands::line::{Line, lines};
use crate::session::Session;
use kd_protocol::link::RunState;

/// Runs each command of `script`, waiting for the next stop where one lets the target run, and leaves the target
/// running. A command that fails does not keep the others from running.
///
/// # Errors
/// [`ShellError`] if the target is lost or answers cannot be written.
pub fn run_script(shell: &mut Shell<'_>, session: &Session, script: &str) -> Result<(), ShellError> {
    let result = run_commands(shell, session, script);
    shell.go();
    shell.show_events();
    result
}

fn run_commands(shell: &mut Shell<'_>, session: &Session, script: &str) -> Result<(), ShellError> {
    let lines = lines(script);
    let mut is_waiting = session.state() != RunState::Stopped;
    for (number, line) in lines.iter().enumerate() {
        let mut is_whole = shell.takes(line)?;
        for (place, command) in line.commands().iter().enumerate() {
            if session.is_budget_spent() {
                let later = lines[number + 1..].iter().flat_map(Line::commands);
                let left: Vec<&str> =
                    line.commands()[place..].iter().chain(later).map(String::as_str).collect();
                return shell.give_up(&left);
            }
            if is_waiting && !shell.wait_for_stop()? {
                return Ok(());
            }
            is_waiting = false;
            if shell.holds_back(command, is_whole)? {
                break;
            }
            match shell.run_echoed(command)? {
                After::Next => is_whole &= shell.went_well(),
                After::Running => is_waiting = true,
                After::Quit => return Ok(()),
            }
            if session.is_terminating() {
                return Ok(());
            }
        }
    }
    Ok(())
}

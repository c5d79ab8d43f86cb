//! Commands from the command line or a file: run, answer, end with the target running.

use super::{After, Shell, ShellError};
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
    let commands = super::line::split(script);
    let mut is_waiting = session.state() != RunState::Stopped;
    for (number, command) in commands.iter().enumerate() {
        if session.is_budget_spent() {
            return shell.give_up(&commands[number..]);
        }
        if is_waiting && !shell.wait_for_stop()? {
            return Ok(());
        }
        is_waiting = match shell.run_echoed(command)? {
            After::Next => false,
            After::Running => true,
            After::Quit => return Ok(()),
        };
        if session.is_terminating() {
            return Ok(());
        }
    }
    Ok(())
}

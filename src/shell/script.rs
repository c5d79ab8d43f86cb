//! Commands from the command line or a file: run, answer, end with the target running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::after::After;
use super::agenda::{Agenda, Next};
use super::error::ShellError;
use super::worst::Worst;
use super::{STEP, Shell};
use crate::session::{Quit, Signal, Watcher};
use crate::source::{BootId, Control, Halt, IGNORE, Step, Wait};

/// What a script is, and what bounds it.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Its commands.
    pub text: String,
    /// A target that restarts is stopped again, and asked the rest. Otherwise the rest is not run.
    pub reattaches: bool,
    /// Nothing is run behind a command that fails. Otherwise the next lines are.
    pub stops_on_error: bool,
    /// A target that is waited for to stop by itself is waited for this long.
    pub stop_timeout: Option<Duration>,
    /// One that is told to stop is waited for this long.
    pub break_in_timeout: Duration,
}

/// What keeps the rest of a script from being run.
enum Ended {
    /// This went wrong.
    Failed(String),
    /// It has taken as long as it may.
    BudgetSpent,
    /// Somebody wants it to end.
    Told(Quit),
}

/// Runs each command of `script`, waiting for the next stop where one lets the target run, and leaves the target
/// running. A command that fails does not keep those of the next lines from running; a target that is lost or restarts
/// does.
///
/// # Errors
/// [`ShellError`] if the target is lost while it is waited for.
pub fn run_script(shell: &mut Shell, script: &Script) -> Result<(), ShellError> {
    let result = run_commands(shell, script);
    let interrupts = shell.watcher.interrupts();
    // Whatever was not answered, and whoever does not read what was.
    shell.leave();
    shell.teller.tell();
    if shell.watcher.interrupts() != interrupts {
        shell.ended_by.get_or_insert(Quit::Signal(Signal::Interrupt));
    }
    result
}

fn run_commands(shell: &mut Shell, script: &Script) -> Result<(), ShellError> {
    let (source, watcher) = (Arc::clone(shell.debugger.source()), shell.watcher.clone());
    let mut agenda = Agenda::of(&script.text);
    // What comes while the target is attached to is of the script.
    let mut interrupts = 0;
    let mut boot = source.boot();
    let suspensions = watcher.suspensions();
    let mut is_waiting = !shell.is_stopped();
    let mut stops_next_boot = false;
    let mut is_whole = true;
    loop {
        // Whoever has set breakpoints and let the target run waits for them, also at the end of the script; an instruction is over
        // at once.
        let waits = is_waiting && (shell.debugger.has_breakpoints() || shell.debugger.is_tracing());
        let Some(next) = agenda.next().or_else(|| waits.then(Next::nothing)) else { break };
        let (command, begins_line) = match next {
            Next::Command { text, begins_line } => (text, begins_line),
            Next::Refused(line) => {
                shell.takes(&line);
                if script.stops_on_error {
                    break;
                }
                continue;
            }
        };
        is_whole |= begins_line;
        let left = |agenda: &mut Agenda| {
            let mut left = [vec![command.clone()], agenda.take_commands()].concat();
            left.retain(|it| !it.is_empty());
            left
        };
        if let Some(control) = source.control().filter(|_| is_waiting && watcher.interrupts() == interrupts) {
            let reattaches = script.reattaches || std::mem::take(&mut stops_next_boot);
            if let Some(ended) = wait_for_stop(shell, control, script, boot, reattaches)? {
                end(shell, &ended, &left(&mut agenda));
                return Ok(());
            }
            boot = source.boot();
            // Those have broken in.
            interrupts = watcher.interrupts();
            if let Some(commands) = shell.take_commands() {
                is_waiting = false;
                agenda.put_commands_first(&commands, Next::Command { text: command, begins_line });
                continue;
            }
        }
        is_waiting = false;
        if command.is_empty() {
            continue;
        }
        if source.boot() != boot && script.reattaches {
            shell.break_in()?;
            boot = source.boot();
        }
        if let Some(ended) = ended(shell, boot, interrupts, suspensions) {
            end(shell, &ended, &left(&mut agenda));
            return Ok(());
        }
        if shell.holds_back(&command, is_whole, &mut agenda) {
            continue;
        }
        let after = shell.run_echoed(&command);
        is_whole &= shell.went_well();
        match after {
            After::Next => {}
            After::Running => is_waiting = true,
            After::Restarting => {
                is_waiting = true;
                stops_next_boot = true;
            }
            After::Quit => return Ok(()),
            After::Lines(text) => {
                if let Err(why) = agenda.put_file_first(&text) {
                    shell.cannot(&command, why);
                }
            }
        }
        if script.stops_on_error && !shell.went_well() {
            break;
        }
    }
    shell.none_run(&agenda.take_commands(), "a command before it failed (--stop-on-error)");
    // What ended the last command has to be told too.
    match ended(shell, boot, interrupts, suspensions) {
        Some(told @ (Ended::Told(_) | Ended::Failed(_))) if !is_waiting => end(shell, &told, &[]),
        _ => {}
    }
    Ok(())
}

/// Why the rest is not run, if it is not.
fn ended(shell: &Shell, boot: BootId, interrupts: u64, suspensions: u64) -> Option<Ended> {
    let watcher = &shell.watcher;
    watcher.wait_out_suspension();
    if let Some(quit) = watcher.quit() {
        return Some(Ended::Told(quit));
    }
    if watcher.interrupts() != interrupts {
        return Some(Ended::Told(Quit::Signal(Signal::Interrupt)));
    }
    if shell.report.writer().is_unread() {
        return Some(Ended::Failed("whoever read the answers has gone away".into()));
    }
    if watcher.suspensions() != suspensions {
        return Some(Ended::Failed("verikd was suspended, and the target ran meanwhile".into()));
    }
    if shell.source().boot() != boot {
        return Some(Ended::Failed("the target restarted; --reattach goes on with the new boot".into()));
    }
    if let Some(lost) = shell.lost() {
        return Some(Ended::Failed(lost));
    }
    watcher.is_budget_spent().then_some(Ended::BudgetSpent)
}

/// Lets the target run, and says what was not done, and why.
fn end(shell: &mut Shell, ended: &Ended, left: &[String]) {
    if let Ended::Told(quit) = ended {
        shell.ended_by = Some(*quit);
        let step = shell.control().map_or(Step::Idle, |control| {
            control.hurry();
            control.step()
        });
        shell.report.status(&match step {
            Step::Idle => format!("{quit} ended the script"),
            step => format!("{quit} ended the script while it waited for {step}"),
        });
    }
    shell.leave();
    let told;
    let why = match ended {
        Ended::Failed(why) => {
            shell.worst = shell.worst.max(Worst::Failed);
            why.as_str()
        }
        Ended::Told(quit) => {
            shell.worst = shell.worst.max(Worst::Failed);
            told = format!("{quit} ended the script");
            &told
        }
        Ended::BudgetSpent => {
            if shell.worst != Worst::MayBeStopped {
                shell.report.status("The freeze budget is spent; the target runs on");
            }
            shell.worst = shell.worst.max(Worst::Partial);
            "the freeze budget is spent"
        }
    };
    if !shell.none_run(left, why) && matches!(ended, Ended::Failed(_)) {
        shell.report.status(&format!("error: {why}"));
    }
}

/// Waits until the target, which was let run in `boot`, stops by itself. Ctrl+C breaks in, and ends the script when it is pressed
/// again.
fn wait_for_stop(
    shell: &mut Shell,
    control: &dyn Control,
    script: &Script,
    mut boot: BootId,
    reattaches: bool,
) -> Result<Option<Ended>, ShellError> {
    let watcher = shell.watcher.clone();
    // A step is over at once, as a rule.
    let is_step = shell.debugger.is_stepping();
    let told = match script.stop_timeout {
        Some(timeout) => {
            format!("Waiting for the target to stop by itself, for {timeout:?} at most; Ctrl+C stops it")
        }
        None => {
            "Waiting for the target to stop by itself; Ctrl+C stops it, --stop-timeout bounds the wait".into()
        }
    };
    let mut told_at = is_step.then(|| Instant::now() + STEP);
    if !is_step {
        shell.report.status(&told);
    }
    let mut suspensions = watcher.suspensions();
    control.begin(Step::Stop);
    let mut breaks_in = false;
    let mut steps_left = shell.debugger.steps_left();
    let mut deadline = script.stop_timeout.map(|it| Instant::now() + it);
    loop {
        match control.wait_for_halt(Some(boot), told_at.into_iter().chain(deadline).min()) {
            Wait::TimedOut if told_at.take().is_some() => shell.report.status(&told),
            Wait::Done(Halt::Stopped(_)) => {
                // It may have been stopped to take something out of it before the program is suspended.
                watcher.wait_out_suspension();
                if let Some(quit) = watcher.quit() {
                    return Ok(Some(Ended::Told(quit)));
                }
                // A pass of a breakpoint is gone on from.
                if shell.announce_stop()? {
                    let interrupted = Ended::Told(Quit::Signal(Signal::Interrupt));
                    return Ok(std::mem::take(&mut shell.is_cut_short).then_some(interrupted));
                }
                // Each of several steps is a wait of its own.
                let left = shell.debugger.steps_left();
                if std::mem::replace(&mut steps_left, left) != left {
                    deadline = script.stop_timeout.map(|it| Instant::now() + it);
                }
            }
            Wait::Done(Halt::Restarted) => {
                boot = shell.source().boot();
                if reattaches {
                    shell.break_in()?;
                    return Ok(None);
                }
            }
            Wait::Done(Halt::Prompt(prompt)) => {
                control.answer_prompt(prompt, bytes::Bytes::from_static(IGNORE));
            }
            // Whoever suspends the program wants no break-in: the machine would wait for it.
            Wait::Interrupted if watcher.is_suspending() || watcher.suspensions() != suspensions => {
                watcher.wait_out_suspension();
                if let Some(quit) = watcher.quit() {
                    return Ok(Some(Ended::Told(quit)));
                }
                if shell.debugger.has_breakpoints() || shell.debugger.is_stepping() {
                    let why = "verikd was suspended, and the target runs without breakpoints since";
                    return Ok(Some(Ended::Failed(why.into())));
                }
                suspensions = watcher.suspensions();
            }
            Wait::Interrupted if watcher.quit().is_none() && !breaks_in => {
                shell.report.status(match shell.debugger.steps_left() {
                    0 => "Breaking in; Ctrl+C again ends the script",
                    _ => "Ctrl+C ends the steps",
                });
                breaks_in = true;
                control.request_break_in();
                deadline = Some(Instant::now() + script.break_in_timeout);
            }
            wait => {
                if let Some(quit) = watcher.quit() {
                    return Ok(Some(Ended::Told(quit)));
                }
                if breaks_in {
                    if wait == Wait::Interrupted {
                        control.hurry();
                        control.cancel_break_in();
                        return Ok(Some(Ended::Told(Quit::Signal(Signal::Interrupt))));
                    }
                    let why = control.gave_up_break_in(wait.map(drop), script.break_in_timeout);
                    return Ok(Some(Ended::Failed(why.to_string())));
                }
                return Ok(Some(why_no_stop(control, &watcher, &wait, script)));
            }
        }
    }
}

fn why_no_stop(control: &dyn Control, watcher: &Watcher, wait: &Wait<Halt>, script: &Script) -> Ended {
    match wait {
        Wait::Ended(why) => Ended::Failed(format!("the session has ended: {why}")),
        Wait::TimedOut => Ended::Failed(format!(
            "the target did not stop by itself within {:?}; last sign of life: {}",
            script.stop_timeout.unwrap_or_default(),
            control.last_heard()
        )),
        _ => Ended::Told(watcher.quit().unwrap_or(Quit::Signal(Signal::Interrupt))),
    }
}

//! Keeps its promise to the machine when the system has other plans for the program: a suspension, an end that something
//! holds up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Weak};
use std::time::Duration;

use super::report::Report;
use super::terminal::Terminal;
use super::worst::{Codes, Worst, exit_code_of};
use crate::session::{Quit, Watcher};
use crate::source::{Control, Resumed, Source};

/// Whoever is told to end has ended by himself within this.
const GRACE: Duration = Duration::from_millis(2500);
/// What is said at the end is written within this, or nobody reads it.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Lets `source`'s target run before the program is suspended, and ends the program when it was told to end and does not:
/// on a thread of its own, which nothing that the program does can hold up. `codes` are those that it ends with.
///
/// # Errors
/// The system's, if it has no threads.
pub fn keep(
    source: &Arc<impl Source + 'static>,
    watcher: Watcher,
    report: Report,
    codes: Codes,
) -> std::io::Result<()> {
    keep_each(vec![(Arc::downgrade(source) as Weak<dyn Source>, watcher, report)], codes)
}

/// The same for several, each with its watcher: the program is suspended, or ended, once all targets were let run.
///
/// # Errors
/// The system's, if it has no threads.
pub fn keep_each(sources: Vec<(Weak<dyn Source>, Watcher, Report)>, codes: Codes) -> std::io::Result<()> {
    let together = Arc::new(Together {
        all_are_there: Barrier::new(sources.len()),
        is_one_in_doubt: AtomicBool::new(false),
        codes,
    });
    for (source, watcher, report) in sources {
        let (together, terminal) = (Arc::clone(&together), Terminal::as_it_is());
        let keeper = Keeper { source, watcher, report, together, terminal };
        std::thread::Builder::new().name("keeper".into()).spawn(move || keeper.run())?;
    }
    Ok(())
}

/// What keepers of several targets share.
struct Together {
    all_are_there: Barrier,
    /// A target may stand still.
    is_one_in_doubt: AtomicBool,
    codes: Codes,
}

struct Keeper {
    source: Weak<dyn Source>,
    watcher: Watcher,
    report: Report,
    together: Arc<Together>,
    /// Before anybody typed.
    terminal: Terminal,
}

impl Keeper {
    fn run(&self) {
        loop {
            match self.watcher.wait_for_suspension() {
                None => self.suspend(),
                Some(quit) => return self.end(quit),
            }
        }
    }

    /// A suspended debugger answers nothing: the target must not wait for it.
    fn suspend(&self) {
        let before = self.watcher.continuations();
        if let Some(source) = self.source.upgrade()
            && let Some(control) = source.control()
            && (source.stopped().is_some()
                || control.waits_at_prompt()
                || control.planted().is_some()
                || !control.breakpoints().is_empty())
        {
            let is_watching = control.planted().is_some();
            let resumed = control.leave();
            self.report.source_resumed(&*source, &resumed);
            match resumed {
                Resumed::NeverRuns | Resumed::MayBeStopped(_) => {}
                Resumed::Running if is_watching => {
                    self.report.status(
                        "Suspended; the target runs meanwhile, and uses of the tag are waited for no more",
                    );
                }
                Resumed::Running => {
                    self.report
                        .status("Suspended; the target runs meanwhile. Ctrl+C breaks in again afterwards");
                }
            }
        }
        self.say_last_words();
        // Whoever has told it meanwhile to go on, or to end, is not left with a program that stands still.
        let is_wanted = || self.watcher.continuations() == before && self.watcher.quit().is_none();
        if self.together.all_are_there.wait().is_leader() && is_wanted() {
            // A line may be being typed, in the editor's own mode of the terminal.
            let while_typing = Terminal::as_it_is();
            self.terminal.restore();
            if stop_this_process() {
                // The system stops a thread in its own time: this one may run on for a while.
                self.watcher.wait_for_continuation(before);
            }
            while_typing.restore();
        }
        self.together.all_are_there.wait();
        self.watcher.end_suspension();
        self.watcher.wake();
    }

    fn end(&self, quit: Quit) {
        std::thread::sleep(GRACE);
        // Whatever holds the program up, the machine is let run.
        if let Some(source) = self.source.upgrade()
            && let Some(resumed) = source.control().map(Control::leave)
        {
            if matches!(resumed, Resumed::MayBeStopped(_)) {
                self.together.is_one_in_doubt.store(true, Ordering::Release);
            }
            self.report.source_resumed(&*source, &resumed);
        }
        self.say_last_words();
        // Whoever is first must not end the program before the others have let their machines run.
        self.together.all_are_there.wait();
        self.terminal.restore();
        let is_in_doubt = self.together.is_one_in_doubt.load(Ordering::Acquire);
        let code =
            if is_in_doubt { Worst::MayBeStopped.exit_code(self.together.codes) } else { exit_code_of(quit) };
        std::process::exit(code.into());
    }

    fn say_last_words(&self) {
        let said_by = std::time::Instant::now() + LAST_WORDS;
        let _ = self.report.writer().drain(|| std::time::Instant::now() < said_by);
    }
}

/// False if there is no such thing.
fn stop_this_process() -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::STOP).is_ok()
    }
    #[cfg(not(unix))]
    false
}

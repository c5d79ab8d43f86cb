//! An eye on what happens, and on what the person or the system wants.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kd_protocol::link::RunState;

use super::monitor::{Monitor, News, Quit, Standing};
use super::signal::Signal;
use super::signals;
use crate::source::Wait;

/// What happens, and whether what goes on is to end: for whoever shows the one and heeds the other. Does not keep a session
/// alive.
#[derive(Clone, Debug)]
pub struct Watcher(pub(super) Arc<Monitor>);

impl Watcher {
    /// A watcher of no session: for a target that never runs. Signals are watched if `handle_signals`.
    ///
    /// # Errors
    /// The system's, if it does not tell of signals.
    pub fn alone(handle_signals: bool) -> io::Result<Self> {
        let monitor = Arc::new(Monitor::default());
        if handle_signals {
            signals::watch(Arc::clone(&monitor))?;
        }
        Ok(Self(monitor))
    }

    /// True if Ctrl+C was pressed since the program began, also while its target was still being attached to.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.interrupts() > 0
    }

    /// Has the program end after this long, counted from now.
    ///
    /// # Errors
    /// The system's, if it has no threads.
    pub fn end_after(&self, deadline: Duration) -> io::Result<()> {
        let (monitor, at) = (Arc::clone(&self.0), Instant::now() + deadline);
        let wait = move || {
            let _: Wait<()> = monitor.wait_to_the_end(at, |_| None);
            monitor.quit(Quit::Deadline(deadline));
        };
        std::thread::Builder::new().name("deadline".into()).spawn(wait)?;
        Ok(())
    }

    /// Waits for news, and leaves them there. False when there will be none any more.
    #[must_use]
    pub fn wait_for_news(&self) -> bool {
        self.0.wait_for_news()
    }

    /// The news so far, each once, as long as no target has connected: those of a target are for whoever debugs it.
    #[must_use]
    pub fn take_news_before_target(&self) -> Vec<News> {
        self.0.take_news_before_target()
    }

    /// The news so far, each once.
    #[must_use]
    pub fn take_news(&self) -> Vec<News> {
        self.0.take_news()
    }

    /// Makes the owner look up from [`changed`](Self::changed).
    pub fn wake(&self) {
        self.0.wake();
    }

    /// Waits, for as long as the program lives, until it is to be suspended; or returns why it is to end.
    #[must_use]
    pub fn wait_for_suspension(&self) -> Option<Quit> {
        self.0.wait_for_suspension()
    }

    /// The program goes on after a suspension.
    pub fn end_suspension(&self) {
        self.0.end_suspension();
    }

    /// How often the program went on after a suspension.
    #[must_use]
    pub fn continuations(&self) -> u64 {
        self.0.get(|state| state.continuations)
    }

    /// Waits until it has gone on more often than `before`, or is to end.
    pub fn wait_for_continuation(&self, before: u64) {
        self.0.wait_for_continuation(before);
    }

    /// Suspends the program and all that was started with it, as Ctrl+Z does; returns when it goes on. Nothing is done where
    /// the system has no such thing.
    pub fn suspend(&self) {
        let before = self.0.get(|state| state.suspensions);
        if signals::suspend() {
            self.0.wait_out_suspension_after(before);
        }
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing()
    }

    /// Waits until things stand otherwise than `before`, or somebody [wakes](Self::wake) this.
    pub fn changed(&self, before: Standing, deadline: Option<Instant>) -> Wait<Standing> {
        self.0.changed(before, deadline)
    }

    /// Ends what goes on, as Ctrl+C does: a read, a wait. For front ends without a terminal.
    pub fn interrupt(&self) {
        self.0.signalled(Signal::Interrupt);
    }

    /// Ends the program, as SIGHUP does: whoever sat at the terminal has closed it.
    pub fn hang_up(&self) {
        self.0.signalled(Signal::HangUp);
    }

    /// How often Ctrl+C was pressed.
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.0.get(|state| state.interrupts)
    }

    /// True if Ctrl+C was pressed; it is forgotten thereby.
    pub fn take_interrupt(&self) -> bool {
        self.0.take_interrupt()
    }

    /// Why the program is to end, if it is.
    #[must_use]
    pub fn quit(&self) -> Option<Quit> {
        self.0.quit_reason()
    }

    /// How often the program was suspended.
    #[must_use]
    pub fn suspensions(&self) -> u64 {
        self.0.get(|state| state.suspensions)
    }

    /// True while the program is about to be suspended, or is.
    #[must_use]
    pub fn is_suspending(&self) -> bool {
        self.0.is_suspending()
    }

    /// Waits until a suspension that has begun is over.
    pub fn wait_out_suspension(&self) {
        self.0.wait_out_suspension();
    }

    /// Lets reads fail once a stop has taken `budget`.
    pub fn set_freeze_budget(&self, budget: Option<Duration>) {
        self.0.set_freeze_budget(budget);
    }

    /// How long a stop may take.
    #[must_use]
    pub fn freeze_budget(&self) -> Option<Duration> {
        self.0.get(|state| state.freeze_budget)
    }

    /// When the present stop has taken as long as it may.
    #[must_use]
    pub fn freeze_deadline(&self) -> Option<Instant> {
        self.0.freeze_deadline()
    }

    /// True after Ctrl+C, until it is forgotten or has ended something, and once the program is to end.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.0.is_interrupted()
    }

    /// True while the target stands still.
    #[must_use]
    pub fn is_target_stopped(&self) -> bool {
        self.0.get(|state| state.run_state) == RunState::Stopped
    }

    /// True if the present stop has taken as long as it may.
    #[must_use]
    pub fn is_budget_spent(&self) -> bool {
        self.0.is_budget_spent()
    }
}

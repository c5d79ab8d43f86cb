//! What the system tells the program: Ctrl+C, an end, a suspension.

use std::io;
use std::sync::Arc;

use super::monitor::Monitor;
use super::signal::Signal;

/// Tells the monitor of every signal, on a thread that lives as long as the program: a signal that is watched once does
/// nothing by itself any more, also when the session is over and a slow reader still takes its answers.
pub(super) fn watch(monitor: Arc<Monitor>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            while let Some(signal) = signals.next().await {
                monitor.signalled(signal);
            }
        });
    })?;
    Ok(())
}

/// Sends what Ctrl+Z sends, to this program and all that was started with it. False if there is no such thing.
pub(super) fn suspend() -> bool {
    #[cfg(unix)]
    return rustix::process::kill_current_process_group(rustix::process::Signal::TSTP).is_ok();
    #[cfg(not(unix))]
    false
}

/// Waits for a signal to end; for ever unless `is_wanted`.
pub(super) async fn end_signal(is_wanted: bool) {
    if is_wanted && let Ok(mut signals) = Signals::new() {
        while let Some(signal) = signals.next().await {
            if !matches!(signal, Signal::Suspend | Signal::Continue) {
                return;
            }
        }
    }
    std::future::pending().await
}

#[cfg(unix)]
struct Signals([(Signal, tokio::signal::unix::Signal); 5]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let of = |it: Signal| io::Result::Ok((it, signal(SignalKind::from_raw(it.number().into()))?));
        Ok(Self([
            of(Signal::Interrupt)?,
            of(Signal::Terminate)?,
            of(Signal::HangUp)?,
            of(Signal::Suspend)?,
            of(Signal::Continue)?,
        ]))
    }

    async fn next(&mut self) -> Option<Signal> {
        let [a, b, c, d, e] = &mut self.0;
        tokio::select! {
            it = a.1.recv() => it.map(|()| a.0),
            it = b.1.recv() => it.map(|()| b.0),
            it = c.1.recv() => it.map(|()| c.0),
            it = d.1.recv() => it.map(|()| d.0),
            it = e.1.recv() => it.map(|()| e.0),
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    interrupt_key: tokio::signal::windows::CtrlBreak,
    closed: tokio::signal::windows::CtrlClose,
    log_off: tokio::signal::windows::CtrlLogoff,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::windows;
        Ok(Self {
            interrupt: windows::ctrl_c()?,
            interrupt_key: windows::ctrl_break()?,
            closed: windows::ctrl_close()?,
            log_off: windows::ctrl_logoff()?,
            shutdown: windows::ctrl_shutdown()?,
        })
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            it = self.interrupt.recv() => it.map(|()| Signal::Interrupt),
            it = self.interrupt_key.recv() => it.map(|()| Signal::Interrupt),
            it = self.closed.recv() => it.map(|()| Signal::HangUp),
            it = self.log_off.recv() => it.map(|()| Signal::Terminate),
            it = self.shutdown.recv() => it.map(|()| Signal::Terminate),
        }
    }
}

#[cfg(not(any(unix, windows)))]
struct Signals;

#[cfg(not(any(unix, windows)))]
impl Signals {
    const fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::signal::ctrl_c().await.ok().map(|()| Signal::Interrupt)
    }
}

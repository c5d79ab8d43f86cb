//! What a simulated target tells whoever watches it.

/// Something a watcher may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimulatorEvent {
    /// It runs, and sends offers from here or waits for a debugger here.
    Started(String),
    /// A debugger answered from there.
    Connected(String),
    /// A debugger stopped it.
    Stopped,
    /// It runs again.
    Resumed,
    /// It started anew.
    Rebooted,
    /// It printed this line to its debugger, connected or not.
    Printed(String),
    /// Its debugger does not acknowledge any more.
    DebuggerAbsent,
}

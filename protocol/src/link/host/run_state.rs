//! Whether a target can be asked.

/// Whether the target takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// No target yet, or not known.
    Unknown,
    /// It runs: whatever is sent but a break-in is lost.
    Running,
    /// It is stopped and answers.
    Stopped,
}

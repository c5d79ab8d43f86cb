//! Text or JSON.

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As WinDbg prints.
    Text,
    /// One JSON object a command.
    Json,
}

//! What comes of looking again and again.

use super::snapshot::Snapshot;

/// What came of one look at what drivers hold.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// All that was asked for was read.
    Taken(&'a Snapshot),
    /// The target was not stopped, or did not answer.
    Failed,
    /// Reading ended early: what was not read is not told.
    BrokenOff,
}

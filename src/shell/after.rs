//! What a command leaves to do.

/// What a command leaves the shell to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next command.
    Next,
    /// The target runs; wait until it stops.
    Running,
    /// End, with the target running.
    Quit,
}

//! What a command leaves to do.

/// What a command leaves the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// The next command.
    Next,
    /// The target runs; wait until it stops.
    Running,
    /// The target restarts; stop it when it is back.
    Restarting,
    /// End, with the target running.
    Quit,
    /// The lines of a file that it names, before everything else.
    Lines(String),
}

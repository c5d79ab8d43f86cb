//! What a person or the system wants of the program.

/// What a person or the system wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl+C, SIGINT.
    Interrupt,
    /// SIGTERM; on Windows a closed console, a log-off, a shutdown.
    Terminate,
    /// SIGHUP: the terminal is gone.
    HangUp,
    /// SIGTSTP, Ctrl+Z.
    Suspend,
    /// SIGCONT: goes on after that.
    Continue,
}

impl Signal {
    /// Its number, which shells add to 128 for the exit code of what it ended.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::HangUp => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
            // These two have other numbers on other systems; nothing ends by them.
            #[cfg(unix)]
            Self::Suspend => rustix::process::Signal::TSTP.as_raw() as u8,
            #[cfg(unix)]
            Self::Continue => rustix::process::Signal::CONT.as_raw() as u8,
            #[cfg(not(unix))]
            Self::Suspend | Self::Continue => 0,
        }
    }

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "Ctrl+C",
            Self::Terminate => "SIGTERM",
            Self::Suspend => "SIGTSTP",
            Self::Continue => "SIGCONT",
        }
    }
}

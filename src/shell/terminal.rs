//! The mode of the terminal: whoever comes after the program finds it as the program did.

#[cfg(unix)]
use std::io;

/// How the terminal was at a time.
#[derive(Debug)]
pub(super) struct Terminal {
    #[cfg(unix)]
    mode: Option<rustix::termios::Termios>,
}

/// The terminal that the program was started at, wherever its standard output goes; nothing where there is none.
pub(super) fn open() -> Option<std::fs::File> {
    let name = if cfg!(unix) { "/dev/tty" } else { "CONOUT$" };
    std::fs::OpenOptions::new().write(true).open(name).ok()
}

impl Terminal {
    pub(super) fn as_it_is() -> Self {
        Self {
            #[cfg(unix)]
            mode: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// True if there was one, which has been closed.
    pub(super) fn is_closed(&self) -> bool {
        #[cfg(unix)]
        return self.mode.is_some() && rustix::termios::tcgetattr(io::stdin()).is_err();
        #[cfg(not(unix))]
        false
    }

    pub(super) fn restore(&self) {
        #[cfg(unix)]
        if let Some(mode) = &self.mode {
            // A terminal that is gone needs nothing.
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, mode);
        }
    }
}

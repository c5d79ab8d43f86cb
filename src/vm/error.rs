//! Why a virtual machine cannot be reached or read.

use std::io;
use std::time::Duration;

use crate::memory::ReadCause;
use crate::output::Escaped;
use crate::physical::NoKernel;

/// Why a virtual machine cannot be opened as a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// It is not said where it is in a way that is known.
    #[error(
        "{0:?} is no virtual machine: write qmp:PATH, unix:PATH or tcp:HOST:PORT, where QEMU was given -qmp \
         unix:PATH,server=on,wait=off"
    )]
    Place(String),
    /// Nobody listens there, or not for us.
    #[error("cannot connect to the monitor at {place}: {source}{}", advice(source))]
    Connect {
        /// Where.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// Somebody listens and says nothing.
    #[error(
        "the monitor at {place} says nothing within {after:?}: it serves one client at a time, and another (libvirt, a \
         management tool) holds it. Give QEMU a second -qmp unix:PATH,server=on,wait=off, or end the other"
    )]
    Busy {
        /// Where.
        place: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// What listens there is something else.
    #[error(
        "{place} is no monitor of QEMU (QMP): it says {said}. A human monitor (-monitor) is another thing: use -qmp"
    )]
    NotQmp {
        /// Where.
        place: String,
        /// What came.
        said: String,
    },
    /// The monitor did not do what it was told.
    #[error("the monitor's {command}: {source}")]
    Command {
        /// Which command.
        command: String,
        /// Why not.
        source: QmpError,
    },
    /// The processors are of another kind.
    #[error("the virtual machine's processors are not x86: {0}")]
    Processors(String),
    /// There is no RAM.
    #[error("the monitor lists no RAM of the machine")]
    NoRam,
    /// It runs no Windows, or not yet.
    #[error("no Windows kernel is found in the virtual machine: {0}")]
    NoKernel(String),
    /// It could not be read.
    #[error("the virtual machine cannot be read: {0}")]
    Read(ReadCause),
    /// It was paused, and its monitor has not confirmed that it runs again.
    #[error("{error}")]
    MayBeStopped {
        /// Why it cannot be opened.
        error: Box<Self>,
        /// Why it may still stand still.
        why: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => ". Is QEMU started with -qmp unix:PATH,server=on,wait=off?",
        io::ErrorKind::PermissionDenied => ". It is another user's: run verikd as that user, or as root",
        io::ErrorKind::ConnectionRefused => ". Nobody listens there any more: is the machine still on?",
        _ => "",
    }
}

impl From<NoKernel> for VmError {
    fn from(NoKernel(why): NoKernel) -> Self {
        Self::NoKernel(why)
    }
}

/// Why a command of the monitor was not answered as it should have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The other end closed the socket.
    #[error("the connection has ended: the machine is off, or its monitor was closed")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Socket(String),
    /// No answer.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// A line without an end.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
    /// A line that is no JSON object, or not of the form that the command has.
    #[error("an answer that is not understood: {0}")]
    Form(String),
    /// It says no.
    #[error("refused: {0}")]
    Refused(String),
}

impl QmpError {
    /// What a line says that is not understood, as far as a person wants to see it.
    pub(super) fn form(text: &str) -> Self {
        Self::Form(shown(text))
    }
}

impl From<QmpError> for ReadCause {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Closed => Self::Disconnected,
            QmpError::TimedOut(after) => Self::NoAnswer { seconds: after.as_secs() },
            QmpError::Interrupted => Self::Interrupted,
            other => Self::Monitor(other.to_string().into()),
        }
    }
}

/// The beginning of what came from outside, escaped.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let start: String = text.trim().chars().take(MOST).collect();
    let more = if start.len() < text.trim().len() { ".." } else { "" };
    format!("{}{more}", Escaped(&start))
}

//! Letting a machine run that a debugger has left stopped: a link of its own finds it, gets it off its breakpoint, and
//! goes.

use std::time::Duration;

use super::connection::Connection;
use super::error::OpenError;
use super::prompts::Prompts;
use super::{Session, SessionConfig};
use crate::source::{Armed, Control, Planted, Resumed};

/// A KDNET target offers itself every three seconds.
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);
/// A target that is there stops, or says that it has, within this.
const BREAK_PATIENCE: Duration = Duration::from_secs(5);

impl Session {
    /// Starts to listen, or to open the serial line. Over a network nothing is sent before a target makes an offer. A line
    /// says nothing by itself, so that a break-in goes out as soon as it is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &SessionConfig) -> Result<Self, OpenError> {
        Self::open_with(config, let_go)
    }
}

/// Lets the target at the other end of `connection` run, whether or not it is stopped, and takes back what this side has
/// in it.
/// True if it said that it runs.
pub(super) fn let_go(connection: &Connection, planted: Option<Planted>, armed: Vec<Armed>) -> bool {
    let config = SessionConfig { prompts: Prompts::ignoring(), ..SessionConfig::over(connection.clone()) };
    let Ok(session) = Session::open(&config) else { return false };
    if session.wait_for_target(Some(CONNECT_PATIENCE)).is_err() {
        return false;
    }
    // A running target stops for a moment, a stopped one announces its stop again: either way it can be let go then.
    let is_stopped = session.break_in(BREAK_PATIENCE).is_ok();
    if let Some(planted) = planted.filter(|_| is_stopped) {
        session.adopt_in_target(planted);
    }
    if is_stopped {
        session.adopt_armed(armed);
    }
    is_stopped && session.leave() == Resumed::Running
}

//! Stopping the target for a moment, by a session as every other: it lets the target run whatever happens.

use std::time::Duration;

use kd_protocol::link::Peer;

use super::finding::Finding;
use crate::session::{Connection, Session, SessionConfig};
use crate::source::{Control, Resumed, Source};

pub(super) fn examine(connection: &Connection, time: Duration) -> Finding {
    let config = SessionConfig {
        request_timeout: time,
        handle_signals: true,
        ..SessionConfig::over(connection.clone())
    };
    let session = match Session::open(&config) {
        Ok(session) => session,
        Err(error) => return Finding::NoBreakIn { target: "the target".into(), why: error.to_string() },
    };
    let no_break_in = |session: &Session, why: String| Finding::NoBreakIn { target: session.place(), why };
    if let Err(error) = session.wait_for_target(Some(time)) {
        return no_break_in(&session, error.to_string());
    }
    if let Err(error) = session.break_in(time) {
        return no_break_in(&session, error.to_string());
    }
    let target = session.place();
    let version = match session.peer() {
        Some(Peer::Kdnet(peer)) => Some(peer.version),
        _ => None,
    };
    match session.leave() {
        Resumed::Running | Resumed::NeverRuns => Finding::Works { target, version },
        Resumed::MayBeStopped(_) => Finding::LeftStopped { target },
    }
}

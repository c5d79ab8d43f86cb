//! What a target says of itself, asked once a boot.

use kd_protocol::kd::{Arm, GetVersion64, Manipulate};
use kd_protocol::link::RequestError;

use super::monitor::Monitor;

/// Asks by `request`, and keeps the answer as this boot's.
///
/// # Errors
/// `request`'s; [`RequestError::NotConnected`] also if it answers with something else.
pub(super) fn ask<E: From<RequestError>>(
    monitor: &Monitor,
    request: impl FnOnce(Manipulate) -> Result<Manipulate, E>,
) -> Result<GetVersion64, E> {
    let boot = monitor.get(|state| state.boot);
    let Arm::GetVersion(version) = request(Manipulate::get_version())?.arm else {
        return Err(RequestError::NotConnected.into());
    };
    // What another boot has answered meanwhile is not kept as this one's.
    monitor.note(|state| {
        if state.boot == boot {
            state.version = Some(version);
        }
    });
    Ok(version)
}

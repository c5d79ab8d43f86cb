//! What a target says of itself, asked once a boot.

use kd_protocol::kd::{Arm, GetVersion64, Manipulate};
use kd_protocol::link::RequestError;

use super::monitor::Monitor;

/// Asks by `request`, and keeps the answer as this boot's. The answer of a target that refuses to say it is none, whatever its
/// fields hold.
///
/// # Errors
/// `request`'s; [`RequestError::Refused`]; [`RequestError::NotConnected`] also if it answers with something else.
pub(super) fn ask<E: From<RequestError>>(
    monitor: &Monitor,
    request: impl FnOnce(Manipulate) -> Result<Manipulate, E>,
) -> Result<GetVersion64, E> {
    let boot = monitor.get(|state| state.boot);
    let reply = request(Manipulate::get_version())?;
    let Arm::GetVersion(version) = reply.arm else {
        return Err(RequestError::NotConnected.into());
    };
    if !reply.return_status.is_success() {
        return Err(RequestError::Refused { status: reply.return_status }.into());
    }
    // What another boot has answered meanwhile is not kept as this one's.
    monitor.note(|state| {
        if state.boot == boot {
            state.version = Some(version);
        }
    });
    Ok(version)
}

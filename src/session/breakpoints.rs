//! Breakpoints that this session has in its target's code, and one instruction at a time.
//!
//! ```text
//!   set --> the target runs, stops, runs --> clear, or whatever ends the session --> it is let run
//!              `-- it restarts: a new boot has nothing of them
//! ```
//! A stop that the target reports takes those away that lie in the bytes that it tells: a handle that is taken out then is
//! refused, which is what was wanted. Source: PROTOCOL.md 8.

use kd_protocol::VirtAddr;
use kd_protocol::kd::{ApiNumber, Arm, Manipulate, RestoreBreakPoint, WriteBreakPoint64};
use kd_protocol::link::RequestError;

use super::Session;
use crate::source::{BREAKPOINT_SLOTS, BreakpointError, InCode};

impl Session {
    pub(super) fn set_in_code(&self, address: VirtAddr) -> Result<(), BreakpointError> {
        let arm = WriteBreakPoint64 { break_point_address: address, break_point_handle: 0 };
        // A request without an answer may have been carried out: it is remembered before.
        self.monitor.note(|state| state.in_code.push(InCode { address, handle: None }));
        let request = Manipulate::new(ApiNumber::WRITE_BREAK_POINT, Arm::WriteBreakPoint(arm));
        let reply = self.request(request)?;
        let handle = match reply.arm {
            Arm::WriteBreakPoint(arm) if reply.return_status.is_success() => Some(arm.break_point_handle),
            _ => None,
        };
        self.monitor.note(|state| {
            state.in_code.retain(|it| it.address != address);
            state.in_code.extend(handle.map(|handle| InCode { address, handle: Some(handle) }));
        });
        let refused = || BreakpointError::Refused { status: reply.return_status.0 };
        handle.map(drop).ok_or_else(refused)
    }

    pub(super) fn in_code(&self) -> Vec<InCode> {
        self.monitor.get(|state| state.in_code.clone())
    }

    pub(super) fn adopt_in_code(&self, in_code: Vec<InCode>) {
        self.monitor.note(|state| state.in_code = in_code);
    }

    /// Takes them out of the stopped target.
    pub(super) fn clear_in_code_by(
        &self,
        mut request: impl FnMut(Manipulate) -> Result<Manipulate, RequestError>,
    ) -> Result<(), BreakpointError> {
        for InCode { address, handle } in self.in_code() {
            match handle {
                Some(handle) => drop(request(restore(handle))?),
                // Whichever the target has given it: nobody else sets any here.
                None => drop(clear_every(&mut request)?),
            }
            self.monitor.note(|state| state.in_code.retain(|it| it.address != address));
        }
        Ok(())
    }

    pub(super) fn clear_every_in_code(&self) -> Result<usize, BreakpointError> {
        let count = clear_every(&mut |it| self.request(it))?;
        self.monitor.note(|state| state.in_code.clear());
        Ok(count)
    }
}

fn clear_every(
    request: &mut dyn FnMut(Manipulate) -> Result<Manipulate, RequestError>,
) -> Result<usize, RequestError> {
    let mut count = 0;
    for handle in 1..=BREAKPOINT_SLOTS {
        count += usize::from(request(restore(handle))?.return_status.is_success());
    }
    Ok(count)
}

fn restore(handle: u32) -> Manipulate {
    let arm = RestoreBreakPoint { break_point_handle: handle };
    Manipulate::new(ApiNumber::RESTORE_BREAK_POINT, Arm::RestoreBreakPoint(arm))
}

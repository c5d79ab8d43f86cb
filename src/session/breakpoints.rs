//! Breakpoints that this session has in its target's code, and debug registers that watch for it.
//!
//! ```text
//!   set --> the target runs, stops, runs --> clear, or whatever ends the session --> it is let run
//!              `-- it restarts: a new boot has nothing of them
//! ```
//! A stop that the target reports takes those away that lie in the bytes that it tells: a handle that is taken out then is
//! refused, which is what was wanted. Debug registers keep their addresses from stop to stop; each continue says anew which of
//! them watch. Source: PROTOCOL.md 8, 9, 12.

use kd_protocol::VirtAddr;
use kd_protocol::kd::{ApiNumber, Arm, Manipulate, NtStatus, RestoreBreakPoint, WriteBreakPoint64};
use kd_protocol::link::RequestError;

use super::Session;
use crate::source::{Armed, ArmedBy, BREAKPOINT_SLOTS, BreakpointError, DEBUG_REGISTERS, DebugRegister};

/// Selector of a processor's `KSPECIAL_REGISTERS` in control space.
const SPECIAL_REGISTERS: u64 = 2;
/// As many bytes as any Windows has there. All that were read are written again: nothing says that a part may be.
const MOST_SPECIAL_REGISTERS: u32 = 0xf0;
/// Where the debug registers begin there, on every x64 kernel.
const FIRST: usize = 0x20;

impl Session {
    pub(super) fn arm(&self, address: VirtAddr) -> Result<(), BreakpointError> {
        let arm = WriteBreakPoint64 { break_point_address: address, break_point_handle: 0 };
        // A request without an answer may have been carried out: it is remembered before.
        self.monitor.note(|state| state.armed.push(Armed { address, by: ArmedBy::Code(None) }));
        let request = Manipulate::new(ApiNumber::WRITE_BREAK_POINT, Arm::WriteBreakPoint(arm));
        let reply = self.request(request)?;
        let handle = match reply.arm {
            Arm::WriteBreakPoint(arm) if reply.return_status.is_success() => Some(arm.break_point_handle),
            _ => None,
        };
        self.monitor.note(|state| {
            state.armed.retain(|it| it.address != address || it.register().is_some());
            state.armed.extend(handle.map(|_| Armed { address, by: ArmedBy::Code(handle) }));
        });
        let refused = || BreakpointError::Refused { status: reply.return_status.0 };
        handle.map(drop).ok_or_else(refused)
    }

    /// Writes what debug registers are to watch to all processors, unless they have it since an earlier stop of this boot. The
    /// next continue switches them on.
    pub(super) fn arm_registers(&self, watched: &[(VirtAddr, DebugRegister)]) -> Result<(), BreakpointError> {
        let mut wanted = self.monitor.get(|state| state.debug_registers);
        for (address, register) in watched {
            wanted[register.number] = Some(*address);
        }
        if self.monitor.get(|state| state.debug_registers) != wanted {
            self.monitor.note(|state| state.debug_registers = [None; DEBUG_REGISTERS]);
            let count = self.monitor.get(|state| state.stopped.as_ref().map(|it| it.number_processors));
            for processor in 0..u16::try_from(count.unwrap_or(0)).unwrap_or(u16::MAX) {
                self.write_registers(processor, &wanted)?;
            }
            self.monitor.note(|state| state.debug_registers = wanted);
        }
        let armed = watched
            .iter()
            .map(|(address, register)| Armed { address: *address, by: ArmedBy::Register(*register) });
        self.monitor.note(|state| state.armed.extend(armed));
        Ok(())
    }

    fn write_registers(
        &self,
        processor: u16,
        wanted: &[Option<VirtAddr>; DEBUG_REGISTERS],
    ) -> Result<(), BreakpointError> {
        let refused = |status: NtStatus| BreakpointError::NoRegisters { processor, status: status.0 };
        let read = Manipulate::read_control_space(processor, SPECIAL_REGISTERS, MOST_SPECIAL_REGISTERS);
        let reply = self.request(read)?;
        if !reply.return_status.is_success() || reply.data.len() < FIRST + 8 * DEBUG_REGISTERS {
            return Err(refused(reply.return_status));
        }
        let mut registers = reply.data.to_vec();
        for (number, address) in wanted.iter().enumerate() {
            if let Some(address) = address {
                let at = FIRST + 8 * number;
                registers[at..at + 8].copy_from_slice(&address.0.to_le_bytes());
            }
        }
        let write = Manipulate::write_control_space(processor, SPECIAL_REGISTERS, registers.into());
        let reply = self.request(write)?;
        if reply.return_status.is_success() { Ok(()) } else { Err(refused(reply.return_status)) }
    }

    pub(super) fn armed(&self) -> Vec<Armed> {
        self.monitor.get(|state| state.armed.clone())
    }

    pub(super) fn adopt_armed(&self, armed: Vec<Armed>) {
        self.monitor.note(|state| state.armed = armed);
    }

    /// Takes them out of the stopped target.
    pub(super) fn disarm_by(
        &self,
        mut request: impl FnMut(Manipulate) -> Result<Manipulate, RequestError>,
    ) -> Result<(), BreakpointError> {
        for armed in self.armed() {
            match armed.by {
                ArmedBy::Code(Some(handle)) => drop(request(restore(handle))?),
                // Whichever the target has given it: nobody else sets any here.
                ArmedBy::Code(None) => drop(clear_every(&mut request)?),
                // The continue that follows has no debug register watch.
                ArmedBy::Register(_) => {}
            }
            self.monitor.note(|state| state.armed.retain(|it| *it != armed));
        }
        Ok(())
    }

    pub(super) fn disarm_every(&self) -> Result<usize, BreakpointError> {
        let count = clear_every(&mut |it| self.request(it))?;
        self.monitor.note(|state| state.armed.clear());
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

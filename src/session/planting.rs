//! What this session has written into its target's memory and answers for: it is taken back before the target is let run for
//! good, also from one that runs, which is stopped for that.
//!
//! ```text
//!   plant --> the target runs, stops, runs --> take_back, or whatever ends the session --> it is let run
//!                 `-- it restarts: a new boot has nothing of it
//!                 `-- its line goes and comes: whether it is the same boot is not known, so that the bytes decide
//! ```

use bytes::Bytes;
use kd_protocol::kd::{Arm, Manipulate, NtStatus};
use kd_protocol::link::RequestError;

use super::Session;
use super::in_target::InTarget;
use crate::source::{PlantError, Planted};

impl Session {
    pub(super) fn plant_in_target(&self, planted: Planted) -> Result<(), PlantError> {
        if let Some(there) = self.in_target() {
            return Err(PlantError::Taken(there.planted));
        }
        // A write without an answer may have been carried out: it is remembered before.
        self.adopt_in_target(planted.clone());
        let written = self.request(write(&planted, planted.value));
        let taken = is_taken(written, &planted);
        if let Err(PlantError::Refused { .. }) = taken {
            self.monitor.note(|state| state.planted = None);
        }
        taken
    }

    pub(super) fn adopt_in_target(&self, planted: Planted) {
        self.monitor.note(|state| state.planted = Some(InTarget { planted, is_doubtful: false }));
    }

    pub(super) fn in_target(&self) -> Option<InTarget> {
        self.monitor.get(|state| state.planted.clone())
    }

    /// Takes it back from the stopped target.
    pub(super) fn take_back_by(
        &self,
        mut request: impl FnMut(Manipulate) -> Result<Manipulate, RequestError>,
    ) -> Result<(), PlantError> {
        let Some(InTarget { planted, is_doubtful }) = self.in_target() else { return Ok(()) };
        if is_doubtful {
            let len = planted.value.len();
            let read = request(Manipulate::read_virtual(planted.address, len as u32));
            let reply = read.map_err(|source| PlantError::Request { planted: planted.clone(), source })?;
            if !reply.return_status.is_success() || reply.data != planted.value[..] {
                self.monitor.note(|state| state.planted = None);
                return Ok(());
            }
        }
        is_taken(request(write(&planted, planted.before)), &planted)?;
        self.monitor.note(|state| state.planted = None);
        Ok(())
    }
}

fn write(planted: &Planted, bytes: [u8; 4]) -> Manipulate {
    Manipulate::write_virtual(planted.address, Bytes::copy_from_slice(&bytes))
}

fn is_taken(written: Result<Manipulate, RequestError>, planted: &Planted) -> Result<(), PlantError> {
    let refused = |status: NtStatus| PlantError::Refused { planted: planted.clone(), status: status.0 };
    match written {
        Err(source) => Err(PlantError::Request { planted: planted.clone(), source }),
        Ok(Manipulate { return_status, .. }) if !return_status.is_success() => Err(refused(return_status)),
        Ok(Manipulate { arm: Arm::WriteMemory(arm), .. })
            if (arm.actual_bytes_written as usize) < planted.value.len() =>
        {
            Err(refused(NtStatus::UNSUCCESSFUL))
        }
        Ok(_) => Ok(()),
    }
}

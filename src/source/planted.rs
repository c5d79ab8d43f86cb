//! What this side leaves in the memory of a target that runs, for as long as it is there to answer for it.

use std::fmt;

use kd_protocol::VirtAddr;
use kd_protocol::link::RequestError;

/// Four bytes of the target's memory that are this side's until they are taken back: with them the target stops for
/// somebody, so that it stands still for ever where nobody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    /// What they are, as WinDbg calls it: `nt!PoolHitTag`.
    pub name: String,
    /// Where.
    pub address: VirtAddr,
    /// What they say.
    pub value: [u8; 4],
    /// What is written instead when they are taken back.
    pub before: [u8; 4],
}

/// Why nothing was planted, or taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlantError {
    /// Not a target that answers for it.
    #[error("nothing is written to the memory of this target: it is not debugged live")]
    NotLive,
    /// Something else is there already, which could not be taken back.
    #[error("there is {0} already, which has to be taken back first")]
    Taken(Planted),
    /// The target did not do it.
    #[error("the target did not write {planted}: status {status:#010x}")]
    Refused {
        /// What was to be written.
        planted: Planted,
        /// The target's.
        status: u32,
    },
    /// It did not answer, or runs.
    #[error("writing {planted}: {source}")]
    Request {
        /// What was to be written.
        planted: Planted,
        /// Why not.
        source: RequestError,
    },
}

impl Planted {
    /// What stays behind in a target that could not be reached, and how it is taken away.
    #[must_use]
    pub fn stays(&self) -> String {
        let name = &self.name;
        format!(
            "{self} is still there, so that it stops at the next use of that tag and waits for a debugger. Attach again: verikd \
             takes it back when it meets it. With WinDbg: ed {name} {:x}",
            u32::from_le_bytes(self.before)
        )
    }
}

/// `'Leak' in nt!PoolHitTag`.
impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' in {}", self.value.escape_ascii(), self.name)
    }
}

//! `verikd doctor -k CONNECTION`: why no target connects, and what to do about it.
//!
//! ```text
//!  connection --> net:  listens, tells datagrams apart, answers a target that has no debugger --+
//!            `--> com:  listens, asks once, tries other speeds on a device --------------------+--> Finding, advice
//!                                              with --break-in: stops it, lets it run, checks -+
//! ```
//! It does not disturb: without `break_in` no machine is stopped, and a target that is another debugger's is left to it.
//! What it does do: a KDNET target without a debugger is answered, so that it counts this machine as its debugger, as
//! after any session that has ended; a virtual machine's serial line that stays silent is sent one RESET packet, which a
//! running target drops and a stopped one answers.

mod advice;
mod finding;
mod line;
mod net;
mod owner;
mod stop;

use std::time::Duration;

pub use finding::{Code, Finding};

use crate::session::Connection;

/// What to look at, and for how long.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Where the target should be.
    pub connection: Connection,
    /// At the most. A target that connects ends it earlier.
    pub time: Duration,
    /// Stop the machine for a moment, and let it run again.
    pub break_in: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// What matters most.
    pub finding: Finding,
    /// What was seen beside it, in sentences.
    pub also: Vec<String>,
    /// What to try, beside what [`Code::what_to_do`] says: lines to copy.
    pub advice: Vec<String>,
}

impl Examination {
    /// Looks. Takes as long as it is allowed to; with `break_in` up to twice as long again, and until the machine runs.
    #[must_use]
    pub fn run(&self) -> Diagnosis {
        let (mut finding, also) = match &self.connection {
            Connection::Net { listen, key, target } => net::examine(*listen, key, *target, self.time),
            Connection::Com(line) => line::examine(&line.port, self.time, self.break_in),
        };
        if self.break_in && finding.may_be_stopped() {
            finding = stop::examine(&self.connection, self.time);
        }
        let advice = advice::lines(&self.connection, &finding);
        Diagnosis { finding, also, advice }
    }
}

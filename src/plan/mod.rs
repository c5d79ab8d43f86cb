//! A plan: which targets are stopped when, what they are asked, what becomes of them. Read and checked before anything starts;
//! carried out by [`shell`](crate::shell).
//!
//! ```toml
//! out = "night"                      # a folder for each target, a text and a JSON file for each event
//! for = "8h"                         # ends after this long,
//! count = 100                        # or after so many events of a target
//! freeze_budget = "2s"               # a stop takes no longer; total_freeze_budget bounds them all together
//! commands = ["!leaks myfault.sys"]  # of events that have none of their own
//!
//! [[target]]
//! name = "vm1"
//! connection = "net:port=50000,key=@vm1.key"
//! symbols = "srv*https://msdl.microsoft.com/download/symbols"
//!
//! [[on]]                             # for every target; [[target.on]] for the one above it
//! every = "60s"
//!
//! [[on]]
//! bug_check = true                   # or print = "REGEX", load = "DRIVER", unload = "DRIVER", assertion = true, stop = true
//! commands = ["!verifier 80", "!leaks -save {event}.leaks.json"]
//! dump = "used"                      # full, kernel, used
//! then = "reboot"                    # run, reboot, stop
//! ```

mod bug_check;
mod checked;
mod document;
mod error;
mod place;

pub use bug_check::decoded;
pub use checked::{
    Dump, Happening, Plan, Planned, PlannedTarget, Then, check_commands, interval, is_name, time,
};
pub use error::PlanError;

//! A gate for continuous integration: may drivers hold what they hold? A leaf but for snapshots: it knows no target, so that
//! a live machine, a dump and a virtual machine are judged alike.
//!
//! ```text
//!  !leaks --> Snapshot --.
//!        what it lacks --+--> Gate: passed, over, not known --> a table, JSON, JUnit's XML
//!  limits, baseline -----'
//! ```
//! What was not read never passes: a count that may be too small is not known, unless it is over already.

mod gate;
mod junit;
mod limits;
mod text;

pub use gate::{DriverGate, Gate, Offender, Verdict};
pub use junit::{Occasion, write_error, write_junit};
pub use limits::Limits;
pub use text::write_gate;

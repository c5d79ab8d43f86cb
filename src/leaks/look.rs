//! What comes of looking again and again.

use std::fmt;
use std::time::Duration;

use super::snapshot::Snapshot;

/// What came of one look at what drivers hold.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// All that was asked for was read.
    Taken(&'a Snapshot),
    /// The target was not stopped, or did not answer.
    Failed,
    /// Reading ended early: what was not read is not told.
    BrokenOff,
}

/// How long a machine stood still for a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoodStill {
    /// In so many stops.
    pub stops: u64,
    /// All together.
    pub total: Duration,
    /// The longest of them.
    pub longest: Duration,
}

impl StoodStill {
    /// The same for both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            stops: self.stops + other.stops,
            total: self.total + other.total,
            longest: self.longest.max(other.longest),
        }
    }
}

/// `stood still for 48.3ms`, `stood still for 700.0ms in 15 stops, 48.3ms at the longest`.
impl StoodStill {
    /// The last words of a watch; none if nothing stood still for it.
    #[must_use]
    pub fn last_words(self) -> String {
        let Self { stops, total, longest } = self;
        match stops {
            0 => String::new(),
            1 => format!("\nThe machine stood still for {total:.3?} in 1 stop.\n"),
            _ => format!(
                "\nThe machine stood still for {total:.3?} in {stops} stops, {longest:.3?} at the longest.\n"
            ),
        }
    }
}

impl fmt::Display for StoodStill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stops, total, longest } = self;
        if *stops == 0 {
            return f.write_str("nothing stood still for it");
        }
        write!(f, "stood still for {total:.1?}")?;
        if *stops > 1 { write!(f, " in {stops} stops, {longest:.1?} at the longest") } else { Ok(()) }
    }
}

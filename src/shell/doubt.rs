//! What is said of a machine that may still stand still.

use super::report::Report;
use crate::source::Source;

impl Report {
    /// The loudest sentence of this program: the machine at `place` may still stand still, for this reason. `last_resort` is what
    /// lets it run all the same.
    pub fn may_be_stopped(&self, place: &str, last_resort: Option<&str>, why: &str) {
        let resort = last_resort.map_or(String::new(), |it| format!("\nTo let it run, {it}"));
        self.status(&format!("WARNING: the target at {place} may still stand still: {why}.{resort}"));
    }

    pub(super) fn source_may_be_stopped(&self, source: &dyn Source, why: &str) {
        self.may_be_stopped(&source.place(), source.control().map(|it| it.last_resort()), why);
    }
}

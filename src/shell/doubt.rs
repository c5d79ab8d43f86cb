//! What is said of a machine that may still stand still.

use super::report::Report;
use crate::source::{Resumed, Source};

impl Report {
    /// The loudest sentence of this program: the machine at `place` may still stand still, for this reason. `last_resort` is what
    /// lets it run all the same.
    pub fn may_be_stopped(&self, place: &str, last_resort: Option<&str>, why: &str) {
        self.in_doubt.places().push(place.to_owned());
        let resort = last_resort.map_or(String::new(), |it| format!("\nTo let it run, {it}"));
        self.status(&format!("WARNING: the target at {place} may still stand still: {why}.{resort}"));
    }

    /// That of the machine behind `source`, if nobody knows whether it runs; or takes it back, if it does after all: true then.
    pub(super) fn source_resumed(&self, source: &dyn Source, resumed: &Resumed) -> bool {
        let place = source.place();
        match resumed {
            Resumed::MayBeStopped(why) => {
                self.may_be_stopped(&place, source.control().map(|it| it.last_resort()), why);
                false
            }
            Resumed::Running => {
                let mut places = self.in_doubt.places();
                let before = places.len();
                places.retain(|it| *it != place);
                let is_taken_back = places.len() < before;
                if is_taken_back {
                    self.status(&format!("The target at {place} runs after all"));
                }
                is_taken_back
            }
            Resumed::NeverRuns => false,
        }
    }
}

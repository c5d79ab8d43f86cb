//! What is said of a machine that may still stand still.

use crate::source::Source;

/// The loudest sentence of this program.
pub(super) fn may_be_stopped(source: &dyn Source, why: &str) -> String {
    let resort =
        source.control().map_or(String::new(), |it| format!("\nTo let it run, {}", it.last_resort()));
    format!("WARNING: the target at {} may still stand still: {why}.{resort}", source.place())
}

//! What is said of a machine that may still stand still.

/// The loudest sentence of this program.
pub(super) fn may_be_stopped(place: &str, why: &str) -> String {
    format!(
        "WARNING: the target at {place} may still stand still: {why}.\n\
         To let it run, attach once more, for example by verikd -k ... -b -c q; otherwise restart the machine"
    )
}

//! What this side has in the target's memory, and what is known of it.

use crate::source::Planted;

/// What is planted.
#[derive(Clone, Debug)]
pub(super) struct InTarget {
    pub(super) planted: Planted,
    /// It may be of another boot, or have been taken away by somebody else: it is looked at before it is written over.
    pub(super) is_doubtful: bool,
}

//! The answer of a search.

use crate::memory::{ReadCause, VirtAddr};

/// Where a pattern was found, and how far was looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// The first match; nothing if there is none.
    pub found: Option<VirtAddr>,
    /// Where the search was given up, if it was.
    pub given_up: Option<VirtAddr>,
    /// Why the target's memory was read, if the target did not search it.
    pub refusal: Option<ReadCause>,
}

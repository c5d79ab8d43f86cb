//! Patience that runs out by steps.

use std::time::Instant;

/// Something that is done again and again until there is a reaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated {
    pub(super) next_at: Instant,
    pub(super) attempts: u32,
}

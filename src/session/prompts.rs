//! What a target that asks is answered.

use bytes::Bytes;

use crate::source::IGNORE;

/// What the target's prompts, as a failed assertion shows one, are answered. The target stands still until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// This, at once, whatever goes on.
    Answer(Bytes),
    /// What somebody says, by [`Control::answer_prompt`](crate::source::Control::answer_prompt).
    Ask,
}

impl Prompts {
    /// Goes on without what failed.
    #[must_use]
    pub const fn ignoring() -> Self {
        Self::Answer(Bytes::from_static(IGNORE))
    }
}

//! Standing still in turns: a question that takes long lets the target run in between, where its answer can bear that.
//!
//! ```text
//!   stop: read ... room for no more | runs for a breath | stop: read ... | runs ... | stop: read, done
//! ```
//! What was read before a breath is of another moment than what is read behind it. Whoever asks for one knows that, and
//! says of which moment the answer is; a question that cannot bear it asks for none, and stands still until its end.

use crate::memory::ReadCause;

/// Lets the target run for a while in the middle of a question.
pub trait Breathing {
    /// Requests that still fit into the present stop.
    fn room(&self) -> u64;

    /// Lets the target run for a breath, and stops it again.
    ///
    /// # Errors
    /// Why it does not stand still as it did: nothing can be read any more.
    fn breathe(&self) -> Result<(), ReadCause>;
}

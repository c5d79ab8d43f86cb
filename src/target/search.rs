//! Searching a target's memory: by the target itself where it can, else by reading.
//!
//! ```text
//!  search --request--> found, or nothing          one request for megabytes
//!     `--refused--> read a piece, look, read on    remembered for the boot: asked once
//! ```
//! Not every kernel has the API: ReactOS answers C0000001. What is not mapped matches nothing, either way.

use std::ops::Range;

use super::Target;
use super::patience::is_over;
use super::searched::Searched;
use crate::memory::{PIECE, ReadCause, ReadError, VirtAddr};

/// Most bytes that are read in place of one search, and most pieces: of a range that is not mapped each page costs a
/// request.
const MAX_READ: u64 = 0x1000_0000;
const MAX_PIECES_WITH_HOLES: u32 = 0x40;

impl Target<'_> {
    /// Why this target's memory is read instead of searched, if that is known.
    #[must_use]
    pub fn refuses_search(&self) -> Option<ReadCause> {
        self.kernel().refuses_search()
    }

    /// The first match of `pattern` in `range`, searched for by the target, or else by reading.
    ///
    /// # Errors
    /// [`ReadError`] if reading was broken off.
    pub fn search(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Searched, ReadError> {
        if let Some(refusal) = self.refuses_search() {
            let searched = self.search_by_reading(range, pattern)?;
            return Ok(Searched { refusal: Some(refusal), ..searched });
        }
        match self.memory().search_virtual(range.clone(), pattern) {
            Ok(found) => Ok(Searched { found, given_up: None, refusal: None }),
            // A target that is silent at a search may still answer reads.
            Err(error) if is_over(&error.cause) && !matches!(error.cause, ReadCause::NoAnswer { .. }) => {
                Err(error)
            }
            Err(error) => {
                self.kernel().remember_refusal(&error.cause);
                let searched = self.search_by_reading(range, pattern)?;
                Ok(Searched { refusal: Some(error.cause), ..searched })
            }
        }
    }

    fn search_by_reading(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Searched, ReadError> {
        let nothing = |given_up| Ok(Searched { found: None, given_up, refusal: None });
        let len = range.end.since(range.start);
        let overlap = pattern.len().saturating_sub(1) as u64;
        let (mut from, mut holes) = (0, 0);
        while from < len && !pattern.is_empty() {
            if from >= MAX_READ || holes == MAX_PIECES_WITH_HOLES {
                return nothing(Some(range.start.offset(from)));
            }
            let at = range.start.offset(from);
            // A match may begin in this piece and end in the next one.
            let wanted = (PIECE + overlap).min(len - from);
            let bytes = self.read_sparse(at, wanted as usize);
            if let Some(cause) = bytes.over() {
                let (wanted, got) = (bytes.len(), bytes.end());
                let address = crate::memory::Address::of_target(at, self.pointer_size());
                return Err(ReadError { address, wanted, got, cause: cause.clone() });
            }
            holes += u32::from(bytes.readable_len() < bytes.len());
            let found = bytes.find(pattern);
            if let Some(found) = found {
                return Ok(Searched { found: Some(at.offset(found as u64)), given_up: None, refusal: None });
            }
            from += PIECE;
        }
        nothing(None)
    }
}

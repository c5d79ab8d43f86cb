//! Pages of a list that lie side by side, read together.
//!
//! ```text
//!   list:    p -> p-1 -> p-2 -> p-3 ...       each 4 KiB below the last
//!   packets: |------|------|------|---        a page alone wastes the rest of its last packet
//! ```
//! Drivers' tracker pages are made one by one, and often come from neighbouring pages. Where the last steps of a list were
//! all of one page, the next few are taken to be so too: twice as many each time, never more than the list has.

use std::collections::BTreeMap;

use crate::memory::ReadError;
use crate::target::{Target, VirtAddr};

/// Bytes of a page.
pub(super) const PAGE: usize = 0x1000;
/// Pages that are read together at the most.
const LONGEST: usize = 16;

/// Reads one page after another.
#[derive(Debug, Default)]
pub(super) struct RunAhead {
    last: Option<VirtAddr>,
    /// From page to page, and for how many pages.
    step: u64,
    length: usize,
    /// Pages that were read before the list came to them.
    pages: BTreeMap<VirtAddr, Vec<u8>>,
}

impl RunAhead {
    /// The page at `at`, as [`Target::read_some`] reads it. At most `left` pages will be asked for from here on.
    pub(super) fn read(
        &mut self,
        target: &Target<'_>,
        at: VirtAddr,
        left: usize,
    ) -> (Vec<u8>, Option<ReadError>) {
        let step = self.last.map_or(0, |last| at.0.wrapping_sub(last.0));
        self.last = Some(at);
        if step != self.step || !is_one_page(step) {
            (self.step, self.length) = (step, 1);
            self.pages.clear();
        }
        if let Some(page) = self.pages.remove(&at) {
            return (page, None);
        }
        self.length = if is_one_page(step) { (self.length * 2).min(LONGEST) } else { 1 };
        if self.length.min(left) > 1 {
            self.fetch(target, at, self.length.min(left));
        }
        self.pages.remove(&at).map_or_else(|| target.read_some(at, PAGE), |page| (page, None))
    }

    /// Reads `count` pages from `at` on in the run's direction.
    fn fetch(&mut self, target: &Target<'_>, at: VirtAddr, count: usize) {
        let len = count * PAGE;
        let is_upwards = self.step == PAGE as u64;
        let start = if is_upwards { at } else { VirtAddr(at.0.wrapping_sub((len - PAGE) as u64)) };
        let (bytes, missing) = target.read_some(start, len);
        if missing.is_some() {
            // The run ends before. Its pages are read one by one from here on.
            self.length = 1;
        }
        for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
            self.pages.insert(start.offset((number * PAGE) as u64), page.to_vec());
        }
    }
}

const fn is_one_page(step: u64) -> bool {
    step == PAGE as u64 || step == (PAGE as u64).wrapping_neg()
}

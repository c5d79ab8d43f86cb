//! Bytes of loaded images that do not change while these stay loaded: kept from stop to stop.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::modules::Module;
use crate::memory::{Memory, ReadError, VirtAddr};
use crate::symbols::ImageFile;
use crate::unwind::Image;

/// Bytes that are read at once, and kept: one request carries as many.
const LINE: u64 = 0x400;
/// Most bytes kept of all images.
const MAX_BYTES: usize = 16 << 20;

/// What was read of images.
#[derive(Debug, Default)]
pub(super) struct ImageBytes {
    images: HashMap<(VirtAddr, u32), Kept>,
    len: usize,
}

/// Where what an image's code is unwound by stands.
#[derive(Clone, Debug)]
pub(super) struct Unwindable {
    pub(super) image: Image,
    /// The same bytes in a file.
    pub(super) file: Option<Arc<ImageFile>>,
}

#[derive(Debug, Default)]
struct Kept {
    unwindable: Option<Unwindable>,
    /// Pieces by their addresses; longer ones than a line as they were asked for.
    pieces: BTreeMap<u64, Box<[u8]>>,
}

impl Kept {
    fn copy(&self, at: u64, buf: &mut [u8]) -> bool {
        let Some((start, piece)) = self.pieces.range(..=at).next_back() else { return false };
        let from = usize::try_from(at - start).ok();
        let found = from.and_then(|from| piece.get(from..)?.get(..buf.len()));
        found.map(|found| buf.copy_from_slice(found)).is_some()
    }
}

impl ImageBytes {
    /// Forgets all images but the one at `base`, which cannot have been unloaded.
    pub(super) fn retain(&mut self, base: VirtAddr) {
        self.images.retain(|(at, _), _| *at == base);
        let pieces = self.images.values().flat_map(|kept| kept.pieces.values());
        self.len = pieces.map(|piece| piece.len()).sum();
    }

    /// Where an image's table of functions is, if that was found.
    pub(super) fn unwindable(&self, module: &Module) -> Option<Unwindable> {
        self.images.get(&(module.base, module.size))?.unwindable.clone()
    }

    pub(super) fn remember(&mut self, module: &Module, found: Unwindable) {
        self.images.entry((module.base, module.size)).or_default().unwindable = Some(found);
    }

    /// Fills `buf` from what is kept.
    pub(super) fn copy(&self, module: &Module, at: VirtAddr, buf: &mut [u8]) -> bool {
        self.images.get(&(module.base, module.size)).is_some_and(|kept| kept.copy(at.0, buf))
    }

    pub(super) fn keep(&mut self, module: &Module, at: VirtAddr, bytes: Vec<u8>) {
        if self.len + bytes.len() > MAX_BYTES {
            *self = Self::default();
        }
        let kept = self.images.entry((module.base, module.size)).or_default();
        self.len += bytes.len();
        if let Some(old) = kept.pieces.insert(at.0, bytes.into_boxed_slice()) {
            self.len -= old.len();
        }
    }
}

/// The range that is read where `len` bytes at `at` are wanted: the lines that they lie in, unless they are many.
pub(super) fn read_around(
    memory: &dyn Memory,
    at: VirtAddr,
    len: usize,
) -> Result<(VirtAddr, Vec<u8>), ReadError> {
    let exact = || {
        let mut bytes = vec![0; len];
        memory.read_virtual(at, &mut bytes).map(|()| (at, bytes))
    };
    let start = at.0 & !(LINE - 1);
    let end = at.0.checked_add(len as u64).and_then(|end| end.checked_next_multiple_of(LINE));
    match end {
        Some(end) if len < LINE as usize / 2 => {
            let mut bytes = vec![0; (end - start) as usize];
            match memory.read_virtual(VirtAddr(start), &mut bytes) {
                Ok(()) => Ok((VirtAddr(start), bytes)),
                // The line's end may be away where what is wanted is there.
                Err(_) => exact(),
            }
        }
        _ => exact(),
    }
}

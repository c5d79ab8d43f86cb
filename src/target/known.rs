//! The entries of the list of modules that are known: from both ends of it, or all.

use std::collections::HashSet;
use std::sync::Arc;

use super::image_bytes::ImageBytes;
use super::modules::{Entry, MAX_MODULES, ModuleList, Offsets};
use super::unloaded_module::UnloadedModule;
use crate::memory::{Memory, StopId, VirtAddr};

/// No image is longer: an entry that says so is damaged, and its neighbours decide which module an address lies in.
const MAX_SIZE: u32 = 0x1000_0000;

/// What is known of the loaded modules.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The stop that it was last seen to hold in.
    pub(super) stop: Option<StopId>,
    pub(super) mark: Option<Mark>,
    pub(super) whole: Option<Arc<ModuleList>>,
    pub(super) ends: Option<Ends>,
    pub(super) unloaded: Option<Arc<[UnloadedModule]>>,
    /// What was read of their images that does not change while they are loaded.
    pub(super) images: ImageBytes,
}

/// What changes when a module is loaded or unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Links of the list's head.
    pub(super) first: VirtAddr,
    pub(super) last: VirtAddr,
    /// How many drivers were unloaded, up to the length of the kernel's array and then anew; nothing if symbols don't say.
    pub(super) last_unloaded: Option<u32>,
}

impl Loaded {
    /// Base and size of the modules that are known.
    pub(super) fn known(&self) -> Box<dyn Iterator<Item = (VirtAddr, u32)> + '_> {
        match (&self.whole, &self.ends) {
            (Some(whole), _) => Box::new(whole.modules().iter().map(|module| (module.base, module.size))),
            (None, Some(ends)) => Box::new(ends.seen.iter().map(|entry| (entry.base, entry.size))),
            (None, None) => Box::new(std::iter::empty()),
        }
    }

    /// The entry at the list's end and the base of its image, if it was read.
    pub(super) fn tail(&self) -> Option<(VirtAddr, VirtAddr)> {
        match (&self.whole, &self.ends) {
            (Some(whole), _) => whole.last(),
            (None, ends) => ends.as_ref()?.tail,
        }
    }
}

/// What came of looking.
pub(super) enum Looked<T> {
    Found(T),
    Absent,
    /// There was room for no more.
    Unfinished,
}

/// The list of modules as far as it was read from its ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) head: VirtAddr,
    pub(super) seen: Vec<Entry>,
    pub(super) places: HashSet<VirtAddr>,
    /// The entries next to be read, and those that lead there.
    pub(super) front: Option<VirtAddr>,
    pub(super) back: Option<VirtAddr>,
    pub(super) behind_back: VirtAddr,
    pub(super) is_backs_turn: bool,
    /// The last entry of the list and its image.
    pub(super) tail: Option<(VirtAddr, VirtAddr)>,
}

impl Ends {
    pub(super) fn new(head: VirtAddr, first: VirtAddr, last: VirtAddr) -> Self {
        Self {
            head,
            seen: Vec::new(),
            places: HashSet::new(),
            front: Some(first),
            back: Some(last),
            behind_back: head,
            is_backs_turn: false,
            tail: None,
        }
    }

    /// The entry of the module that `address` lies in, after `room` steps at the most; absent if the whole list has to be read
    /// to say.
    pub(super) fn find(
        &mut self,
        memory: &dyn Memory,
        offsets: &Offsets,
        address: VirtAddr,
        room: u64,
    ) -> Looked<&Entry> {
        let has = |entry: &Entry| address.since(entry.base) < u64::from(entry.size);
        if let Some(place) = self.seen.iter().position(has) {
            return Looked::Found(&self.seen[place]);
        }
        for _ in 0..room {
            match self.step(memory, offsets) {
                None => return Looked::Absent,
                Some(entry) if has(entry) => {
                    return self.seen.last().map_or(Looked::Absent, Looked::Found);
                }
                Some(_) => {}
            }
        }
        Looked::Unfinished
    }

    /// Reads one more entry; nothing if both ends have met, or cannot be followed.
    pub(super) fn step(&mut self, memory: &dyn Memory, offsets: &Offsets) -> Option<&Entry> {
        loop {
            let at_back = self.back.filter(|_| self.is_backs_turn || self.front.is_none());
            let at = at_back.or(self.front)?;
            self.is_backs_turn = at_back.is_none();
            let is_odd = at.is_null() || !at.0.is_multiple_of(4) || self.places.len() == MAX_MODULES;
            if at == self.head || is_odd || !self.places.insert(at) {
                if at == self.head || !is_odd {
                    (self.front, self.back) = (None, None);
                } else if at_back.is_some() {
                    self.back = None;
                } else {
                    self.front = None;
                }
                continue;
            }
            let entry = match Entry::read(memory, at, offsets) {
                Ok(entry) if entry.size <= MAX_SIZE => entry,
                // Not to be placed by, and perhaps not to be followed: whoever reads the whole list tells what is wrong.
                _ => {
                    (self.front, self.back) = (None, None);
                    return None;
                }
            };
            if at_back.is_some() {
                if entry.next != self.behind_back {
                    self.back = None;
                    self.places.remove(&at);
                    continue;
                }
                self.tail.get_or_insert((at, entry.base));
                (self.back, self.behind_back) = (Some(entry.previous), at);
            } else {
                self.front = Some(entry.next);
            }
            self.seen.push(entry);
            return self.seen.last();
        }
    }
}

//! Pages that were read lately, kept: a dump does not change, and its tables and lists are read a few bytes at a time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::memory::{PhysAddr, PhysicalMemory, ReadCause};

const PAGE: usize = 0x1000;
/// Pages kept, each in the place that the lower bits of its frame say: 1 MiB.
const PLACES: usize = 256;
/// What is read in longer pieces is read once: a search, a copy.
const LONGEST: usize = 8 * PAGE;

/// Memory that stands still, with what was read of it lately.
pub(crate) struct KeptPages<P> {
    inner: P,
    places: Mutex<Vec<Option<Page>>>,
}

struct Page {
    frame: u64,
    bytes: Box<[u8; PAGE]>,
}

impl<P: PhysicalMemory> KeptPages<P> {
    pub(crate) fn new(inner: P) -> Self {
        Self { inner, places: Mutex::new((0..PLACES).map(|_| None).collect()) }
    }

    /// Fills `buf`, which does not reach over the page's end, from `into` on; false if the page is not there as a whole.
    fn read_of_page(&self, frame: u64, into: usize, buf: &mut [u8]) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[frame as usize % PLACES];
        if place.as_ref().is_none_or(|page| page.frame != frame) {
            let mut bytes = place.take().map_or_else(|| Box::new([0; PAGE]), |page| page.bytes);
            let Some(at) = frame.checked_mul(PAGE as u64) else { return false };
            if self.inner.read(PhysAddr(at), &mut bytes[..]).is_err() {
                return false;
            }
            *place = Some(Page { frame, bytes });
        }
        let Some(page) = place else { return false };
        buf.copy_from_slice(&page.bytes[into..into + buf.len()]);
        true
    }
}

impl<P: PhysicalMemory> PhysicalMemory for KeptPages<P> {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        if buf.len() > LONGEST {
            return self.inner.read(address, buf);
        }
        let mut got = 0;
        while got < buf.len() {
            let rest = |(some, cause)| (got + some, cause);
            let Some(at) = address.0.checked_add(got as u64) else {
                return Err((got, ReadCause::NotKept));
            };
            let into = (at % PAGE as u64) as usize;
            let len = (PAGE - into).min(buf.len() - got);
            if !self.read_of_page(at / PAGE as u64, into, &mut buf[got..got + len]) {
                // A part of it may be there, and what it lacks has a reason.
                self.inner.read(PhysAddr(at), &mut buf[got..got + len]).map_err(rest)?;
            }
            got += len;
        }
        Ok(())
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.inner.ranges()
    }

    fn next_written(&self, address: PhysAddr) -> PhysAddr {
        self.inner.next_written(address)
    }

    fn end(&self) -> PhysAddr {
        self.inner.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Each page filled with its frame's number; half a page at the end.
    #[derive(Default)]
    struct Ram(AtomicUsize);

    impl PhysicalMemory for &Ram {
        fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let end = self.end().0;
            for (index, byte) in buf.iter_mut().enumerate() {
                let at = address.0 + index as u64;
                if at >= end {
                    return Err((index, ReadCause::CutShort));
                }
                *byte = (at / PAGE as u64) as u8;
            }
            Ok(())
        }

        fn ranges(&self) -> Vec<Range<u64>> {
            Vec::new()
        }

        fn end(&self) -> PhysAddr {
            PhysAddr(0x1000_0800)
        }
    }

    #[test]
    fn a_page_is_read_once_and_every_byte_is_the_one_that_is_there() {
        let ram = Ram::default();
        let kept = KeptPages::new(&ram);
        let read = |at, len| {
            let mut bytes = vec![0xee; len];
            let result = kept.read(PhysAddr(at), &mut bytes);
            (result, bytes)
        };
        for _ in 0..3 {
            assert_eq!(read(0x5ffe, 4), (Ok(()), vec![5, 5, 6, 6]));
        }
        assert_eq!(ram.0.load(Ordering::Relaxed), 2);
        // Another page in the same place, and the first again.
        for frame in [5, 5 + PLACES as u64, 5] {
            assert_eq!(read(frame * 0x1000, 1).1, [frame as u8]);
        }
        assert_eq!(ram.0.load(Ordering::Relaxed), 4);
        // A page that is there in part, and one that is not.
        assert_eq!(read(0x1000_07fe, 4).0, Err((2, ReadCause::CutShort)));
        assert_eq!(read(0xfff_fffe, 2), (Ok(()), vec![0xff, 0xff]));
        assert_eq!(read(0xfff_ffff, 0x1000).0, Err((0x801, ReadCause::CutShort)));
        assert_eq!(read(0x2000_0000, 1).0, Err((0, ReadCause::CutShort)));
        let long = read(0x5000, LONGEST + 1);
        assert_eq!((long.0, long.1[LONGEST]), (Ok(()), 13));
    }
}

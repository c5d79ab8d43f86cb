//! Memory made of byte runs at virtual addresses: what tests and offline images are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{Address, ReadCause, ReadError};
use super::standing::{Memory, StopId};
use kd_protocol::{PhysAddr, VirtAddr};

/// Runs of bytes at virtual addresses; everything between them is not mapped.
#[derive(Clone, Debug, Default)]
pub struct ImageMemory {
    runs: BTreeMap<u64, Vec<u8>>,
}

impl ImageMemory {
    /// Memory with nothing mapped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `bytes` at `address`.
    ///
    /// # Panics
    /// If they overlap a run that is already there: a caller's mistake.
    pub fn map(&mut self, address: VirtAddr, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let end = address.0 + bytes.len() as u64;
        let below = self.runs.range(..end).next_back().map(|(start, run)| start + run.len() as u64);
        assert!(below.is_none_or(|below_end| below_end <= address.0), "{address:?} is mapped already");
        self.runs.insert(address.0, bytes);
    }

    /// Unmaps the run that starts at `address`, and returns it.
    pub fn unmap(&mut self, address: VirtAddr) -> Option<Vec<u8>> {
        self.runs.remove(&address.0)
    }

    /// Overwrites mapped bytes.
    ///
    /// # Panics
    /// If some of them are not mapped: a caller's mistake.
    pub fn write(&mut self, address: VirtAddr, bytes: &[u8]) {
        let (start, run) = self.runs.range_mut(..=address.0).next_back().expect("written bytes are mapped");
        let at = usize::try_from(address.0 - start).expect("a run fits in memory");
        run[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The mapped bytes from `address` to the end of its run.
    fn run_from(&self, address: u64) -> Option<&[u8]> {
        let (start, run) = self.runs.range(..=address).next_back()?;
        run.get(usize::try_from(address - start).ok()?..).filter(|rest| !rest.is_empty())
    }
}

impl Memory for ImageMemory {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut got = 0;
        while got < buf.len() {
            let Some(rest) = self.run_from(address.offset(got as u64).0) else {
                return Err(ReadError {
                    address: Address::Virtual(address),
                    wanted: buf.len(),
                    got,
                    cause: ReadCause::NotMapped,
                });
            };
            let count = rest.len().min(buf.len() - got);
            buf[got..got + count].copy_from_slice(&rest[..count]);
            got += count;
        }
        Ok(())
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError {
            address: Address::Physical(address),
            wanted: buf.len(),
            got: 0,
            cause: ReadCause::Unsupported("physical memory"),
        })
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        if pattern.is_empty() {
            return Ok(None);
        }
        for (start, run) in &self.runs {
            let from = range.start.0.saturating_sub(*start).min(run.len() as u64) as usize;
            let found = run[from..].windows(pattern.len()).position(|bytes| bytes == pattern);
            if let Some(at) = found.map(|at| start + (from + at) as u64).filter(|at| *at < range.end.0) {
                return Ok(Some(VirtAddr(at)));
            }
        }
        Ok(None)
    }

    fn stop(&self) -> StopId {
        StopId(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_stops_at_the_first_hole_and_keeps_what_came_before() {
        let mut memory = ImageMemory::new();
        memory.map(VirtAddr(0x1000), vec![1; 0x10]);
        memory.map(VirtAddr(0x1010), vec![2; 0x10]);
        let mut buf = [0; 0x30];
        let error = memory.read_virtual(VirtAddr(0x1008), &mut buf).unwrap_err();
        assert_eq!((error.got, error.cause.clone()), (0x18, ReadCause::NotMapped));
        assert_eq!(buf[..0x18], [[1; 8].as_slice(), &[2; 16]].concat());
        assert_eq!(error.to_string(), "read 0x18 of 0x30 bytes at 00000000`00001008: not mapped");
    }

    #[test]
    fn a_search_finds_the_first_match_in_range() {
        let mut memory = ImageMemory::new();
        memory.map(VirtAddr(0x1000), b"..needle..needle".to_vec());
        let find = |from, to| memory.search_virtual(VirtAddr(from)..VirtAddr(to), b"needle").unwrap();
        assert_eq!(find(0, 0x2000), Some(VirtAddr(0x1002)));
        assert_eq!(find(0x1003, 0x2000), Some(VirtAddr(0x100a)));
        assert_eq!(find(0x100b, 0x2000), None);
        assert_eq!(find(0, 0x1002), None);
    }
}

//! Drivers that were unloaded: who hunts a leak at unload meets their return addresses in logs and on stacks.
//!
//! ```text
//!  nt!MmUnloadedDrivers -> | Name 16 | StartAddress 8 | EndAddress 8 | CurrentTime 8 | x 50      0x28 bytes each
//!                     x86  | Name 8  | 4              | 4            | 8             |           0x18
//! ```
//! No build's symbols have the structure; where the array is, the kernel's symbols say or its debugger data block. Names lie
//! in pool of their own, so they are read when they are shown.
//!
//! Source: PROTOCOL.md 13 for the variable; the entry is what public readers of kernel dumps and of live kernels agree on.

use std::sync::Arc;

use super::Target;
use super::error::TargetError;
use super::file_name::FileName;
use super::unloaded_module::UnloadedModule;
use super::width::Width;
use crate::memory::{Memory, ReadError, VirtAddr};

/// Entries of the kernel's array.
const ENTRIES: usize = 50;
/// No image is longer; an entry that says so is none.
const MAX_SIZE: u64 = 0x4000_0000;

impl Target<'_> {
    pub(super) fn read_unloaded(&self) -> Result<Arc<[UnloadedModule]>, TargetError> {
        let by_symbol = self.address_of("nt!MmUnloadedDrivers").ok();
        let by_block = || self.debugger_data().ok()?.mm_unloaded_drivers();
        let Some(variable) = by_symbol.or_else(by_block) else { return Ok(Arc::new([])) };
        let width = self.width();
        let failed = |error| TargetError::read("nt!MmUnloadedDrivers", error);
        let mut pointer = [0; 8];
        self.memory.read_virtual(variable, &mut pointer[..width.bytes()]).map_err(failed)?;
        let array = VirtAddr(u64::from_le_bytes(pointer));
        if array.is_null() {
            return Ok(Arc::new([]));
        }
        let size = entry_size(width);
        let mut bytes = vec![0; ENTRIES * size];
        self.memory.read_virtual(array, &mut bytes).map_err(failed)?;
        let entries = bytes.chunks_exact(size).map(|entry| decode(entry, width.bytes()));
        let is_driver = |driver: &UnloadedModule| {
            let size = driver.end.0.checked_sub(driver.base.0);
            self.is_kernel(driver.base) && size.is_some_and(|size| (1..=MAX_SIZE).contains(&size))
        };
        let mut drivers: Vec<_> = entries.filter(is_driver).collect();
        // The array is a ring, in which the times tell the order; of one time, the later entry is the later one.
        drivers.reverse();
        drivers.sort_by_key(|driver| std::cmp::Reverse(driver.time));
        Ok(drivers.into())
    }

    /// The driver in an entry of the array that the variable at `pointer` leads to; nothing if there is no array, or not such
    /// an entry.
    pub(super) fn read_unloaded_entry(
        &self,
        pointer: VirtAddr,
        number: u32,
    ) -> Result<Option<UnloadedModule>, ReadError> {
        let width = self.width();
        let mut word = [0; 8];
        self.memory.read_virtual(pointer, &mut word[..width.bytes()])?;
        let array = VirtAddr(u64::from_le_bytes(word));
        if array.is_null() || number as usize >= ENTRIES {
            return Ok(None);
        }
        let mut entry = vec![0; entry_size(width)];
        self.memory.read_virtual(array.offset(u64::from(number) * entry.len() as u64), &mut entry)?;
        Ok(Some(decode(&entry, width.bytes())))
    }

    /// The driver that `address` lay in, the last one if there were several. Nothing if it lay in none.
    ///
    /// # Errors
    /// As [`unloaded_modules`](Self::unloaded_modules).
    pub fn unloaded_at(&self, address: VirtAddr) -> Result<Option<UnloadedModule>, TargetError> {
        if !self.is_kernel(address) {
            return Ok(None);
        }
        Ok(self.unloaded_modules()?.iter().find(|driver| driver.contains(address)).cloned())
    }

    /// Reads the file names of drivers that were unloaded, neighbours together: those that can be read cost nothing then.
    pub fn read_unloaded_names(&self, drivers: &[UnloadedModule]) {
        let unread: Vec<_> = drivers.iter().filter(|driver| driver.text.get().is_none()).collect();
        let range = |driver: &&UnloadedModule| (driver.name.0, FileName::bytes_to_read(driver.name.1));
        let ranges: Vec<_> = unread.iter().map(range).collect();
        for (driver, name) in unread.into_iter().zip(self.read_ranges(&ranges)) {
            let Ok(bytes) = name else { continue };
            driver.text.get_or_init(|| FileName::new(&bytes, driver.name.1).text);
        }
    }

    /// The file name of a driver that was unloaded.
    ///
    /// # Errors
    /// [`TargetError::Read`].
    pub fn unloaded_name(&self, driver: &UnloadedModule) -> Result<String, TargetError> {
        if let Some(known) = driver.text.get() {
            return Ok(known.clone());
        }
        let (at, length) = driver.name;
        let mut bytes = vec![0; FileName::bytes_to_read(length)];
        let read = self.memory.read_virtual(at, &mut bytes);
        read.map_err(|error| TargetError::read("name of an unloaded driver", error))?;
        Ok(driver.text.get_or_init(|| FileName::new(&bytes, length).text).clone())
    }
}

/// Bytes of an entry.
const fn entry_size(width: Width) -> usize {
    match width {
        Width::Bits32 => 0x18,
        Width::Bits64 => 0x28,
    }
}

/// An entry of the array; `pointer` is bytes of a pointer.
fn decode(entry: &[u8], pointer: usize) -> UnloadedModule {
    let uint = |at: usize, size: usize| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&entry[at..at + size]);
        u64::from_le_bytes(word)
    };
    UnloadedModule {
        name: (VirtAddr(uint(pointer, pointer)), uint(0, 2) as usize),
        base: VirtAddr(uint(2 * pointer, pointer)),
        end: VirtAddr(uint(3 * pointer, pointer)),
        time: uint(4 * pointer, 8),
        text: Arc::default(),
    }
}

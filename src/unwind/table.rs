//! An image's table of functions, `.pdata`: found by halves of its lines, never read whole.

use super::fault::{Fault, Read, What};

/// Bytes of a `RUNTIME_FUNCTION`: begin, end and unwind info, each relative to the image's base.
const ENTRY: usize = 12;
/// Entries that are read at once: as many as one request of KDNET carries.
const LINE: u32 = 85;
/// An entry whose unwind info has this bit leads to another entry (`RUNTIME_FUNCTION_INDIRECT`).
const INDIRECT: u32 = 1;

/// An image, as far as unwinding needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is loaded.
    pub base: u64,
    /// `SizeOfImage`.
    pub size: u32,
    /// Where its table of functions begins, relative to the base.
    pub table: u32,
    /// Bytes of that table; 0 if it has none.
    pub table_size: u32,
}

/// A `RUNTIME_FUNCTION`: a function, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// First byte, relative to the image's base.
    pub begin: u32,
    /// First byte past it.
    pub end: u32,
    /// Its `UNWIND_INFO`.
    pub(super) info: u32,
    /// Where the prolog stands that is described there: elsewhere for a part that was split off.
    pub(super) prolog_at: u32,
}

impl Function {
    pub(super) fn decode(bytes: &[u8; ENTRY]) -> Self {
        let [begin, end, info] =
            [0, 4, 8].map(|at| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte])));
        Self { begin, end, info, prolog_at: begin }
    }

    pub(super) const fn contains(&self, rva: u32) -> bool {
        self.begin <= rva && rva < self.end
    }
}

impl Image {
    /// The address of `rva`.
    pub(super) const fn address(&self, rva: u32) -> u64 {
        self.base.wrapping_add(rva as u64)
    }

    /// The entry of the function that `rva` lies in.
    pub(super) fn function_at<E>(
        &self,
        rva: u32,
        read: &mut Read<'_, E>,
    ) -> Result<Option<Function>, Fault<E>> {
        let Some(function) = self.entry_at(rva, read)? else { return Ok(None) };
        if function.info & INDIRECT == 0 {
            return Ok(Some(function));
        }
        // A part that was split off: its code is its own, how it is unwound is the other's.
        let other = self.entry(function.info & !INDIRECT, read)?;
        if other.info & INDIRECT != 0 {
            return Err(Fault::Unknown {
                at: self.address(other.info & !INDIRECT),
                what: "it leads on twice",
            });
        }
        Ok(Some(Function { info: other.info, prolog_at: other.begin, ..function }))
    }

    /// The entry that stands at an address of its own.
    pub(super) fn entry<E>(&self, rva: u32, read: &mut Read<'_, E>) -> Result<Function, Fault<E>> {
        let at = self.address(rva);
        let mut bytes = [0; ENTRY];
        read(What::Functions, at, &mut bytes).map_err(|error| Fault::Read {
            what: What::Functions,
            at,
            error,
        })?;
        Ok(Function::decode(&bytes))
    }

    fn entry_at<E>(&self, rva: u32, read: &mut Read<'_, E>) -> Result<Option<Function>, Fault<E>> {
        let count = self.table_size / ENTRY as u32;
        let (mut low, mut high) = (0, count.div_ceil(LINE));
        let mut line = [0; ENTRY * LINE as usize];
        while low < high {
            let middle = low + (high - low) / 2;
            let entries = LINE.min(count - middle * LINE) as usize;
            let at = self.address(self.table).wrapping_add(u64::from(middle * LINE) * ENTRY as u64);
            let bytes = &mut line[..entries * ENTRY];
            read(What::Functions, at, bytes).map_err(|error| Fault::Read {
                what: What::Functions,
                at,
                error,
            })?;
            let functions: Vec<Function> =
                bytes.as_chunks::<ENTRY>().0.iter().map(Function::decode).collect();
            let above = functions.partition_point(|function| function.begin <= rva);
            match above {
                0 => high = middle,
                _ if above == functions.len() && !functions[above - 1].contains(rva) => low = middle + 1,
                _ => return Ok(Some(functions[above - 1]).filter(|function| function.contains(rva))),
            }
        }
        Ok(None)
    }
}

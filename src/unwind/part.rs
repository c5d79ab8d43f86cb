//! Which part of which function an address lies in.

use super::fault::{Fault, Read};
use super::frame::Frame;
use super::registers::Registers;
use super::table::Image;

/// A part of a function: compilers split functions, and place the parts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionPart {
    /// First byte, relative to the image's base.
    pub begin: u32,
    /// First byte past it.
    pub end: u32,
    /// Where the function begins whose part it is; `begin` for the first part.
    pub function: u32,
}

impl Image {
    /// The part of a function that `rva` lies in; nothing where there is none, as in code that calls nothing.
    ///
    /// # Errors
    /// [`Fault`]: bytes that are away, or make no sense.
    pub fn part_at<E>(&self, rva: u32, read: &mut Read<'_, E>) -> Result<Option<FunctionPart>, Fault<E>> {
        let Some(part) = self.function_at(rva, read)? else { return Ok(None) };
        let chain = Frame::new(self, Registers::default(), read).chain(part)?;
        let whole = chain.last().expect("a chain has a first link").function;
        Ok(Some(FunctionPart { begin: part.begin, end: part.end, function: whole.prolog_at }))
    }
}

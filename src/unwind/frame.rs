//! A frame while it is taken apart: its prolog is undone, and the prologs of the functions that it is chained to.

use super::fault::{Fault, Read, What};
use super::info::{Code, Info};
use super::registers::Registers;
use super::table::{Function, Image};

/// Most unwind infos that are chained to one another.
const MAX_CHAIN: usize = 32;
/// A part of a function, and what its prolog does.
pub(super) struct Part {
    pub(super) function: Function,
    pub(super) info: Info,
}

/// A frame while it is taken apart.
pub(super) struct Frame<'a, 'r, E> {
    pub(super) image: &'a Image,
    pub(super) registers: Registers,
    pub(super) read: &'a mut Read<'r, E>,
}

impl<'a, 'r, E> Frame<'a, 'r, E> {
    pub(super) const fn new(image: &'a Image, registers: Registers, read: &'a mut Read<'r, E>) -> Self {
        Self { image, registers, read }
    }

    fn word(&mut self, at: u64) -> Result<u64, Fault<E>> {
        let (what, mut bytes) = (What::Stack, [0; 8]);
        (self.read)(what, at, &mut bytes).map_err(|error| Fault::Read { what, at, error })?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn pop(&mut self) -> Result<u64, Fault<E>> {
        let word = self.word(self.registers.rsp)?;
        self.registers.rsp = self.registers.rsp.wrapping_add(8);
        Ok(word)
    }

    pub(super) fn pop_return_address(&mut self) -> Result<(), Fault<E>> {
        self.registers.rip = self.pop()?;
        Ok(())
    }

    fn info(&mut self, function: Function) -> Result<Info, Fault<E>> {
        Info::read(self.image, function, self.read)
    }

    /// The part of a function that has this entry, and those that it is chained to.
    pub(super) fn chain(&mut self, function: Function) -> Result<Vec<Part>, Fault<E>> {
        let mut chain = vec![Part { function, info: self.info(function)? }];
        while let Some(next) = chain.last().and_then(|part| part.info.chained) {
            let info = self.info(next)?;
            if chain.len() == MAX_CHAIN {
                return Err(Fault::Unknown { at: info.at, what: "its chain does not end" });
            }
            chain.push(Part { function: next, info });
        }
        Ok(chain)
    }

    /// Undoes what the prolog had done `within` bytes from the function's start, and what the functions that it is chained to
    /// had done before; where the registers of an interrupted caller lie, if they do.
    pub(super) fn undo(&mut self, chain: &[Part], within: u32) -> Result<Option<u64>, Fault<E>> {
        let mut within = within;
        for part in chain {
            if let Some(trap) = self.undo_codes(&part.info, within)? {
                return Ok(Some(trap));
            }
            within = u32::MAX;
        }
        self.pop_return_address()?;
        Ok(None)
    }

    fn undo_codes(&mut self, info: &Info, within: u32) -> Result<Option<u64>, Fault<E>> {
        let done = |at: u8| u32::from(at) <= within;
        let is_established = info.is_chained()
            || within >= u32::from(info.prolog)
            || info.codes.iter().any(|(at, code)| *code == Code::SetFrame && done(*at));
        let frame_base = match info.frame.filter(|_| is_established) {
            Some(frame) => Some(frame.base(&self.registers)?),
            None => None,
        };
        for (at, code) in &info.codes {
            if !done(*at) {
                continue;
            }
            let rsp = self.registers.rsp;
            match *code {
                Code::Push(register) => self.registers.general[usize::from(register)] = Some(self.pop()?),
                Code::Allocate(bytes) => self.registers.rsp = rsp.wrapping_add(bytes.into()),
                Code::SetFrame => {
                    let unnamed =
                        Fault::Unknown { at: info.at, what: "it sets a frame register and names none" };
                    self.registers.rsp = info.frame.ok_or(unnamed)?.base(&self.registers)?;
                }
                Code::Save { register, offset } => {
                    let at = frame_base.unwrap_or(rsp).wrapping_add(offset.into());
                    self.registers.general[usize::from(register)] = Some(self.word(at)?);
                }
                Code::MachineFrame { has_error_code } => {
                    let at = rsp.wrapping_add(if has_error_code { 8 } else { 0 });
                    self.registers.rip = self.word(at)?;
                    self.registers.rsp = self.word(at.wrapping_add(0x18))?;
                    return Ok(Some(at));
                }
                // Vector registers are not followed; epilogs are looked at elsewhere.
                Code::SaveVector | Code::Epilog { .. } => {}
            }
        }
        Ok(None)
    }
}

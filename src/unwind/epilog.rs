//! Epilogs: what is left of one is done, instead of undoing the prolog.
//!
//! ```text
//!  [add rsp, n | lea rsp, [frame + n]]   pop ..   ret | jmp elsewhere
//! ```
//! Version 2 of the unwind information says where epilogs are. Before it, code is an epilog by what it does: nothing but the
//! above may stand in one, and the above stands nowhere else, but for a `jmp` that stays in the function.

use super::fault::{Fault, What};
use super::frame::{Frame, Part};
use super::info::{Code, Info};
use super::registers::{RSP, Registers};
use super::table::Function;

/// Longest epilog: an allocation of 7 bytes, sixteen pops of 2, a jump of 7.
const LONGEST: usize = 7 + 16 * 2 + 7;

/// Where an epilog leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Return,
    /// To another function, which returns to the caller: its address if the instruction has it.
    Jump(Option<u64>),
}

/// Does what is left of the epilog that the program counter is in; false, and nothing done, if it is in none.
pub(super) fn finish<E>(frame: &mut Frame<'_, '_, E>, chain: &[Part]) -> Result<bool, Fault<E>> {
    let Some(Part { function, info }) = chain.first() else { return Ok(false) };
    let rip = frame.registers.rip;
    let rva = rip.wrapping_sub(frame.image.base) as u32;
    let is_told = info.version == 2 && info.codes.iter().any(|(_, code)| matches!(code, Code::Epilog { .. }));
    if is_told && !epilogs(*function, info).any(|(start, end)| (start..end).contains(&rva)) {
        return Ok(false);
    }
    let len = LONGEST.min((function.end - rva) as usize);
    let mut code = [0; LONGEST];
    let code = &mut code[..len];
    if let Err(error) = (frame.read)(What::Code, rip, code) {
        // Its first byte tells of most code that it is no epilog.
        let short = &mut code[..1];
        (frame.read)(What::Code, rip, short).map_err(|_| Fault::Read { what: What::Code, at: rip, error })?;
        if !may_begin(short[0]) {
            return Ok(false);
        }
        return Err(Fault::Unknown { at: rip, what: "the rest of its code cannot be read" });
    }
    let Some(plan) = decode(code, rip, info) else {
        return if is_told {
            Err(Fault::Unknown { at: rip, what: "its epilog is none that compilers write" })
        } else {
            Ok(false)
        };
    };
    if let End::Jump(target) = plan.end
        && !is_told
        && !leaves(frame, chain, target)?
    {
        return Ok(false);
    }
    if let Some(stack_pointer) = plan.stack_pointer {
        frame.registers.rsp = stack_pointer.of(&frame.registers)?;
    }
    for register in plan.pops {
        frame.registers.general[usize::from(register)] = Some(frame.pop()?);
    }
    frame.pop_return_address()?;
    Ok(true)
}

/// True if an epilog can begin with this byte.
const fn may_begin(first: u8) -> bool {
    matches!(first, 0x40..=0x4f | 0x58..=0x5f | 0xc2 | 0xc3 | 0xe9 | 0xeb | 0xf3 | 0xff)
}

/// The epilogs that version 2 tells of.
fn epilogs(function: Function, info: &Info) -> impl Iterator<Item = (u32, u32)> {
    let mut codes = info.codes.iter().filter_map(|(_, code)| match code {
        Code::Epilog { low, info } => Some((u32::from(*low), u32::from(*info))),
        _ => None,
    });
    let (size, flags) = codes.next().unwrap_or_default();
    let at_end = (flags & 1 != 0).then_some(size);
    // A distance of 0 fills up an even number of slots.
    let others = codes.map(|(low, high)| low | high << 8).filter(|distance| *distance != 0);
    at_end.into_iter().chain(others).filter_map(move |distance| {
        let start = function.end.checked_sub(distance)?;
        Some((start, start.saturating_add(size)))
    })
}

/// True if a jump to `target` leaves the function for good.
fn leaves<E>(frame: &mut Frame<'_, '_, E>, chain: &[Part], target: Option<u64>) -> Result<bool, Fault<E>> {
    let (Some(target), [part, ..]) = (target, chain) else { return Ok(true) };
    let image = frame.image;
    let Ok(rva) = u32::try_from(target.wrapping_sub(image.base)) else { return Ok(true) };
    if part.function.contains(rva) {
        return Ok(rva == part.function.begin && !part.info.is_chained());
    }
    if rva >= image.size {
        return Ok(true);
    }
    // From a part that was split off, back into the function: both begin where that does.
    let Some(other) = image.function_at(rva, frame.read)? else { return Ok(true) };
    let other_chain = frame.chain(other)?;
    let whole = |chain: &[Part]| chain.last().map(|part| part.function.prolog_at);
    let is_called = other.begin == rva && other_chain.len() == 1 && whole(&other_chain) == Some(rva);
    Ok(is_called || whole(chain) != whole(&other_chain))
}

/// What is left of an epilog.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    stack_pointer: Option<StackPointer>,
    pops: Vec<u8>,
    end: End,
}

/// A register and what is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StackPointer(u8, i32);

impl StackPointer {
    fn of<E>(self, registers: &Registers) -> Result<u64, Fault<E>> {
        let Self(number, by) = self;
        let value = registers.get(number).ok_or(Fault::Register { number })?;
        Ok(value.wrapping_add_signed(by.into()))
    }
}

fn decode(mut code: &[u8], rip: u64, info: &Info) -> Option<Plan> {
    let whole = code.len();
    let stack_pointer = release(&mut code, info);
    let mut pops = Vec::new();
    loop {
        match *code {
            [pop @ 0x58..=0x5f, ref rest @ ..] => {
                pops.push(pop & 7);
                code = rest;
            }
            [rex @ 0x40..=0x4f, pop @ 0x58..=0x5f, ref rest @ ..] => {
                pops.push(pop & 7 | (rex & 1) << 3);
                code = rest;
            }
            _ => break,
        }
    }
    // No function pops its stack pointer.
    if pops.iter().any(|register| usize::from(*register) == RSP) {
        return None;
    }
    let behind = |len: usize| rip.wrapping_add((whole - code.len() + len) as u64);
    let end = match *code {
        [0xc3 | 0xc2, ..] | [0xf3, 0xc3, ..] => End::Return,
        [0xeb, by, ..] => End::Jump(Some(behind(2).wrapping_add_signed(i64::from(by as i8)))),
        [0xe9, a, b, c, d, ..] => {
            let by = i32::from_le_bytes([a, b, c, d]);
            End::Jump(Some(behind(5).wrapping_add_signed(by.into())))
        }
        // Through memory: of an address, or of a register if the instruction is marked as a way out (REX.W); a table of
        // jumps inside a function has an index.
        [0xff, 0x25, ..] => End::Jump(None),
        [0xff, modrm, ..] if modrm >> 3 == 4 && modrm & 7 != 4 => End::Jump(None),
        [0x48..=0x4f, 0xff, modrm, ..] if modrm >> 3 & 7 == 4 => End::Jump(None),
        _ => return None,
    };
    Some(Plan { stack_pointer, pops, end })
}

/// The instruction that gives back the fixed allocation, if `code` begins with it.
fn release(code: &mut &[u8], info: &Info) -> Option<StackPointer> {
    let word = |bytes: &[u8]| Some(i32::from_le_bytes(*bytes.first_chunk()?));
    let (stack_pointer, len) = match **code {
        [0x48, 0x83, 0xc4, by, ..] => (StackPointer(RSP as u8, i32::from(by as i8)), 4),
        [0x48, 0x81, 0xc4, ref rest @ ..] => (StackPointer(RSP as u8, word(rest)?), 7),
        [rex @ (0x48 | 0x49), 0x8d, modrm, ref rest @ ..] if modrm >> 3 & 7 == 4 => {
            let frame = info.frame?;
            // Registers 4 and 12 take a byte more, which says that there is no index.
            let (rest, skipped) = match (modrm & 7, rest) {
                (4, [0x24, rest @ ..]) => (rest, 1),
                (4, _) => return None,
                (_, rest) => (rest, 0),
            };
            let register = modrm & 7 | (rex & 1) << 3;
            if register != frame.register {
                return None;
            }
            let (by, len) = match modrm >> 6 {
                // Registers 5 and 13 mean the program counter here.
                0 if modrm & 7 != 5 => (0, 3),
                1 => (i32::from(*rest.first()? as i8), 4),
                2 => (word(rest)?, 7),
                _ => return None,
            };
            (StackPointer(register, by), len + skipped)
        }
        _ => return None,
    };
    *code = &code[len..];
    Some(stack_pointer)
}

//! `UNWIND_INFO`: what a function's prolog does.
//!
//! | offset | size | field |
//! |-------:|-----:|-------|
//! |      0 |    1 | version (3 bits), flags (5) |
//! |      1 |    1 | bytes of the prolog |
//! |      2 |    1 | count of code slots |
//! |      3 |    1 | frame register (4 bits), its offset / 16 (4) |
//! |      4 | 2 n  | slots, the prolog's last instruction first |
//! |        |   12 | flag 4: the `RUNTIME_FUNCTION` that it is chained to, after an even number of slots |

use super::fault::{Fault, Read, What};
use super::registers::{RSP, Registers};
use super::table::{Function, Image};

const HEADER: usize = 4;
const FLAG_CHAINED: u8 = 4;

/// What a function's prolog does.
#[derive(Clone, Debug)]
pub(super) struct Info {
    /// Where it stands.
    pub(super) at: u64,
    /// Bytes of the prolog.
    pub(super) prolog: u8,
    pub(super) frame: Option<FrameRegister>,
    /// Each code and the offset in the prolog behind its instruction; the last instruction first.
    pub(super) codes: Vec<(u8, Code)>,
    pub(super) version: u8,
    /// The function whose prolog ran before.
    pub(super) chained: Option<Function>,
}

/// A register that points into the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRegister {
    pub(super) register: u8,
    /// Bytes from the frame's base to where it points.
    offset: u64,
}

impl FrameRegister {
    /// The frame's base: the stack pointer after the fixed allocation.
    pub(super) fn base<E>(self, registers: &Registers) -> Result<u64, Fault<E>> {
        let value = registers.get(self.register).ok_or(Fault::Register { number: self.register })?;
        Ok(value.wrapping_sub(self.offset))
    }
}

/// What one instruction of a prolog did, as far as it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Push(u8),
    Allocate(u32),
    SetFrame,
    Save {
        register: u8,
        /// From the frame's base.
        offset: u32,
    },
    SaveVector,
    /// One of version 2's: bytes of every epilog and whether one ends the function first, then one code for each further.
    Epilog {
        low: u8,
        info: u8,
    },
    MachineFrame {
        has_error_code: bool,
    },
}

impl Info {
    pub(super) fn read<E>(
        image: &Image,
        function: Function,
        read: &mut Read<'_, E>,
    ) -> Result<Self, Fault<E>> {
        let at = image.address(function.info);
        let mut read_info = |at, bytes: &mut [u8]| {
            read(What::Info, at, bytes).map_err(|error| Fault::Read { what: What::Info, at, error })
        };
        let mut header = [0; HEADER];
        read_info(at, &mut header)?;
        let [first, prolog, count, frame] = header;
        let (version, flags) = (first & 7, first >> 3);
        if !(1..=2).contains(&version) {
            return Err(Fault::Unknown { at, what: "its version is neither 1 nor 2" });
        }
        let is_chained = flags & FLAG_CHAINED != 0;
        let slots_len = usize::from(count).next_multiple_of(2) * 2;
        let mut rest = vec![0; if is_chained { slots_len + 12 } else { usize::from(count) * 2 }];
        read_info(at.wrapping_add(HEADER as u64), &mut rest)?;
        let (slots, chained) = rest.split_at(usize::from(count) * 2);
        let chained = chained.last_chunk().filter(|_| is_chained).map(Function::decode);
        let frame = FrameRegister { register: frame & 15, offset: u64::from(frame >> 4) * 16 };
        Ok(Self {
            at,
            prolog,
            frame: (frame.register != 0).then_some(frame),
            codes: decode(slots.as_chunks().0, version).map_err(|what| Fault::Unknown { at, what })?,
            version,
            chained,
        })
    }

    pub(super) const fn is_chained(&self) -> bool {
        self.chained.is_some()
    }
}

/// The codes of some slots.
fn decode(slots: &[[u8; 2]], version: u8) -> Result<Vec<(u8, Code)>, &'static str> {
    const CUT: &str = "its last code is cut off";
    let mut codes = Vec::with_capacity(slots.len());
    let mut slots = slots.iter();
    while let Some(&[at, operation]) = slots.next() {
        let info = operation >> 4;
        let mut next = || slots.next().copied().map(u16::from_le_bytes).ok_or(CUT);
        let mut far = || Ok::<_, &str>(u32::from(next()?) | u32::from(next()?) << 16);
        let code = match operation & 15 {
            0 => Code::Push(info),
            1 if info == 0 => Code::Allocate(u32::from(next()?) * 8),
            1 if info == 1 => Code::Allocate(far()?),
            1 => return Err("an allocation of no known form"),
            2 => Code::Allocate(u32::from(info) * 8 + 8),
            3 => Code::SetFrame,
            4 => Code::Save { register: info, offset: u32::from(next()?) * 8 },
            5 => Code::Save { register: info, offset: far()? },
            6 if version == 2 => Code::Epilog { low: at, info },
            // 6 and 7 saved halves of vector registers in the first compilers' version 1.
            6 | 8 => next().map(|_| Code::SaveVector)?,
            7 | 9 => far().map(|_| Code::SaveVector)?,
            10 if info <= 1 => Code::MachineFrame { has_error_code: info == 1 },
            _ => return Err("a code that is not known"),
        };
        if matches!(code, Code::Save { register, .. } if usize::from(register) == RSP) {
            return Err("it saves the stack pointer");
        }
        codes.push((at, code));
    }
    Ok(codes)
}

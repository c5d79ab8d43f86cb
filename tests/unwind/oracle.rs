//! Every instruction of every function of an image: against another unwinder, where that is right.
//!
//! A large image, compiled by Microsoft's compiler, is any of PyPI's for Windows:
//! ```text
//! pip download --no-deps --only-binary :all: --platform win_amd64 --python-version 3.12 onnxruntime==1.20.1
//! unzip onnxruntime-*.whl 'onnxruntime/capi/*'
//! VERIKD_PE=onnxruntime/capi/onnxruntime.dll cargo test --release --test unwind oracle -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::{env, fs};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register as Operand};
use pe_unwind_info::x86_64::{FunctionTableEntries, Register, UnwindState, XmmRegister};
use verikd::unwind::{Counter, Registers, What, step};

use crate::image::{Loaded, native};

const BASE: u64 = 0xffff_f800_1000_0000;
const STACK: u64 = 0xffff_8800_0000_0000;
/// Registers that a call preserves.
const PRESERVED: [usize; 8] = [3, 5, 6, 7, 12, 13, 14, 15];

/// A word of a stack on which no two are alike.
fn word(at: u64) -> u64 {
    (at ^ 0x5bf0_3635).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

fn registers(rip: u64) -> Registers {
    let general = std::array::from_fn(|number| Some(STACK + 0x10_0000 * (number as u64 + 1)));
    Registers { rip, rsp: STACK, general }
}

struct Other(Registers);

impl UnwindState for Other {
    fn read_register(&mut self, register: Register) -> u64 {
        match register {
            Register::RSP => self.0.rsp,
            register => self.0.general[register as usize].unwrap(),
        }
    }

    fn read_stack(&mut self, at: u64) -> Option<u64> {
        Some(word(at))
    }

    fn write_register(&mut self, register: Register, value: u64) {
        match register {
            Register::RSP => self.0.rsp = value,
            register => self.0.general[register as usize] = Some(value),
        }
    }

    fn write_xmm_register(&mut self, _: XmmRegister, _: u128) {}
}

/// Program counter, stack pointer and preserved registers of the caller.
type Caller = (u64, u64, [Option<u64>; 8]);

fn ours(loaded: &Loaded, rva: u32) -> Result<Caller, String> {
    let mut read = |what, at: u64, buf: &mut [u8]| match what {
        What::Stack => {
            buf.copy_from_slice(&word(at).to_le_bytes());
            Ok(())
        }
        _ => loaded.read(at, buf),
    };
    let step = step(&loaded.image, &registers(BASE + u64::from(rva)), Counter::Exact, &mut read);
    let caller = step.map_err(|fault| format!("{fault:x?}"))?.caller;
    Ok((caller.rip, caller.rsp, PRESERVED.map(|number| caller.general[number])))
}

fn theirs(loaded: &Loaded, table: &FunctionTableEntries<'_>, rva: u32) -> Option<Caller> {
    let mut other = Other(registers(BASE + u64::from(rva)));
    let rip = table.unwind_frame(&mut other, |at| loaded.bytes.get(at as usize..), rva)?;
    Some((rip, other.0.rsp, PRESERVED.map(|number| other.0.general[number])))
}

/// Why the other unwinder may be wrong at an instruction.
fn excuse(loaded: &Loaded, begin: u32, end: u32, info: u32, at: &Instruction) -> Option<&'static str> {
    let inside = u64::from(begin)..u64::from(end);
    if matches!(at.mnemonic(), Mnemonic::Add | Mnemonic::Lea) && at.op0_register() == Operand::R12 {
        return Some("r12 is not the stack pointer");
    }
    // A table of jumps has where these lead to, inside the function, in words of four bytes: it is no code.
    let word = ((at.ip() - BASE) as usize) & !3;
    let word = u32::from_le_bytes(std::array::from_fn(|byte| loaded.bytes[word + byte]));
    if inside.contains(&word.into()) {
        return Some("a table between code");
    }
    if loaded.bytes[info as usize] & 7 == 2 {
        return Some("epilogs of version 2");
    }
    let is_jump = at.mnemonic() == Mnemonic::Jmp;
    if is_jump && at.op0_kind() == OpKind::NearBranch64 && inside.contains(&(at.near_branch64() - BASE)) {
        return Some("a jump inside the function is no epilog");
    }
    if is_jump && at.op0_kind() == OpKind::NearBranch64 {
        return Some("a jump between parts of one function is no epilog");
    }
    None
}

/// Compares all points; how many there were, and how many differ for each reason.
fn compare(loaded: &Loaded) -> (usize, usize, BTreeMap<&'static str, usize>) {
    let table = loaded.image.table as usize..(loaded.image.table + loaded.image.table_size) as usize;
    let entries = FunctionTableEntries::parse(&loaded.bytes[table]);
    let (mut functions, mut points, mut different) = (0, 0, BTreeMap::new());
    for function in entries.functions().unwrap() {
        let (begin, end) = (function.begin_address.get(), function.end_address.get());
        let code = &loaded.bytes[begin as usize..end as usize];
        functions += 1;
        for instruction in Decoder::with_ip(64, code, BASE + u64::from(begin), DecoderOptions::NONE) {
            let rva = (instruction.ip() - BASE) as u32;
            points += 1;
            let (ours, theirs) = (ours(loaded, rva), theirs(loaded, &entries, rva));
            if ours.as_ref().ok() == theirs.as_ref() {
                continue;
            }
            let info = function.unwind_info_address.get();
            let why = if instruction.is_invalid() {
                Some("data between code")
            } else {
                excuse(loaded, begin, end, info, &instruction)
            };
            let Some(why) = why else {
                panic!("{begin:x}..{end:x} at {rva:x}: {ours:x?}, the other {theirs:x?}: {instruction:?}")
            };
            *different.entry(why).or_default() += 1;
        }
    }
    (functions, points, different)
}

#[test]
fn every_instruction_of_an_image_unwinds_as_another_unwinder_says() {
    let mut files = vec![native("code.dll")];
    files.extend(env::var_os("VERIKD_PE").map(Into::into));
    for path in files {
        let loaded = Loaded::new(&fs::read(&path).unwrap(), BASE);
        let (functions, points, different) = compare(&loaded);
        println!("{}: {functions} functions, {points} points, different: {different:?}", path.display());
        assert!(points > 100);
    }
}

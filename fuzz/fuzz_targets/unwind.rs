//! Code from a stranger: whatever its tables and its stack say, each step up ends, and reads little.

#![no_main]

use libfuzzer_sys::fuzz_target;
use verikd::unwind::{Counter, Image, Registers, What, step};

const BASE: u64 = 0xffff_f800_1000_0000;
const STACK: u64 = 0xffff_8800_0000_0000;
/// More than the longest chain of the longest infos takes.
const MOST_READS: u32 = 32 * 300;

fuzz_target!(|bytes: &[u8]| {
    // Where things are, then the image, which the stack is made of too.
    let Some((head, bytes)) = bytes.split_first_chunk::<16>() else { return };
    let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let image = Image {
        base: BASE,
        size: u32::try_from(bytes.len()).expect("files here are small"),
        table: number(0).into(),
        table_size: number(2).into(),
    };
    let register = |at: usize| (number(8) >> at & 1 != 0).then(|| STACK + u64::from(head[10]) * at as u64);
    let mut registers = Registers {
        rip: BASE + u64::from(number(4)),
        rsp: STACK + u64::from(number(6)),
        general: std::array::from_fn(register),
    };
    let mut counter = if head[11] & 1 == 0 { Counter::Exact } else { Counter::Return };
    for _ in 0..64 {
        let mut reads = 0;
        let mut read = |what, at: u64, buf: &mut [u8]| {
            reads += 1;
            let base = if what == What::Stack { STACK } else { BASE };
            let from = usize::try_from(at.wrapping_sub(base)).map_err(|_| ())?;
            let found = bytes.get(from..).and_then(|rest| rest.get(..buf.len())).ok_or(())?;
            buf.copy_from_slice(found);
            if what == What::Stack && head[11] & 2 == 0 {
                // Most words lead back into the image.
                let word = BASE + u64::from(u16::from_le_bytes([found[0], found[1]]));
                buf.copy_from_slice(&word.to_le_bytes());
            }
            Ok::<(), ()>(())
        };
        let Ok(taken) = step(&image, &registers, counter, &mut read) else { return };
        assert!(reads < MOST_READS, "{reads} reads");
        (registers, counter) = (taken.caller, taken.counter);
    }
});

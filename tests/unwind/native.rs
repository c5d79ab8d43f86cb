//! Code that ran: every function said where it would return to.

use std::collections::HashMap;
use std::fs;

use verikd::unwind::{Counter, Kind, Registers, What, step};

use crate::image::{Loaded, native};

/// What native/run.c wrote down.
struct Run {
    base: u64,
    registers: Registers,
    /// The outermost function first.
    returns: Vec<u64>,
    stack: HashMap<u64, u64>,
}

fn read_run() -> Run {
    let text = fs::read_to_string(native("run.txt")).unwrap();
    let mut run =
        Run { base: 0, registers: Registers::default(), returns: Vec::new(), stack: HashMap::new() };
    let mut stack = None;
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        let value = u64::from_str_radix(value, 16).unwrap();
        match (name, stack) {
            (offset, Some(stack)) => {
                run.stack.insert(stack + u64::from_str_radix(offset, 16).unwrap(), value);
            }
            ("base", None) => run.base = value,
            ("rip", None) => run.registers.rip = value,
            ("r4", None) => run.registers.rsp = value,
            ("returns", None) => run.returns.push(value),
            ("stack", None) => stack = Some(value),
            (register, None) => {
                let number: usize = register.strip_prefix('r').unwrap().parse().unwrap();
                run.registers.general[number] = Some(value);
            }
        }
    }
    run
}

#[test]
fn a_stack_that_ran_is_walked_to_its_true_return_addresses() {
    let run = read_run();
    let loaded = Loaded::new(&fs::read(native("code.dll")).unwrap(), run.base);
    let last = *run.stack.keys().max().unwrap();
    let mut registers = run.registers.clone();
    let mut found = Vec::new();
    while found.len() < run.returns.len() {
        let mut read = |what, at: u64, buf: &mut [u8]| match what {
            // What is not written down of the stack was 0.
            What::Stack if at <= last => {
                buf.copy_from_slice(&run.stack.get(&at).copied().unwrap_or_default().to_le_bytes());
                Ok(())
            }
            _ => loaded.read(at, buf),
        };
        let step = step(&loaded.image, &registers, Counter::Return, &mut read).unwrap();
        assert_eq!((step.kind, step.counter), (Kind::Call, Counter::Return));
        assert!(step.caller.rsp > registers.rsp);
        registers = step.caller;
        found.push(registers.rip);
    }
    found.reverse();
    assert_eq!(found, run.returns);
    assert!(found.len() >= 10, "as many frames as functions ran");
}

//! Debug registers: addresses that processors watch, and what they are watched for.
//!
//! ```text
//!   KernelDr0..3 of each processor     an address each, as WriteControlSpace has put it there
//!   Dr7, the same of all               bit 2n: n is on; 16 + 4n: 0 carried out, 1 written, 3 read or written; 18 + 4n: how many bytes
//! ```
//! Dr7 comes with every Continue2. Source: PROTOCOL.md 9 and Intel's manual, volume 3, "Debug registers". \[uncertain: accesses that do
//! not change what is there are not seen, as no instruction is run that makes them\]

use std::collections::HashMap;

use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::processors::Processor;

/// Debug registers that hold addresses.
const COUNT: usize = 4;
/// Where they are in `KSPECIAL_REGISTERS`, and Dr7 there; where Dr6 and Dr7 are in a `CONTEXT`. Source: PROTOCOL.md 12.
const FIRST: usize = 0x20;
const SPECIAL_DR7: usize = 0x48;
const CONTEXT_DR6: usize = 0x68;
const CONTEXT_DR7: usize = 0x70;
/// Dr7 with none of them on.
const NONE: u64 = 0x400;
/// Dr6 when nothing has happened.
const NOTHING: u64 = 0xffff_0ff0;

/// What the processors watch.
#[derive(Clone, Debug)]
pub(super) struct DebugRegisters {
    /// Of each processor.
    addresses: Vec<[u64; COUNT]>,
    control: u64,
    /// What was there when it was looked at the last time.
    seen: HashMap<(u64, usize), Vec<u8>>,
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { addresses: Vec::new(), control: NONE, seen: HashMap::new() }
    }
}

impl DebugRegisters {
    /// Takes over what a debugger has written to a processor's.
    pub(super) fn take(&mut self, number: usize, processor: &Processor) {
        if self.addresses.len() <= number {
            self.addresses.resize(number + 1, [0; COUNT]);
        }
        self.addresses[number] = std::array::from_fn(|of| word(&processor.special_registers, FIRST + 8 * of));
    }

    /// The machine goes on with this Dr7.
    pub(super) fn go_on(&mut self, control: u64, kernel: &Kernel) {
        self.control = control;
        self.seen.clear();
        self.changed(0, kernel);
    }

    /// How many of them are on.
    pub(super) fn on(&self) -> usize {
        (0..COUNT).filter(|of| self.kind(*of).is_some()).count()
    }

    /// True if one of them is.
    pub(super) fn is_on(&self) -> bool {
        self.on() > 0
    }

    /// Shows them in what a stopped processor has. `met` is the one that stopped it, if one did.
    pub(super) fn show(&self, number: usize, met: Option<usize>, processor: &mut Processor) {
        for (of, address) in self.addresses.get(number).into_iter().flatten().enumerate() {
            put(&mut processor.special_registers, FIRST + 8 * of, *address);
        }
        put(&mut processor.special_registers, SPECIAL_DR7, self.control);
        put(&mut processor.context, CONTEXT_DR6, met.map_or(NOTHING, |met| NOTHING | 1 << met));
        put(&mut processor.context, CONTEXT_DR7, self.control);
    }

    /// The register of this processor that watches for the instruction at `at`.
    pub(super) fn executed(&self, processor: usize, at: VirtAddr) -> Option<usize> {
        (0..COUNT).find(|of| self.kind(*of) == Some((0, 1)) && self.address(processor, *of) == at.0)
    }

    /// Registers of this processor whose bytes have changed since they were looked at the last time.
    pub(super) fn changed(&mut self, processor: usize, kernel: &Kernel) -> Vec<usize> {
        let mut changed = Vec::new();
        for of in 0..COUNT {
            let Some((1 | 3, size)) = self.kind(of) else { continue };
            let at = self.address(processor, of);
            let mut now = vec![0; size];
            kernel.memory.read(VirtAddr(at), &mut now);
            let before = self.seen.insert((at, size), now.clone());
            if before.is_some_and(|before| before != now) {
                changed.push(of);
            }
        }
        changed
    }

    /// What a register that is on watches for, and how many bytes.
    const fn kind(&self, of: usize) -> Option<(u64, usize)> {
        if self.control >> (2 * of) & 3 == 0 {
            return None;
        }
        let size = match self.control >> (18 + 4 * of) & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        };
        Some((self.control >> (16 + 4 * of) & 3, size))
    }

    fn address(&self, processor: usize, of: usize) -> u64 {
        self.addresses.get(processor).map_or(0, |addresses| addresses[of])
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

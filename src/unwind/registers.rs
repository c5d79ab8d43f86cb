//! The registers that unwinding follows.

/// Number of `rsp` among the general registers.
pub(super) const RSP: usize = 4;
/// Those that a call may change: `rax rcx rdx r8 r9 r10 r11`.
const VOLATILE: [usize; 7] = [0, 1, 2, 8, 9, 10, 11];

/// A frame's registers, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The program counter.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// The others as instructions number them: `rax rcx rdx rbx (rsp) rbp rsi rdi r8 .. r15`. That of `rsp` is not used.
    pub general: [Option<u64>; 16],
}

impl Registers {
    /// A register, if it is known.
    pub(super) const fn get(&self, number: u8) -> Option<u64> {
        match number as usize {
            RSP => Some(self.rsp),
            number => self.general[number],
        }
    }

    /// The same behind a return to `rip` from code that has done nothing yet.
    pub(crate) fn returned_to(&self, rip: u64) -> Self {
        let mut caller = Self { rip, rsp: self.rsp.wrapping_add(8), ..self.clone() };
        caller.forget_volatile();
        caller
    }

    /// Forgets what a callee need not have preserved.
    pub(super) fn forget_volatile(&mut self) {
        for register in VOLATILE {
            self.general[register] = None;
        }
    }
}

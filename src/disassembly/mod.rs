//! Instructions of x86 and x64 as WinDbg writes them.
//!
//! ```text
//!  e8 be 00 00 00 at fffff800`0149de0d  -->  call    nt!KeBugCheckEx (fffff800`0149ded0)
//! ```
//! Pure: bytes in, text out; names of addresses come from whoever asks. Decodes nothing by itself: that is `iced-x86`'s, in
//! whose formatter WinDbg's writing is chosen.
//!
//! Source: docs/stacks.md 5.

mod backward;
mod instruction;

pub use backward::{WINDOW, last_length};
pub use instruction::{Flow, Instruction, LONGEST, decode};

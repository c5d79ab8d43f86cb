//! What text needs to know beside the facts: how wide the target's addresses are, and what the reader chose.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::output::{Address, Pointer};
use crate::target::VirtAddr;

/// What facts are written with.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Bytes of a pointer in the target.
    pub pointer_size: usize,
    /// What the reader chose.
    pub style: Style,
}

impl Context {
    /// Characters of a line. What fits by its nature, a table or an address, does not ask.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.style.columns.unwrap_or(80)
    }

    /// An address as WinDbg prints it in its columns.
    #[must_use]
    pub const fn address(&self, address: VirtAddr) -> Address {
        Address { address, pointer_size: self.pointer_size }
    }

    /// An address as WinDbg's `%p` prints it.
    #[must_use]
    pub const fn pointer(&self, address: VirtAddr) -> Pointer {
        Pointer { address, pointer_size: self.pointer_size }
    }
}

/// What a reader has chosen about the text of answers. No fact in an answer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// How `!verifier` prints.
    pub verifier: VerifierFormat,
    /// Characters of a line of the reader's terminal; 80 if nothing says so.
    pub columns: Option<usize>,
}

/// A format of `!verifier`'s text, as a user chooses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifierFormat {
    /// As the debugger of the target's own time.
    #[default]
    Auto,
    /// As the debuggers of Windows 7's time.
    Old,
    /// As today's debuggers.
    New,
}

impl VerifierFormat {
    pub(super) const NAMES: [(Self, &str); 3] =
        [(Self::Auto, "auto"), (Self::Old, "old"), (Self::New, "new")];
}

impl fmt::Display for VerifierFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(format, _)| format == self);
        f.write_str(named.expect("every format has a name").1)
    }
}

impl FromStr for VerifierFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(_, name)| text.eq_ignore_ascii_case(name));
        named.map(|(format, _)| *format).ok_or_else(|| format!("`{text}` is not auto, old or new"))
    }
}

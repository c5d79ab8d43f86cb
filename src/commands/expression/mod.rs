//! Expressions as WinDbg's MASM evaluator reads them: what every command takes for an address or a number.
//!
//! ```text
//!  80  0x80  0n128  0t200  0y1010  fffff880`0447c000        hexadecimal unless a prefix says otherwise
//!  nt!VfPoolTraces  myfault  VfPoolTraces                   a symbol, a module's base, a symbol of any loaded PDB
//!  'Leak'                                                   characters, the first one the highest: 0x4c65616b
//!  @rsp  rip  .                                             a register; . is the program counter
//!  @$ip  $csp  $p  $retreg  $ptrsize  $pagesize  $t0..$t19  $p is the last value that a d command showed
//!  poi(nt!VfPoolTraces)+10                                  by wo dwo qwo poi: what lies at an address
//!
//!  binds most   - ~ + not hi low by wo dwo qwo poi
//!               * / % mod     + -     << >> >>>
//!               = == != < > <= >=     & and     ^ xor     | or
//! ```
//! Everything is 64 bits wide, unsigned, and wraps; on a 32-bit target what fits in 32 bits stays in them. `>>>` keeps the
//! sign. A comparison gives 1 or 0; `not` gives 1 for
//! 0, and 0 otherwise. A name that is also a number is a number: `fade` is 0xfade, `nt!fade` a symbol.
//!
//! Source: Microsoft, "MASM Numbers and Operators".

mod evaluate;
mod parse;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

use self::tree::Node;
pub use self::tree::{ExpressionCause, ExpressionError};
use crate::target::Target;

/// An expression that was read and not evaluated yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    node: Node,
}

impl Expression {
    /// Reads an expression from the start of `text`, as far as it goes; returns what follows it.
    ///
    /// # Errors
    /// [`ExpressionError`] of kind [`ExpressionCause::Syntax`].
    pub fn parse_prefix(text: &str) -> Result<(Self, &str), ExpressionError> {
        parse::prefix(text).map(|(node, rest)| (Self { node }, rest))
    }

    /// Reads the whole of `text` as one expression.
    ///
    /// # Errors
    /// [`ExpressionError`] of kind [`ExpressionCause::Syntax`].
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let (expression, rest) = Self::parse_prefix(text)?;
        if rest.trim().is_empty() {
            return Ok(expression);
        }
        Err(ExpressionError::syntax(rest, "an operator should stand here"))
    }

    /// Its value; reads registers, symbols and memory as it needs them.
    ///
    /// # Errors
    /// [`ExpressionError`]; `text` is what was parsed, to quote from.
    pub fn evaluate(&self, text: &str, target: &Target<'_>) -> Result<u64, ExpressionError> {
        evaluate::value(&self.node, text, target)
    }
}

/// Prints it with every operation in parentheses; parsing that gives the same expression.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

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

use std::fmt;

use crate::target::{Target, TargetError};

/// An expression that was read and not evaluated yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Number(u64),
    Register(Place),
    /// A register of the debugger's own: `$p`.
    Pseudo(Place),
    Name(Place),
    Unary(Unary, Box<Self>, usize),
    Binary(Binary, Box<Self>, Box<Self>, usize),
}

/// A name and where in the text it stands.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    at: usize,
}

/// Where a name stands is not part of what it means.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Place {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unary {
    Negate,
    Complement,
    Not,
    High,
    Low,
    Byte,
    Word,
    DoubleWord,
    QuadWord,
    Pointer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    And,
    Xor,
    Or,
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

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "{value:#x}"),
            Self::Register(place) => write!(f, "@{}", place.name),
            Self::Pseudo(place) => write!(f, "@${}", place.name),
            Self::Name(place) => write!(f, "@!\"{}\"", place.name),
            Self::Unary(operator, operand, _) => {
                let word = scan::UNARY.iter().find(|(_, known)| known == operator);
                write!(f, "{}({operand})", word.map_or("+", |(word, _)| word))
            }
            Self::Binary(operator, left, right, _) => {
                let sign = scan::BINARY.iter().find(|(_, known)| known == operator);
                write!(f, "({left} {} {right})", sign.map_or("+", |(sign, _)| sign))
            }
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug)]
pub struct ExpressionError {
    /// The text from where it went wrong.
    rest: String,
    /// What is wrong there.
    cause: ExpressionCause,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionCause {
    /// It is no expression.
    #[error("{0}")]
    Syntax(String),
    /// It divides by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A name or an address in it cannot be resolved in this target.
    #[error(transparent)]
    Target(TargetError),
}

impl ExpressionError {
    fn syntax(rest: &str, problem: impl Into<String>) -> Self {
        Self::new(rest, ExpressionCause::Syntax(problem.into()))
    }

    fn new(rest: &str, cause: ExpressionCause) -> Self {
        /// What is quoted has to fit on a line.
        const MAX_QUOTE: usize = 64;
        Self { rest: rest.trim().chars().take(MAX_QUOTE).collect(), cause }
    }

    /// What is wrong.
    #[must_use]
    pub const fn cause(&self) -> &ExpressionCause {
        &self.cause
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rest.as_str() {
            "" => write!(f, "Couldn't resolve error at the end: {}", self.cause),
            rest => write!(f, "Couldn't resolve error at '{rest}': {}", self.cause),
        }
    }
}

impl std::error::Error for ExpressionError {}

//! An expression as a tree, and what is wrong with one.

use std::fmt;

use crate::target::TargetError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
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
pub(super) struct Place {
    pub(super) name: String,
    pub(super) at: usize,
}

/// Where a name stands is not part of what it means.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Place {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
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
pub(super) enum Binary {
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
    pub(super) fn syntax(rest: &str, problem: impl Into<String>) -> Self {
        Self::new(rest, ExpressionCause::Syntax(problem.into()))
    }

    pub(super) fn new(rest: &str, cause: ExpressionCause) -> Self {
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

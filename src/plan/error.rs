//! What is wrong with a plan, and where.

use std::fmt;

use super::place::Place;

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Where; nothing for what is nowhere in the text.
    pub(super) at: Option<Place>,
    /// What, and what would be right.
    pub(super) problem: String,
}

impl PlanError {
    pub(super) fn new(at: Option<Place>, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }
}

/// `12:9: what is wrong`, the line and the column counted from 1.
impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for PlanError {}

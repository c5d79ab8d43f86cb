//! What all of `!verifier` shares: its name, its flags, its errors.

use crate::commands::error::QueryError;
use crate::target::TargetError;

pub(super) const NAME: &str = "!verifier";

/// List the drivers.
pub(super) const FLAG_DRIVERS: u64 = 1;
/// List their allocations too; needs `FLAG_DRIVERS`.
pub(super) const FLAG_ALLOCATIONS: u64 = 2;
/// Show the pool log.
pub(super) const FLAG_POOL_LOG: u64 = 0x80;
/// Show the cancelled requests that are watched.
pub(super) const FLAG_WATCHED: u64 = 0x400;

/// How it is typed.
pub(super) const USAGE: &str =
    "!verifier [0|1|3 [DRIVER] | 4|8|40 [QUANTITY] | 80|100|200 [ADDRESS|QUANTITY] | 400 [ADDRESS] | -?]";

/// Its arguments are not of a form that it takes.
pub(super) fn usage(problem: String) -> QueryError {
    QueryError::Usage { command: NAME, problem, usage: USAGE }
}

/// The target did not give what it needs.
pub(super) fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: NAME, source }
}

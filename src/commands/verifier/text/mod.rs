//! How `!verifier` prints, in each of the formats that it has had.

mod logs;
mod new;
mod old;

use std::fmt::{self, Write};

pub(super) use self::logs::write_pool_log;
use super::VerifierReport;
use super::format::Dialect;

pub(super) fn write_report(report: &VerifierReport, dialect: Dialect, out: &mut dyn Write) -> fmt::Result {
    match dialect {
        Dialect::Old => old::write_report(report, out),
        Dialect::Early | Dialect::New => new::write_report(report, dialect, out),
    }
}

#[cfg(test)]
mod tests;

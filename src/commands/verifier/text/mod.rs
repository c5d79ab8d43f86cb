//! How `!verifier` prints, in each of the formats that it has had.

mod logs;
mod new;
mod old;

use std::fmt::{self, Write};

pub(super) use self::logs::{write_pool_log, write_traces, write_watched};
use super::format::Dialect;
use super::{Log, VerifierReport};

pub(super) fn write_report(report: &VerifierReport, dialect: Dialect, out: &mut dyn Write) -> fmt::Result {
    match dialect {
        Dialect::Old => old::write_report(report, out)?,
        Dialect::Early | Dialect::New => new::write_report(report, dialect, out)?,
    }
    for log in &report.logs {
        match log {
            Log::Pool(log) => write_pool_log(log, dialect, out)?,
            Log::Traces(log) => write_traces(log, out)?,
            Log::Watched(log) => write_watched(log, out)?,
        }
    }
    Ok(())
}

//! How `!verifier` prints, in each of the formats that it has had.

mod logs;
mod new;
mod old;

use std::fmt::{self, Write};

use self::logs::{write_pool_log, write_traces, write_watched};
use super::format::Dialect;
use super::report::{Log, VerifierReport};
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;

impl Facts for VerifierReport {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        write_report(self, context, out)
    }
}

fn write_report(report: &VerifierReport, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let dialect = Dialect::of(context.style.verifier, report.settings.era);
    match dialect {
        Dialect::Old => old::write_report(report, context, out)?,
        Dialect::Early | Dialect::New => new::write_report(report, dialect, context, out)?,
    }
    for log in &report.logs {
        match log {
            Log::Pool(log) => write_pool_log(log, context, out)?,
            Log::Traces(log) => write_traces(log, context, out)?,
            Log::Watched(log) => write_watched(log, context, out)?,
        }
    }
    Ok(())
}

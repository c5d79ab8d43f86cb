//! Which of the formats that WinDbg's `!verifier` has had is printed: `.verifierformat`, `--verifier-format`.
//!
//! ```text
//! 0: kd> .verifierformat new
//! Driver Verifier's answers are printed in the new format
//! ```
//! `old` is what the debuggers of Windows 7's time print, `new` what today's print, each for any target; `auto`, the
//! default, prints what the debugger of the target's own time printed. JSON doesn't depend on it.

use std::fmt;

use serde::Serialize;

use crate::commands::answer::Facts;
use crate::commands::context::{Context, VerifierFormat};
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::commands::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};
use crate::target::Target;

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &[".verifierformat"],
    usage: ".verifierformat [auto|old|new]",
    summary: "show or choose how !verifier prints: as the debuggers of Windows 7's time did, or as today's do",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Verifier,
    details: &[],
    answers: &[FormatInForce::SCHEMA],
    run: Run::Control(ControlCommand::VerifierFormat),
};

/// The format that the arguments of `.verifierformat` ask for; nothing if they ask for none.
///
/// # Errors
/// [`QueryError::Usage`].
pub fn chosen(arguments: &str) -> Result<Option<VerifierFormat>, QueryError> {
    if arguments.is_empty() {
        return Ok(None);
    }
    arguments.parse().map(Some).map_err(|problem| QueryError::Usage {
        command: COMMAND.names[0],
        problem,
        usage: COMMAND.usage,
    })
}

/// The format that is in force.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct FormatInForce {
    /// As the user chose it.
    pub format: VerifierFormat,
}

impl FormatInForce {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("verifier_format");
}

impl Facts for FormatInForce {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "Driver Verifier's answers are printed in the {} format", self.format)
    }
}

/// One of the formats that are known from samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Up to Windows 8: a row per driver.
    Old,
    /// Of Windows 8.1: a paragraph per driver, which begins with `MODULE:`.
    Early,
    /// Since Windows 10: a paragraph per driver, which begins with `nt!_VF_TARGET_DRIVER`.
    New,
}

impl Dialect {
    /// What is printed in `format` for a target of `era`.
    pub(super) const fn of(format: VerifierFormat, era: Era) -> Self {
        match (format, era) {
            (VerifierFormat::Old, _) | (VerifierFormat::Auto, Era::Windows7) => Self::Old,
            (VerifierFormat::Auto, Era::Windows8) => Self::Early,
            (VerifierFormat::Auto, Era::Windows10) | (VerifierFormat::New, _) => Self::New,
        }
    }
}

/// A time in the life of Driver Verifier: which options it has, and which debugger was its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Windows Vista and 7.
    Windows7,
    /// Windows 8 and 8.1.
    Windows8,
    /// Windows 10, 11 and their servers.
    Windows10,
}

impl Era {
    /// The era of a target's build.
    pub(super) fn of(target: &Target<'_>) -> Self {
        // The number decides, where elsewhere layouts do: no structure or symbol says which option bits a kernel knows, nor
        // which debugger was shipped beside it, and a kernel keeps structures of its predecessors for many builds.
        match target.kernel().version().build {
            0..9200 => Self::Windows7,
            9200..10240 => Self::Windows8,
            _ => Self::Windows10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_format_of_the_targets_own_time_and_a_choice_is_for_all() {
        let all = [Era::Windows7, Era::Windows8, Era::Windows10];
        assert_eq!(
            all.map(|era| Dialect::of(VerifierFormat::Auto, era)),
            [Dialect::Old, Dialect::Early, Dialect::New]
        );
        assert_eq!(all.map(|era| Dialect::of(VerifierFormat::Old, era)), [Dialect::Old; 3]);
        assert_eq!(all.map(|era| Dialect::of(VerifierFormat::New, era)), [Dialect::New; 3]);
    }

    #[test]
    fn a_format_is_read_as_it_prints() {
        for (format, name) in VerifierFormat::NAMES {
            assert_eq!((format.to_string().parse(), name.to_uppercase().parse()), (Ok(format), Ok(format)));
        }
        assert_eq!(chosen("").unwrap(), None);
        let error = chosen("newest").unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("`newest` is not auto, old or new"));
    }
}

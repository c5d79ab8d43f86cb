//! `.bugcheck`: the bug check that the target stopped for, with its parameters.
//!
//! ```text
//! 0: kd> .bugcheck
//! Bugcheck code 000000C4
//! Arguments 00000000`00000062 fffff880`0447d000 fffffa80`03a1b010 00000000`0000000a
//! ```
//! Also shown at every stop of a machine that has bug-checked. A crash dump's header has it; else `nt!KiBugCheckData`: five
//! words of a pointer's size, 0 while all is well; `KDDEBUGGER_DATA64` says where they are when there are no symbols. Source:
//! PROTOCOL.md 13, docs/dumps.md 2.

use std::fmt;

use serde::{Serialize, Serializer};

use super::answer::{Facts, Found, Query, answer};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Run, Takes};
use crate::dump::LIVE_SYSTEM_DUMP;
use crate::target::{Target, TargetError, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".bugcheck"],
    usage: ".bugcheck",
    summary: "show the bug check that the target stopped for",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[BugCheck::SCHEMA],
    run: Run::Query(run),
};

/// `DRIVER_VERIFIER_DETECTED_VIOLATION`.
const DRIVER_VERIFIER_DETECTED_VIOLATION: u32 = 0xc4;
/// What is said of a machine that is well.
const NONE: &str = "No bug check has happened";
/// Bytes of a driver's name.
const LONGEST_NAME: usize = 128;
/// Its first parameter for a driver that was unloaded and left pool allocations behind.
const LEAKED_AT_UNLOAD: u64 = 0x62;

/// Asks which bug check the target stopped for.
#[derive(Clone, Copy, Debug, Default)]
pub struct BugCheckQuery;

/// What a machine says of its bug check; code 0 if it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct BugCheck {
    /// `0xC4`.
    #[serde(serialize_with = "hex")]
    #[schemars(with = "crate::output::Hex")]
    pub code: u32,
    /// Its four parameters; without a bug check they mean nothing, and `null` stands for them.
    #[serde(serialize_with = "hex_each")]
    #[schemars(with = "Option<[crate::output::Hex; 4]>")]
    pub parameters: Option<[u64; 4]>,
}

impl Query for BugCheckQuery {
    type Facts = BugCheck;

    fn run(&self, target: &Target<'_>) -> Result<BugCheck, QueryError> {
        let noted = target.noted().bug_check.map(BugCheck::of_words);
        if let Some(crash) = &noted
            && crash.code != LIVE_SYSTEM_DUMP
        {
            return Ok(crash.clone());
        }
        // What a dump of a running machine calls itself is worth something only where its memory says nothing.
        in_memory(target).or_else(|error| noted.ok_or(error))
    }
}

/// What the kernel has noted.
fn in_memory(target: &Target<'_>) -> Result<BugCheck, QueryError> {
    let at = match target.address_of("nt!KiBugCheckData") {
        Ok(at) => at,
        Err(no_symbol) => {
            let data = target.debugger_data().map_err(failed)?.ki_bugcheck_data();
            data.ok_or_else(|| failed(no_symbol))?
        }
    };
    let pointer_size = target.pointer_size();
    let mut bytes = vec![0; 5 * pointer_size];
    let read = target.memory().read_virtual(at, &mut bytes);
    read.map_err(|error| failed(TargetError::read("nt!KiBugCheckData", error)))?;
    let mut words = bytes.chunks_exact(pointer_size).map(|word| {
        let mut value = [0; 8];
        value[..pointer_size].copy_from_slice(word);
        u64::from_le_bytes(value)
    });
    Ok(BugCheck::of_words(std::array::from_fn(|_| words.next().expect("five words were read"))))
}

impl BugCheck {
    /// Code and parameters, as the kernel keeps them: the words behind a code of 0 are whatever was left there.
    fn of_words([code, parameters @ ..]: [u64; 5]) -> Self {
        let code = code as u32;
        Self { code, parameters: (code != 0).then_some(parameters) }
    }

    /// True if the machine has bug-checked.
    #[must_use]
    pub const fn happened(&self) -> bool {
        self.code != 0
    }

    /// As the debuggers announce it at a stop of a target whose pointers have `pointer_size` bytes.
    #[must_use]
    pub fn announcement(&self, pointer_size: usize) -> String {
        let digits = 2 * pointer_size;
        let Some([first, second, third, fourth]) = self.parameters else { return NONE.to_owned() };
        format!(
            "*** Fatal System Error: 0x{:08x}\n                       \
             (0x{first:0digits$X},0x{second:0digits$X},0x{third:0digits$X},0x{fourth:0digits$X})",
            self.code
        )
    }

    /// What to type next, where that is known; `driver` is what [`driver_at_fault`](Self::driver_at_fault) has read.
    #[must_use]
    pub fn hint(&self, driver: Option<&str>) -> Option<String> {
        let [_, second, _, fourth] = self.of_leak_at_unload()?;
        Some(match driver {
            Some(driver) => format!(
                "The driver {driver} was unloaded and left {fourth} pool allocations behind; type !verifier 3 {driver} for them"
            ),
            None => format!(
                "A driver was unloaded and left {fourth} pool allocations behind; type !verifier 3 drivername.sys for \
                 them, du {second:x} for its name"
            ),
        })
    }

    fn of_leak_at_unload(&self) -> Option<[u64; 4]> {
        self.parameters.filter(|[violation, ..]| {
            self.code == DRIVER_VERIFIER_DETECTED_VIOLATION && *violation == LEAKED_AT_UNLOAD
        })
    }

    /// The driver that the bug check's parameters name, if they do, and the name can be read.
    ///
    /// Source: Microsoft's page on bug check C4. Whether the second parameter leads to characters or to a `UNICODE_STRING` it
    /// does not say: either is taken that reads as a name.
    #[must_use]
    pub fn driver_at_fault(&self, target: &Target<'_>) -> Option<String> {
        let [_, name, ..] = self.of_leak_at_unload()?;
        let name = target.address(name);
        if !target.is_kernel(name) {
            return None;
        }
        let (bytes, _) = target.read_some(name, LONGEST_NAME);
        file_name(&bytes).or_else(|| {
            let size = target.pointer_size();
            let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
            let (len, room) = (usize::from(word(0)?), usize::from(word(2)?));
            if len == 0 || len % 2 != 0 || len > room || len > LONGEST_NAME {
                return None;
            }
            let mut buffer = [0; 8];
            buffer[..size].copy_from_slice(bytes.get(size..2 * size)?);
            let buffer = target.address(u64::from_le_bytes(buffer));
            file_name(&target.read_some(buffer, len).0).filter(|_| target.is_kernel(buffer))
        })
    }
}

/// The name of a file in these bytes of UTF-16, without its path, if that is what they are.
fn file_name(bytes: &[u8]) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let path = String::from_utf16(&units).ok()?;
    let name = path.rsplit('\\').next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    (!name.is_empty() && name.chars().all(is_plain)).then(|| name.to_owned())
}

impl BugCheck {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("bug_check");
}

impl Facts for BugCheck {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let Some(parameters) = self.parameters else { return writeln!(out, "{NONE}") };
        writeln!(out, "Bugcheck code {:08X}", self.code)?;
        write!(out, "Arguments")?;
        for parameter in parameters {
            write!(out, " {}", context.address(VirtAddr(parameter)))?;
        }
        writeln!(out)
    }
}

const fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: ".bugcheck", source }
}

fn hex<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:#x}"))
}

fn hex_each<S: Serializer>(values: &Option<[u64; 4]>, serializer: S) -> Result<S::Ok, S::Error> {
    match values {
        Some(values) => serializer.collect_seq(values.iter().map(|value| format!("{value:#x}"))),
        None => serializer.serialize_none(),
    }
}

fn run(_arguments: &str, target: &Target<'_>) -> Found {
    answer(&BugCheckQuery, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_of_a_file_is_not_told_as_one() {
        let of = |text: &str| {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            file_name(&bytes)
        };
        assert_eq!(of("myfault.sys\0rubbish").as_deref(), Some("myfault.sys"));
        assert_eq!(of(r"\SystemRoot\drivers\my-fault_2.sys").as_deref(), Some("my-fault_2.sys"));
        for none in ["", "\0myfault.sys", "a b", "\u{1b}[2J", r"\Driver\", "\u{16}\u{18}"] {
            assert_eq!(of(none), None, "{none:?}");
        }
        assert_eq!(file_name(&[0x6d]), None);
    }
}

//! `bp`, `bu`, `ba`, `bl`, `bc`, `bd`, `be`: breakpoints in the target's code, and debug registers that watch for an access.
//!
//! ```text
//! 0: kd> bp nt!ExAllocatePoolWithTag "k 5; g"
//! 0: kd> bl
//!  0 e Disable Clear  fffff800`0159f4d0     0001 (0001) nt!ExAllocatePoolWithTag "k 5; g"
//! ```
//! What is asked for, and what there is: the debugger keeps them and sets them whenever the target is let run.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::expression::{Expression, ExpressionCause};
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};
use crate::memory::Access;
use crate::output::{self, TargetText};
use crate::target::{Target, TargetError, VirtAddr};

pub(super) static SET: CommandSpec = CommandSpec {
    names: &["bp", "bu"],
    usage: "bp [/1] [/w \"CONDITION\"] ADDRESS [PASSES] [\"COMMANDS\"]",
    summary: "stop the target whenever it comes by an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Target,
    details: &[
        ("ADDRESS", "of an instruction; a name that nothing loaded has is looked for again at each g"),
        (
            "PASSES",
            "stop at that pass (hexadecimal); each pass before it stops the whole machine for some four requests",
        ),
        ("\"COMMANDS\"", "run at each stop there; \"k; g\" shows the stack and goes on"),
        ("/1", "once: it is gone after its first stop"),
        (
            "/w \"CONDITION\"",
            "only where this expression is not 0, as in /w \"@r8 == 0x6b61654c\"; where it is, the whole machine stops all the same, for a pass \
             and for what the expression reads",
        ),
        ("", "it is in the target's code only while the target runs, and taken out on every way out"),
    ],
    answers: &[Breakpoints::SCHEMA],
    run: Run::Control(ControlCommand::SetBreakpoint),
};

pub(super) static SET_ON_ACCESS: CommandSpec = CommandSpec {
    names: &["ba"],
    usage: "ba e|w|r SIZE [/1] [/w \"CONDITION\"] ADDRESS [PASSES] [\"COMMANDS\"]",
    summary: "stop the target whenever an address is written, read or carried out: by a debug register, of which there are four",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Target,
    details: &[
        ("e 1", "the instruction there is about to be carried out; nothing is written to its code"),
        (
            "w SIZE",
            "it was written: 1, 2, 4 or 8 bytes at a multiple of that; the target stands behind the instruction",
        ),
        ("r SIZE", "it was read or written"),
        ("ADDRESS ...", "as with bp"),
    ],
    answers: &[Breakpoints::SCHEMA],
    run: Run::Control(ControlCommand::SetBreakpointOnAccess),
};

pub(super) static LIST: CommandSpec = CommandSpec {
    names: &["bl"],
    usage: "bl",
    summary: "list breakpoints",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[Breakpoints::SCHEMA],
    run: Run::Control(ControlCommand::ListBreakpoints),
};

macro_rules! changes {
    ($($spec:ident $name:literal $command:ident $summary:literal;)+) => {$(
        pub(super) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: concat!($name, " * | N | N-M"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
            category: Category::Target,
            details: &[("*", "all"), ("N", "those with these numbers, as bl shows them, one or several"), ("N-M", "those from N to M")],
            answers: &[Breakpoints::SCHEMA],
            run: Run::Control(ControlCommand::$command),
        };
    )+};
}

changes! {
    CLEAR "bc" ClearBreakpoints "remove breakpoints";
    DISABLE "bd" DisableBreakpoints "disable breakpoints: they stay in the list";
    ENABLE "be" EnableBreakpoints "enable breakpoints that were disabled";
}

/// What `bp` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakpointOrder {
    /// The address, as it was typed.
    pub place: String,
    /// The address; nothing if no name of it is known yet.
    pub address: Option<VirtAddr>,
    /// Why none is known.
    pub why_deferred: Option<String>,
    /// At which pass the target is to stop: 1 is the first.
    pub passes: u32,
    /// What is run at each stop.
    pub commands: Option<String>,
    /// It is gone after its first stop.
    pub is_one_shot: bool,
    /// The target stops only where this is not 0.
    pub condition: Option<String>,
    /// What a debug register watches; nothing for a breakpoint in the code.
    pub access: Option<Watched>,
}

/// What a debug register watches at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// For what it stops the target.
    pub access: Access,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
}

impl BreakpointOrder {
    /// What the arguments of `bp`, or of `ba`, ask for.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn parse(text: &str, command: ControlCommand, target: &Target<'_>) -> Result<Self, QueryError> {
        let is_on_access = command == ControlCommand::SetBreakpointOnAccess;
        let spec = if is_on_access { &SET_ON_ACCESS } else { &SET };
        let mut arguments = Arguments::new(spec, text);
        let (mut is_one_shot, mut condition) = (false, None);
        let mut read_options = |arguments: &mut Arguments<'_>| {
            while let Some(option) = arguments.peek().filter(|it| it.starts_with('/')) {
                arguments.word();
                match option {
                    "/1" => is_one_shot = true,
                    "/w" => {
                        if arguments.rest().strip_prefix('"').is_some_and(|it| !it.contains('"')) {
                            return Err(arguments.usage("the quote of the condition is not closed"));
                        }
                        let text = arguments.name().filter(|it| !it.is_empty());
                        let text = text.ok_or_else(|| arguments.usage("/w needs a condition in quotes"))?;
                        let failed = |source| QueryError::Expression { command: spec.names[0], source };
                        // What can be told nowhere in this target would come out at the stop, which may be hours away.
                        match Expression::parse(text).and_then(|it| it.evaluate(text, target)) {
                            Err(error) if is_for_good(error.cause()) => return Err(failed(error)),
                            Ok(_) | Err(_) => condition = Some(text.to_owned()),
                        }
                    }
                    _ => {
                        return Err(arguments.usage(format!("{option} is not known here; /1 and /w are")));
                    }
                }
            }
            Ok(())
        };
        read_options(&mut arguments)?;
        let access = if is_on_access { Some(watched(&mut arguments)?) } else { None };
        read_options(&mut arguments)?;
        if arguments.is_empty() {
            return Err(arguments.usage("an address is missing"));
        }
        if arguments.rest().starts_with('"') {
            let problem = "what stands in quotes is commands, which are run at each stop; an address without any stands before them";
            return Err(arguments.usage(problem));
        }
        let whole = arguments.rest();
        if whole.split_whitespace().next().is_some_and(|it| it.contains('!') && it.ends_with('*')) {
            return Err(arguments.usage("a pattern is no address: each place is set by itself"));
        }
        let failed = |source| QueryError::Expression { command: spec.names[0], source };
        let (_, rest) = Expression::parse_prefix(whole).map_err(failed)?;
        let place = whole[..whole.len() - rest.len()].trim().to_owned();
        let mut arguments = Arguments::new(spec, rest);
        let (address, why_deferred) = match resolve(&place, target)? {
            Place::At(address) => (Some(address), None),
            Place::NotKnown { why } => (None, Some(why)),
        };
        if let (Some(Watched { size, .. }), Some(address)) = (access, address)
            && address.0 % u64::from(size) != 0
        {
            return Err(arguments.usage(format!("{} is no multiple of {size}", target.shown(address))));
        }
        let passes = match arguments.rest() {
            "" => 1,
            rest if rest.starts_with('"') => 1,
            rest if rest.starts_with('\'') => return Err(arguments.usage("commands stand in double quotes")),
            _ => {
                let number = arguments.expression(target)?;
                let fits = u32::try_from(number).ok().filter(|number| *number > 0);
                fits.ok_or_else(|| arguments.usage(format!("{number:#x} is no number of passes")))?
            }
        };
        let commands = quoted_commands(&mut arguments)?;
        arguments.end()?;
        Ok(Self { place, address, why_deferred, passes, commands, is_one_shot, condition, access })
    }
}

/// True if an expression has no value anywhere else in this target either.
const fn is_for_good(cause: &ExpressionCause) -> bool {
    match cause {
        ExpressionCause::Syntax(_) => true,
        ExpressionCause::DivisionByZero => false,
        ExpressionCause::Target(error) => matches!(
            error,
            TargetError::NotSupported { .. }
                | TargetError::Unknown { .. }
                | TargetError::NoSymbol { .. }
                | TargetError::NoType { .. }
                | TargetError::NoField { .. }
                | TargetError::NoNumber { .. }
        ),
    }
}

/// What stands between quotes, if that comes next; `\"` is a quote inside.
fn quoted_commands(arguments: &mut Arguments<'_>) -> Result<Option<String>, QueryError> {
    let Some(rest) = arguments.rest().strip_prefix('"') else { return Ok(None) };
    let mut text = String::new();
    let mut characters = rest.char_indices();
    let end = loop {
        match characters.next() {
            Some((at, '\\')) if rest[at + 1..].starts_with('"') => {
                text.push('"');
                characters.next();
            }
            Some((at, '"')) => break at + 1,
            Some((_, c)) => text.push(c),
            None => return Err(arguments.usage("the quote of the commands is not closed")),
        }
    };
    arguments.go_on_at(&rest[end..]);
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Access and size, as `ba` is told them: `w4`, `w 4`.
fn watched(arguments: &mut Arguments<'_>) -> Result<Watched, QueryError> {
    let word = arguments.word().ok_or_else(|| arguments.usage("which access: e, w or r"))?;
    let letter = word.chars().next().unwrap_or_default();
    let access = Access::ALL.into_iter().find(|it| it.letter() == letter.to_ascii_lowercase());
    let access = access.ok_or_else(|| {
        arguments.usage(format!("`{letter}` is none of the accesses e, w and r; ports are not watched"))
    })?;
    let size = match &word[letter.len_utf8()..] {
        "" => arguments.word().unwrap_or_default(),
        glued => glued,
    };
    let most = if access == Access::Execute { 1 } else { 8 };
    if size.is_empty() {
        let example = if access == Access::Execute { "ba e 1 ADDRESS" } else { "ba w 4 ADDRESS" };
        return Err(arguments.usage(format!("how many bytes: {example}")));
    }
    let is_size = |size: &u8| size.is_power_of_two() && *size <= most;
    let size = size.parse().ok().filter(is_size).ok_or_else(|| {
        let sizes = if most == 1 { "1" } else { "1, 2, 4 or 8" };
        arguments.usage(format!("`{size}` is no size that {access} has: {sizes}"))
    })?;
    Ok(Watched { access, size })
}

/// True if a breakpoint's condition holds where the target stands.
///
/// # Errors
/// [`QueryError`].
pub fn condition_holds(condition: &str, target: &Target<'_>) -> Result<bool, QueryError> {
    let value = Expression::parse(condition).and_then(|it| it.evaluate(condition, target));
    let failed = |source| QueryError::Expression { command: SET.names[0], source };
    value.map(|value| value != 0).map_err(failed)
}

/// What an expression names in a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This address.
    At(VirtAddr),
    /// It has a name that nothing loaded has, or of which that is not known: its module has no symbols.
    NotKnown {
        /// A sentence, of several lines perhaps.
        why: String,
    },
}

/// What an expression names in a target.
///
/// # Errors
/// [`QueryError`].
pub fn resolve(place: &str, target: &Target<'_>) -> Result<Place, QueryError> {
    let value = Expression::parse(place).and_then(|it| it.evaluate(place, target));
    match value {
        Ok(value) => Ok(Place::At(target.address(value))),
        Err(error) => match error.cause() {
            ExpressionCause::Target(
                why @ (TargetError::NoModule(_)
                | TargetError::Unknown { .. }
                | TargetError::NoSymbol { .. }
                | TargetError::NoSymbols { .. }),
            ) => Ok(Place::NotKnown { why: why.to_string() }),
            _ => Err(QueryError::Expression { command: SET.names[0], source: error }),
        },
    }
}

/// The address that `g` is told to run to.
///
/// # Errors
/// [`QueryError`].
pub fn address_of_go(text: &str, target: &Target<'_>) -> Result<VirtAddr, QueryError> {
    let mut arguments = Arguments::new(&super::control::GO, text);
    let address = arguments.address(target)?;
    arguments.end()?;
    Ok(address)
}

/// Which breakpoints a command is about: all, or those in these ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// First and last of each range.
    Numbers(Vec<(u32, u32)>),
}

impl Which {
    /// What the arguments of `bc`, `bd` and `be` name.
    ///
    /// # Errors
    /// [`QueryError::Usage`].
    pub fn parse(text: &str, command: ControlCommand) -> Result<Self, QueryError> {
        let spec = match command {
            ControlCommand::DisableBreakpoints => &DISABLE,
            ControlCommand::EnableBreakpoints => &ENABLE,
            _ => &CLEAR,
        };
        let usage = |problem| QueryError::Usage { command: spec.names[0], problem, usage: spec.usage };
        let words: Vec<_> = text.split([' ', ',', '\t']).filter(|it| !it.is_empty()).collect();
        if words == ["*"] {
            return Ok(Self::All);
        }
        if words.is_empty() {
            return Err(usage("which of them is not said".to_owned()));
        }
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let ranges = words
            .iter()
            .map(|word| range(word).ok_or_else(|| usage(format!("`{word}` is no number of a breakpoint"))));
        Ok(Self::Numbers(ranges.collect::<Result<_, _>>()?))
    }

    /// True if the one with this number is among them.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        match self {
            Self::All => true,
            Self::Numbers(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)),
        }
    }
}

/// Breakpoints that a command is about.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Breakpoints {
    /// One each, by their numbers.
    pub breakpoints: Vec<Breakpoint>,
    /// They are shown: what is only changed is not.
    #[serde(skip)]
    pub is_list: bool,
}

/// One breakpoint.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Breakpoint {
    /// Its number.
    pub number: u32,
    /// The target stops at it.
    pub enabled: bool,
    /// Where; nothing if no name of its place is known yet.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub address: Option<VirtAddr>,
    /// Why no name of its place is known yet, as far as it was looked for in this boot.
    pub why_deferred: Option<String>,
    /// Passes until the target stops.
    pub passes_left: u32,
    /// At which pass it was told to stop.
    pub passes: u32,
    /// What lies there, or what was typed where that is not known yet.
    pub place: TargetText,
    /// What is run at each stop.
    pub commands: Option<String>,
    /// It is gone after its first stop.
    pub one_shot: bool,
    /// The target stops only where this expression is not 0.
    pub condition: Option<String>,
    /// For what a debug register stops the target; nothing for a breakpoint in its code.
    pub access: Option<Access>,
    /// Bytes that the debug register watches.
    pub size: Option<u8>,
    /// How often the target came by.
    pub hits: u64,
}

impl Breakpoints {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("breakpoints");
}

impl Facts for Breakpoints {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        for it in &self.breakpoints {
            if !self.is_list {
                if it.address.is_none() && it.enabled {
                    writeln!(out, "Bp expression '{}' could not be resolved, adding deferred bp", it.place)?;
                    if let Some(why) = &it.why_deferred {
                        writeln!(out, "  {why}")?;
                    }
                }
                continue;
            }
            let state = if it.enabled { 'e' } else { 'd' };
            let (number, place) = (it.number, &it.place);
            let (change, passes) = (if it.enabled { "Disable" } else { "Enable" }, it.passes);
            let counts = format!("{:04x} ({passes:04x})", it.passes_left);
            let access = match (it.access, it.size) {
                (Some(access), Some(size)) => format!(" {access} {size} "),
                _ => "     ".to_owned(),
            };
            match it.address {
                Some(address) => {
                    let at = context.address(address);
                    write!(out, "{number:2} {state} {change} Clear  {at}{access}{counts} {place}")?;
                }
                None => write!(
                    out,
                    "{number:2} {state}u {change} Clear  {:w$}{access}{counts} ({place})",
                    "",
                    w = context.address(VirtAddr(0)).to_string().len()
                )?,
            }
            if it.one_shot {
                write!(out, " /1")?;
            }
            if let Some(condition) = &it.condition {
                write!(out, " /w \"{condition}\"")?;
            }
            if let Some(commands) = &it.commands {
                write!(out, " \"{}\"", commands.replace('"', "\\\""))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_may_have_quotes_of_their_own() {
        for (typed, commands, rest) in [
            (r#""k; g" x"#, Some("k; g"), "x"),
            (r#""!verifier 3 \"my fault.sys\"; g""#, Some(r#"!verifier 3 "my fault.sys"; g"#), ""),
            ("\"\"", None, ""),
            ("k", None, "k"),
        ] {
            let mut arguments = Arguments::new(&SET, typed);
            assert_eq!(quoted_commands(&mut arguments).unwrap().as_deref(), commands, "{typed}");
            assert_eq!(arguments.rest(), rest, "{typed}");
        }
        for typed in ["\"", "\"k; g", r#""k \""#] {
            let why = quoted_commands(&mut Arguments::new(&SET, typed)).unwrap_err().to_string();
            assert!(why.starts_with("bp: the quote of the commands is not closed"), "{typed}: {why}");
        }
    }

    #[test]
    fn numbers_and_ranges_name_breakpoints() {
        let which = |text| Which::parse(text, ControlCommand::ClearBreakpoints);
        assert_eq!(which("*").unwrap(), Which::All);
        let some = which("0, 2-4 7").unwrap();
        let named: Vec<_> = (0..9).filter(|it| some.has(*it)).collect();
        assert_eq!(named, [0, 2, 3, 4, 7]);
        for wrong in ["", "x", "4-2", "-1", "1-", "99999999999"] {
            assert!(matches!(which(wrong), Err(QueryError::Usage { .. })), "{wrong}");
        }
    }
}

//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::error::QueryError;
use crate::commands::pool::tag::PoolTag;
use crate::commands::short_stops::duration;
use crate::commands::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

use super::report::HitReport;

/// Frames of a stack that are taken unless told otherwise.
const FRAMES: usize = 64;
/// The most.
const MOST_FRAMES: usize = 0x400;

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!poolhit"],
    usage: "!poolhit TAG [-n COUNT] [-t TIME] [-free] [-every N] [-k FRAMES] [-folded FILE]",
    summary: "let the target run and take the stack of whoever allocates a block with this tag",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("TAG", "the tag in memory order, as !poolused shows it; case matters"),
        ("-n COUNT", "end after so many hits (decimal); otherwise with Ctrl+C"),
        ("-t TIME", "end after this time, such as 30s or 5m"),
        ("-free", "take stacks of frees too; otherwise they are counted"),
        (
            "-every N",
            "take the stack of every Nth hit (decimal); the others are counted, and stop the target for less time",
        ),
        ("-k FRAMES", "at most so many frames of a stack (decimal), 64 unless told otherwise"),
        ("-folded FILE", "write one line a stack, as flame graph tools read them"),
        (
            "",
            "nt!PoolHitTag is written for it, the only thing that is, and cleared on every way out. Each use of the tag stops the whole machine \
             for some ten requests",
        ),
    ],
    answers: &[HitReport::SCHEMA],
    run: Run::Control(ControlCommand::PoolHit),
};

/// Which hits are waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitOptions {
    /// Whose.
    pub tag: PoolTag,
    /// How many; until it is ended if nothing says so.
    pub count: Option<u64>,
    /// For how long; likewise.
    pub length: Option<Duration>,
    /// Frees count as hits, and their stacks are taken.
    pub frees: bool,
    /// The stack of every so many hits is taken.
    pub every: u64,
    /// Frames of a stack.
    pub frames: usize,
    /// Where a line for each stack is to be written.
    pub folded: Option<PathBuf>,
}

impl HitOptions {
    /// Every allocation with this tag, until it is ended.
    #[must_use]
    pub const fn of(tag: PoolTag) -> Self {
        Self { tag, count: None, length: None, frees: false, every: 1, frames: FRAMES, folded: None }
    }

    /// Reads what was typed behind `!poolhit`.
    ///
    /// # Errors
    /// [`QueryError::Usage`].
    pub fn parse(arguments: &str) -> Result<Self, QueryError> {
        let usage =
            |problem: String| QueryError::Usage { command: COMMAND.names[0], problem, usage: COMMAND.usage };
        let mut words = Words(arguments.trim());
        let typed = words.next().ok_or_else(|| usage("a tag is missing".into()))?;
        let tag =
            PoolTag::parse(typed).ok_or_else(|| usage(format!("`{typed}` is no tag of four characters")))?;
        let mut options = Self::of(tag);
        while let Some(option) = words.next() {
            let name = option.trim_start_matches(['-', '/']).to_ascii_lowercase();
            if name == "free" {
                options.frees = true;
                continue;
            }
            if !option.starts_with(['-', '/']) {
                return Err(usage(format!("`{option}` is one argument too many")));
            }
            let value = words.next().ok_or_else(|| usage(format!("{option} needs a value")))?;
            let number = || {
                let number = value.parse::<u64>().ok().filter(|it| *it > 0);
                number.ok_or_else(|| usage(format!("`{value}` is no number from 1 on")))
            };
            match &*name {
                "n" => options.count = Some(number()?),
                "every" => options.every = number()?,
                "k" => {
                    let frames = number()?.try_into().unwrap_or(usize::MAX);
                    if frames > MOST_FRAMES {
                        return Err(usage(format!("-k: {MOST_FRAMES} frames at the most")));
                    }
                    options.frames = frames;
                }
                "t" => {
                    let time = duration(value).filter(|time| !time.is_zero());
                    options.length =
                        Some(time.ok_or_else(|| usage(format!("`{value}` is no time, such as 30s or 5m")))?);
                }
                "folded" => options.folded = Some(value.into()),
                _ => return Err(usage(format!("`{option}` is no option"))),
            }
        }
        Ok(options)
    }
}

/// Words, and what stands between quotes.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        if rest.is_empty() {
            return None;
        }
        let (word, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        self.0 = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_understood_or_refused() {
        let leak = HitOptions::of(PoolTag::parse("Leak").unwrap());
        let all = HitOptions {
            count: Some(10),
            length: Some(Duration::from_secs(300)),
            frees: true,
            every: 3,
            frames: 20,
            folded: Some("a b.txt".into()),
            ..leak.clone()
        };
        for (typed, meant) in [
            ("Leak", leak.clone()),
            (" \"Leak\" ", leak),
            ("Leak -n 10 -t 5m -free -every 3 -k 20 -folded \"a b.txt\"", all),
            ("\"Mm  \"", HitOptions::of(PoolTag::parse("Mm").unwrap())),
        ] {
            assert_eq!(HitOptions::parse(typed).unwrap(), meant, "{typed}");
        }
        for (typed, problem) in [
            ("", "a tag is missing"),
            ("Leaks", "no tag of four"),
            ("Leak 10", "one argument too many"),
            ("Leak -n", "needs a value"),
            ("Leak -n 0", "no number from 1"),
            ("Leak -t soon", "no time"),
            ("Leak -k 5000", "1024 frames"),
            ("Leak -x 1", "no option"),
        ] {
            let error = HitOptions::parse(typed).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(problem), "{typed}: {error}");
        }
    }
}

//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::arguments::Arguments;
use crate::commands::error::QueryError;
use crate::commands::pool::tag::PoolTag;
use crate::commands::short_stops::duration;
use crate::commands::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};
use crate::commands::write_file::may_write;
use crate::leaks::FileKind;

use super::report::HitReport;

/// Frames of a stack that are taken unless told otherwise.
const FRAMES: usize = 64;
/// The most.
const MOST_FRAMES: usize = 0x400;

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!poolhit"],
    usage: "!poolhit TAG [-n COUNT] [-t TIME] [-free] [-every N] [-k FRAMES] [-folded FILE] [-svg FILE] [-html FILE]",
    summary: "let the target run and take the stack of whoever allocates a block with this tag",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("TAG", "the tag in memory order, as !poolused shows it; case matters"),
        ("-n COUNT", "end after so many hits (decimal); otherwise with Ctrl+C"),
        ("-t TIME", "end after this time, such as 30s or 5m"),
        (
            "-free",
            "take stacks of frees too, and tell which allocations they undo; otherwise they are counted",
        ),
        (
            "-every N",
            "take the stack of every Nth hit (decimal); the others are counted, and stop the target for less time",
        ),
        (
            "-k FRAMES",
            "at most so many frames of a stack (decimal), the pool's own first; 64 unless told otherwise",
        ),
        ("-folded FILE", "write one line a stack of the allocations, as flame graph tools read them"),
        ("-svg FILE", "write a flame graph of them"),
        ("-html FILE", "write a page with them, which needs no network"),
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
    /// Pictures of the allocations that are to be written.
    pub files: Vec<(FileKind, PathBuf)>,
}

impl HitOptions {
    /// Every allocation with this tag, until it is ended.
    #[must_use]
    pub const fn of(tag: PoolTag) -> Self {
        Self { tag, count: None, length: None, frees: false, every: 1, frames: FRAMES, files: Vec::new() }
    }

    /// Reads what was typed behind `!poolhit`.
    ///
    /// # Errors
    /// [`QueryError::Usage`].
    pub fn parse(arguments: &str) -> Result<Self, QueryError> {
        let mut arguments = Arguments::new(&COMMAND, arguments);
        let typed = arguments.text().ok_or_else(|| arguments.usage("a tag is missing"))?;
        let tag = PoolTag::named(typed).map_err(|problem| arguments.usage(problem))?;
        let mut options = Self::of(tag);
        while !arguments.is_empty() {
            let Some(option) = arguments.option() else {
                arguments.end()?;
                break;
            };
            match &*option.to_ascii_lowercase() {
                "free" => options.frees = true,
                "n" => options.count = Some(from_one(&mut arguments, "hits")?),
                "every" => options.every = from_one(&mut arguments, "hits")?,
                "k" => {
                    let frames = from_one(&mut arguments, "frames")?.try_into().unwrap_or(usize::MAX);
                    if frames > MOST_FRAMES {
                        return Err(arguments.usage(format!("-k: {MOST_FRAMES} frames at the most")));
                    }
                    options.frames = frames;
                }
                "t" => {
                    let text = arguments.word().unwrap_or_default();
                    let time = duration(text).filter(|time| !time.is_zero());
                    options.length = Some(time.ok_or_else(|| {
                        arguments.usage(format!("-t: `{text}` is no time, such as 30s or 5m"))
                    })?);
                }
                kind @ ("folded" | "svg" | "html") => {
                    let file = arguments.name().filter(|name| !name.is_empty());
                    let file = file.ok_or_else(|| arguments.usage(format!("-{kind} needs a file's name")))?;
                    let kind = match kind {
                        "folded" => FileKind::Folded,
                        "svg" => FileKind::Svg,
                        _ => FileKind::Html,
                    };
                    options.files.push((kind, file.into()));
                }
                _ => return Err(arguments.usage(format!("`-{option}` is none of the options"))),
            }
        }
        may_write(COMMAND.names[0], options.files.iter().map(|(_, path)| &**path))?;
        Ok(options)
    }
}

fn from_one(arguments: &mut Arguments<'_>, of: &str) -> Result<u64, QueryError> {
    let count = arguments.count(of)? as u64;
    if count == 0 {
        return Err(arguments.usage(format!("0 {of} are none: a number from 1 on is wanted")));
    }
    Ok(count)
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
            files: vec![(FileKind::Folded, "a b.txt".into()), (FileKind::Html, "a.html".into())],
            ..leak.clone()
        };
        for (typed, meant) in [
            ("Leak", leak.clone()),
            (" \"Leak\" ", leak),
            ("Leak -n 10 -t 5m -free -every 3 -k 20 -folded \"a b.txt\" -html a.html", all),
            ("\"Mm  \"", HitOptions::of(PoolTag::parse("Mm").unwrap())),
        ] {
            assert_eq!(HitOptions::parse(typed).unwrap(), meant, "{typed}");
        }
        for (typed, problem) in [
            ("", "a tag is missing"),
            ("Leaks", "has four characters"),
            ("L*", "one tag is wanted"),
            ("Leak 10", "one argument too many"),
            ("Leak -n", "how many hits?"),
            ("Leak -n 0", "a number from 1 on"),
            ("Leak -n ten", "no decimal number of hits"),
            ("Leak -t soon", "no time"),
            ("Leak -k 5000", "1024 frames"),
            ("Leak -x", "`-x` is none of the options"),
            ("Leak -t", "no time"),
        ] {
            let error = HitOptions::parse(typed).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(problem), "{typed}: {error}");
        }
    }
}

//! `!pool`: which pool block an address lies in.
//!
//! ```text
//!  !pool ADDRESS [FLAGS]     flags: 1 the block's first bytes too, 2 this block only, 80000000 no description
//!  -k                        with the stack that allocated the block, where Driver Verifier's pool log has it
//!  -f                        an address deep inside a large block: read the whole table of them
//! ```
//! ```text
//! 0: kd> !pool fffffa8003a1c0a0
//! Pool page fffffa8003a1c0a0 region is Nonpaged pool
//!  fffffa8003a1c000 size:   90 previous size:    0  (Allocated)  File
//! *fffffa8003a1c090 size:  170 previous size:   90  (Allocated) *Irp
//!         Owning component : Unknown (update pooltag.txt)
//! ```
//! The address is asked for in the order in which it costs least: a page of the old pool or a segment of a heap, then the table of large
//! blocks, then special pool, where Driver Verifier's tracker says what it is.
//!
//! Source: pool.md 4.

mod report;
mod special;
mod text;

pub use report::{BlockQuery, BlockRow, Place, PoolBlock};

use crate::commands::answer::{Found, answer};
use crate::commands::arguments::{Arguments, number};
use crate::commands::error::QueryError;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::Target;

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!pool"],
    usage: "!pool [-f] [-k] ADDRESS [FLAGS]",
    summary: "show which pool block an address lies in",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("!pool ADDRESS", "the block and the others of its page, each allocated or free, with its tag"),
        ("1", "a flag: the block's first bytes too"),
        ("2", "a flag: this block only"),
        ("80000000", "a flag: no description of the tag"),
        ("-k", "with the stack that allocated the block, as far as Driver Verifier's pool log has it"),
        ("-f", "for an address deep inside a large block: read the whole table of large blocks"),
    ],
    answers: &[PoolBlock::SCHEMA],
    run: Run::Query(run),
};

const FLAG_CONTENTS: u64 = 1;
const FLAG_ALONE: u64 = 2;
const FLAG_BARE: u64 = 0x8000_0000;

fn run(text: &str, target: &Target<'_>) -> Found {
    answer(&parse(text, target)?, target)
}

fn parse(text: &str, target: &Target<'_>) -> Result<BlockQuery, QueryError> {
    let mut arguments = Arguments::with_options(&COMMAND, text);
    let (mut reads_all, mut stack) = (false, false);
    let (mut address, mut flags) = (None, None);
    while !arguments.is_empty() {
        match arguments.option() {
            Some("f") => reads_all = true,
            Some("k") => stack = true,
            Some(option) => return Err(arguments.usage(format!("`-{option}` is none of the options"))),
            // `-1` asks for the heaps of a process.
            None if address.is_none() && arguments.peek() == Some("-1") => break,
            None if address.is_none() => {
                address = Some(arguments.address(target)?).filter(|address| !address.is_null());
                if address.is_none() {
                    break;
                }
            }
            None if flags.is_none() => {
                let word = arguments.word().unwrap_or_default();
                flags = Some(number(word).ok_or_else(|| {
                    arguments.usage(format!("`{word}` is no hexadecimal number for flags"))
                })?);
            }
            None => arguments.end()?,
        }
    }
    let address =
        address.ok_or_else(|| arguments.usage("give an address: heaps of processes are not looked at"))?;
    let flags = flags.unwrap_or_default();
    let known = FLAG_CONTENTS | FLAG_ALONE | FLAG_BARE;
    if flags & !known != 0 {
        return Err(arguments.usage(format!("{:#x} is none of the flags", flags & !known)));
    }
    Ok(BlockQuery {
        address,
        contents: flags & FLAG_CONTENTS != 0,
        alone: flags & FLAG_ALONE != 0,
        bare: flags & FLAG_BARE != 0,
        reads_all,
        stack,
    })
}

//! `!pooltag`: who allocates with a tag.
//!
//! ```text
//! 0: kd> !pooltag Leak
//! Pooltag Leak : unknown to pooltag.txt
//!
//! Verified drivers with blocks of this tag:
//!   myfault.sys                 10 blocks     10280960 bytes   myfault!MyfaultDeviceControl+0x2e1
//!
//! Images that have its four bytes, 4 images in 3 ranges searched:
//! fffff880`0447d62e  4c 65 61 6b 41 b9 00 00-00 00 ff 15 10 ...  LeakA...
//!   myfault!MyfaultDeviceControl+0x2db  .text  mov r8d: third argument, as ExAllocatePoolWithTag and ExAllocatePool2 have it
//! ```
//! Three witnesses, the cheapest first: the user's `pooltag.txt`; Driver Verifier's trackers of the drivers that it verifies; and the
//! images themselves, which carry a tag as a constant in the code that allocates with it. The target searches them, neighbours as one
//! range; what that costs is told before it begins. Code that is paged out, and what a driver's start left behind, is not there to be
//! found; a tag made up at run time is in no image.
//!
//! Source: pool.md 9.

mod images;
mod report;
mod text;

pub use images::{Image, TagUse, Use};
pub use report::{OwnerQuery, TagOwner, TrackedUse};

use std::path::PathBuf;

use super::tag::PoolTag;
use crate::commands::answer::{Found, answer};
use crate::commands::arguments::Arguments;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::Target;

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!pooltag"],
    usage: "!pooltag [-q] [-t FILE] TAG",
    summary: "find out which driver allocates with a tag",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("!pooltag TAG", "by pooltag.txt, by Driver Verifier's trackers, by the constant in loaded images"),
        ("-q", "without searching the images"),
        ("-t FILE", "by this pooltag.txt, here and in every command of this boot from here on"),
    ],
    answers: &[TagOwner::SCHEMA],
    run: Run::Query(run),
};

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let (mut images, mut file, mut tag) = (true, None, None);
    while !arguments.is_empty() {
        match arguments.option() {
            Some("q") => images = false,
            Some("t") => {
                let name = arguments.name().filter(|name| !name.is_empty());
                file = Some(PathBuf::from(name.ok_or_else(|| arguments.usage("-t needs a file's name"))?));
            }
            Some(option) => return Err(arguments.usage(format!("`-{option}` is none of the options"))),
            None if tag.is_none() => {
                // A tag's blanks may stand in quotes, and be left out at its end.
                let text = arguments.text().unwrap_or_default();
                tag = Some(PoolTag::named(text).map_err(|problem| arguments.usage(problem))?);
            }
            None => arguments.end()?,
        }
    }
    let tag = tag.ok_or_else(|| arguments.usage("which tag?"))?;
    answer(&OwnerQuery { tag, images, file }, target)
}

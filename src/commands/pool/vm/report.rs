//! What `!vm 1` finds.

use serde::Serialize;

use super::sources::{self, Located, Pointers, Source, number};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::output::screened;
use crate::target::{Note, NoteCode, Target, TargetError, VirtAddr};

const NAME: &str = "!vm";
/// Most paging files that Windows has.
const MAX_PAGING_FILES: u64 = 16;
/// No machine has more pages: 4 PiB.
const MAX_PAGES: u64 = 1 << 40;
const PAGE: u64 = 0x1000;

/// Asks how much memory, pool and commit the machine uses.
#[derive(Clone, Copy, Debug)]
pub struct VmQuery;

/// How much memory, pool and commit the machine uses, in pages; nothing where this kernel has no such counter, or it cannot be read.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct VirtualMemory {
    /// Its paging files.
    pub paging_files: Vec<PagingFile>,
    /// RAM.
    pub physical: Option<u64>,
    /// Pages that can be had at once.
    pub available: Option<u64>,
    /// Pages that can be locked.
    pub resident_available: Option<u64>,
    /// Pages that are to be written.
    pub modified: Option<u64>,
    /// Nonpaged pool in use.
    pub nonpaged_pool: Option<u64>,
    /// The most that it may have.
    pub nonpaged_pool_maximum: Option<u64>,
    /// Paged pool in use.
    pub paged_pool: Option<u64>,
    /// The most that it may have.
    pub paged_pool_maximum: Option<u64>,
    /// What of it counts as commit.
    pub paged_pool_commit: Option<u64>,
    /// Memory that is shared through paging files.
    pub shared_commit: Option<u64>,
    /// All that is promised.
    pub committed: Option<u64>,
    /// The most that can be.
    pub commit_limit: Option<u64>,
}

/// A paging file, in pages.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PagingFile {
    /// Its path; nothing if it has none, or it cannot be read.
    pub name: Option<String>,
    /// As it is.
    pub size: u64,
    /// Free of it.
    pub free: u64,
    /// The least that it has.
    pub minimum: u64,
    /// The most that it may have.
    pub maximum: u64,
}

impl Query for VmQuery {
    type Facts = VirtualMemory;

    fn run(&self, target: &Target<'_>) -> Result<VirtualMemory, QueryError> {
        // Without symbols nothing is known, and it must not look like a kernel without counters.
        target.module_symbols("nt").map_err(|source| QueryError::Target { command: NAME, source })?;
        let wanted = [
            sources::PHYSICAL,
            sources::AVAILABLE,
            sources::RESIDENT,
            sources::MODIFIED,
            sources::NONPAGED,
            sources::NONPAGED_MAXIMUM,
            sources::PAGED,
            sources::PAGED_MAXIMUM,
            sources::PAGED_COMMIT,
            sources::SHARED_COMMIT,
            sources::COMMITTED,
            sources::COMMIT_LIMIT,
            sources::PAGING_FILES,
        ];
        let mut pointers = Pointers::default();
        let mut find = |sources: &[Source]| Source::first(target, sources, &mut pointers);
        let mut located: Vec<Option<Located>> = wanted.iter().map(|sources| find(sources)).collect();
        let files = find(sources::PAGING_FILE);
        let mut ranges: Vec<_> = located.iter().flatten().map(|it| (it.at, it.size)).collect();
        let pointer = target.pointer_size();
        ranges.extend(files.iter().map(|it| (it.at, MAX_PAGING_FILES as usize * pointer)));
        let mut read = target.read_ranges(&ranges).into_iter();
        let mut unread = 0;
        let mut values = located.drain(..).map(|it| {
            let it = it?;
            match read.next().expect("an answer for each question") {
                Ok(bytes) => {
                    let value = number(&bytes);
                    let pages = if it.is_bytes { value / PAGE } else { value };
                    Some(pages).filter(|pages| *pages <= MAX_PAGES)
                }
                Err(_) => {
                    unread += 1;
                    None
                }
            }
        });
        let mut next = || values.next().flatten();
        let mut facts = VirtualMemory {
            paging_files: Vec::new(),
            physical: next(),
            available: next(),
            resident_available: next(),
            modified: next(),
            nonpaged_pool: next(),
            nonpaged_pool_maximum: next(),
            paged_pool: next(),
            paged_pool_maximum: next(),
            paged_pool_commit: next(),
            shared_commit: next(),
            committed: next(),
            commit_limit: next(),
        };
        let count = next().unwrap_or(0).min(MAX_PAGING_FILES);
        drop(values);
        let slots = read.next().and_then(Result::ok).unwrap_or_default();
        for slot in slots.chunks_exact(pointer).take(count as usize) {
            match paging_file(target, target.address(number(slot))) {
                Ok(file) => facts.paging_files.push(file),
                Err(error) => {
                    target.note(Note::partial(NoteCode::Unreadable, format!("A paging file: {error}")))
                }
            }
        }
        if unread > 0 {
            let text = format!("{unread} of the counters could not be read, and their lines are left out");
            target.note(Note::partial(NoteCode::Unreadable, text));
        }
        if facts.nonpaged_pool.is_none() && facts.paged_pool.is_none() && unread == 0 {
            let text = "This kernel's symbols name no counters of its pool; `!poolused` adds up its tags";
            target.note(Note::partial(NoteCode::PublicSymbols, text));
        }
        facts.note_pool(target);
        Ok(facts)
    }
}

fn paging_file(target: &Target<'_>, at: VirtAddr) -> Result<PagingFile, TargetError> {
    let layout = target.layout("nt!_MMPAGING_FILE")?;
    let record = target.record_of(&layout, at)?;
    let field = |name: &str| record.uint(name);
    let name = match field("PageFileName.Length") {
        Ok(1..) => target.file_name(&record, "PageFileName").ok().map(|name| screened(&name.text)),
        _ => None,
    };
    Ok(PagingFile {
        name,
        size: field("Size")?,
        free: field("FreeSpace")?,
        minimum: field("MinimumSize")?,
        maximum: field("MaximumSize")?,
    })
}

impl VirtualMemory {
    /// Says how full each pool is, and what to ask next.
    fn note_pool(&self, target: &Target<'_>) {
        let (Some(nonpaged), Some(paged)) = (self.nonpaged_pool, self.paged_pool) else { return };
        let share = |part: u64, whole: Option<u64>, of: &str| {
            let whole = whole.filter(|whole| *whole > 0)?;
            let tenths = u128::from(part) * 1000 / u128::from(whole);
            Some(format!("{}.{} % of {of}", tenths / 10, tenths % 10))
        };
        let of = |name: &str, used: u64, maximum: Option<u64>, flag: u64| {
            let shares = [share(used, maximum, "its maximum"), share(used, self.physical, "physical memory")];
            let shares: Vec<_> = shares.into_iter().flatten().collect();
            format!("{name} holds {} (`!poolused {flag}` tells whose it is)", shares.join(" and "))
        };
        let mut lines = [
            (nonpaged, of("nonpaged pool", nonpaged, self.nonpaged_pool_maximum, 2)),
            (paged, of("paged pool", paged, self.paged_pool_maximum, 4)),
        ];
        // The larger first: a leak's pool is the one that has outgrown the other.
        lines.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        let text = format!("Of the two the larger, {}; {}", lines[0].1, lines[1].1);
        target.note(Note::remark(NoteCode::NextStep, text));
    }

    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("virtual_memory");
}

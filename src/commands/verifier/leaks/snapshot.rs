//! A report as a snapshot: every group and block, shown or not, by the names that any boot has.

use super::super::frames::Frame;
use super::report::{Group, LeakReport, LeakedBlock};
use crate::commands::answer::Moment;
use crate::leaks::{Held, HexNumber, LogState, SavedBlock, SavedDriver, SavedFrame, SavedGroup, Snapshot};
use crate::target::NoteKind;

impl LeakReport {
    /// The same as a snapshot. It has blocks only if they were kept.
    #[must_use]
    pub fn snapshot(&self, moment: &Moment<'_>) -> Snapshot {
        snapshot(self, moment)
    }

    /// What is shown of it alone, for a picture.
    pub(super) fn shown(&self) -> Snapshot {
        Snapshot { groups: self.groups.iter().map(group).collect(), ..Snapshot::empty() }
    }
}

fn snapshot(report: &LeakReport, moment: &Moment<'_>) -> Snapshot {
    let driver = |it: &super::report::DriverTotal| SavedDriver {
        name: it.name.clone(),
        held: Held { blocks: it.blocks, bytes: it.bytes },
    };
    let missing = moment.notes.iter().filter(|note| note.kind != NoteKind::Remark);
    Snapshot {
        unix_ms: report.kept_unix_ms.unwrap_or(moment.unix_ms),
        boot: report.boot.clone(),
        pointer_size: moment.pointer_size as u32,
        tag: report.tag.clone(),
        skip: report.skip.clone(),
        log: report.log.map(|log| LogState { length: log.length, index: log.index }),
        drivers: report.drivers.iter().map(driver).collect(),
        groups: report.groups.iter().chain(&report.hidden).map(group).collect(),
        notes: missing.map(|note| note.text.clone()).collect(),
        ..Snapshot::empty()
    }
}

fn group(group: &Group) -> SavedGroup {
    let path = match &group.path[..] {
        [] => group.caller.as_slice(),
        path => path,
    };
    SavedGroup {
        driver: group.driver.clone(),
        held: Held { blocks: group.blocks, bytes: group.bytes },
        smallest: group.smallest,
        largest: group.largest,
        tags: group.tags.clone(),
        newest_age: group.newest_age,
        oldest_age: group.oldest_age,
        stacks_known: group.stacks.known(),
        not_in_log: group.stacks.not_in_log,
        allocator: group.allocator.iter().map(frame).collect(),
        path: path.iter().map(frame).collect(),
        list: group.list.iter().flatten().map(block).collect(),
    }
}

fn frame(frame: &Frame) -> SavedFrame {
    SavedFrame { address: HexNumber(frame.address.0), symbol: frame.symbol.as_ref().map(ToString::to_string) }
}

fn block(block: &LeakedBlock) -> SavedBlock {
    SavedBlock {
        address: HexNumber(block.address.0),
        size: block.size,
        tag: block.tag.clone(),
        event: block.event,
        thread: block.thread.map(|thread| HexNumber(thread.0)),
    }
}

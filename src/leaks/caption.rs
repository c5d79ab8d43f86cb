//! What pictures say of themselves, and figures as people read them.

use super::snapshot::{Held, Snapshot, Subject};
use super::stack::text;
use crate::output::{binary, counted, unix_time};

/// `Outstanding pool of myfault.sys`, `Allocations with tag Leak`.
pub(super) fn title(snapshot: &Snapshot) -> String {
    if snapshot.subject == Subject::Allocated {
        let tag = snapshot.tag.iter().map(|tag| format!(" with tag {}", text(tag)));
        return "Allocations".to_owned() + &tag.collect::<String>();
    }
    let whose = match &snapshot.drivers[..] {
        [] => "no driver".to_owned(),
        [one] => text(&one.name),
        [one, other] => format!("{} and {}", text(&one.name), text(&other.name)),
        many => format!("{} drivers", many.len()),
    };
    match &snapshot.tag {
        Some(tag) => format!("Outstanding pool of {whose} with tag {}", text(tag)),
        None => format!("Outstanding pool of {whose}"),
    }
}

/// When it was made: `Wed Nov 26 00:00:00 2025 UTC`.
pub(super) fn moment(snapshot: &Snapshot) -> String {
    format!("{} UTC", unix_time(i64::try_from(snapshot.unix_ms / 1000).unwrap_or_default()))
}

/// `10 blocks, 0x9ce000 bytes (9.80 MiB)`.
pub(super) fn total(held: Held) -> String {
    format!("{}, {:#x} bytes ({})", counted(held.blocks, "block"), held.bytes, binary(held.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_at_a_glance() {
        assert_eq!(total(Held { blocks: 1, bytes: 0x200 }), "1 block, 0x200 bytes (0.50 KiB)");
    }
}

//! Where a machine's RAM is: what `info mtree -f` says.

use std::ops::Range;

use super::error::shown;

/// No machine has more pieces of RAM.
const MAX_RANGES: usize = 4096;
/// No machine has more physical address space.
const MAX_ADDRESS: u64 = 1 << 52;
const PAGE: u64 = 0x1000;

/// RAM at physical addresses, and where it is in what backs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RamRange {
    pub(super) at: Range<u64>,
    /// The backend's name.
    pub(super) backend: String,
    /// Where the range begins in the backend.
    pub(super) offset: u64,
}

/// The RAM of the view that the processors have.
///
/// ```text
/// FlatView #1
///  AS "memory", root: system
///   0000000000100000-000000003fffffff (prio 0, ram): ram @0000000000100000
/// ```
pub(super) fn of_tree(text: &str) -> Result<Vec<RamRange>, String> {
    let view = text.split("FlatView #").find(|view| view.contains("AS \"memory\""));
    let view = view.ok_or_else(|| format!("no view of memory in {}", shown(text)))?;
    let mut ranges: Vec<RamRange> = Vec::new();
    for line in view.lines() {
        let Some((range, rest)) = line.trim().split_once(" (prio ") else { continue };
        // ROM and devices are not RAM; reading a device has effects.
        let Some((_, name)) = rest.split_once(", ram): ") else { continue };
        let range = of_line(range, name).ok_or_else(|| format!("a line of memory: {}", shown(line)))?;
        let last = ranges.last().map_or(0, |last| last.at.end);
        if range.at.start < last || ranges.len() == MAX_RANGES {
            return Err(format!("ranges over one another, or too many: {}", shown(line)));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn of_line(range: &str, name: &str) -> Option<RamRange> {
    let (first, last) = range.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (first, end) = (hex(first)?, hex(last)?.checked_add(1)?);
    if first >= end || end > MAX_ADDRESS || first % PAGE != 0 {
        return None;
    }
    // Behind the offset an accelerator may have its name.
    let mut words = name.split_whitespace();
    let backend = words.next()?.rsplit('/').next()?.to_owned();
    let offset = match words.next().and_then(|word| word.strip_prefix('@')) {
        Some(offset) => hex(offset)?,
        None => 0,
    };
    offset.checked_add(end - first)?;
    Some(RamRange { at: first..end, backend, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU 7.2, shortened.
    const TREE: &str = "FlatView #0\r\n AS \"i440FX\", root: bus master container\r\n  No rendered FlatView\r\n\r\n\
        FlatView #1\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n Root memory region: system\r\n  \
        0000000000000000-00000000000bffff (prio 0, ram): ram KVM\r\n  \
        00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\r\n  \
        0000000000100000-00000000bfffffff (prio 0, ram): ram @0000000000100000 KVM\r\n  \
        00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic\r\n  \
        0000000100000000-000000013fffffff (prio 0, ram): /objects/ram @00000000c0000000\r\n\r\n\
        FlatView #2\r\n AS \"I/O\", root: io\r\n  0000000000000000-0000000000000007 (prio 0, ram): none\r\n";

    #[test]
    fn ram_is_where_the_tree_says_and_nothing_else_is() {
        let range = |at: Range<u64>, offset| RamRange { at, backend: "ram".into(), offset };
        assert_eq!(
            of_tree(TREE).unwrap(),
            [
                range(0..0xc_0000, 0),
                range(0x10_0000..0xc000_0000, 0x10_0000),
                range(0x1_0000_0000..0x1_4000_0000, 0xc000_0000),
            ]
        );
    }

    #[test]
    fn a_tree_of_another_form_is_refused() {
        assert!(of_tree("").is_err());
        let tree = |line: &str| of_tree(&format!("FlatView #1\n AS \"memory\", root: system\n{line}\n"));
        assert_eq!(tree(""), Ok(Vec::new()));
        for line in [
            "0000000000002000-0000000000001fff (prio 0, ram): ram",
            "0000000000000000-ffffffffffffffff (prio 0, ram): ram",
            "0000000000000000-0fffffffffffffff (prio 0, ram): ram",
            "x-y (prio 0, ram): ram",
            "0000000000000000-0000000000000fff (prio 0, ram): ram @ffffffffffffffff",
            "0000000000001000-0000000000001fff (prio 0, ram): a\n0000000000001000-0000000000001fff (prio 0, ram): b",
        ] {
            assert!(tree(line).is_err(), "{line}");
        }
    }
}

//! Folded stacks: one line for each stack, as every program that draws flame graphs reads them.
//!
//! ```text
//!  myfault.sys;nt!KiSystemServiceCopyEnd+0x13;nt!NtDeviceIoControlFile+0x56;myfault!MyfaultDeviceControl+0x358 10280960
//!  '- driver -''- outermost frame ----------'                               '- the caller of the allocator --' '-bytes-'
//! ```
//! `;` and the last space are all the grammar there is, so that neither stays in a name: `;` becomes `:`, white space `_`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::snapshot::Snapshot;
use super::stack::{Weight, stack, text};

/// Writes a line for each stack that holds anything, in the order of their names.
///
/// # Errors
/// The writer's.
pub fn write_folded(snapshot: &Snapshot, weight: Weight, out: &mut dyn Write) -> io::Result<()> {
    for (stack, count) in folded(snapshot, weight) {
        writeln!(out, "{stack} {count}")?;
    }
    Ok(())
}

/// Each stack on one line, and how much it holds.
pub(super) fn folded(snapshot: &Snapshot, weight: Weight) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for group in &snapshot.groups {
        let count = weight.of(group.held);
        if count > 0 {
            let mut line = harmless(&text(&group.driver));
            for frame in stack(group) {
                line.push(';');
                line.push_str(&harmless(&frame));
            }
            let sum: &mut u64 = stacks.entry(line).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    stacks
}

fn harmless(name: &str) -> String {
    let harmless = |c: char| match c {
        ';' => ':',
        c if c.is_whitespace() => '_',
        c => c,
    };
    name.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn text_of(snapshot: &Snapshot, weight: Weight) -> String {
        let mut out = Vec::new();
        write_folded(snapshot, weight, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_a_stack_from_the_driver_to_the_caller() {
        let path = ["myfault!MyfaultDeviceControl+0x358", "nt!NtDeviceIoControlFile+0x56"];
        let snapshot = sample::snapshot(0, vec![sample::group("myfault.sys", &path, 10, 0x9c_e000)]);
        let stack = "myfault.sys;nt!NtDeviceIoControlFile+0x56;myfault!MyfaultDeviceControl+0x358";
        assert_eq!(text_of(&snapshot, Weight::Bytes), format!("{stack} 10280960\n"));
        assert_eq!(text_of(&snapshot, Weight::Blocks), format!("{stack} 10\n"));
    }

    #[test]
    fn groups_with_one_stack_are_one_line_and_nothing_is_lost() {
        let mut unknown = sample::group("a.sys", &["a!F"], 1, 3);
        unknown.stacks_known = 0;
        let groups = vec![
            sample::group("b.sys", &["a!F", "a!G"], 1, 0),
            unknown,
            sample::group("a.sys", &["a!F", "a!G"], 2, 10),
            sample::group("a.sys", &["a!F", "a!G"], 1, u64::MAX),
        ];
        let snapshot = sample::snapshot(0, groups[..3].to_vec());
        assert_eq!(
            text_of(&snapshot, Weight::Bytes),
            "a.sys;[stack_not_known];a!F 3\na.sys;a!G;a!F 10\n",
            "a stack of no bytes is no line"
        );
        let huge = Snapshot { groups, ..snapshot };
        assert!(text_of(&huge, Weight::Bytes).contains("a.sys;a!G;a!F 18446744073709551615\n"));
    }

    #[test]
    fn no_name_breaks_a_line() {
        let names = ["operator new; x", "a\nb 5", "\u{1b}[2J\u{a0}\u{202e}", ""];
        let snapshot = sample::snapshot(0, vec![sample::group("# my driver;.sys", &names, 1, 7)]);
        assert_eq!(
            text_of(&snapshot, Weight::Bytes),
            "#_my_driver:.sys;[no_name];\\x1b[2J_\\u{202e};a\\nb_5;operator_new:_x 7\n"
        );
    }
}

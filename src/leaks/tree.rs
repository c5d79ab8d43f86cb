//! What is held as a tree of callers, with bars, as wide as a terminal is.
//!
//! ```text
//!  9.80 MiB  100.0 %  ██████████  myfault.sys
//!  7.00 MiB   71.4 %  ███████▌    ├ myfault!MyfaultDeviceControl+0x358
//!                                 │ nt!NtDeviceIoControlFile+0x56
//!  2.80 MiB   28.6 %  ██▌         └ myfault!MyfaultCreate+0x24
//! ```
//! Merged from the innermost frame: the line under a driver is the function of the driver that holds the memory, which is what is
//! asked for; who called it comes below. From the outermost frame every tree begins with the same ten frames of the system.
//! A frame with one caller has it under itself, without a branch and without figures: they would be the same.

use std::collections::HashMap;
use std::fmt::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::snapshot::{Held, Snapshot};
use super::stack::{Weight, cut, stack, text};
use crate::output::{binary, grouped};

/// Fewest columns that a tree is made for: on fewer its lines are broken by the terminal.
pub const NARROWEST_TREE: usize = 40;

/// Writes a tree whose lines have at most `width` columns, or [`NARROWEST_TREE`]; what holds the most comes first. Shares are
/// of `whole`, of which the snapshot may be a part.
///
/// # Errors
/// The writer's.
pub fn write_tree(
    snapshot: &Snapshot,
    whole: Held,
    weight: Weight,
    width: usize,
    out: &mut dyn Write,
) -> fmt::Result {
    let tree = Tree::of(snapshot, weight);
    let figure = |sum: u64| match weight {
        Weight::Bytes => binary(sum),
        Weight::Blocks => grouped(sum),
    };
    let width = width.max(NARROWEST_TREE);
    let figures = tree.nodes.iter().map(|node| figure(node.sum).len()).max().unwrap_or(0);
    let bar_width = (width / 8).min(24);
    let fixed = figures + SHARE_WIDTH + bar_width + 3 * GAP.len();
    let name_width = width.saturating_sub(fixed).max(8);
    tree.for_each_line(name_width / 4, |line| {
        let node = &tree.nodes[line.node];
        let name = cut(&node.name, name_width.saturating_sub(line.branch.width()));
        if line.continues {
            return writeln!(out, "{:fixed$}{}{name}", "", line.branch);
        }
        // Of nothing, nothing.
        let share = node.sum as f64 / weight.of(whole).max(1) as f64 * 100.0;
        let share_text = format!("{share:.1} %");
        let bar = bar(share, bar_width);
        writeln!(
            out,
            "{:>figures$}{GAP}{share_text:>SHARE_WIDTH$}{GAP}{bar:<bar_width$}{GAP}{}{name}",
            figure(node.sum),
            line.branch
        )
    })
}

const GAP: &str = "  ";
/// Columns of `100.0 %`.
const SHARE_WIDTH: usize = 7;
/// The node that all drivers are under. It is not shown.
const ROOT: usize = 0;

struct Node {
    name: String,
    /// Bytes or blocks of everything in it.
    sum: u64,
    children: Vec<usize>,
}

struct Tree {
    nodes: Vec<Node>,
}

/// A line of the tree.
struct Line {
    node: usize,
    /// What leads to it from the left.
    branch: String,
    /// It is the only caller of the line above.
    continues: bool,
}

impl Tree {
    fn of(snapshot: &Snapshot, weight: Weight) -> Self {
        let mut tree = Self { nodes: vec![Node { name: String::new(), sum: 0, children: Vec::new() }] };
        let mut known: HashMap<(usize, String), usize> = HashMap::new();
        for group in &snapshot.groups {
            let sum = weight.of(group.held);
            let mut at = ROOT;
            tree.add(at, sum);
            let frames = stack(group).into_iter().rev().map(String::from);
            for name in std::iter::once(text(&group.driver)).chain(frames) {
                let next = tree.nodes.len();
                let node = *known.entry((at, name.clone())).or_insert(next);
                if node == next {
                    tree.nodes.push(Node { name, sum: 0, children: Vec::new() });
                    tree.nodes[at].children.push(node);
                }
                tree.add(node, sum);
                at = node;
            }
        }
        for at in 0..tree.nodes.len() {
            let mut children = std::mem::take(&mut tree.nodes[at].children);
            children.sort_by(|one, other| {
                let (one, other) = (&tree.nodes[*one], &tree.nodes[*other]);
                other.sum.cmp(&one.sum).then_with(|| one.name.cmp(&other.name))
            });
            tree.nodes[at].children = children;
        }
        tree
    }

    fn add(&mut self, node: usize, sum: u64) {
        let node = &mut self.nodes[node];
        node.sum = node.sum.saturating_add(sum);
    }

    /// Hands on each line, from the top. Branches beyond `deepest` stay under each other.
    fn for_each_line(&self, deepest: usize, mut show: impl FnMut(&Line) -> fmt::Result) -> fmt::Result {
        // Lines to come, the next one last; with what leads to the lines under each.
        let line = |node, branch, continues| Line { node, branch, continues };
        let mut to_come: Vec<(Line, String, usize)> = Vec::new();
        for driver in self.nodes[ROOT].children.iter().rev() {
            to_come.push((line(*driver, String::new(), false), String::new(), 0));
        }
        while let Some((shown, below, depth)) = to_come.pop() {
            show(&shown)?;
            let node = &self.nodes[shown.node];
            match node.children[..] {
                // A driver is no frame: its only caller is not what called it.
                [only] if depth > 0 && self.nodes[only].sum == node.sum => {
                    to_come.push((line(only, below.clone(), true), below, depth));
                }
                ref children => {
                    let mut corner = "└ ";
                    for child in children.iter().rev() {
                        let is_last = corner == "└ ";
                        let (lead, under) = if depth < deepest {
                            let under = if is_last { "  " } else { "│ " };
                            (format!("{below}{corner}"), format!("{below}{under}"))
                        } else {
                            (below.clone(), below.clone())
                        };
                        to_come.push((line(*child, lead, false), under, depth + 1));
                        corner = "├ ";
                    }
                }
            }
        }
        Ok(())
    }
}

/// A bar of at most `width` columns, half a column exact. What is there at all has one.
fn bar(percent: f64, width: usize) -> String {
    let halves = (percent / 100.0 * 2.0 * width as f64).round() as usize;
    let halves = halves.max(usize::from(percent > 0.0)).min(2 * width);
    let mut bar = "█".repeat(halves / 2);
    if halves % 2 == 1 {
        bar.push('▌');
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn tree(snapshot: &Snapshot, weight: Weight, width: usize) -> String {
        let mut out = String::new();
        write_tree(snapshot, snapshot.held(), weight, width, &mut out).unwrap();
        out
    }

    fn snapshot() -> Snapshot {
        let outer = ["nt!NtDeviceIoControlFile+0x56", "nt!KiSystemServiceCopyEnd+0x13"];
        let mut gone = sample::group("netfilt.sys", &["netfilt!Receive+0x4c"], 100, 0x1000);
        gone.stacks_known = 0;
        let groups = vec![
            sample::group(
                "myfault.sys",
                &["myfault!MyfaultDeviceControl+0x358", outer[0], outer[1]],
                7,
                0x70_0000,
            ),
            sample::group(
                "myfault.sys",
                &["myfault!Create+0x24", "nt!IopParseDevice+0x1a", outer[1]],
                2,
                0x28_0000,
            ),
            sample::group("myfault.sys", &["myfault!Create+0x24", outer[0], outer[1]], 1, 0x4_e000),
            gone,
        ];
        sample::snapshot(0, groups)
    }

    #[test]
    fn the_function_that_holds_the_memory_stands_under_its_driver() {
        let expected = "
  9.80 MiB  100.0 %  ██████████  myfault.sys
  7.00 MiB   71.4 %  ███████     ├ myfault!MyfaultDeviceControl+0x358
                                 │ nt!NtDeviceIoControlFile+0x56
                                 │ nt!KiSystemServiceCopyEnd+0x13
  2.80 MiB   28.6 %  ███         └ myfault!Create+0x24
  2.50 MiB   25.5 %  ██▌           ├ nt!IopParseDevice+0x1a
                                   │ nt!KiSystemServiceCopyEnd+0x13
312.00 KiB    3.1 %  ▌             └ nt!NtDeviceIoControlFile+0x56
                                     nt!KiSystemServiceCopyEnd+0x13
  4.00 KiB    0.0 %  ▌           netfilt.sys
  4.00 KiB    0.0 %  ▌           └ netfilt!Receive+0x4c
                                   [stack not known]
";
        assert_eq!(format!("\n{}", tree(&snapshot(), Weight::Bytes, 80)), expected);
        let by_blocks = tree(&snapshot(), Weight::Blocks, 80);
        assert!(by_blocks.starts_with("100   90.9 %  █████████   netfilt.sys\n"), "{by_blocks}");
    }

    #[test]
    fn every_line_fits_the_terminal() {
        let mut snapshot = snapshot();
        snapshot.groups.push(sample::group(
            "長い名前のドライバー.sys",
            &["漢!字漢字漢字漢字漢字漢字漢字漢字"; 9],
            1,
            1,
        ));
        // Each path branches off the one before it, a frame deeper.
        let deep: Vec<_> = (0..60).map(|it| format!("deep!Function{it}+0x10")).collect();
        for depth in 1..60 {
            let mut path: Vec<_> = deep[..depth].iter().map(String::as_str).collect();
            path.push("deep!End");
            snapshot.groups.push(sample::group("deep.sys", &path, 1, 1));
        }
        for width in [0, NARROWEST_TREE, 41, 60, 80, 133, 400] {
            for line in tree(&snapshot, Weight::Bytes, width).lines() {
                assert!(line.width() <= width.max(NARROWEST_TREE), "{width}: {line}");
            }
        }
        assert!(tree(&snapshot, Weight::Bytes, 133).contains("長い名前のドライバー.sys"));
    }

    #[test]
    fn names_do_not_reach_the_terminal_as_they_are() {
        let snapshot = sample::snapshot(0, vec![sample::group("\u{1b}[2J.sys", &["a\nb"], 1, 0)]);
        let shown = tree(&snapshot, Weight::Bytes, 80);
        assert_eq!(
            shown,
            "0.00 KiB    0.0 %              \\x1b[2J.sys\n0.00 KiB    0.0 %              └ a\\nb\n"
        );
        assert_eq!(tree(&sample::snapshot(0, Vec::new()), Weight::Bytes, 80), "");
    }
}

//! Walks along the kernel's linked structures: bounded, safe in a cycle, and each says how it ended.
//!
//! ```text
//!  LIST_ENTRY   head -> a -> b -> head         ends at the head
//!  SLIST        head -> a -> b -> 0            ends at null
//!  RTL AVL      root; left, node, right        ends at null
//! ```
//! A walk reads nothing itself: the caller reads each element whole, once, and hands the links back. Where it went wrong
//! prints as wide as the target's pointers, of `pointer_size` bytes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::{Serialize, Serializer};

use super::error::{OfLink, TargetError};
use super::record::Record;
use crate::memory::VirtAddr;
use crate::output::Address;

/// How a walk ended. Anything but `Head` and `Null` means that elements may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// Back at the list head: complete.
    Head,
    /// At a null link: complete, where a list ends so.
    Null,
    /// At an element met before.
    Cycle(Address),
    /// After as many elements as were allowed.
    Limit(usize),
    /// At an element that cannot be read, or is not what it should be.
    Unreadable {
        /// The element.
        at: Address,
        /// What is wrong with it.
        why: String,
        /// The link, the session or the user ended the walk there.
        is_of_link: bool,
    },
}

impl WalkEnd {
    /// True if no element is missing.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self, Self::Head | Self::Null)
    }

    /// An element that cannot be used for `error`.
    pub fn unreadable(at: Address, error: &impl OfLink) -> Self {
        Self::Unreadable { at, why: error.to_string(), is_of_link: error.is_of_link() }
    }
}

impl OfLink for WalkEnd {
    fn is_of_link(&self) -> bool {
        matches!(self, Self::Unreadable { is_of_link: true, .. })
    }
}

impl fmt::Display for WalkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head | Self::Null => f.write_str("complete"),
            Self::Cycle(at) => write!(f, "it comes back to {at}"),
            Self::Limit(limit) => write!(f, "it has more than {limit} elements"),
            Self::Unreadable { at, why, .. } => write!(f, "its element at {at} cannot be used: {why}"),
        }
    }
}

/// `"head"`, `"null_link"`, `"cycle"`, `"limit"` or `"unreadable"`.
impl Serialize for WalkEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Head => "head",
            Self::Null => "null_link",
            Self::Cycle(_) => "cycle",
            Self::Limit(_) => "limit",
            Self::Unreadable { .. } => "unreadable",
        })
    }
}

impl schemars::JsonSchema for WalkEnd {
    fn schema_name() -> Cow<'static, str> {
        "WalkEnd".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "How a walk ended; anything but head and null means that elements may be missing.",
            "enum": ["head", "null_link", "cycle", "limit", "unreadable"],
        })
    }
}

/// Walks a `LIST_ENTRY` list from the head's `first` link; `visit` reads the element at a link and returns its `Flink`.
pub fn list<E: OfLink>(
    pointer_size: usize,
    head: VirtAddr,
    first: VirtAddr,
    limit: usize,
    visit: impl FnMut(VirtAddr) -> Result<VirtAddr, E>,
) -> WalkEnd {
    chain(pointer_size, Some(head), first, limit, 8, visit)
}

/// Walks a single list from its `first` element; `visit` reads the element and returns its `Next`.
///
/// Elements of an SLIST are aligned to twice a pointer; any that is not ends the walk.
pub fn slist<E: OfLink>(
    pointer_size: usize,
    first: VirtAddr,
    limit: usize,
    visit: impl FnMut(VirtAddr) -> Result<VirtAddr, E>,
) -> WalkEnd {
    chain(pointer_size, None, first, limit, 16, visit)
}

fn chain<E: OfLink>(
    pointer_size: usize,
    head: Option<VirtAddr>,
    first: VirtAddr,
    limit: usize,
    alignment: u64,
    mut visit: impl FnMut(VirtAddr) -> Result<VirtAddr, E>,
) -> WalkEnd {
    let shown = |address| Address { address, pointer_size };
    let mut seen = HashSet::new();
    let mut at = first;
    loop {
        if Some(at) == head {
            return WalkEnd::Head;
        }
        if at.is_null() {
            return WalkEnd::Null;
        }
        // 4-byte alignment is enough on a 32-bit target, whose addresses have no upper half.
        if !at.0.is_multiple_of(if at.0 >> 32 == 0 { 4 } else { alignment }) {
            return WalkEnd::unreadable(shown(at), &"no element has such an address");
        }
        if seen.len() == limit {
            return WalkEnd::Limit(limit);
        }
        if !seen.insert(at) {
            return WalkEnd::Cycle(shown(at));
        }
        at = match visit(at) {
            Ok(next) => next,
            Err(error) => return WalkEnd::unreadable(shown(at), &error),
        };
    }
}

/// The links of a `_RTL_BALANCED_LINKS` node, and what its reader made of the data after them.
pub struct AvlNode<T> {
    /// `LeftChild`.
    pub left: VirtAddr,
    /// `RightChild`.
    pub right: VirtAddr,
    /// The caller's.
    pub value: T,
}

/// Walks an RTL AVL tree in order from its `root` node (`BalancedRoot.RightChild`).
///
/// A node that cannot be read costs its subtree only; the first thing that went wrong is returned.
pub fn avl<T, E: OfLink>(
    pointer_size: usize,
    root: VirtAddr,
    limit: usize,
    mut read: impl FnMut(VirtAddr) -> Result<AvlNode<T>, E>,
) -> (Vec<T>, WalkEnd) {
    let shown = |address| Address { address, pointer_size };
    let mut values = Vec::new();
    let mut wrong = None;
    let mut seen = HashSet::new();
    let mut above: Vec<(T, VirtAddr)> = Vec::new();
    let mut at = root;
    loop {
        while !at.is_null() {
            if seen.len() == limit {
                wrong.get_or_insert(WalkEnd::Limit(limit));
                break;
            }
            if !seen.insert(at) {
                wrong.get_or_insert_with(|| WalkEnd::Cycle(shown(at)));
                break;
            }
            match read(at) {
                Ok(node) => {
                    above.push((node.value, node.right));
                    at = node.left;
                }
                Err(error) => {
                    wrong.get_or_insert_with(|| WalkEnd::unreadable(shown(at), &error));
                    break;
                }
            }
        }
        let Some((value, right)) = above.pop() else { break };
        values.push(value);
        at = right;
    }
    (values, wrong.unwrap_or(WalkEnd::Null))
}

/// The first element of an SLIST and how many its header says there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SListHead {
    /// First element; null if empty.
    pub first: VirtAddr,
    /// `Depth`, which wraps at 65,536.
    pub depth: u16,
}

impl SListHead {
    /// Reads the `_SLIST_HEADER` in `record`'s field `path`, whichever of its forms the symbols and its bits say.
    ///
    /// ```text
    ///  since Windows 8     HeaderX64   NextEntry = bits 4..63 of the second word
    ///  Windows 7, Vista    Header16    the same, if HeaderType is 1
    ///                      Header8     NextEntry = bits 25..63 of the first word; the rest as in its own address
    ///  arm64               HeaderArm64 as HeaderX64
    ///  x86                 Next.Next, Depth
    /// ```
    /// Source: verifier.md 2.1.
    ///
    /// # Errors
    /// [`TargetError`] if the field is not there or cannot be read.
    pub fn read(record: &Record<'_>, path: &str) -> Result<Self, TargetError> {
        let uint = |form: &str, field: &str| record.uint(&format!("{path}.{form}.{field}"));
        let depth_of = |form| uint(form, "Depth").map(|depth| depth as u16);
        if record.has(&format!("{path}.Header16.HeaderType")) && uint("Header16", "HeaderType")? == 0 {
            let entry = uint("Header8", "NextEntry")? << 4;
            let upper = record.address_of(path)?.0 & 0xffff_f800_0000_0000;
            let first = if entry == 0 { VirtAddr(0) } else { VirtAddr(upper | entry) };
            return Ok(Self { first, depth: depth_of("Header8")? });
        }
        for form in ["Header16", "HeaderX64", "HeaderArm64"] {
            if record.has(&format!("{path}.{form}.NextEntry")) {
                let first = VirtAddr(uint(form, "NextEntry")? << 4);
                return Ok(Self { first, depth: depth_of(form)? });
            }
        }
        // The entry is a structure of one field, in some symbol files the pointer itself.
        let next = if record.has(&format!("{path}.Next.Next")) { "Next.Next" } else { "Next" };
        let first = record.pointer(&format!("{path}.{next}"))?;
        Ok(Self { first, depth: record.uint(&format!("{path}.Depth"))? as u16 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(at: u64) -> Address {
        Address { address: VirtAddr(at), pointer_size: 8 }
    }

    fn along(links: &[(u64, u64)], head: Option<u64>, limit: usize) -> (Vec<u64>, WalkEnd) {
        let mut visited = Vec::new();
        let visit = |at: VirtAddr| {
            let link = links.iter().find(|(from, _)| *from == at.0).ok_or("not mapped")?;
            visited.push(at.0);
            Ok::<_, &str>(VirtAddr(link.1))
        };
        let first = VirtAddr(links[0].0);
        let end = match head {
            Some(head) => list(8, VirtAddr(head), first, limit, visit),
            None => slist(8, first, limit, visit),
        };
        (visited, end)
    }

    #[test]
    fn a_list_ends_at_its_head_and_a_single_list_at_null() {
        assert_eq!(along(&[(0x20, 0x40), (0x40, 0x10)], Some(0x10), 9), (vec![0x20, 0x40], WalkEnd::Head));
        assert_eq!(along(&[(0x20, 0x40), (0x40, 0)], None, 9), (vec![0x20, 0x40], WalkEnd::Null));
    }

    #[test]
    fn a_cycle_that_misses_the_head_is_found_once_around() {
        let (visited, end) = along(&[(0x20, 0x40), (0x40, 0x20)], Some(0x10), 9);
        assert_eq!((visited.len(), end), (2, WalkEnd::Cycle(shown(0x20))));
    }

    #[test]
    fn a_wild_link_and_a_long_list_end_the_walk() {
        let wild = |at| WalkEnd::unreadable(shown(at), &"not mapped");
        assert_eq!(along(&[(0x20, 0xffff_fa80_0000_0000)], None, 9).1, wild(0xffff_fa80_0000_0000));
        let odd = along(&[(0x20, 0xffff_fa80_0000_0008)], None, 9).1;
        assert!(matches!(odd, WalkEnd::Unreadable { why, .. } if why.contains("no element")));
        assert_eq!(along(&[(0x20, 0x40), (0x40, 0)], None, 1).1, WalkEnd::Limit(1));
    }

    #[test]
    fn a_tree_is_walked_in_order_and_a_lost_node_costs_its_subtree() {
        let nodes = [(4, 2, 6), (2, 1, 3), (6, 5, 7), (1, 0, 0), (5, 0, 0), (7, 0, 4)];
        let read = |at: VirtAddr| {
            let (value, left, right) = nodes.iter().find(|node| node.0 == at.0).ok_or("not mapped")?;
            Ok::<_, &str>(AvlNode { left: VirtAddr(*left), right: VirtAddr(*right), value: *value })
        };
        let (values, end) = avl(8, VirtAddr(4), 99, read);
        assert_eq!(values, [1, 2, 4, 5, 6, 7]);
        assert_eq!(end, WalkEnd::unreadable(shown(3), &"not mapped"));
        assert_eq!(avl(8, VirtAddr(4), 2, read).1, WalkEnd::Limit(2));
    }
}

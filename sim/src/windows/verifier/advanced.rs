//! Advanced pool tracking: two trees of all verified drivers together, which Server 2022 and Windows 11 keep instead of the
//! drivers' own lists when `VfOptionFlags` has 0x1000.
//!
//! ```text
//!  ViPoolInfoAvl       links | Address | Size | stack -.                  one node per block, by address
//!  ViPoolStackInfoAvl  links | Tag | hash | flags | counts | frames[50] | one per stack
//! ```
//! The nodes are in no symbols, so their offsets stand here: those of Windows 11 23H2 (verifier.md 3.7). Drivers' counters
//! and lists stay as they are, since such a kernel doesn't track what it allocates there.

use kd_protocol::VirtAddr;

use super::drivers::{links_size, subtree};
use crate::windows::kernel::Kernel;
use crate::windows::verified::BLOCKS_TREE;

/// `VfOptionFlags`: the trees are kept.
const OPTION_ADVANCED: u64 = 0x1000;
/// Where the nodes of blocks and of stacks are, each one behind the other.
const BLOCKS: VirtAddr = VirtAddr(0xffff_fa80_7800_0010);
const STACKS: VirtAddr = VirtAddr(0xffff_fa80_7a00_0010);
/// Bytes of a node's data, and of the pool's block for both kinds of node.
const BLOCK_SIZE: u64 = 0x18;
const BLOCK_STRIDE: u64 = 0x50;
const STACK_SIZE: u64 = 0x1b8;
const STACK_STRIDE: u64 = 0x200;
/// Frames that a stack has room for.
const FRAMES: usize = 50;
/// In a stack's flags: it is in use; its blocks are nonpaged.
const VALID: u32 = 0x1;
const NONPAGED: u32 = 0x10;

/// An allocation as the trees have it.
#[derive(Clone, Debug)]
pub(in crate::windows) struct Tracked {
    pub(in crate::windows) address: VirtAddr,
    /// Bytes asked for.
    pub(in crate::windows) size: u64,
    pub(in crate::windows) tag: [u8; 4],
    pub(in crate::windows) nonpaged: bool,
    /// Return addresses, innermost first.
    pub(in crate::windows) stack: Vec<VirtAddr>,
}

const STACKS_TREE: &str = "ViPoolStackInfoAvl";

/// Switches this way of tracking on: two empty trees.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    let options = kernel.symbol("VfOptionFlags");
    let flags = u64::from(kernel.read_u32(options)) | OPTION_ADVANCED;
    kernel.write_variables(&[
        ("VfOptionFlags", flags, 4),
        ("ViPoolInfoAvlInitialized", 1, 4),
        ("ViPoolStackInfoAvlInitialized", 1, 4),
    ]);
    for tree in [BLOCKS_TREE, STACKS_TREE] {
        plant(kernel, tree, &[]);
    }
}

/// Records allocations that were made, beside those that are in the trees.
pub(in crate::windows) fn track(kernel: &mut Kernel, allocations: &[Tracked]) {
    let mut blocks = nodes(kernel, BLOCKS_TREE, BLOCKS, BLOCK_STRIDE);
    let mut stacks = nodes(kernel, STACKS_TREE, STACKS, STACK_STRIDE);
    let links = links_size(kernel);
    for allocation in allocations {
        let hash = hash(allocation);
        let stack = match stacks.iter().find(|(known, _)| *known == hash) {
            Some((_, node)) => node.offset(links),
            None => {
                let node = STACKS.offset(stacks.len() as u64 * STACK_STRIDE);
                kernel.pool_block(node, links + STACK_SIZE, b"ViSt");
                stacks.push((hash, node));
                add_stack(kernel, node.offset(links), hash as u32, allocation);
                node.offset(links)
            }
        };
        // Allocations, and bytes of them.
        let count = kernel.read_u32(stack.offset(0xc)).wrapping_add(1);
        kernel.write_u32(stack.offset(0xc), count);
        let bytes = kernel.read_u64(stack.offset(0x18)).wrapping_add(allocation.size);
        kernel.write_u64(stack.offset(0x18), bytes);

        let node = BLOCKS.offset(blocks.len() as u64 * BLOCK_STRIDE);
        kernel.pool_block(node, links + BLOCK_SIZE, b"ViPi");
        let words = [allocation.address.0, allocation.size, stack.0];
        kernel.write(node.offset(links), &words.map(u64::to_le_bytes).concat());
        blocks.push((allocation.address.0, node));
    }
    for (tree, mut nodes) in [(BLOCKS_TREE, blocks), (STACKS_TREE, stacks)] {
        nodes.sort_unstable();
        plant(kernel, tree, &nodes);
    }
}

/// Nodes of a tree in the order in which they were added, each with its key: the first quadword of a block's data, the
/// second long of a stack's.
fn nodes(kernel: &Kernel, tree: &str, first: VirtAddr, stride: u64) -> Vec<(u64, VirtAddr)> {
    let table = kernel.symbol(tree);
    let count = kernel.get(table, "_RTL_AVL_TABLE", "NumberGenericTableElements");
    let links = links_size(kernel);
    let key = |node: VirtAddr| match tree {
        BLOCKS_TREE => kernel.read_u64(node.offset(links)),
        _ => kernel.read_u32(node.offset(links + 4)).into(),
    };
    (0..count).map(|number| first.offset(number * stride)).map(|node| (key(node), node)).collect()
}

/// Makes a tree of nodes that are in order.
fn plant(kernel: &mut Kernel, tree: &str, nodes: &[(u64, VirtAddr)]) {
    const TABLE: &str = "_RTL_AVL_TABLE";
    let table = kernel.symbol(tree);
    let root = table.offset(kernel.offset_of(TABLE, "BalancedRoot"));
    let (first, depth) = subtree(kernel, nodes, root);
    let fields = [
        ("BalancedRoot.Parent", root.0),
        ("BalancedRoot.RightChild", first.0),
        ("NumberGenericTableElements", nodes.len() as u64),
        ("DepthOfTree", depth),
    ];
    kernel.set_all(table, TABLE, &fields);
}

fn add_stack(kernel: &mut Kernel, at: VirtAddr, hash: u32, allocation: &Tracked) {
    let flags = if allocation.nonpaged { VALID | NONPAGED } else { VALID };
    kernel.write(at, &allocation.tag);
    kernel.write_u32(at.offset(4), hash);
    kernel.write_u32(at.offset(8), flags);
    for (number, frame) in (0..).zip(allocation.stack.iter().take(FRAMES)) {
        kernel.write_u64(at.offset(0x28 + number * 8), frame.0);
    }
}

/// Tells stacks and tags apart; how Windows does is not known.
fn hash(allocation: &Tracked) -> u64 {
    let tag = u64::from(u32::from_le_bytes(allocation.tag));
    let mixed = allocation.stack.iter().fold(tag, |hash, frame| hash.rotate_left(7) ^ frame.0);
    (mixed ^ mixed >> 32) & 0xffff_ffff
}

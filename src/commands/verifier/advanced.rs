//! Advanced pool tracking: two trees of all verified drivers together, instead of a list for each.
//!
//! ```text
//!  ViPoolInfoAvl       node | Address | Size | stack -.        one per block
//!  ViPoolStackInfoAvl  node | Tag | hash | flags | counts | return addresses[50] |      one per stack
//!                             0     4      8       c            28
//! ```
//! Windows Server 2022 and Windows 11 keep them, and leave the drivers' own lists empty, when `VfOptionFlags` has 0x1000.
//! The trees don't say whose a block is: it belongs to the verified driver that the innermost frame in any of them lies in.
//!
//! These structures are in no public symbols: the offsets are those of Windows 11 23H2, and the same on the others only
//! as far as is known.
//!
//! Source: verifier.md 3.7.

use std::collections::HashMap;
use std::sync::Arc;

use super::allocations::{Block, tag};
use super::drivers::Driver;
use super::frames::{self, Frame, Names};

use crate::target::walk::{self, AvlNode};
use crate::target::{Note, NoteCode, OfLink, Target, TargetError, VirtAddr};

/// Most blocks, of all drivers.
const MAX_BLOCKS: usize = 0x4_0000;
/// A block: Address, Size, pointer to its stack.
const BLOCK_SIZE: usize = 0x18;
/// A stack.
const STACK_SIZE: usize = 0x1b8;
const STACK_TAG: usize = 0;
const STACK_FLAGS: usize = 8;
const STACK_FRAMES: usize = 0x28;
/// In a stack's flags: it is in use.
const FLAG_VALID: u8 = 1;

/// Outstanding blocks of the trees, by the drivers they belong to.
pub(super) struct Tracked {
    blocks: HashMap<VirtAddr, Vec<Block>>,
}

struct Stack {
    tag: String,
    tag_number: u32,
    frames: Arc<[Frame]>,
    /// The driver's entry, and the frame that lies in its image.
    owner: Option<(VirtAddr, Frame)>,
}

impl Tracked {
    /// Reads the trees, a request per block and per stack. What is missing is noted.
    ///
    /// # Errors
    /// [`TargetError`] if the tree of blocks is not there, or the target is a 32-bit one.
    pub(super) fn read(
        target: &Target<'_>,
        drivers: &[&Driver],
        names: &mut Names<'_>,
    ) -> Result<Self, TargetError> {
        if target.pointer_size() != 8 {
            let what = "advanced pool tracking, whose trees are in no public symbols and known of 64-bit kernels only".to_owned();
            return Err(TargetError::NotSupported { machine: target.machine_name(), what });
        }
        let links = target.layout("nt!_RTL_BALANCED_LINKS")?;
        let table = target.address_of("nt!ViPoolInfoAvl")?;
        let mut tracked = Self { blocks: HashMap::new() };
        let initialized =
            target.address_of("nt!ViPoolInfoAvlInitialized").ok().map(|at| target.read_some(at, 4));
        if initialized.is_some_and(|(bytes, missing)| missing.is_none() && bytes == [0; 4]) {
            let text = "Driver Verifier has set up no tree of blocks: none was allocated yet.";
            target.note(Note::remark(NoteCode::VerifierEmpty, text));
            return Ok(tracked);
        }
        let root = target.record("nt!_RTL_AVL_TABLE", table)?.pointer("BalancedRoot.RightChild")?;
        let (nodes, end) = walk::avl(target.pointer_size(), root, MAX_BLOCKS, |at| {
            let node = target.record_and_tail(&links, at, BLOCK_SIZE)?;
            let data = node.bytes().get(links.size()..).and_then(|bytes| bytes.first_chunk::<BLOCK_SIZE>());
            let unfinished = || TargetError::Unexpected {
                what: "tracked block",
                address: target.shown(at),
                wrong: "its end cannot be read".to_owned(),
            };
            let value = (at.offset(links.size() as u64), *data.ok_or_else(unfinished)?);
            Ok::<_, TargetError>(AvlNode {
                left: node.pointer("LeftChild")?,
                right: node.pointer("RightChild")?,
                value,
            })
        });
        if !end.is_complete() {
            let text = format!("The tree of tracked blocks is not whole: {end}");
            target.note(Note::partial(NoteCode::ListBreaksOff, text).broken_off_if(end.is_of_link()));
        }
        let mut stacks = HashMap::new();
        let (mut implausible, mut stackless) = (0, 0);
        for (tracker, data) in nodes {
            let [address, size, stack_at] = [0, 8, 16].map(|at| word(&data, at));
            if !VirtAddr(address).is_kernel() {
                implausible += 1;
                continue;
            }
            let stack = stacks
                .entry(stack_at)
                .or_insert_with(|| Stack::read(target, VirtAddr(stack_at), drivers, names));
            let Some(stack) = stack else {
                stackless += 1;
                continue;
            };
            let Some((driver, frame)) = &stack.owner else { continue };
            tracked.blocks.entry(*driver).or_default().push(Block {
                address: VirtAddr(address),
                size,
                tag: stack.tag.clone(),
                tag_number: stack.tag_number,
                caller: frame.address,
                caller_symbol: frame.symbol.clone(),
                tracker,
                odd_size: size & 1 != 0,
                stack: Some(Arc::clone(&stack.frames)),
            });
        }
        if implausible + stackless > 0 {
            target.note(Note::partial(NoteCode::Damaged, format!(
                "{implausible} tracked blocks have no kernel address, {stackless} no stack that can be read: whose they \
                 are is not known"
            )));
        }
        Ok(tracked)
    }

    /// The blocks of one driver.
    pub(super) fn take(&mut self, driver: &Driver) -> Vec<Block> {
        self.blocks.remove(&driver.entry).unwrap_or_default()
    }
}

impl Stack {
    fn read(target: &Target<'_>, at: VirtAddr, drivers: &[&Driver], names: &mut Names<'_>) -> Option<Self> {
        let (bytes, _) = target.read_some(at, STACK_SIZE);
        if bytes.get(STACK_FLAGS)? & FLAG_VALID == 0 {
            return None;
        }
        let mut frames = frames::stack(bytes.get(STACK_FRAMES..)?, 8);
        names.name_all(frames.iter_mut());
        let owned = |frame: &Frame| {
            let owner = drivers.iter().find(|driver| {
                driver.size.value().is_some_and(|size| frame.address.since(driver.base) < size)
            });
            owner.map(|driver| (driver.entry, frame.clone()))
        };
        let owner = frames.iter().find_map(owned);
        let tag_number = word(&bytes, STACK_TAG) as u32;
        Some(Self { tag: tag(tag_number), tag_number, frames: frames.into(), owner })
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

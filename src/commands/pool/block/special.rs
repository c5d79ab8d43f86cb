//! Driver Verifier's own tracker of a block, where the block leads to it.
//!
//! ```text
//!  special pool page:  | ... | tracker's address at 0x10 | ... block up to the page's end |
//!  any other block:    | block ... | tracker's address in its last quadword |
//! ```
//! A tracker is believed if it has the block's address.
//!
//! Source: verifier.md 3.2.

use crate::commands::pool::header::PAGE;
use crate::commands::pool::tag::PoolTag;
use crate::target::{Target, VirtAddr};

/// Where in a page of special pool its tracker's address is.
const IN_SPECIAL_PAGE: u64 = 0x10;
/// Alignment of trackers.
const ALIGNMENT: u64 = 0x10;

/// What Driver Verifier has written down of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked {
    pub(super) tracker: VirtAddr,
    /// What the driver was given.
    pub(super) address: VirtAddr,
    pub(super) bytes: u64,
    pub(super) tag: PoolTag,
    /// A return address.
    pub(super) caller: VirtAddr,
}

/// The block in special pool's page around `address`.
pub(super) fn in_special_page(target: &Target<'_>, address: VirtAddr) -> Option<Tracked> {
    let page = VirtAddr(address.0 & !(PAGE - 1));
    let tracked = tracker_at(target, page.offset(IN_SPECIAL_PAGE))?;
    let is_here = tracked.address.since(page) < PAGE && tracked.address.since(page) + tracked.bytes <= PAGE;
    is_here.then_some(tracked)
}

/// The tracker of a block that is no special pool's: `address` is what its owner was given, `end` where it ends.
pub(super) fn of_block(target: &Target<'_>, address: VirtAddr, end: VirtAddr) -> Option<Tracked> {
    tracker_at(target, VirtAddr(end.0.checked_sub(8)?)).filter(|tracked| tracked.address == address)
}

fn tracker_at(target: &Target<'_>, pointer: VirtAddr) -> Option<Tracked> {
    // It is known for 64-bit kernels.
    if target.pointer_size() != 8 {
        return None;
    }
    let (bytes, _) = target.read_some(pointer, 8);
    let tracker = VirtAddr(u64::from_le_bytes(bytes.try_into().ok()?));
    if !target.is_kernel(tracker) || !tracker.0.is_multiple_of(ALIGNMENT) {
        return None;
    }
    let layout = target.layout("nt!_VI_POOL_ENTRY").ok()?;
    let entry = target.record_of(&layout, tracker).ok()?;
    let field = |name: &str| entry.uint(&format!("InUse.{name}")).ok();
    let address = VirtAddr(field("VirtualAddress")? & !1);
    let (bytes, tag, caller) = (field("NumberOfBytes")?, field("Tag")?, field("CallingAddress")?);
    let tag = PoolTag(tag as u32 & PoolTag::bits_of(target));
    Some(Tracked { tracker, address, bytes, tag, caller: VirtAddr(caller) })
}

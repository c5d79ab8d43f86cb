//! Where the old pool lies, as far as it is worth searching.
//!
//! | kernel | from where |
//! |---|---|
//! | Windows 7 | `MmNonPagedPoolStart` to `MiNonPagedPoolEnd`; paged pool from `MmPagedPoolInfo.FirstPteForPagedPool` to `MmPagedPoolEnd` |
//! | Windows 8.1 | ``ffffe000`00000000`` and ``ffffc000`00000000``, where each begins |
//! | Windows 10 | `SystemVaRegions` of the visible state, by this kernel's own `_MI_ASSIGNED_REGION_TYPES` |
//!
//! Regions have terabytes and pool begins at their start: as many bytes as are allocated, and half as many again, are searched.
//!
//! Source: pool.md 6.

use std::ops::Range;

use super::kind::PoolKind;
use crate::target::{Target, TargetError, VirtAddr};

/// Where Windows 8.1 has its pools.
const NONPAGED_OF_8: u64 = 0xffff_e000_0000_0000;
const PAGED_OF_8: u64 = 0xffff_c000_0000_0000;
/// Where x64 kernels before Windows 10 1607 map page tables.
const PTE_BASE: u64 = 0xffff_f680_0000_0000;
/// Least and most bytes that are searched: pool lies scattered in its region, and a search stops the machine.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 64 << 30;

/// A range that is worth searching.
pub(super) struct Searchable {
    pub(super) range: Range<VirtAddr>,
    /// Pool may lie beyond it.
    pub(super) is_cut: bool,
}

/// The range in which a pool's blocks are searched for.
///
/// # Errors
/// Why it is not known, as a sentence, or that it could not be read.
pub(super) fn searchable(target: &Target<'_>, kind: PoolKind) -> Result<Searchable, String> {
    let whole = region(target, kind).map_err(|error| error.to_string())?;
    let whole = whole.ok_or_else(|| "this kernel's symbols do not say where it lies".to_owned())?;
    let allocated = allocated(target, kind).unwrap_or(0);
    let worth = (allocated + allocated / 2).clamp(LEAST, MOST);
    let len = whole.end.since(whole.start);
    let end = whole.start.offset(len.min(worth));
    Ok(Searchable { range: whole.start..end, is_cut: len > worth })
}

fn region(target: &Target<'_>, kind: PoolKind) -> Result<Option<Range<VirtAddr>>, TargetError> {
    let has = |name: &str| target.address_of(&format!("nt!{name}")).is_ok();
    let found = if has("MiVisibleState") {
        assigned(target, kind)?
    } else if has("MmNonPagedPoolStart") {
        match kind {
            PoolKind::Paged => {
                let info = target.address_of("nt!MmPagedPoolInfo")?;
                let first = target.layout("nt!_MM_PAGED_POOL_INFO")?.offset("FirstPteForPagedPool")?;
                let pte = word(target, info.offset(first))?;
                // Each entry of the page tables is for a page, and its address says for which.
                let start = (pte.wrapping_sub(PTE_BASE) << 9).cast_signed() << 16 >> 16;
                (start.cast_unsigned(), word(target, target.address_of("nt!MmPagedPoolEnd")?)?)
            }
            _ => (variable(target, "MmNonPagedPoolStart")?, variable(target, "MiNonPagedPoolEnd")?),
        }
    } else if target.pointer_size() == 8 {
        let start = if kind == PoolKind::Paged { PAGED_OF_8 } else { NONPAGED_OF_8 };
        (start, start + (1 << 40))
    } else {
        return Ok(None);
    };
    let range = target.address(found.0)..target.address(found.1);
    let is_range = range.start < range.end && target.is_kernel(range.start);
    Ok(is_range.then_some(range))
}

/// The region that Windows 10 has assigned.
fn assigned(target: &Target<'_>, kind: PoolKind) -> Result<(u64, u64), TargetError> {
    let layout = target.layout("nt!_MI_VISIBLE_STATE")?;
    let name = match kind {
        PoolKind::Paged => "AssignedRegionPagedPool",
        _ => "AssignedRegionNonPagedPool",
    };
    let constants = layout.constants("_MI_ASSIGNED_REGION_TYPES");
    let index = constants.iter().flat_map(|all| all.iter()).find(|constant| &*constant.name == name);
    let Some(index) = index.map(|constant| constant.value) else { return Ok((0, 0)) };
    let regions = layout.offset("SystemVaRegions")?;
    let region = target.layout("nt!_MI_SYSTEM_VA_ASSIGNMENT")?;
    let state = VirtAddr(variable(target, "MiVisibleState")?);
    let at = state.offset(regions + index.min(0x40) * region.size() as u64);
    let record = target.record_of(&region, at)?;
    let (start, len) = (record.uint("BaseAddress")?, record.uint("NumberOfBytes")?);
    Ok((start, start.saturating_add(len)))
}

/// Bytes of a pool that are allocated, as the memory manager counts them.
fn allocated(target: &Target<'_>, kind: PoolKind) -> Option<u64> {
    let pages = match kind {
        PoolKind::Paged => match target.address_of("nt!MmPagedPoolInfo") {
            Ok(info) => {
                let layout = target.layout("nt!_MM_PAGED_POOL_INFO").ok()?;
                word(target, info.offset(layout.offset("AllocatedPagedPool").ok()?)).ok()?
            }
            Err(_) => {
                let layout = target.layout("nt!_MI_VISIBLE_STATE").ok()?;
                let state = VirtAddr(variable(target, "MiVisibleState").ok()?);
                let info = layout.offset("PagedPoolInfo").ok()?;
                let of_info =
                    target.layout("nt!_MM_PAGED_POOL_INFO").ok()?.offset("AllocatedPagedPool").ok()?;
                word(target, state.offset(info + of_info)).ok()?
            }
        },
        _ => match variable(target, "MmAllocatedNonPagedPool") {
            Ok(pages) => pages,
            Err(_) => {
                let state = target.address_of("nt!MiState").ok()?;
                let layout = target.layout("nt!_MI_SYSTEM_INFORMATION").ok()?;
                let pools = layout.offset("Pools").ok()?;
                let of_pools =
                    target.layout("nt!_MI_POOL_STATE").ok()?.offset("AllocatedNonPagedPool").ok()?;
                word(target, state.offset(pools + of_pools)).ok()?
            }
        },
    };
    pages.checked_mul(0x1000)
}

fn variable(target: &Target<'_>, name: &str) -> Result<u64, TargetError> {
    word(target, target.address_of(&format!("nt!{name}"))?)
}

fn word(target: &Target<'_>, at: VirtAddr) -> Result<u64, TargetError> {
    let (bytes, missing) = target.read_some(at, target.pointer_size());
    match missing {
        Some(error) => Err(TargetError::read("where pool lies", error)),
        None => Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
    }
}

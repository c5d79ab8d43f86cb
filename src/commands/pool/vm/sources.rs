//! Where each counter is, by era: the first place that this kernel's symbols have.
//!
//! ```text
//!  up to Windows 8.1   variables: MmAvailablePages, MmPagedPoolInfo, ...
//!  since Windows 10    MiSystemPartition.Vp    *MiVisibleState    MiState.Pools
//! ```
//! `MiVisibleState` is a pointer and is followed: a serviced kernel may keep the structure elsewhere than inside `MiState`.

use crate::target::{Place, Target, VirtAddr};

/// A place to look for a counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A variable of a pointer's size.
    Variable(&'static str),
    /// The same, which counts bytes.
    Bytes(&'static str),
    /// A field of a variable that is a structure.
    Field(&'static str, &'static str, &'static str),
    /// A field of the structure that a variable points to.
    Behind(&'static str, &'static str, &'static str),
}

use Source::{Behind, Bytes, Field, Variable};

const PARTITION: &str = "MiSystemPartition";

macro_rules! partition {
    ($path:literal) => {
        Field(PARTITION, "_MI_PARTITION", concat!("Vp.", $path))
    };
}

macro_rules! visible {
    ($path:literal) => {
        Behind("MiVisibleState", "_MI_VISIBLE_STATE", $path)
    };
}

macro_rules! paged_pool {
    ($path:literal) => {
        Field("MmPagedPoolInfo", "_MM_PAGED_POOL_INFO", $path)
    };
}

pub(super) const PHYSICAL: &[Source] =
    &[partition!("NumberOfPhysicalPages"), Variable("MmNumberOfPhysicalPages")];
pub(super) const AVAILABLE: &[Source] = &[partition!("AvailablePages"), Variable("MmAvailablePages")];
pub(super) const RESIDENT: &[Source] =
    &[partition!("ResidentAvailablePages"), Variable("MmResidentAvailablePages")];
pub(super) const MODIFIED: &[Source] =
    &[partition!("ModifiedPageListHead.Total"), Field("MmModifiedPageListHead", "_MMPFNLIST", "Total")];
pub(super) const NONPAGED: &[Source] = &[
    Field("MiState", "_MI_SYSTEM_INFORMATION", "Pools.AllocatedNonPagedPool"),
    Variable("MmAllocatedNonPagedPool"),
];
pub(super) const NONPAGED_MAXIMUM: &[Source] = &[
    visible!("MaximumNonPagedPoolInPages"),
    Variable("MmMaximumNonPagedPoolInPages"),
    Bytes("MmMaximumNonPagedPoolInBytes"),
];
pub(super) const PAGED: &[Source] =
    &[visible!("PagedPoolInfo.AllocatedPagedPool"), paged_pool!("AllocatedPagedPool")];
pub(super) const PAGED_MAXIMUM: &[Source] =
    &[visible!("SizeOfPagedPoolInPages"), Bytes("MmSizeOfPagedPoolInBytes")];
pub(super) const PAGED_COMMIT: &[Source] = &[
    paged_pool!("PagedPoolCommit"),
    visible!("PagedPoolInfo.AllocatedPagedPool"),
    paged_pool!("AllocatedPagedPool"),
];
pub(super) const SHARED_COMMIT: &[Source] =
    &[partition!("SharedCommit"), visible!("SharedCommit"), Variable("MmSharedCommit")];
pub(super) const COMMITTED: &[Source] =
    &[partition!("TotalCommittedPages"), Variable("MmTotalCommittedPages")];
pub(super) const COMMIT_LIMIT: &[Source] = &[partition!("TotalCommitLimit"), Variable("MmTotalCommitLimit")];
pub(super) const PAGING_FILES: &[Source] =
    &[partition!("NumberOfPagingFiles"), Field("MmNumberOfPagingFiles", "", "")];
pub(super) const PAGING_FILE: &[Source] = &[partition!("PagingFile"), Field("MmPagingFile", "", "")];

/// Where a counter is.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) at: VirtAddr,
    pub(super) size: usize,
    /// Pages are counted, or bytes.
    pub(super) is_bytes: bool,
}

/// What the structures that variables point to are at, so that each pointer is read once.
#[derive(Debug, Default)]
pub(super) struct Pointers(Vec<(&'static str, Option<VirtAddr>)>);

impl Pointers {
    fn of(&mut self, target: &Target<'_>, variable: &'static str) -> Option<VirtAddr> {
        if let Some((_, known)) = self.0.iter().find(|(name, _)| *name == variable) {
            return *known;
        }
        let at = target.address_of(&format!("nt!{variable}")).ok();
        let read = at.map(|at| target.read_some(at, target.pointer_size()).0);
        let pointer = read.filter(|bytes| bytes.len() == target.pointer_size()).map(|bytes| number(&bytes));
        let pointer = pointer.map(|pointer| target.address(pointer)).filter(|at| target.is_kernel(*at));
        self.0.push((variable, pointer));
        pointer
    }
}

impl Source {
    /// Where the first of some sources is that this kernel has.
    pub(super) fn first(target: &Target<'_>, sources: &[Self], pointers: &mut Pointers) -> Option<Located> {
        sources.iter().find_map(|source| source.locate(target, pointers))
    }

    fn locate(self, target: &Target<'_>, pointers: &mut Pointers) -> Option<Located> {
        let variable = |name: &str| target.address_of(&format!("nt!{name}")).ok();
        let pointer = target.pointer_size();
        let place = |ty: &str, path: &str| -> Option<Place> {
            target.layout(&format!("nt!{ty}")).ok()?.place(path).ok()
        };
        let of = |at: VirtAddr, place: Place| Located {
            at: at.offset(place.offset),
            size: usize::try_from(place.ty.size()).unwrap_or(8).clamp(1, 8),
            is_bytes: false,
        };
        match self {
            Variable(name) => Some(Located { at: variable(name)?, size: pointer, is_bytes: false }),
            Bytes(name) => Some(Located { at: variable(name)?, size: pointer, is_bytes: true }),
            Field(name, "", _) => Some(Located { at: variable(name)?, size: 4, is_bytes: false }),
            Field(name, ty, path) => Some(of(variable(name)?, place(ty, path)?)),
            Behind(name, ty, path) => {
                let place = place(ty, path)?;
                Some(of(pointers.of(target, name)?, place))
            }
        }
    }
}

/// A number, its lowest byte first.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

//! Verified drivers: the tree `nt!ViTargetDriversAvl`, and the list of those that were chosen, `nt!VfSuspectDriversList`.
//!
//! ```text
//!  _VF_AVL_TREE --Tables--> _VF_AVL_TABLE[TablesNo] --BalancedRoot.RightChild--> node
//!                                                                    node: _RTL_BALANCED_LINKS, _VF_TARGET_DRIVER
//!  _VF_TARGET_DRIVER --VerifiedData--> _VF_TARGET_VERIFIED_DRIVER_DATA --SuspectDriverEntry--> name, loads, unloads
//! ```
//! Three requests per driver. One among many is found by its image, by whose address the tree is in order. A node without `VerifiedData` is there for its thunks only and is no verified driver.
//!
//! Source: verifier.md 2.2, 2.3.

use std::borrow::Cow;

use serde::Serialize;

use super::run_ahead::PAGE;
use super::settings::PoolCounters;

use crate::output::{self, Escaped, Reading};
use crate::target::walk::{self, AvlNode};
use crate::target::{
    FileName, Layout, Module, Note, NoteCode, OfLink, Record, Records, SListHead, Target, TargetError,
    Trouble, VirtAddr, WalkEnd, module_name,
};

/// `_VF_TARGET_VERIFIED_DRIVER_DATA.Signature`, in every build.
const VERIFIED_DATA_SIGNATURE: u64 = 0x9876_1940;
/// Most tables of the tree; kernels make 64 at most.
const MAX_TABLES: u64 = 0x400;
/// Most drivers of one table, and of the list of suspects.
const MAX_DRIVERS: usize = 0x1_0000;
/// So few drivers are all read, whichever is wanted: what is wrong with the others is worth knowing.
const FEW_DRIVERS: u64 = 8;
/// Requests that a driver takes: its data, its entry among the chosen ones, its name.
const REQUESTS: u64 = 3;
/// How often the tree is read of a target that breathes, if it changes meanwhile.
const READINGS: usize = 3;
/// No tree of that many drivers is as deep.
const MAX_DEPTH: u32 = 64;
const ROOT: &str = "RtlTable.BalancedRoot.RightChild";
/// Bytes read after a suspect entry, where the kernel puts its name.
const NAME_READ: usize = 0x80;

/// One verified driver.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Driver {
    /// Its `_VF_TARGET_DRIVER`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub entry: VirtAddr,
    /// Its `_VF_TARGET_VERIFIED_DRIVER_DATA`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub verified_data: VirtAddr,
    /// Its file name: `myfault.sys`; nothing if it cannot be read.
    pub name: Option<String>,
    /// Where its image is.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub base: VirtAddr,
    /// Bytes of its image.
    pub size: Reading,
    /// Times it was loaded since it is verified.
    pub loads: Reading,
    /// Times it was unloaded.
    pub unloads: Reading,
    /// Its pool in use.
    pub pool: PoolCounters,
    /// Bytes of contiguous memory in use.
    pub contiguous_memory_bytes: Option<Reading>,
    /// Most bytes of contiguous memory in use at a time.
    pub peak_contiguous_memory_bytes: Option<Reading>,
    /// Pages of trackers; nothing if they cannot be read.
    #[serde(skip)]
    pub pool_pages: Option<SListHead>,
    /// Free trackers; nothing if they cannot be read.
    #[serde(skip)]
    pub free_trackers: Option<SListHead>,
}

impl Driver {
    /// True if the user's `name` means this driver: with or without extension, in any case.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| same_driver(own, name))
    }

    /// Its name, or what stands for it.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.name.as_deref().map_or_else(|| "(name unreadable)".to_owned(), |name| Escaped(name).to_string())
    }

    /// Its image, if its size is known.
    pub(super) fn module(&self) -> Option<Module> {
        let image_name = self.name.clone()?;
        let size = u32::try_from(self.size.value()?).ok()?;
        let name = module_name(&image_name).into();
        Some(Module { name, base: self.base, size, image_name })
    }

    /// Its state, in WinDbg's words.
    #[must_use]
    pub fn state(&self) -> &'static str {
        state(self.loads.value(), self.unloads.value())
    }

    /// Reads anew what changes while the driver works: its counters and the heads of its lists. One request.
    pub(super) fn read_again(&mut self, target: &Target<'_>) -> Result<(), TargetError> {
        let data = target.record("nt!_VF_TARGET_VERIFIED_DRIVER_DATA", self.verified_data)?;
        let signature = data.uint("Signature")?;
        if signature != VERIFIED_DATA_SIGNATURE {
            let wrong = format!("its signature is {signature:#x}: the driver was unloaded meanwhile");
            let address = target.shown(self.verified_data);
            return Err(TargetError::Unexpected { what: "verifier data", address, wrong });
        }
        let optional = |path| data.has(path).then(|| Reading::of(data.uint(path)));
        self.pool = PoolCounters::of(&data);
        self.contiguous_memory_bytes = optional("ContiguousMemoryBytes");
        self.peak_contiguous_memory_bytes = optional("PeakContiguousMemoryBytes");
        self.pool_pages = Some(SListHead::read(&data, "PoolPageHeaders")?);
        self.free_trackers = Some(SListHead::read(&data, "PoolTrackers")?);
        Ok(())
    }

    fn read(
        target: &Target<'_>,
        layouts: &Layouts,
        node: &Record<'_>,
        data: VirtAddr,
    ) -> Result<Self, TargetError> {
        target.breathe_if_full(REQUESTS);
        let data = target.record_of(&layouts.data, data)?;
        let at = data.address();
        match data.uint("Signature") {
            Ok(VERIFIED_DATA_SIGNATURE) => {}
            Ok(other) => target.note(Note::partial(NoteCode::Damaged, format!(
                "the verifier data at {} has signature {other:#x}, not {VERIFIED_DATA_SIGNATURE:#x}: it may be damaged",
                    target.shown(at)
            ))),
            Err(error) => target.note(unreadable(error.to_string(), &error)),
        }
        let suspect = data
            .pointer("SuspectDriverEntry")
            .and_then(|at| target.record_and_tail(&layouts.suspect, at, NAME_READ))
            .map_err(|error| Trouble::of(&error));
        let of_suspect = |path: &str| match &suspect {
            Ok(suspect) => Reading::of(suspect.uint(path)),
            Err(error) => Reading::Unreadable(error.to_string()),
        };
        let name = match &suspect {
            Ok(suspect) => target.file_name(suspect, "BaseName").map_err(|error| Trouble::of(&error)),
            Err(error) => Err(error.clone()),
        };
        let (entry, at_entry) = (node.address(), target.shown(node.address()));
        match &name {
            Ok(FileName { absurd_length: Some(length), .. }) => target.note(Note::partial(NoteCode::Damaged, format!(
                "the name of the driver at {at_entry} is damaged: its length is {length:#x} bytes, more than any file's; \
                 only what can be a name is shown of it"
            ))),
            Ok(_) => {}
            Err(error) => {
                let text = format!("the name of the driver at {at_entry} cannot be read: {error}");
                target.note(unreadable(text, error));
            }
        }
        let head = |path| {
            let head = SListHead::read(&data, path);
            head.inspect_err(|error| target.note(unreadable(error.to_string(), error))).ok()
        };
        let (pool_pages, free_trackers) = (head("PoolPageHeaders"), head("PoolTrackers"));
        let optional = |path| data.has(path).then(|| Reading::of(data.uint(path)));
        Ok(Self {
            entry,
            verified_data: at,
            name: name.ok().map(|name| name.text).filter(|name| !name.is_empty()),
            base: base_of(node)?,
            size: size_of(node),
            loads: of_suspect("Loads"),
            unloads: of_suspect("Unloads"),
            pool: PoolCounters::of(&data),
            contiguous_memory_bytes: optional("ContiguousMemoryBytes"),
            peak_contiguous_memory_bytes: optional("PeakContiguousMemoryBytes"),
            pool_pages,
            free_trackers,
        })
    }
}

/// Where the images of the verified drivers are, as far as they can be found: those whose symbols `!verifier` will need.
#[must_use]
pub fn verified_images(target: &Target<'_>) -> Vec<VirtAddr> {
    let nodes = Layouts::find(target).and_then(|layouts| {
        let tables = layouts.tables(target)?;
        Ok(tables.iter().flat_map(Records::iter).flat_map(|table| layouts.nodes(target, &table).0).collect())
    });
    let nodes: Vec<Record<'_>> = nodes.unwrap_or_default();
    let is_verified = |node: &&Record<'_>| node.pointer("VerifiedData").is_ok_and(|data| !data.is_null());
    nodes.iter().filter(is_verified).filter_map(|node| base_of(node).ok()).collect()
}

/// Where the image is that a node of the tree is about.
fn base_of(node: &Record<'_>) -> Result<VirtAddr, TargetError> {
    node.pointer(&format!("{}.p", range_in(node)))
}

/// Bytes of that image.
fn size_of(node: &Record<'_>) -> Reading {
    Reading::of(node.uint(&format!("{}.RangeSize", range_in(node))))
}

/// The structure in a node that has the image's range. Builds since Windows 8 key the tree by address and session: one level
/// more.
fn range_in(node: &Record<'_>) -> &'static str {
    if node.has("TreeNode.Base.p") { "TreeNode.Base" } else { "TreeNode" }
}

/// The verified drivers in the order of the tree.
#[derive(Debug)]
pub struct DriverTree {
    /// Those that could be read.
    pub drivers: Vec<Driver>,
    /// How the walk ended; the first table's trouble, if several have some.
    pub end: WalkEnd,
    /// Drivers in it of which nothing could be read.
    pub unread: usize,
}

impl DriverTree {
    /// Reads the tree, or of a large one only the driver that the user's `name` means, if it can be found without the
    /// others. What is missing in it is noted.
    ///
    /// # Errors
    /// [`TargetError`] if symbols are missing or the tree's head cannot be read.
    ///
    /// A target that breathes is let run between two drivers, each of which is of its own moment then.
    pub fn read(target: &Target<'_>, name: Option<&str>) -> Result<Self, TargetError> {
        let layouts = Layouts::find(target)?;
        for _ in 1..READINGS {
            let (before, breaths) = (layouts.shape(target), target.breaths());
            let tree = Self::read_once(target, &layouts, name)?;
            if breaths == target.breaths() || before == layouts.shape(target) {
                return Ok(tree);
            }
        }
        Self::read_once(target, &layouts, name)
    }

    fn read_once(target: &Target<'_>, layouts: &Layouts, name: Option<&str>) -> Result<Self, TargetError> {
        let mut all = Self { drivers: Vec::new(), end: WalkEnd::Null, unread: 0 };
        let Some(tables) = layouts.tables(target)? else {
            target.note(Note::remark(
                NoteCode::VerifierEmpty,
                "Driver Verifier has set up no list of drivers: none of those chosen was loaded yet.",
            ));
            return Ok(all);
        };
        if let Some(driver) = name.and_then(|name| layouts.find_one(target, &tables, name)) {
            all.drivers.push(driver?);
            return Ok(all);
        }
        for table in tables.iter() {
            all.add_table(target, layouts, &table);
        }
        if !all.end.is_complete() {
            let text = format!("the tree of verified drivers is not whole: {}", all.end);
            target.note(Note::partial(NoteCode::ListBreaksOff, text).broken_off_if(all.end.is_of_link()));
        }
        Ok(all)
    }

    fn add_table(&mut self, target: &Target<'_>, layouts: &Layouts, table: &Record<'_>) {
        let (nodes, end) = layouts.nodes(target, table);
        self.break_off(end);
        for node in nodes {
            // Thunk bookkeeping only.
            let driver = match node.pointer("VerifiedData") {
                Ok(data) if data.is_null() => continue,
                Ok(data) => Driver::read(target, layouts, &node, data),
                Err(error) => Err(error),
            };
            match driver {
                Ok(driver) => self.drivers.push(driver),
                Err(error) => {
                    self.unread += 1;
                    let at = target.shown(node.address());
                    let text = format!("the driver whose entry is at {at} cannot be read: {error}");
                    target.note(unreadable(text, &error));
                }
            }
        }
    }

    /// Keeps the first thing that went wrong.
    fn break_off(&mut self, end: WalkEnd) {
        if self.end.is_complete() && !end.is_complete() {
            self.end = end;
        }
    }
}

/// That something cannot be read, for `error`.
fn unreadable(text: String, error: &impl OfLink) -> Note {
    Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link())
}

/// The structures of the walk, looked up once.
struct Layouts {
    links: Layout,
    driver: Layout,
    data: Layout,
    suspect: Layout,
    table: Layout,
}

impl Layouts {
    fn find(target: &Target<'_>) -> Result<Self, TargetError> {
        Ok(Self {
            links: target.layout("nt!_RTL_BALANCED_LINKS")?,
            driver: target.layout("nt!_VF_TARGET_DRIVER")?,
            data: target.layout("nt!_VF_TARGET_VERIFIED_DRIVER_DATA")?,
            suspect: target.layout("nt!_VF_SUSPECT_DRIVER_ENTRY")?,
            table: target.layout("nt!_VF_AVL_TABLE")?,
        })
    }

    /// The tables of the tree; nothing if it was not set up.
    fn tables(&self, target: &Target<'_>) -> Result<Option<Records>, TargetError> {
        let tree_layout = target.layout("nt!_VF_AVL_TREE")?;
        let tree_at = target.address_of("nt!ViTargetDriversAvl")?;
        let mut ranges = vec![(tree_at, tree_layout.size())];
        ranges.extend(target.address_of("nt!ViTargetInitialized").ok().map(|at| (at, 4)));
        let mut answers = target.read_ranges(&ranges).into_iter();
        let tree = answers.next().expect("one answer per range");
        let tree = tree.map_err(|error| TargetError::read("nt!ViTargetDriversAvl", error))?;
        let initialized = answers.next().and_then(Result::ok).is_none_or(|bytes| bytes != [0; 4]);
        let tree = Record::new(tree_layout, tree_at, Cow::Owned(tree), None);
        let (tables_at, count) = (tree.pointer("Tables")?, tree.uint("TablesNo")?);
        if !initialized || tables_at.is_null() || count == 0 {
            return Ok(None);
        }
        if count > MAX_TABLES {
            let wrong = format!("{count:#x} tables, more than any kernel makes");
            let address = target.shown(tree_at);
            return Err(TargetError::Unexpected { what: "nt!ViTargetDriversAvl", address, wrong });
        }
        Ok(Some(target.records(&self.table, tables_at, count as usize)))
    }

    /// What changes whenever a driver comes or goes; nothing if it cannot be read, or of a target that does not breathe.
    fn shape(&self, target: &Target<'_>) -> Option<Vec<(Option<u64>, Option<VirtAddr>)>> {
        let tables = target.breathes().then(|| self.tables(target))?.ok()??;
        let count = |table: &Record<'_>| table.uint("RtlTable.NumberGenericTableElements").ok();
        Some(tables.iter().map(|table| (count(&table), table.pointer(ROOT).ok())).collect())
    }

    /// The nodes of a table in order, and how the walk along them ended.
    fn nodes(&self, target: &Target<'_>, table: &Record<'_>) -> (Vec<Record<'static>>, WalkEnd) {
        match table.pointer(ROOT) {
            Ok(root) => walk::avl(target.pointer_size(), root, MAX_DRIVERS, |at| self.read_node(target, at)),
            Err(error) => (Vec::new(), WalkEnd::unreadable(target.shown(table.address()), &error)),
        }
    }

    /// The driver that the user's `name` means, if its image is in the list of modules and the tree is in order there; what is
    /// wrong with the tree elsewhere does not show. Nothing if all have to be read to say.
    fn find_one(
        &self,
        target: &Target<'_>,
        tables: &Records,
        name: &str,
    ) -> Option<Result<Driver, TargetError>> {
        let count = |table: Record<'_>| table.uint("RtlTable.NumberGenericTableElements").ok();
        let drivers = tables.iter().map(count).sum::<Option<u64>>()?;
        if drivers <= FEW_DRIVERS {
            return None;
        }
        let base = target.find_module(|module| same_driver(&module.image_name, name))?.base;
        // Where there are several tables, an image's page says which one has it.
        let number = (base.0 / PAGE as u64) % tables.len() as u64;
        let mut at = tables.iter().nth(number as usize)?.pointer(ROOT).ok()?;
        for _ in 0..MAX_DEPTH {
            if at.is_null() {
                return None;
            }
            let node = self.read_node(target, at).ok()?;
            let (left, right) = (node.left, node.right);
            let node = node.value;
            let from = base_of(&node).ok()?;
            if from != base {
                at = if base < from { left } else { right };
                continue;
            }
            let data = node.pointer("VerifiedData").ok().filter(|data| !data.is_null())?;
            return self.is_named(target, data, name).then(|| Driver::read(target, self, &node, data));
        }
        None
    }

    /// True if the driver whose verifier data is at `data` is the one that the user's `name` means.
    fn is_named(&self, target: &Target<'_>, data: VirtAddr, name: &str) -> bool {
        let suspect = target.record_of(&self.data, data).and_then(|data| data.pointer("SuspectDriverEntry"));
        let suspect = suspect.and_then(|at| target.record_and_tail(&self.suspect, at, NAME_READ));
        let own = suspect.and_then(|suspect| target.file_name(&suspect, "BaseName"));
        own.is_ok_and(|own| own.absurd_length.is_none() && same_driver(&own.text, name))
    }

    /// A node: links, then the driver's entry, in one read.
    fn read_node(&self, target: &Target<'_>, at: VirtAddr) -> Result<AvlNode<Record<'static>>, TargetError> {
        target.breathe_if_full(1);
        let node = target.record_and_tail(&self.links, at, self.driver.size())?;
        let size = self.links.size();
        let entry = node.bytes().get(size..).unwrap_or_default().to_vec();
        Ok(AvlNode {
            left: node.pointer("LeftChild")?,
            right: node.pointer("RightChild")?,
            value: Record::new(self.driver.clone(), at.offset(size as u64), Cow::Owned(entry), None),
        })
    }
}

/// The drivers that were chosen to be verified, loaded or not.
#[derive(Debug)]
pub struct Suspects {
    suspects: Vec<(String, u64, u64)>,
    trouble: Option<String>,
}

impl Suspects {
    /// Reads `nt!VfSuspectDriversList`, one request per driver.
    #[must_use]
    pub fn read(target: &Target<'_>) -> Self {
        let mut suspects = Vec::new();
        let mut nameless = None;
        let end = Self::walk(target, &mut suspects, &mut nameless);
        let trouble = match end {
            Ok(end) if end.is_complete() => nameless,
            Ok(end) => Some(end.to_string()),
            Err(error) => Some(error.to_string()),
        };
        Self { suspects, trouble }
    }

    fn walk(
        target: &Target<'_>,
        suspects: &mut Vec<(String, u64, u64)>,
        nameless: &mut Option<String>,
    ) -> Result<WalkEnd, TargetError> {
        let head = target.address_of("nt!VfSuspectDriversList")?;
        let layout = target.layout("nt!_VF_SUSPECT_DRIVER_ENTRY")?;
        let links = layout.offset("Links")?;
        let first = target.record("nt!_LIST_ENTRY", head)?.pointer("Flink")?;
        Ok(walk::list(target.pointer_size(), head, first, MAX_DRIVERS, |at| {
            target.breathe_if_full(1);
            let entry = target.record_and_tail(&layout, VirtAddr(at.0.wrapping_sub(links)), NAME_READ)?;
            match target.file_name(&entry, "BaseName") {
                Ok(name) => suspects.push((name.text, entry.uint("Loads")?, entry.uint("Unloads")?)),
                Err(error) => {
                    nameless.get_or_insert_with(|| error.to_string());
                }
            }
            entry.pointer("Links.Flink")
        }))
    }

    /// Says why the driver that the user called `name` is not among the verified ones, `others`. They are all that there
    /// are only if `is_whole`.
    #[must_use]
    pub fn explain(&self, name: &str, others: &[Driver], is_whole: bool) -> String {
        let is_whole = is_whole && others.iter().all(|driver| driver.name.is_some());
        let chosen = self.suspects.iter().find(|(own, ..)| same_driver(own, name));
        let chosen = chosen.map(|(own, loads, unloads)| (Escaped(own), *loads, *unloads));
        let mut text = match chosen {
            Some((own, 0, _)) => format!("{own} is chosen for verification but has not been loaded yet."),
            Some((own, loads, unloads)) if loads == unloads => format!(
                "{own} is chosen for verification and was unloaded (loaded {loads}, unloaded {unloads} times); what \
                 Driver Verifier knew of its allocations went with it."
            ),
            Some((own, loads, unloads)) => format!(
                "{own} is chosen for verification (loaded {loads}, unloaded {unloads} times), but {}.",
                if is_whole {
                    "the tree of verified drivers does not have it"
                } else {
                    "it is not among what could be read of the tree of verified drivers"
                }
            ),
            None if !is_whole => format!(
                "Whether {name} is verified is not known: it is not among the drivers whose names could be read."
            ),
            None => format!("{name} is not verified."),
        };
        if let Some(trouble) = &self.trouble {
            text.push_str(&format!(" (The list of chosen drivers is not whole: {trouble}.)"));
        }
        let verified: Vec<_> = others.iter().map(Driver::shown_name).collect();
        match &verified[..] {
            [] if is_whole => text.push_str(" No loaded driver is verified."),
            [] => {}
            _ => text.push_str(&format!(" Verified drivers: {}.", verified.join(", "))),
        }
        text
    }
}

/// True if the user's `name`, which may be a path, means the file `own`.
fn same_driver(own: &str, name: &str) -> bool {
    let name = name.rsplit(['\\', '/']).next().unwrap_or(name);
    let stem = own.rsplit_once('.').map_or(own, |(stem, _)| stem);
    own.eq_ignore_ascii_case(name) || stem.eq_ignore_ascii_case(name)
}

/// Source: verifier.md 2.3.
const fn state(loads: Option<u64>, unloads: Option<u64>) -> &'static str {
    match (loads, unloads) {
        (_, Some(0)) => "Loaded",
        (Some(_), Some(_)) => "Loaded and Unloaded",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_meant_with_and_without_extension_in_any_case() {
        for name in ["myfault.sys", "MyFault", "MYFAULT.SYS", r"\SystemRoot\system32\drivers\myfault.sys"] {
            assert!(same_driver("MyFault.sys", name), "{name}");
        }
        assert!(!same_driver("myfault.sys", "myfault.dll") && !same_driver("myfault.sys", "my"));
    }

    #[test]
    fn a_state_comes_from_loads_and_unloads() {
        assert_eq!(state(Some(1), Some(0)), "Loaded");
        assert_eq!(state(Some(2), Some(1)), "Loaded and Unloaded");
        assert_eq!(state(None, None), "Unknown");
    }
}

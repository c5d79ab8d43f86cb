//! A kernel's memory with one verified driver in it, laid out by whatever symbols it has.

use std::path::Path;
use std::sync::Arc;

use verikd::memory::VirtAddr;
use verikd::symbols::pdb::PdbSymbols;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity, Symbols};
use verikd_sim::windows::Build;

use super::{isf, pdb};
use crate::support::World;
use crate::support::verifier::{Taken, add_suspect, set_head, set_taken};

/// Where things are in the pool of a 32-bit kernel; of a 64-bit one they lie [`HIGH`] further up.
pub(super) const DATA: VirtAddr = VirtAddr(0x8430_0000);
pub(super) const TRACKERS: VirtAddr = VirtAddr(0x8431_0000);
const SUSPECT: VirtAddr = VirtAddr(0x8432_0000);
const TABLES: VirtAddr = VirtAddr(0x8433_0000);
const MODULES: VirtAddr = VirtAddr(0x8434_0000);
const HIGH: u64 = 0xffff_cb84_0000_0000;

const NT_SIZE: u32 = 0x60_0000;

/// What Driver Verifier knows, and of whom.
pub(super) struct State {
    pub(super) build: u16,
    pub(super) level: u64,
    pub(super) option_flags: u32,
    /// Allocations that succeeded, and those among them that came from special pool.
    pub(super) succeeded: [u64; 2],
    pub(super) pool: Counters,
    /// The driver's `_VF_TARGET_DRIVER`.
    pub(super) entry: VirtAddr,
    pub(super) driver: &'static str,
    /// Times it was loaded and unloaded.
    pub(super) loads: [u64; 2],
    pub(super) driver_pool: Counters,
    /// Newest first.
    pub(super) blocks: Vec<Taken>,
    /// Loaded modules beside the kernel, with symbols.
    pub(super) modules: Vec<Module>,
    pub(super) log: Option<Log>,
}

/// Paged and nonpaged, now and at their peak.
#[derive(Clone, Copy)]
pub(super) struct Counters {
    pub(super) allocations: [u64; 4],
    pub(super) bytes: [u64; 4],
}

pub(super) struct Module {
    pub(super) base: u64,
    pub(super) size: u32,
    pub(super) file: &'static str,
    pub(super) symbols: &'static [(&'static str, u32)],
}

/// A log of pool with one entry in it, its newest.
pub(super) struct Log {
    pub(super) at: VirtAddr,
    pub(super) length: u32,
    pub(super) index: u32,
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) thread: u64,
    pub(super) stack: Vec<u64>,
}

/// A 32-bit kernel at `base`, with these structures and routines.
pub(super) fn kernel_of(base: VirtAddr, types: &str, routines: &[(&str, u32)]) -> World {
    let nt = TableSymbols::new(PdbIdentity::new("ntkrpamp.pdb", Guid([6; 16]), 1)).with_32_bits();
    let names = names(routines);
    let nt = names.iter().fold(nt, |nt, (name, rva)| nt.symbol(name, *rva)).types(types);
    World::new(base, NT_SIZE, Arc::new(nt))
}

/// The same, whose symbols are a volatility3 ISF file.
pub(super) fn kernel_of_isf(name: &str, base: VirtAddr, types: &str, routines: &[(&str, u32)]) -> World {
    World::new(base, NT_SIZE, Arc::new(isf::symbols(name, types, &names(routines))))
}

/// The same, whose symbols are a PDB that a linker made; nothing where there is no linker.
pub(super) fn kernel_of_pdb(
    name: &str,
    base: VirtAddr,
    types: &str,
    routines: &[(&str, u32)],
) -> Option<World> {
    let nt = pdb::symbols(name, types, &names(routines))?;
    assert_eq!(nt.pointer_size(), 4);
    Some(World::new(base, NT_SIZE, Arc::new(nt)))
}

fn names(routines: &[(&str, u32)]) -> Vec<(String, u32)> {
    let globals = [
        "MmVerifierData",
        "ViTargetDriversAvl",
        "ViTargetInitialized",
        "VfOptionFlags",
        "VfSuspectDriversList",
        "VfPoolTraces",
        "VfPoolTracesIndex",
        "VfPoolTracesLength",
        "PsLoadedModuleList",
        "ViPoolInfoAvl",
    ];
    let globals = (1..).zip(globals).map(|(number, name)| (name, number * 0x1000));
    globals.chain(routines.iter().copied()).map(|(name, rva)| (name.to_owned(), rva)).collect()
}

/// The kernel of a simulated build, by its committed PDB.
pub(super) fn kernel_of_build(name: &str, base: VirtAddr) -> World {
    let image = &Build::find(name).unwrap().images[0];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let pdb = folder.join(image.pdb_file);
    std::fs::write(&pdb, image.pdb).unwrap();
    let nt = PdbSymbols::open(&pdb).unwrap();
    World::new(base, image.layout().unwrap().size_of_image(), Arc::new(nt))
}

/// Writes all of it.
pub(super) fn lay_out(mut world: World, state: &State) -> World {
    let world = &mut world;
    world.version.build = state.build;
    add_modules(world, &state.modules);
    let settings = world.global("MmVerifierData");
    let [succeeded, special] = state.succeeded;
    for (field, value) in [
        ("Level", state.level),
        ("AllocationsAttempted", succeeded),
        ("AllocationsSucceeded", succeeded),
        ("AllocationsSucceededSpecialPool", special),
    ] {
        world.put("_MM_DRIVER_VERIFIER_DATA", settings, field, value);
    }
    put_counters(world, "_MM_DRIVER_VERIFIER_DATA", settings, &state.pool);
    let flags = world.global("VfOptionFlags");
    world.write(flags, &state.option_flags.to_le_bytes());
    add_driver(world, state);
    let variables =
        ["VfPoolTraces", "VfPoolTracesIndex", "VfPoolTracesLength"].map(|name| world.global(name));
    world.map(variables[0], 0x10);
    if let Some(log) = &state.log {
        add_log(world, variables, log);
    }
    std::mem::replace(world, World::new(VirtAddr(0), 0, Arc::clone(&world.nt)))
}

fn place(world: &World, at: VirtAddr) -> VirtAddr {
    if world.pointer_size() == 8 { at.offset(HIGH) } else { at }
}

fn put_counters(world: &mut World, ty: &str, at: VirtAddr, counters: &Counters) {
    let names = ["CurrentPagedPool", "CurrentNonPagedPool", "PeakPagedPool", "PeakNonPagedPool"];
    for (name, value) in names.iter().zip(counters.allocations) {
        world.put(ty, at, &format!("{name}Allocations"), value);
    }
    let names = ["PagedBytes", "NonPagedBytes", "PeakPagedBytes", "PeakNonPagedBytes"];
    for (name, value) in names.iter().zip(counters.bytes) {
        world.put(ty, at, name, value);
    }
}

fn add_driver(world: &mut World, state: &State) {
    const DRIVER: &str = "_VF_TARGET_DRIVER";
    let [data, suspect, tables, trackers] = [DATA, SUSPECT, TABLES, TRACKERS].map(|at| place(world, at));
    let tree = world.global("ViTargetDriversAvl");
    world.put("_VF_AVL_TREE", tree, "Tables", tables.0);
    world.put("_VF_AVL_TREE", tree, "TablesNo", 1);
    let initialized = world.global("ViTargetInitialized");
    world.write(initialized, &1_u32.to_le_bytes());
    let node = VirtAddr(state.entry.0 - world.size("_RTL_BALANCED_LINKS"));
    world.map(tables, world.size("_VF_AVL_TABLE"));
    world.put("_VF_AVL_TABLE", tables, "RtlTable.BalancedRoot.RightChild", node.0);
    let tree_node = if world.has(DRIVER, "TreeNode.Base.p") { "TreeNode.Base" } else { "TreeNode" };
    let image = state.modules.iter().find(|module| module.file == state.driver).unwrap();
    world.put(DRIVER, state.entry, &format!("{tree_node}.p"), image.base);
    world.put(DRIVER, state.entry, &format!("{tree_node}.RangeSize"), image.size.into());
    world.put(DRIVER, state.entry, "VerifiedData", data.0);

    const VERIFIED: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
    world.put(VERIFIED, data, "Signature", 0x9876_1940);
    world.put(VERIFIED, data, "SuspectDriverEntry", suspect.0);
    put_counters(world, VERIFIED, data, &state.driver_pool);
    let suspects = world.global("VfSuspectDriversList");
    world.put_pointers(suspects, &[suspects.0; 2]);
    let [loads, unloads] = state.loads;
    add_suspect(world, suspect, state.driver, loads, unloads);
    set_head(world, data, "PoolPageHeaders", VirtAddr(0), 0);
    let slots = (0x1000 / world.size("_VI_POOL_ENTRY") - 1) as usize;
    let pages: Vec<_> = (0..).zip(state.blocks.chunks(slots)).collect();
    let pages: Vec<_> =
        pages.iter().map(|(page, blocks)| (trackers.offset(page * 0x1000), blocks.to_vec())).collect();
    set_taken(world, data, &pages);
}

fn add_modules(world: &mut World, modules: &[Module]) {
    let head = world.global("PsLoadedModuleList");
    world.version.module_list = head;
    let [base, size, name] = if world.pointer_size() == 8 { [0x30, 0x40, 0x58] } else { [0x18, 0x20, 0x2c] };
    let mut entries = vec![(world.nt_base.0, NT_SIZE, "ntoskrnl.exe")];
    entries.extend(modules.iter().map(|module| (module.base, module.size, module.file)));
    let at = |world: &World, number: usize| place(world, MODULES).offset(number as u64 * 0x200);
    let first = at(world, 0);
    world.put_pointers(head, &[first.0]);
    for (number, (image, bytes, file)) in entries.iter().enumerate() {
        let (here, next) = (at(world, number), at(world, number + 1));
        world.put_pointers(here, &[if number + 1 == entries.len() { head.0 } else { next.0 }]);
        world.put_pointers(here.offset(base), &[*image]);
        world.write(here.offset(size), &bytes.to_le_bytes());
        world.put_string(here.offset(name), here.offset(0xe0), file);
    }
    world.map(at(world, entries.len()), 0x200);
    for module in modules {
        let table = TableSymbols::new(PdbIdentity::new(module.file, Guid([8; 16]), 1));
        let table = module.symbols.iter().fold(table, |table, (name, rva)| table.symbol(name, *rva));
        world.symbols(VirtAddr(module.base), module.size, table);
    }
}

fn add_log(world: &mut World, [pointer, index, length]: [VirtAddr; 3], log: &Log) {
    const ENTRY: &str = "_VF_POOL_TRACE";
    world.put_pointers(pointer, &[log.at.0]);
    world.write(index, &log.index.to_le_bytes());
    world.write(length, &log.length.to_le_bytes());
    let size = world.size(ENTRY);
    world.map(log.at, u64::from(log.length) * size);
    let newest = log.at.offset(u64::from(log.index % log.length) * size);
    world.put(ENTRY, newest, "Address", log.address);
    world.put(ENTRY, newest, "Size", log.size);
    world.put(ENTRY, newest, "Thread", log.thread);
    let stack = newest.offset(world.offset(ENTRY, "StackTrace"));
    world.put_pointers(stack, &log.stack);
}

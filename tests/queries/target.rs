//! The target's modules, images and structures, on memory written down here.

use std::sync::Arc;

use crate::support::World;
use crate::support::image::pe_image;
use crate::support::layouts::WINDOWS_7;
use verikd::memory::{CountingMemory, ImageMemory, Memory, VirtAddr};
use verikd::output::Address;
use verikd::symbols::store::SymbolPath;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};
use verikd::target::{Image, Kernel, SListHead, Target, WalkEnd};

const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
const DRIVER: VirtAddr = VirtAddr(0xffff_f880_0447_c000);
const LIST: VirtAddr = VirtAddr(0xffff_f800_0163_9c90);
const POOL: VirtAddr = VirtAddr(0xffff_fa80_0310_0000);

fn identity(name: &str) -> PdbIdentity {
    PdbIdentity::new(name, Guid(*b"0123456789abcdef"), 2)
}

/// A kernel with these modules, each name after its entry.
fn world(modules: &[(VirtAddr, u32, &str)]) -> World {
    let nt = TableSymbols::new(identity("ntkrnlmp.pdb")).symbol("KeBugCheckEx", 0x1000).types(WINDOWS_7);
    let mut world = World::new(NT, 0x5e_a000, Arc::new(nt));
    world.version.module_list = LIST;
    let entry = |index: usize| POOL.offset(index as u64 * 0x200);
    for (index, (base, size, name)) in modules.iter().enumerate() {
        let next = if index + 1 == modules.len() { LIST } else { entry(index + 1) };
        world.write(entry(index), &next.0.to_le_bytes());
        world.write(entry(index).offset(0x30), &base.0.to_le_bytes());
        world.write(entry(index).offset(0x40), &size.to_le_bytes());
        world.put_string(entry(index).offset(0x58), entry(index).offset(0xe0), name);
    }
    world.write(LIST, &entry(0).0.to_le_bytes());
    world
}

fn two_modules() -> World {
    world(&[(NT, 0x5e_a000, "ntoskrnl.exe"), (DRIVER, 0x9000, "MyFault.sys")])
}

#[test]
fn the_list_of_modules_takes_one_read_per_module_and_one_for_its_head() {
    let booted = two_modules().boot();
    let target = booted.target();
    let modules = target.modules().unwrap();
    let names: Vec<_> =
        modules.modules().iter().map(|module| (&*module.name, module.image_name.as_str())).collect();
    assert_eq!(names, [("nt", "ntoskrnl.exe"), ("MyFault", "MyFault.sys")]);
    assert_eq!(modules.end(), &WalkEnd::Head);
    assert_eq!(booted.memory.reads(), 3);
    target.modules().unwrap();
    assert_eq!(booted.memory.reads(), 3, "a stop's modules are read once");
}

#[test]
fn an_address_has_a_module_up_to_its_last_byte() {
    let booted = two_modules().boot();
    let modules = booted.target().modules().unwrap();
    let at = |address| modules.containing(VirtAddr(address)).map(|module| module.name.to_string());
    assert_eq!(at(DRIVER.0).as_deref(), Some("MyFault"));
    assert_eq!(at(DRIVER.0 + 0x8fff).as_deref(), Some("MyFault"));
    assert_eq!((at(DRIVER.0 + 0x9000), at(DRIVER.0 - 1)), (None, None));
    assert_eq!(modules.called("MYFAULT.SYS").unwrap().base, DRIVER);
    assert!(modules.called("myfault.exe").is_none());
}

#[test]
fn a_list_that_breaks_off_keeps_what_came_before_and_is_tried_again() {
    let mut world = two_modules();
    world.write(POOL.offset(0x200), &0xffff_fa80_dead_0000_u64.to_le_bytes());
    let booted = world.boot();
    let modules = booted.target().modules().unwrap();
    assert_eq!(modules.modules().len(), 2);
    assert!(matches!(
        modules.end(),
        WalkEnd::Unreadable { at: Address { address: VirtAddr(0xffff_fa80_dead_0000), .. }, .. }
    ));
    let reads = booted.memory.reads();
    booted.target().modules().unwrap();
    assert!(booted.memory.reads() > reads);

    let mut world = two_modules();
    world.write(POOL.offset(0x200), &POOL.0.to_le_bytes());
    assert_eq!(
        world.boot().target().modules().unwrap().end(),
        &WalkEnd::Cycle(Address { address: POOL, pointer_size: 8 })
    );
}

#[test]
fn a_symbol_is_named_with_its_displacement_or_as_far_as_it_is_known() {
    let booted = two_modules().boot();
    let target = booted.target();
    let name = |address: u64| target.symbol_at(VirtAddr(address)).to_string();
    assert_eq!(name(NT.0 + 0x101d), "nt!KeBugCheckEx+0x1d");
    assert_eq!(name(NT.0 + 0x1000), "nt!KeBugCheckEx");
    assert_eq!(name(NT.0 + 0x10), "nt+0x10", "below its first symbol");
    assert_eq!(name(DRIVER.0 + 0x1634), "MyFault+0x1634");
    assert_eq!(name(0xffff_fa80_0000_1000), "fffffa8000001000");
    assert!(target.symbol_at(DRIVER).missing.is_some(), "its headers are not mapped");
}

#[test]
fn without_symbols_modules_are_listed_and_what_is_missing_is_named() {
    let mut world = two_modules();
    world.write(NT, &pe_image(0x5e_a000, &identity("ntkrnlmp.pdb")));
    let booted = world.boot();
    let kernel = Kernel::new(world.version, SymbolPath::parse("/no/symbols/here"));
    let target = Target::new(&booted.memory, &kernel);
    assert_eq!(target.modules().unwrap().modules().len(), 2);
    assert_eq!(target.symbol_at(NT.offset(0x101d)).to_string(), "nt+0x101d");
    let error = target.address_of("nt!VfPoolTraces").unwrap_err().to_string();
    let identity = identity("ntkrnlmp.pdb");
    let expected = format!(
        "nt has no symbols: no symbols for ntkrnlmp.pdb (identity {identity})\n  /no/symbols/here: no such file"
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn missing_names_and_types_name_the_file_that_was_searched() {
    let booted = two_modules().boot();
    let target = booted.target();
    let identity = identity("ntkrnlmp.pdb");
    let error = target.address_of("nt!VfPoolTraces").unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("nt!VfPoolTraces not found in ntkrnlmp.pdb (identity {identity})")),
        "{error}"
    );
    let error = target.layout("nt!_NO_SUCH").unwrap_err().to_string();
    assert_eq!(error, format!("type nt!_NO_SUCH not found in ntkrnlmp.pdb (identity {identity})"));
    let layout = target.layout("nt!_VF_POOL_TRACE").unwrap();
    assert!(layout.has("StackTrace") && !layout.has("Depth"));
    let error = layout.offset("Depth").unwrap_err().to_string();
    assert_eq!(error, format!("_VF_POOL_TRACE has no field Depth in ntkrnlmp.pdb (identity {identity})"));
    assert_eq!(
        target.address_of("gone!X").unwrap_err().to_string(),
        "no module called gone is loaded; lm lists those that are"
    );
}

#[test]
fn a_record_whose_end_is_unreadable_keeps_its_first_fields() {
    let mut world = two_modules();
    let at = VirtAddr(POOL.0 + 0x8000 - 0x10);
    world.put("_VF_POOL_TRACE", at, "Address", 0x1234);
    world.unmap(VirtAddr(POOL.0 + 0x8000));
    let booted = world.boot();
    let record = booted.target().record("nt!_VF_POOL_TRACE", at).unwrap();
    assert_eq!(record.uint("Address").unwrap(), 0x1234);
    let error = record.uint("Thread").unwrap_err().to_string();
    assert_eq!(error, "_VF_POOL_TRACE.Thread: read 0x0 of 0x8 bytes at fffffa80`03108000: not mapped");
    assert!(record.uint("StackTrace").unwrap_err().to_string().contains("is no number"));
}

#[test]
fn every_form_of_a_single_list_head_gives_its_first_entry() {
    let mut world = two_modules();
    let at = POOL.offset(0x4000);
    let head = |world: &World| {
        let booted = world.boot();
        let record = booted.target().record("nt!_VF_TARGET_VERIFIED_DRIVER_DATA", at).unwrap();
        SListHead::read(&record, "PoolPageHeaders").unwrap()
    };
    let data = "_VF_TARGET_VERIFIED_DRIVER_DATA";
    world.put(data, at, "PoolPageHeaders.Header16.HeaderType", 1);
    world.put(data, at, "PoolPageHeaders.Header16.NextEntry", 0xffff_fa80_0321_0000 >> 4);
    world.put(data, at, "PoolPageHeaders.Header16.Depth", 3);
    assert_eq!(head(&world), SListHead { first: VirtAddr(0xffff_fa80_0321_0000), depth: 3 });

    world.write(at.offset(world.offset(data, "PoolPageHeaders")), &[0; 16]);
    assert!(head(&world).first.is_null());
    world.put(
        data,
        at,
        "PoolPageHeaders.Header8.NextEntry",
        (0xffff_fa80_0321_0000_u64 & 0x7ff_ffff_ffff) >> 4,
    );
    world.put(data, at, "PoolPageHeaders.Header8.Depth", 2);
    assert_eq!(head(&world), SListHead { first: VirtAddr(0xffff_fa80_0321_0000), depth: 2 });
}

#[test]
fn the_debugger_data_block_ends_where_it_says_and_belongs_to_this_kernel() {
    let mut world = two_modules();
    let (list, block) = (POOL.offset(0x5000), POOL.offset(0x5100));
    world.write(list, &block.0.to_le_bytes());
    world.write(block.offset(0x10), b"KDBG\x50\x02\0\0");
    world.write(block.offset(0x18), &NT.0.to_le_bytes());
    world.write(block.offset(0x48), &LIST.0.to_le_bytes());
    world.write(block.offset(0x248), &0x1234_u64.to_le_bytes());
    world.write(block.offset(0x250), &0x5678_u64.to_le_bytes());
    world.version.debugger_data_list = list;
    let read = |world: &World| world.boot().target().debugger_data();
    let data = read(&world).unwrap();
    assert_eq!((data.ps_loaded_module_list(), data.mm_verifier_data()), (Some(LIST), Some(VirtAddr(0x1234))));

    world.write(block.offset(0x14), &0x248_u32.to_le_bytes());
    assert_eq!(read(&world).unwrap().mm_verifier_data(), None, "past the end of this block");
    world.write(block.offset(0x18), &DRIVER.0.to_le_bytes());
    assert!(read(&world).unwrap_err().to_string().contains("it belongs to a kernel at fffff880`0447c000"));
    world.write(block.offset(0x10), b"KDBX");
    assert!(read(&world).unwrap_err().to_string().contains("no KDBG tag"));
}

#[test]
fn the_identity_of_an_image_takes_two_reads() {
    let mut memory = ImageMemory::new();
    memory.map(DRIVER, pe_image(0x9000, &identity("myfault.pdb")));
    let memory = CountingMemory::new(memory);
    let image = Image::read(&memory, DRIVER).unwrap();
    assert_eq!((image.size, image.machine, image.pdb), (0x9000, 0x8664, identity("myfault.pdb")));
    assert_eq!(memory.reads(), 2);
}

#[test]
fn an_image_cut_anywhere_is_an_error_and_a_flipped_bit_no_panic() {
    let whole = pe_image(0x9000, &identity("myfault.pdb"));
    let read = |bytes: Vec<u8>| {
        let mut memory = ImageMemory::new();
        memory.map(DRIVER, bytes);
        Image::read(&memory as &dyn Memory, DRIVER)
    };
    for at in 0..whole.len() - "myfault.pdb\0".len() {
        assert!(read(whole[..at].to_vec()).is_err(), "cut at {at:#x}");
    }
    for at in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let _ = read(flipped);
    }
}

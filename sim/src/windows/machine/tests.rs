//! The machine, looked into as a debugger does: reads of bytes, literal Windows 7 offsets.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::windows::images::BUILDS;

/// `SystemTime` of KUSER_SHARED_DATA.
const SYSTEM_TIME: u64 = 0xffff_f780_0000_0014;
const SECOND: Duration = Duration::from_secs(1);

const VERIFIED_DATA_AT: u64 = 0x28;
const POOL_PAGE_HEADERS: u64 = 0x30;
const POOL_TRACKERS: u64 = 0x40;

#[test]
fn every_build_starts() {
    for build in BUILDS {
        let mut machine = Machine::new(build);
        machine.break_in();
        assert!(!machine.run_for(10 * SECOND).is_empty(), "{}", build.name);
    }
}

#[test]
fn global_counters_are_those_of_the_published_transcript() {
    let machine = Machine::windows_7_sp1();
    let counters = machine.symbol("MmVerifierData");
    let at = |offset| machine.u32(counters + offset);
    assert_eq!(at(0x00), 8, "Level");
    assert_eq!([at(0x04), at(0x08), at(0x0c), at(0x24)], [0; 4], "RaiseIrqls .. Trims");
    assert_eq!(
        (at(0x10), at(0x14), at(0x18), at(0x1c)),
        (0xb, 0xb, 0xa, 1),
        "attempted, succeeded, special, no tag"
    );
    assert_eq!((at(0x28), at(0x2c)), (0, 0), "failed, deliberately");
    assert_eq!((at(0x40), at(0x44), at(0x48), at(0x4c)), (0, 0xa, 1, 0xa), "allocations");
    let bytes = |offset| machine.u64(counters + offset);
    assert_eq!(
        (bytes(0x50), bytes(0x58), bytes(0x60), bytes(0x68)),
        (0, 0x9c_e000, 0x80, 0x9c_e000),
        "bytes"
    );
}

#[test]
fn the_tree_leads_to_the_one_verified_driver() {
    let machine = Machine::windows_7_sp1();
    let driver = machine.target_driver();
    assert_eq!(driver, 0xffff_fa80_031b_5830);
    assert_eq!(
        (machine.u64(driver), machine.u64(driver + 8)),
        (0xffff_f880_0447_c000, 0x8000),
        "image, size"
    );
    let data = machine.u64(driver + VERIFIED_DATA_AT);
    assert_eq!(machine.u64(data + 0x28), 0x9876_1940, "Signature");
    let counters: Vec<_> = (0..4).map(|number| machine.u32(data + 0x50 + number * 4)).collect();
    assert_eq!(counters, [0, 0xa, 1, 0xa]);
    let bytes: Vec<_> = (0..4).map(|number| machine.u64(data + 0x60 + number * 8)).collect();
    assert_eq!(bytes, [0, 0x9c_e000, 0x80, 0x9c_e000]);

    let suspect = machine.u64(data);
    assert_eq!(machine.unicode(suspect + 0x18), "myfault.sys");
    assert_eq!((machine.u32(suspect + 0x10), machine.u32(suspect + 0x14)), (1, 0), "loads, unloads");
    assert_eq!(machine.list(machine.symbol("VfSuspectDriversList")), [suspect]);
    assert_eq!(machine.u32(machine.symbol("ViTargetInitialized")), 1);
}

#[test]
fn outstanding_allocations_are_those_of_the_published_transcript_in_its_order() {
    let machine = Machine::windows_7_sp1();
    let allocations = machine.allocations();
    let addresses: Vec<_> = allocations.iter().map(|allocation| allocation.address & 0xffff_ffff).collect();
    let printed = [
        0x0540_0000_u64,
        0x052f_b000,
        0x0520_0000,
        0x050f_b000,
        0x0500_0000,
        0x04ef_b000,
        0x04e0_0000,
        0x04cf_b000,
        0x04c0_0000,
        0x04a6_6000,
    ];
    assert_eq!(addresses, printed);
    for allocation in allocations {
        assert_eq!((allocation.caller, allocation.size), (0xffff_f880_0447_d634, 0xf_b000));
        assert_eq!(allocation.tag.to_le_bytes(), *b"Leak\0\0\0\0");
        let back_pointer = machine.u64(allocation.address + allocation.size - 8);
        assert_eq!(back_pointer, allocation.slot, "the block's last quadword leads to its tracker");
    }
}

#[test]
fn free_trackers_are_listed_highest_first_behind_those_in_use() {
    let machine = Machine::windows_7_sp1();
    let data = machine.u64(machine.target_driver() + VERIFIED_DATA_AT);
    let (depth, kind) =
        (machine.u64(data + POOL_TRACKERS) & 0xffff, machine.u64(data + POOL_TRACKERS + 8) & 1);
    assert_eq!((depth, kind), (117, 1), "117 free, in the 16-byte form of list header");
    let page = machine.first(data + POOL_PAGE_HEADERS);
    let free = machine.free_slots(data);
    let expected: Vec<_> = (1..=117).rev().map(|slot| page + slot * 0x20).collect();
    assert_eq!(free, expected);
    assert!(free.iter().all(|slot| machine.u64(slot + 0x10) == 1), "never used: NumberOfBytes 1");
}

#[test]
fn one_record_of_the_pool_log_has_the_newest_block() {
    let machine = Machine::windows_7_sp1();
    let records = machine.pool_log();
    assert_eq!(records.len(), 0x1_0000);
    let block = 0xffff_fa80_0540_0000;
    let matching: Vec<_> = records.iter().filter(|record| record.contains(block)).collect();
    let [record] = matching[..] else { panic!("{} records", matching.len()) };
    assert_eq!((record.address, record.size, record.thread), (block, 0xf_a000, 0xffff_fa80_044c_eb60));
    let printed = [
        0xffff_f800_0192_7cc6,
        0xffff_f800_0192_7d3d,
        0xffff_f880_0447_d634,
        0xffff_f880_0447_d727,
        0xffff_f800_0193_2750,
        0xffff_f800_017a_7a97,
        0xffff_f800_017a_82f6,
        0xffff_f800_0148_bed3,
    ];
    assert_eq!(record.stack, printed);

    let leaks: Vec<_> =
        records.iter().filter(|record| record.size == 0xf_a000).map(|record| record.address).collect();
    let newest_first: Vec<_> = machine.allocations().iter().map(|allocation| allocation.address).collect();
    assert_eq!(leaks, newest_first, "each block has a record, in the same order");
    assert!(records.iter().all(|record| record.address != 0 && !record.stack.is_empty()), "the ring is full");
}

#[test]
fn modules_are_listed_with_what_their_images_say() {
    let machine = Machine::windows_7_sp1();
    let entries = machine.list(machine.version().ps_loaded_module_list.0);
    let modules: Vec<_> = entries
        .iter()
        .map(|entry| (machine.unicode(entry + 0x58), machine.u64(entry + 0x30), machine.u32(entry + 0x40)))
        .collect();
    let module = |name: &str, base, size| (name.to_owned(), base, size);
    let expected = [
        module("ntoskrnl.exe", 0xffff_f800_0141_b000, 0x5e_9000),
        module("hal.dll", 0xffff_f800_01a0_4000, 0x4_9000),
        module("ndis.sys", 0xffff_f880_0143_2000, 0xf_2000),
        module("myfault.sys", 0xffff_f880_0447_c000, 0x8000),
    ];
    assert_eq!(modules, expected);
    for (entry, image) in entries.iter().zip(WINDOWS_7_SP1.images) {
        let base = machine.u64(entry + 0x30);
        assert_eq!(machine.bytes::<2>(base), *b"MZ");
        let nt = base + u64::from(machine.u32(base + 0x3c));
        assert_eq!(machine.u64(nt + 0x30), base, "the header in memory has the base in memory");
        assert_eq!(machine.u32(nt + 0x50), machine.u32(entry + 0x40), "SizeOfImage");
        assert_eq!(machine.u64(entry + 0x38), base + u64::from(machine.u32(nt + 0x28)), "EntryPoint");
        let debug = base + u64::from(machine.u32(nt + 0xb8));
        let record = base + u64::from(machine.u32(debug + 0x14));
        assert_eq!(machine.bytes::<4>(record), *b"RSDS");
        let name = image.pdb_file.as_bytes();
        let mut read = vec![0; name.len()];
        machine.read_virtual(VirtAddr(record + 0x18), &mut read);
        assert_eq!(read, name);
        let guid = machine.bytes::<16>(record + 4);
        assert!(image.pdb.windows(16).any(|window| window == guid), "{} has this identity", image.pdb_file);
    }
}

#[test]
fn version_leads_to_the_debugger_data_block() {
    let machine = Machine::windows_7_sp1();
    let version = machine.version();
    assert_eq!((version.minor, version.flags, version.machine_type), (7601, 7, 0x8664));
    let block = machine.u64(version.debugger_data_list.0);
    assert_eq!((machine.bytes::<4>(block + 0x10), machine.u32(block + 0x14)), (*b"KDBG", 0x340));
    assert_eq!(machine.u64(block + 0x18), version.kern_base.0);
    assert_eq!(machine.u64(block + 0x48), version.ps_loaded_module_list.0);
    assert_eq!(machine.u64(block + 0x248), machine.symbol("MmVerifierData"));
    let end = block + 0x340;
    assert!(machine.symbol("KdComponentTable") >= end, "the block ends before the next variable");
    let [name, directory] = [0x2e0, 0x28];
    let processes = machine.list(machine.u64(block + 0x50));
    let system = processes[0] - 0x188;
    assert_eq!(machine.bytes::<7>(system + name), *b"System\0");
    assert_eq!(machine.u64(system + directory), machine.cr3(0));
    assert_eq!(machine.u64(machine.symbol("PsInitialSystemProcess")), system);
    assert_eq!(processes.len(), 5);
}

#[test]
fn every_process_has_page_tables_with_the_whole_kernel() {
    let machine = Machine::windows_7_sp1();
    for links in machine.list(machine.symbol("PsActiveProcessHead")) {
        let directory = machine.u64(links - 0x188 + 0x28);
        for slot in 0x100..0x200 {
            let [own, kernel] = [directory, machine.cr3(0)].map(|table| {
                let mut entry = [0; 8];
                machine.read_physical(PhysAddr(table + slot * 8), &mut entry);
                u64::from_le_bytes(entry)
            });
            assert_eq!(own, kernel, "slot {slot:#x}");
        }
    }
}

#[test]
fn the_first_processor_stands_on_the_breakpoint_instruction() {
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let processor = &machine.processors()[0];
    assert_eq!((processor.context.len(), processor.special_registers.len()), (0x4d0, 0xd8));
    let rip = number(&processor.context, 0xf8);
    assert_eq!(rip, machine.symbol("DbgBreakPointWithStatus"));
    assert_eq!(machine.bytes::<2>(rip), [0xcc, 0xc3]);
    let return_address = machine.u64(number(&processor.context, 0x98));
    let routine = machine.symbol("KdCheckForDebugBreak");
    assert!((routine..routine + 0x100).contains(&return_address));

    for (number_of, processor) in machine.processors().iter().enumerate() {
        let special = &processor.special_registers;
        assert_eq!(number(special, 0xa8), processor.kpcr.0, "GsBase");
        assert_eq!(number(special, 0x10), machine.cr3(0), "Cr3");
        assert_eq!(machine.u64(processor.kpcr.0 + 0x18), processor.kpcr.0, "Self");
        assert_eq!(machine.u64(processor.kpcr.0 + 0x20), processor.kprcb.0, "CurrentPrcb");
        assert_eq!(processor.kprcb.0, processor.kpcr.0 + 0x180);
        assert_eq!(machine.u64(processor.kprcb.0 + 8), processor.thread.0, "CurrentThread");
        assert_eq!(machine.u32(processor.kprcb.0 + 0x24) as usize, number_of, "Number");
        let block = machine.symbol("KiProcessorBlock") + number_of as u64 * 8;
        assert_eq!(machine.u64(block), processor.kprcb.0);
        let mut saved = vec![0; 0x4d0];
        machine.read_virtual(VirtAddr(processor.kprcb.0 + 0x40 + 0xe0), &mut saved);
        assert_eq!(saved, processor.context, "the kernel's own copy");
        let gdt = number(special, 0x58);
        assert_eq!(machine.u64(gdt + 0x10), 0x0020_9b00_0000_0000, "64-bit kernel code");
    }
}

#[test]
fn bytes_of_different_stops_are_told_apart() {
    let mut machine = Machine::windows_7_sp1();
    let first = machine.stops();
    machine.break_in();
    let second = machine.stops();
    machine.reboot();
    assert!(first != second && second != machine.stops());
}

#[test]
fn a_read_of_ram_stops_at_its_end() {
    let machine = Machine::windows_7_sp1();
    let mut buf = [0; 0x40];
    assert_eq!(machine.read_physical(PhysAddr(RAM - 0x40), &mut buf), 0x40);
    assert_eq!(machine.read_physical(PhysAddr(RAM - 0x30), &mut buf), 0x30);
}

#[test]
fn discarded_sections_are_holes_and_reads_stop_there() {
    let machine = Machine::windows_7_sp1();
    let init = VirtAddr(0xffff_f880_0447_c000 + 0x5000);
    assert_eq!(machine.translate(init), None);
    let mut buf = [0; 0x40];
    assert_eq!(machine.read_virtual(VirtAddr(init.0 - 0x10), &mut buf), 0x10);
}

#[test]
fn a_search_crosses_pages_and_skips_holes() {
    let mut machine = Machine::windows_7_sp1();
    let page = VirtAddr(0xffff_f880_0447_c000 + 0x4000);
    machine.write_virtual(VirtAddr(page.0 - 4), b"ends behind");
    let (start, length) = (VirtAddr(0xffff_f880_0000_0000), 0x800_0000);
    let found = machine.search_virtual(start, length, b"ends behind");
    assert_eq!(found, Some(VirtAddr(page.0 - 4)));
    assert_eq!(
        machine.search_virtual(start, page.0 - 4 - start.0, b"ends behind"),
        None,
        "starts behind the range"
    );
    assert_eq!(
        machine.search_virtual(start, page.0 - 3 - start.0, b"ends behind"),
        found,
        "ends behind the range"
    );
    assert_eq!(machine.search_virtual(start, length, b""), None);
    assert_eq!(machine.search_virtual(VirtAddr(0), u64::MAX, b"ends behind"), found, "holes take no time");
}

#[test]
fn nothing_leaks_before_the_first_stop() {
    let mut machine = Machine::windows_7_sp1();
    machine.run_for(100 * SECOND);
    machine.break_in();
    assert_eq!(machine.allocations().len(), 10);
    let lines = machine.run_for(2 * SECOND);
    assert_eq!(machine.allocations().len(), 11);
    let expected = [
        "myfault: up 101 s, 10 blocks\n",
        "myfault: leaked 0xfa000 bytes at fffffa80`054fb000\n",
        "myfault: up 102 s, 11 blocks\n",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn every_count_grows_with_the_leak() {
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    let index = machine.u32(machine.symbol("VfPoolTracesIndex"));
    // 245 blocks more: trackers fill the first page and the second, and begin a third.
    machine.run_for(490 * SECOND);
    let allocations = machine.allocations();
    assert_eq!(allocations.len(), 255);
    let distinct: HashSet<_> = allocations.iter().map(|allocation| allocation.address).collect();
    assert_eq!(distinct.len(), 255);
    for allocation in &allocations {
        assert_eq!(machine.u64(allocation.address + allocation.size - 8), allocation.slot);
        assert!(machine.translate(VirtAddr(allocation.address)).is_some());
    }
    assert!(
        allocations.is_sorted_by(|newer, older| newer.address > older.address),
        "newest first, over all pages"
    );

    let data = machine.u64(machine.target_driver() + VERIFIED_DATA_AT);
    assert_eq!(machine.u64(data + POOL_PAGE_HEADERS) & 0xffff, 3);
    assert_eq!(machine.free_slots(data).len(), 3 * 127 - 255);
    let counters = machine.symbol("MmVerifierData");
    let (count, bytes) = (255, 255 * 0xf_b000);
    assert_eq!((machine.u32(counters + 0x10), machine.u32(counters + 0x14)), (count + 1, count + 1));
    assert_eq!((machine.u32(counters + 0x44), machine.u32(counters + 0x4c)), (count, count));
    assert_eq!((machine.u64(counters + 0x58), machine.u64(counters + 0x68)), (bytes, bytes));
    assert_eq!((machine.u32(data + 0x54), machine.u32(data + 0x5c)), (count, count));
    assert_eq!((machine.u64(data + 0x68), machine.u64(data + 0x78)), (bytes, bytes));

    assert_eq!(machine.u32(machine.symbol("VfPoolTracesIndex")), index + 245);
    let newest = &machine.pool_log()[0];
    assert_eq!((newest.address, newest.size), (allocations[0].address, 0xf_a000));
}

#[test]
fn a_full_pool_fails_allocations_and_the_machine_goes_on() {
    let mut machine = Machine::windows_7_sp1();
    machine.leak_every(SECOND / 100);
    machine.break_in();
    let lines = machine.run_for(20 * SECOND);
    // The first block, and two in each 2 MiB from fffffa80`04c00000 to the end of the pool at fffffa80`60c00000.
    let most = 1 + (0x60c0_0000 - 0x04c0_0000) / 0x20_0000 * 2;
    assert_eq!(lines.last(), Some(&format!("myfault: up 20 s, {most} blocks\n")));
    assert!(lines.iter().any(|line| line == "myfault: out of nonpaged pool\n"));
    assert_eq!(machine.allocations().len(), most);
    let counters = machine.symbol("MmVerifierData");
    let [attempted, succeeded, failed] = [0x10, 0x14, 0x28].map(|offset| machine.u32(counters + offset));
    assert_eq!((attempted, succeeded as usize), (succeeded + failed, most + 1));
    let newest = &machine.pool_log()[0];
    assert_eq!(
        (newest.address, newest.size),
        (0, 0xf_a000),
        "a failed allocation is logged without an address"
    );
}

#[test]
fn whatever_a_debugger_writes_the_machine_goes_on() {
    let fresh = Machine::windows_7_sp1();
    let data = fresh.u64(fresh.target_driver() + VERIFIED_DATA_AT);
    let targets = [
        (data, 0x100),
        (fresh.first(data + POOL_PAGE_HEADERS), 0x1000),
        (fresh.symbol("MmVerifierData"), 0xa0),
        (fresh.symbol("VfPoolTracesIndex"), 4),
        (fresh.symbol("KdPrintWritePointer"), 8),
    ];
    for fill in [0, 0x7f, 0x80, 0xff] {
        for (at, length) in targets {
            let mut machine = fresh.clone();
            machine.write_virtual(VirtAddr(at), &vec![fill; length]);
            machine.break_in();
            assert!(!machine.run_for(20 * SECOND).is_empty());
        }
        let mut machine = fresh.clone();
        machine.write_physical(PhysAddr(machine.cr3(0)), &[fill; 0x1000]);
        machine.break_in();
        assert!(!machine.run_for(20 * SECOND).is_empty(), "page tables filled with {fill:#x}");
    }
}

#[test]
fn running_in_pieces_is_running_at_once() {
    let [mut whole, mut pieces] = [Machine::windows_7_sp1(), Machine::windows_7_sp1()];
    whole.break_in();
    pieces.break_in();
    let at_once = whole.run_for(10 * SECOND);
    let lines: Vec<_> = (0..40).flat_map(|_| pieces.run_for(SECOND / 4)).collect();
    assert_eq!(lines, at_once);
    assert!(lines.contains(&"myfault: up 10 s, 15 blocks\n".to_owned()));
    assert!(whole.same_memory(&pieces));
}

#[test]
fn what_the_driver_prints_is_in_the_kernels_print_buffer() {
    let mut machine = Machine::windows_7_sp1();
    let mut printed = String::new();
    for _ in 0..300 {
        printed.extend(machine.run_for(SECOND));
    }
    let buffer = machine.bytes::<0x1000>(machine.symbol("KdPrintDefaultCircularBuffer"));
    let end = (machine.u64(machine.symbol("KdPrintWritePointer"))
        - machine.symbol("KdPrintDefaultCircularBuffer")) as usize;
    let rollovers = machine.u32(machine.symbol("KdPrintRolloverCount")) as usize;
    assert_eq!(rollovers * 0x1000 + end, printed.len());
    let text = [&buffer[end..], &buffer[..end]].concat();
    assert!(printed.as_bytes().ends_with(&text));
}

#[test]
fn a_reboot_leads_back_to_the_start() {
    let fresh = Machine::windows_7_sp1();
    let mut machine = fresh.clone();
    machine.break_in();
    machine.run_for(300 * SECOND);
    machine.write_virtual(VirtAddr(0xffff_fa80_031b_5830), &[0; 0x30]);
    machine.reboot();
    // But for the time of day: 300 seconds later, and as long as a restart takes.
    let [then, now] = [&fresh, &machine].map(|it| it.u64(SYSTEM_TIME));
    assert_eq!(now - then, 340 * 10_000_000);
    let mut then = fresh.clone();
    then.kernel.boot_time = machine.kernel.boot_time;
    globals::set_time(&mut then.kernel, Duration::ZERO);
    assert!(machine.same_memory(&then));
    assert_eq!(machine.running(), Duration::ZERO);
    machine.run_for(10 * SECOND);
    assert_eq!(machine.allocations().len(), 10, "the next leak waits for the next first stop");
}

/// An outstanding allocation as its tracker has it.
struct Tracked {
    slot: u64,
    address: u64,
    caller: u64,
    size: u64,
    tag: u64,
}

/// A record of the pool log.
struct Record {
    address: u64,
    size: u64,
    thread: u64,
    stack: Vec<u64>,
}

impl Record {
    fn contains(&self, address: u64) -> bool {
        (self.address..self.address + self.size).contains(&address)
    }
}

/// Reads as a debugger has them.
impl Machine {
    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(self.read_virtual(VirtAddr(at), &mut bytes), N, "{at:x} is mapped");
        bytes
    }

    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn symbol(&self, name: &str) -> u64 {
        let layout = WINDOWS_7_SP1.images[0].layout().unwrap();
        layout.base + u64::from(layout.symbol(name).unwrap_or_else(|| panic!("{name}")))
    }

    fn cr3(&self, number: usize) -> u64 {
        u64::from_le_bytes(self.processors()[number].special_registers[0x10..0x18].try_into().unwrap())
    }

    fn unicode(&self, at: u64) -> String {
        let length = u16::from_le_bytes(self.bytes(at));
        let mut text = vec![0; length.into()];
        self.read_virtual(VirtAddr(self.u64(at + 8)), &mut text);
        let units: Vec<_> = text.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        String::from_utf16(&units).unwrap()
    }

    /// Entries of a LIST_ENTRY list; panics if a back link is wrong.
    fn list(&self, head: u64) -> Vec<u64> {
        let mut entries = Vec::new();
        let (mut last, mut entry) = (head, self.u64(head));
        while entry != head {
            assert_eq!(self.u64(entry + 8), last);
            entries.push(entry);
            (last, entry) = (entry, self.u64(entry));
        }
        assert_eq!(self.u64(head + 8), last);
        entries
    }

    /// First entry of a list whose header is in the 16-byte form.
    fn first(&self, header: u64) -> u64 {
        self.u64(header + 8) & !0xf
    }

    fn target_driver(&self) -> u64 {
        let tree = self.symbol("ViTargetDriversAvl");
        assert_eq!(self.u32(tree + 0x28), 1, "TablesNo");
        let table = self.u64(tree + 0x20);
        assert_eq!(self.u32(table + 0x2c), 1, "NumberGenericTableElements");
        let node = self.u64(table + 0x10);
        assert_eq!(self.u64(node), table, "Parent");
        node + 0x20
    }

    fn free_slots(&self, data: u64) -> Vec<u64> {
        let mut slots = Vec::new();
        let mut slot = self.first(data + POOL_TRACKERS);
        while slot != 0 {
            slots.push(slot);
            slot = self.u64(slot);
        }
        assert_eq!(self.u64(data + POOL_TRACKERS) & 0xffff, slots.len() as u64, "Depth");
        slots
    }

    fn allocations(&self) -> Vec<Tracked> {
        let data = self.u64(self.target_driver() + VERIFIED_DATA_AT);
        let free: HashSet<_> = self.free_slots(data).into_iter().collect();
        let mut allocations = Vec::new();
        let mut page = self.first(data + POOL_PAGE_HEADERS);
        while page != 0 {
            assert_eq!((self.u64(page + 8), self.u64(page + 0x10)), (data, 0x2132_1345));
            for slot in (1..128).map(|number| page + number * 0x20).filter(|slot| !free.contains(slot)) {
                let [address, caller, size, tag] = [0, 8, 0x10, 0x18].map(|offset| self.u64(slot + offset));
                assert_eq!(size & 1, 0, "in use");
                allocations.push(Tracked { slot, address, caller, size, tag });
            }
            page = self.u64(page);
        }
        allocations
    }

    /// Records, newest first.
    fn pool_log(&self) -> Vec<Record> {
        let [index, length] =
            ["VfPoolTracesIndex", "VfPoolTracesLength"].map(|name| self.u32(self.symbol(name)));
        let mut ring = vec![0; length as usize * 0x80];
        let at = self.u64(self.symbol("VfPoolTraces"));
        assert_eq!(self.read_virtual(VirtAddr(at), &mut ring), ring.len());
        let record = |age: u32| {
            let slot = &ring[(index.wrapping_sub(age) % length) as usize * 0x80..][..0x80];
            let words: Vec<_> =
                slot.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
            let stack = words[3..].iter().copied().take_while(|frame| *frame != 0).collect();
            Record { address: words[0], size: words[1], thread: words[2], stack }
        };
        (0..length).map(record).collect()
    }

    /// True if both have the same bytes in all of RAM that either wrote to.
    fn same_memory(&self, other: &Self) -> bool {
        let pages = (0..RAM / 0x1000).map(|page| PhysAddr(page * 0x1000));
        let written = |machine: &Self, page| {
            let mut bytes = vec![0; 0x1000];
            machine.read_physical(page, &mut bytes);
            bytes
        };
        pages.into_iter().all(|page| written(self, page) == written(other, page))
    }
}

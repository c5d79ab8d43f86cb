//! Published answers of `!verifier` in the format of today's debuggers, printed from memory that is laid out as the kernels
//! they are of lay it out: two of them 32-bit. Each sample is as it was published (Microsoft Learn, bug check C4/62; a
//! blog's repository; microsoft/ebpf-for-windows issue 1908), but for numbers and lines that its publisher had cut.

mod isf;
mod pdb;
mod state;
use crate::support::layouts::{WINDOWS_7_X86, windows_8_1_x86, windows_10_x86};
use crate::support::text::WithNotes as _;
use crate::support::text::{notes, run, text, text_in};
use crate::support::verifier::{Slot, Taken};
use crate::support::{Booted, World};
use serde_json::json;
use state::{Counters, Log, Module, State};
use verikd::commands::{NoteKind, VerifierFormat};
use verikd::memory::{ReadCause, VirtAddr};

#[test]
fn windows_8_1_x86_prints_as_its_own_debugger_did() {
    let booted = windows_8_1().boot();
    let line = "!verifier 3 Mydriver.sys";
    assert_prints(&text(&booted.target(), line), include_str!("s5-allocations.txt"));
    assert_eq!(notes(&booted.target(), line), []);
}

#[test]
fn windows_8_1_x86_logs_what_was_asked_for_while_the_tracker_has_its_own_eight_bytes_too() {
    let booted = windows_8_1().boot();
    let shown = text(&booted.target(), "!verifier 0x80 0x8645a000");
    // The publisher left out the lines about progress at the end.
    let end = "Parsed entry 00010000/00010000...\nFinished parsing all pool tracking information.\n";
    let shown = shown.strip_suffix(end).unwrap_or_else(|| panic!("{shown}"));
    assert_prints(shown, include_str!("s5-log.txt"));
}

#[test]
fn windows_7_x86_prints_as_todays_debugger_does_if_asked_to() {
    let booted = windows_7().boot();
    let line = "!verifier 3 Sample.sys";
    assert_prints(&text_in(VerifierFormat::New, &booted.target(), line), include_str!("s6.txt"));
    assert_eq!(notes(&booted.target(), line), []);
    let old = text(&booted.target(), line);
    assert!(old.contains("\na013f2c8 Loaded and Unloaded 00000000       00000070    Sample.sys\n"), "{old}");
    assert!(old.ends_with("\n86491d10     0x00000070     abcd      a05c1047\n"), "{old}");
}

#[test]
fn server_2022_x64_prints_a_block_of_special_pool_as_published() {
    let booted = server_2022().boot();
    let shown = text(&booted.target(), "!verifier 3 ebpfcore.sys");
    assert!(shown.contains(include_str!("s9.txt").trim_end_matches('\n')), "{shown}");
    assert!(
        shown.contains(
            "    [ ] (0x02000000) Code integrity checks\n\n  \
             RESERVED FLAGS (use of these flags is unsupported):\n    \
             [X] (0x00100000) Unused or reserved flag\n\n    [X] Indicates flag is enabled\n"
        ),
        "{shown}"
    );
    assert_eq!(notes(&booted.target(), "!verifier 3 ebpfcore.sys"), []);
}

#[test]
fn an_address_of_a_32_bit_target_is_meant_with_kds_sign_too() {
    let booted = windows_8_1().boot();
    let expected = text(&booted.target(), "!verifier 80 8645a000");
    for address in ["ffffffff`8645a000", "0xffffffff8645a000", "poi(84226c00)", "84226c00-poi(84226c04)"] {
        assert_eq!(text(&booted.target(), &format!("!verifier 80 {address}")), expected, "{address}");
    }
    let log = run(&booted.target(), "!verifier 80 ffffffff8645a000").unwrap().with_notes();
    assert_eq!((&log["address"], &log["method"]), (&json!("0x8645a000"), &json!("search")));
    assert_eq!(log["entries"][0]["stack"][2]["address"], "0x9a3bf687");
    let error = run(&booted.target(), "!verifier 80 7fff0000").err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("0x7fff0000 is no kernel address"), "{error}");
}

/// The upper bytes of a 32-bit address say too little to be searched for.
#[test]
fn an_address_inside_a_block_of_a_32_bit_target_is_found_by_reading() {
    let booted = windows_8_1().boot();
    booted.memory.reset();
    let log = run(&booted.target(), "!verifier 80 8645a010").unwrap().with_notes();
    assert_eq!((&log["method"], &log["entries"][0]["address"]), (&json!("read"), &json!("0x8645a000")));
    assert_eq!(booted.memory.searches(), 1, "for a block that begins there");
}

#[test]
fn trackers_of_a_32_bit_target_are_told_by_its_own_lists() {
    let mut state = sample();
    // More than a page holds: 255 slots of 0x10 bytes behind the header.
    let taken = |number: u32| {
        let block = Slot { address: u64::from(0x8700_0001 + number * 0x10), size: u64::from(number % 0x70) };
        Taken { block, tag: u32::from_le_bytes(*b"Many"), caller: 0xa05c_1047 }
    };
    state.blocks = (0..255 + 17).map(taken).collect();
    let counted = |paged| Counters { allocations: [paged, 0, paged, 0], bytes: [0; 4] };
    state.driver_pool = counted(255 + 17);
    let booted = laid_out(&state).boot();
    let report = run(&booted.target(), "!verifier 3 Sample").unwrap().with_notes();
    let allocations = &report["drivers"][0]["allocations"];
    assert_eq!((allocations["blocks"].as_array().unwrap().len(), &allocations["pages"]), (272, &json!(2)));
    assert_eq!(allocations["blocks"][0]["address"], "0x87000000", "without the mark in bit 0");
    assert_eq!(report["notes"], json!([]), "blocks of odd size are listed");

    state.driver_pool = counted(280);
    let booted = laid_out(&state).boot();
    let [note] = &notes(&booted.target(), "!verifier 3 Sample")[..] else { panic!("one note") };
    assert!(note.text.starts_with("Sample.sys: current allocations 280, listed 272: "), "{}", note.text);
}

#[test]
fn notes_about_a_32_bit_target_have_eight_digits() {
    let mut world = windows_8_1();
    world.put("_VF_TARGET_VERIFIED_DRIVER_DATA", state::DATA, "Signature", 1);
    world.unmap(state::TRACKERS);
    let noted = notes(&world.boot().target(), "!verifier 3");
    assert!(noted[0].text.starts_with("the verifier data at 84300000 has signature 0x1"), "{noted:?}");
    assert!(
        noted.iter().any(|note| note.text.contains("its element at 84310000 cannot be used")),
        "{noted:?}"
    );
    assert!(noted.iter().all(|note| !note.text.contains('`')), "{noted:?}");
}

#[test]
fn what_is_known_of_64_bit_kernels_only_is_said_so() {
    let mut state = sample();
    state.option_flags = 0x1000;
    let booted = laid_out(&state).boot();
    let noted = notes(&booted.target(), "!verifier 3");
    let [note] = &noted.iter().filter(|note| note.kind == NoteKind::Failed).collect::<Vec<_>>()[..] else {
        panic!("{noted:?}")
    };
    assert!(note.text.contains("not supported on x86 targets: advanced pool tracking"), "{}", note.text);
    assert!(note.text.contains("!verifier 80 ADDRESS still shows"), "{}", note.text);

    let booted = without_symbols(&windows_7());
    let error = run(&booted.target(), "!verifier").err().unwrap().to_string();
    let start = "!verifier: not supported on x86 targets: level and counters without the kernel's symbols, because the \
                 built-in layout is that of x64 kernels; nt has no symbols: ";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn modules_of_a_32_bit_target_are_listed_with_and_without_symbols() {
    let booted = windows_8_1().boot();
    let names = |booted: &Booted| -> Vec<String> {
        let listed = booted.target().modules().unwrap();
        listed.modules().iter().map(|module| module.image_name.clone()).collect()
    };
    let expected = ["VerifierExt.sys", "ntoskrnl.exe", "MyDriver.sys"];
    assert_eq!(names(&booted), expected);
    assert_eq!(names(&without_symbols(&windows_8_1())), expected);
}

/// The same state on the one later x86 kernel of which the structures are known: longer data, a tree keyed by session.
#[test]
fn a_later_x86_kernel_has_the_same_drivers_and_blocks() {
    let mut state = sample();
    state.build = 18362;
    let kernel = state::kernel_of(VirtAddr(0x8280_0000), &windows_10_x86(), &[]);
    let booted = state::lay_out(kernel, &state).boot();
    let shown = text(&booted.target(), "!verifier 3 Sample.sys");
    let (_, drivers) = include_str!("s6.txt").split_once("Driver Verification List").unwrap();
    let (_, found) = shown.split_once("Driver Verification List").unwrap();
    assert_prints(found, drivers);
    assert_eq!(notes(&booted.target(), "!verifier 3 Sample.sys"), []);
}

/// Where symbols come from makes no difference: a volatility3 file of a 32-bit kernel says how wide its pointers are.
#[test]
fn the_samples_of_32_bit_kernels_print_the_same_by_isf_symbols() {
    let kernel = |name, at, types: &str, routines| state::kernel_of_isf(name, VirtAddr(at), types, routines);
    assert_prints_samples(
        kernel("8.1-x86", 0x8160_0000, &windows_8_1_x86(), ROUTINES),
        kernel("7-x86", 0x8280_0000, WINDOWS_7_X86, &[]),
    );
}

/// Nor by the PDBs that a linker makes, in which every name has an underscore in front.
#[test]
fn the_samples_of_32_bit_kernels_print_the_same_by_pdbs() {
    let kernel = |name, at, types: &str, routines| state::kernel_of_pdb(name, VirtAddr(at), types, routines);
    let windows_8_1 = kernel("8.1-x86", 0x8160_0000, &windows_8_1_x86(), ROUTINES);
    let windows_7 = kernel("7-x86", 0x8280_0000, WINDOWS_7_X86, &[]);
    let (Some(windows_8_1), Some(windows_7)) = (windows_8_1, windows_7) else { return };
    assert_prints_samples(windows_8_1, windows_7);
}

/// S5 and S6 on kernels that have nothing in their memory yet.
fn assert_prints_samples(windows_8_1: World, windows_7: World) {
    let booted = state::lay_out(windows_8_1, &mydriver()).boot();
    assert_prints(&text(&booted.target(), "!verifier 3 Mydriver.sys"), include_str!("s5-allocations.txt"));
    let shown = text(&booted.target(), "!verifier 0x80 0x8645a000");
    assert!(shown.starts_with(include_str!("s5-log.txt")), "{shown}");
    let booted = state::lay_out(windows_7, &sample()).boot();
    let shown = text_in(VerifierFormat::New, &booted.target(), "!verifier 3 Sample.sys");
    assert_prints(&shown, include_str!("s6.txt"));
}

/// Columns as in sample S13, whose source line is in no public symbols.
#[test]
fn expressions_of_a_32_bit_target_have_32_bits() {
    let booted = windows_8_1().boot();
    let shown = |line: &str| text(&booted.target(), line);
    for (line, value) in [
        ("? 86491d10", "-2042028784 = 86491d10"),
        ("? -1", "-1 = ffffffff"),
        ("? ffffffff + 2", "1 = 00000001"),
        ("? ~0", "-1 = ffffffff"),
        ("? 1 << 1f", "-2147483648 = 80000000"),
        ("? 1 << 20", "0 = 00000000"),
        ("? 80000000 >>> 1", "-1073741824 = c0000000"),
        ("? 80000000 >> 1", "1073741824 = 40000000"),
        ("? 80000000 > 1", "1 = 00000001"),
        ("? ffffffff * ffffffff", "1 = 00000001"),
        ("? 100000000 + 1", "4294967297 = 00000001`00000001"),
        ("? @$ptrsize", "4 = 00000004"),
    ] {
        assert_eq!(shown(line), format!("Evaluate expression: {value}\n"), "{line}");
    }
    assert!(shown("? nosuch").contains("no module is called nosuch"));
    let error = shown("? poi(10)");
    assert!(error.contains("at 00000010: not mapped"), "{error}");
}

#[test]
fn other_commands_print_eight_digits_too() {
    let mut world = windows_8_1();
    let code = VirtAddr(0x9a3b_f6a0);
    world.write(code, &[0x55, 0x8b, 0xec, 0x83, 0xec, 0x10, 0x53, 0x56]);
    let booted = world.boot();
    let shown = |line: &str| text(&booted.target(), line);
    assert_eq!(
        shown("ln 0x9a3bf6ac"),
        "(9a3bf660)   MyDriver!DeviceControlDispatch+0x4c   |  (9a3bf6d0)   MyDriver!GetNecessaryObjects\n"
    );
    assert_eq!(
        shown("lm m my*"),
        "start    end        module name\n9a3be000 9a3c4000   MyDriver   (table symbols)\n"
    );
    assert_eq!(shown("x MyDriver!Get*"), "9a3bf6d0 MyDriver!GetNecessaryObjects\n");
    assert_eq!(shown("dd ffffffff9a3bf6a0 L2"), "9a3bf6a0  83ec8b55 565310ec\n");
    assert_eq!(shown("dps 84226c00 L1"), "84226c00  8645a000\n");
    assert!(
        shown("s 9a3bf6a0 L8 83 ec").starts_with("9a3bf6a3  83 ec 10 53 "),
        "{}",
        shown("s 9a3bf6a0 L8 83 ec")
    );
    assert!(
        shown("vertarget").ends_with(
            "Kernel base = 0x81600000 PsLoadedModuleList = 0x81609000\n\
             Debug session time: not available\nSystem Uptime: not available\n"
        ),
        "{}",
        shown("vertarget")
    );
}

/// Reading is all there is where the target does not search.
#[test]
fn a_log_of_32_bits_is_read_in_full_where_nothing_searches_it() {
    let booted = windows_8_1().boot_blind(ReadCause::Unsupported("search"));
    let log = run(&booted.target(), "!verifier 80 8645a000").unwrap().with_notes();
    assert_eq!((&log["method"], &log["parsed"]), (&json!("read"), &json!(0x1_0000)));
    assert_eq!(log["entries"].as_array().unwrap().len(), 1);
}

/// S5.
fn windows_8_1() -> World {
    let kernel = state::kernel_of(VirtAddr(0x8160_0000), &windows_8_1_x86(), ROUTINES);
    let mut world = state::lay_out(kernel, &mydriver());
    // Something to dereference.
    world.put_pointers(VirtAddr(0x8422_6c00), &[0x8645_a000, 0x8422_6c00_u64.wrapping_sub(0x8645_a000)]);
    world
}

const ROUTINES: &[(&str, u32)] = &[("VerifierExAllocatePoolWithTag", 0x52_619e - 0x24)];

fn mydriver() -> State {
    let caller = 0x9a3b_f687;
    let block = |address, size, tag: &[u8; 4], caller| Taken {
        block: Slot { address, size },
        tag: u32::from_le_bytes(*tag),
        caller,
    };
    let counters = Counters { allocations: [0, 3, 0, 0x13], bytes: [0, 0x1058, 0, 0x4_a4a0] };
    State {
        build: 9600,
        level: 0x2_09bb,
        option_flags: 0,
        succeeded: [0x2_db1a, 0x2_db1a],
        pool: counters,
        entry: VirtAddr(0x8422_6b28),
        driver: "MyDriver.sys",
        loads: [1, 0],
        driver_pool: counters,
        blocks: vec![
            block(0x982a_8fe0, 0x20, b"VMdl", 0x9a3b_f6ac),
            block(0x8645_a000, 0x1008, b"mdrv", caller),
            block(0x9a83_6fd0, 0x30, b"Vfwi", 0x9a3b_f6ed),
        ],
        modules: vec![
            Module {
                base: 0x8060_0000,
                size: 0x2_d000,
                file: "VerifierExt.sys",
                symbols: &[("ExAllocatePoolWithTagPriority_internal_wrapper", 0xee4f - 0x5b)],
            },
            Module {
                base: 0x9a3b_e000,
                size: 0x6000,
                file: "MyDriver.sys",
                symbols: &[("DeviceControlDispatch", 0x1660), ("GetNecessaryObjects", 0x16d0)],
            },
        ],
        log: Some(Log {
            at: VirtAddr(0x8500_0000),
            length: 0x1_0000,
            index: 0x3_2a10,
            address: 0x8645_a000,
            size: 0x1000,
            thread: 0x9c15_8bc0,
            stack: vec![0x8060_ee4f, 0x81b2_619e, caller],
        }),
    }
}

/// S6.
fn sample() -> State {
    let pool = Counters { allocations: [1, 0, 1, 0], bytes: [0x70, 0, 0x70, 0] };
    State {
        build: 7601,
        level: 8,
        option_flags: 0,
        succeeded: [3, 0],
        pool,
        entry: VirtAddr(0xa013_f2c8),
        driver: "Sample.sys",
        loads: [2, 1],
        driver_pool: pool,
        blocks: vec![Taken {
            block: Slot { address: 0x8649_1d10, size: 0x70 },
            tag: u32::from_le_bytes(*b"abcd"),
            caller: 0xa05c_1047,
        }],
        modules: vec![Module {
            base: 0xa05c_0000,
            size: 0x5000,
            file: "Sample.sys",
            symbols: &[("DriverEntry", 0x1020)],
        }],
        log: None,
    }
}

fn windows_7() -> World {
    laid_out(&sample())
}

fn laid_out(state: &State) -> World {
    state::lay_out(state::kernel_of(VirtAddr(0x8280_0000), WINDOWS_7_X86, &[]), state)
}

/// S9, by the symbols that the simulated machine of that build has.
fn server_2022() -> World {
    let counters = Counters { allocations: [0, 1, 1, 0x6f], bytes: [0, 4, 0x3e, 0xbe59] };
    state::lay_out(
        state::kernel_of_build("2022", VirtAddr(0xffff_f803_5300_0000)),
        &State {
            build: 20348,
            level: 0x12_09bb,
            option_flags: 0,
            succeeded: [0x70, 0x70],
            pool: counters,
            entry: VirtAddr(0xffff_cb84_3873_0e10),
            driver: "ebpfcore.sys",
            loads: [2, 1],
            driver_pool: counters,
            blocks: vec![Taken {
                block: Slot { address: 0xffff_cb84_3b87_aff0, size: 4 },
                tag: u32::from_le_bytes(*b"ebpf"),
                caller: 0xffff_f803_569c_53e1,
            }],
            modules: vec![Module {
                base: 0xffff_f803_569a_0000,
                size: 0x4_8000,
                file: "ebpfcore.sys",
                symbols: &[("ebpf_allocate", 0x2_53c0)],
            }],
            log: None,
        },
    )
}

/// The same memory, without the kernel's symbols at hand.
fn without_symbols(world: &World) -> Booted {
    let Booted { memory, .. } = world.boot();
    let path = verikd::symbols::store::SymbolPath::default();
    Booted { memory, kernel: verikd::target::Kernel::new(world.version, path) }
}

/// Headings of tables may end in spaces, which publishers lose.
fn assert_prints(found: &str, sample: &str) {
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(found), lines(sample), "\n{found}");
}

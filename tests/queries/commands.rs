//! Commands about names, types and numbers on the simulated machine: transcripts, reviewed against WinDbg's own columns.
//!
//! `UPDATE_EXPECTED=1` writes what is printed into the transcripts; the difference is to be reviewed.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::support::World;
use crate::support::everything::{OTHER, named};
use crate::support::machine::{stopped, version_of};
use crate::support::text::WithNotes as _;
use crate::support::text::{run, text};
use verikd::commands::{Answer, BugCheckQuery, NoteKind, Query, Style};
use verikd::memory::{CountingMemory, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};
use verikd::target::{Kernel, Target};

const PROMPT: &str = "0: kd> ";

#[test]
fn names_types_and_numbers_print_as_in_windbg() {
    follow("types");
}

#[test]
fn registers_print_as_in_windbg() {
    follow("registers");
}

#[test]
fn modules_print_as_in_windbg() {
    follow("modules");
}

#[test]
fn matches_of_a_search_print_as_in_windbg() {
    follow("search");
}

#[test]
fn a_structure_is_read_once_and_its_texts_together() {
    let (machine, kernel) = stopped("commands_requests");
    let memory = CountingMemory::new(machine);
    let target = || Target::new(&memory, &kernel);
    let entry = "dt nt!_LDR_DATA_TABLE_ENTRY poi(nt!PsLoadedModuleList)";
    run(&target(), entry).unwrap();
    memory.reset();
    run(&target(), entry).unwrap();
    // The pointer, the structure, two names at different places.
    assert_eq!(memory.reads(), 4);
    memory.reset();
    for line in ["x nt!*", "ln nt!KeBugCheckEx+3", "dt nt!_EPROCESS", "dt nt!_*"] {
        run(&target(), line).unwrap();
    }
    assert!(memory.reads() <= 5, "only the modules once: {}", memory.reads());
}

#[test]
fn a_name_finds_in_any_case_what_a_pattern_finds() {
    let (machine, kernel) = stopped("commands_names");
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let found = |pattern: &str| text(&target(), &format!("x nt!{pattern}"));
    let all = found("*");
    for line in all.lines().step_by(37) {
        let (_, name) = line.split_once("nt!").unwrap();
        let fits = found(&format!("{}[{}]", &name[..name.len() - 1], &name[name.len() - 1..]));
        assert!(fits.contains(&format!("{line}\n")), "{line}\n{fits}");
        for spelling in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            assert_eq!(found(&spelling), fits, "{spelling}");
        }
    }
    for word in ["VERIF", "pool", "t", "data_"] {
        let fits =
            |line: &&str| line.split_once("nt!").unwrap().1.to_lowercase().contains(&word.to_lowercase());
        let lines: String = all.lines().filter(fits).map(|line| format!("{line}\n")).collect();
        assert_eq!(found(&format!("*{word}*")), lines, "{word}");
    }
}

#[test]
fn json_has_the_facts_of_the_text() {
    let (machine, kernel) = stopped("commands_json");
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let json = |line: &str| run(&target(), line).unwrap().with_notes();
    let entry = json("dt nt!_LDR_DATA_TABLE_ENTRY poi(nt!PsLoadedModuleList)");
    assert_eq!((&entry["module"], &entry["size"]), (&"nt".into(), &0xe0.into()));
    let field = |name: &str| {
        let fields = entry["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap().clone()
    };
    assert_eq!(field("DllBase")["value"]["address"], "0xfffff8000141b000");
    assert_eq!(field("BaseDllName")["value"]["text"], "ntoskrnl.exe");
    assert_eq!(field("SizeOfImage")["offset"], 0x40);
    let bits = json("dt nt!_EPROCESS DefaultPagePriority");
    assert_eq!(bits["fields"][0]["bits"], serde_json::json!([12, 3]));
    let near = json("ln myfault+0x1634");
    assert_eq!((&near["symbol"], &near["displacement"]), (&"MyfaultDeviceControl".into(), &0x358.into()));
    assert_eq!(json("x nt!VfPoolTraces")["symbols"][0]["name"], "VfPoolTraces");
    assert_eq!(json("? nt")["value"], "0xfffff8000141b000");
}

/// Values of every kind, in a structure of this test's own.
#[test]
fn values_print_as_their_types_ask_for() {
    let nt = VirtAddr(0xffff_f800_0140_0000);
    let at = VirtAddr(0xffff_fa80_0310_0000);
    let types = "\
_LIST_ENTRY 10
  Flink 0 *_LIST_ENTRY
  Blink 8 *_LIST_ENTRY
_STRING 10
  Length 0 u16
  MaximumLength 2 u16
  Buffer 8 ptr
_THING 80
  Kind 0 enum=_KIND
  Other 4 enum=_KIND
  Small 8 i8
  Letter 9 u8
  Wide a wchar
  Number c i32
  Long 10 u64
  Flags 18 u32:4,6
  Few 18 u32:a,3
  Name 1c char[8]
  Title 24 wchar[4]
  Routine 30 code
  Table 38 code[2]
  Links 48 _LIST_ENTRY
  Text 58 _STRING
  Next 68 *_THING
  Grid 70 u16[2][3]
";
    let symbols = TableSymbols::new(PdbIdentity::new("nt.pdb", Guid([7; 16]), 1))
        .symbol("Dispatch", 0x1000)
        .enumeration("_KIND", &[("First", 0), ("Last", 0xd)])
        .types(types);
    let mut world = World::new(nt, 0x1_0000, Arc::new(symbols));
    world.version.module_list = nt.offset(0x4000);
    world.write(nt.offset(0x4000), &nt.offset(0x4000).0.to_le_bytes());
    world.write(at, &[0xd, 0, 0, 0, 0xe5, 1, 0, 0, 0xff, b'A', b'z', 0, 0xfb, 0xff, 0xff, 0xff]);
    world.write(at.offset(0x10), &0x1_2345_6789_u64.to_le_bytes());
    world.write(at.offset(0x18), &0x0c50_u32.to_le_bytes());
    world.write(at.offset(0x1c), b"leak.sys\x48\0i\0");
    world.write(at.offset(0x30), &(nt.0 + 0x101d).to_le_bytes());
    world.write(at.offset(0x38), &(nt.0 + 0x1000).to_le_bytes());
    world.write(at.offset(0x48), &[at.0.to_le_bytes(), nt.0.to_le_bytes()].concat());
    world.write(at.offset(0x58), &[4, 0, 4, 0]);
    world.write(at.offset(0x60), &at.offset(0x200).0.to_le_bytes());
    world.write(at.offset(0x200), b"Leak");
    world.write(at.offset(0x70), &[9, 0]);
    let booted = world.boot();
    let expected = "\
nt!_THING
   +0x000 Kind             : d ( Last )
   +0x004 Other            : 0x1e5 (No matching name)
   +0x008 Small            : 0n-1 ''
   +0x009 Letter           : 0x41 'A'
   +0x00a Wide             : 0x7a 'z'
   +0x00c Number           : 0n-5
   +0x010 Long             : 0x00000001`23456789
   +0x018 Flags            : 0y000101 (0x5)
   +0x018 Few              : 0y011
   +0x01c Name             : [8]  \"leak.sys\"
   +0x024 Title            : [4]  \"Hi\"
   +0x030 Routine          : 0xfffff800`0140101d  nt!Dispatch+1d
   +0x038 Table            : [2] 0xfffff800`01401000  nt!Dispatch+0
   +0x048 Links            : _LIST_ENTRY [ 0xfffffa80`03100000 - 0xfffff800`01400000 ]
   +0x058 Text             : _STRING \"Leak\"
   +0x068 Next             : (null) 
   +0x070 Grid             : [3] [2] 0x9
";
    assert_eq!(text(&booted.target(), &format!("dt _THING {at:?}")), expected);
    let mut table = String::new();
    for line in text(&booted.target(), "dt _THING").lines() {
        writeln!(table, "{}", line.split_once(" : ").map_or(line, |(_, ty)| ty)).unwrap();
    }
    let expected = "\
nt!_THING
_KIND
_KIND
Char
UChar
Wchar
Int4B
Uint8B
Pos 4, 6 Bits
Pos 10, 3 Bits
[8] Char
[4] Wchar
Ptr64 Function
[2] Ptr64 Function
_LIST_ENTRY
_STRING
Ptr64 _THING
[3] [2] Uint2B
";
    assert_eq!(table, expected);
    // A list that leads back to itself is shown as deep as asked for, and no deeper.
    world.write(at.offset(0x68), &at.0.to_le_bytes());
    let booted = world.boot();
    let deep = text(&booted.target(), &format!("dt -r3 nt!_THING {at:?} Next"));
    assert_eq!(deep.matches("Kind").count(), 3, "{deep}");
    let deepest = text(&booted.target(), &format!("dt -r nt!_THING {at:?}"));
    assert!(deepest.lines().count() < 0x4000 + 2);
}

#[test]
fn a_bug_check_is_announced_with_what_to_type() {
    let (mut machine, kernel) = stopped("commands_bugcheck");
    let address = Target::new(&machine, &kernel).address_of("nt!KiBugCheckData").unwrap();
    let words = [0xc4, 0x62, 0xffff_fa80_03a1_b010, 0, 0xa].map(u64::to_le_bytes).concat();
    assert_eq!(machine.write_virtual(address, &words), words.len());
    for (path, kernel) in
        [("symbols", kernel), ("KDDEBUGGER_DATA64", Kernel::new(version_of(&machine), SymbolPath::parse("")))]
    {
        let target = Target::new(&machine, &kernel);
        assert_eq!(
            text(&target, ".bugcheck"),
            "Bugcheck code 000000C4\n\
             Arguments 00000000`00000062 fffffa80`03a1b010 00000000`00000000 00000000`0000000a\n",
            "by {path}"
        );
        let bug_check = BugCheckQuery.run(&target).unwrap();
        let (announcement, hint) =
            (bug_check.announcement(target.pointer_size()), bug_check.hint(None).unwrap());
        assert!(announcement.starts_with("*** Fatal System Error: 0x000000c4\n"), "{announcement}");
        assert!(hint.contains("left 10 pool allocations behind; type !verifier 3"), "{hint}");
    }
}

/// Characters, or a UNICODE_STRING; what reads as neither is not told.
#[test]
fn the_driver_that_a_bug_check_names_is_told() {
    let (mut machine, kernel) = stopped("commands_driver_at_fault");
    let address = |name: &str| Target::new(&machine, &kernel).address_of(name).unwrap();
    let (data, room) = (address("nt!KiBugCheckData"), address("nt!NtBuildLab"));
    let words = [0xc4, 0x62, room.0, 0, 0xa].map(u64::to_le_bytes).concat();
    assert_eq!(machine.write_virtual(data, &words), words.len());
    let name: Vec<u8> = r"\drivers\my.sys".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let string = |len: u16, room: u16, at: u64| {
        [&len.to_le_bytes()[..], &room.to_le_bytes(), &[0; 4], &at.to_le_bytes(), &name, &[0, 0]].concat()
    };
    let len = name.len() as u16;
    let behind = room.offset(0x10).0;
    for (bytes, named) in [
        ([&name[..], &[0, 0]].concat(), Some("my.sys")),
        (string(len, len + 2, behind), Some("my.sys")),
        (string(len, len - 2, behind), None),
        (string(len + 1, len + 2, behind), None),
        (string(len, len, 0xffff_fa7f_dead_0000), None),
        (string(len, len, 0x1000), None),
        (vec![0; 0x40], None),
        (vec![0xff; 0x40], None),
    ] {
        assert_eq!(machine.write_virtual(room, &bytes), bytes.len());
        let target = Target::new(&machine, &kernel);
        let bug_check = BugCheckQuery.run(&target).unwrap();
        assert_eq!(bug_check.driver_at_fault(&target).as_deref(), named, "{bytes:x?}");
    }
}

#[test]
fn a_machine_without_a_bug_check_has_no_arguments_of_one() {
    let (mut machine, kernel) = stopped("commands_no_bugcheck");
    let address = Target::new(&machine, &kernel).address_of("nt!KiBugCheckData").unwrap();
    // The words behind the code are whatever was left there.
    let words = [0, 0, 0, 0, 0xe43c_8675_u64].map(u64::to_le_bytes).concat();
    assert_eq!(machine.write_virtual(address, &words), words.len());
    let target = Target::new(&machine, &kernel);
    assert_eq!(text(&target, ".bugcheck"), "No bug check has happened\n");
    let json = run(&target, ".bugcheck").unwrap().to_json().unwrap();
    assert_eq!(json, serde_json::json!({ "code": "0x0", "parameters": null }));
}

#[test]
fn headers_are_shown_as_far_as_an_image_has_them() {
    let mut world = named("abc");
    // No debug directory: the data directory of that number is empty.
    world.write(OTHER.offset(0xe8 + 24 + 112 + 6 * 8), &[0; 8]);
    let booted = world.boot();
    let target = booted.target();
    let shown = text(&target, "lmv m otherabc");
    assert!(
        shown.contains("    Image path: \\SystemRoot\\otherabc.sys\n    Image name: otherabc.sys\n"),
        "{shown}"
    );
    assert!(shown.contains("ImageSize:        00008000\n"), "{shown}");
    let answer = run(&target, "lmv m otherabc").unwrap();
    let headers = &answer.with_notes()["modules"][0]["headers"];
    assert_eq!((&headers["pdb"], &headers["machine"]), (&serde_json::Value::Null, &"0x8664".into()));
    assert!(answer.notes[0].text.contains("no debug directory"), "{:?}", answer.notes);
    // Nothing is made up where there are no headers at all.
    world.unmap(OTHER);
    let booted = world.boot();
    let answer = run(&booted.target(), "lmv m otherabc").unwrap();
    assert_eq!(answer.with_notes()["modules"][0].get("headers"), None);
    assert_eq!(answer.worst(), Some(NoteKind::Partial));
}

#[test]
fn a_module_has_one_name_everywhere() {
    for (file, name) in [
        ("my driver", "my_driver"),
        ("c++", "c__"),
        ("a.b.c", "a_b_c"),
        ("mullvad-split-tunnel", "mullvad_split_tunnel"),
    ] {
        let booted = named(file).boot();
        let shown = |line: &str| text(&booted.target(), line);
        assert!(shown("lm 1m").lines().any(|line| line == name), "{}", shown("lm 1m"));
        let near = shown("ln fffff8800447d634");
        let symbol = near.trim_end().split_once("   ").unwrap().1;
        assert!(symbol.starts_with(&format!("{name}!")) && symbol.ends_with("+0x15f4"), "{near}");
        assert!(shown("!verifier 80").contains(symbol), "{}", shown("!verifier 80"));
        let report = run(&booted.target(), "!verifier 3").unwrap().with_notes();
        let block = &report["drivers"][0]["allocations"]["blocks"][0];
        assert_eq!(block["caller_symbol"], symbol);
        assert_eq!((&block["tag"], &block["tag_number"]), (&"Leak".into(), &"0x6b61654c".into()));
    }
}

#[test]
fn what_was_not_looked_into_is_said() {
    let (machine, kernel) = stopped("commands_deferred");
    let ask = |line: &str| run(&Target::new(&machine, &kernel), line).unwrap();
    let first = ask("x *!Myfault*");
    assert_eq!(first.worst(), Some(NoteKind::Failed));
    let said: Vec<_> = first.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(said[0].contains("not loaded: hal, ndis, myfault. MODULE!"), "{said:?}");
    assert!(said[1].ends_with("fits *!Myfault* in the modules that were looked into"), "{said:?}");
    let wild = ask("x m*!Myfault*").with_notes();
    assert!(wild["symbols"].as_array().unwrap().len() >= 6, "{wild}");
    ask(".reload /f");
    let loaded = ask("x *!Myfault*");
    assert_eq!((loaded.worst(), &loaded.with_notes()["symbols"]), (None, &wild["symbols"]));
}

/// Forms that fingers type, and a form that is known to be answered with the same.
#[test]
fn reflexes_of_windbg_users_work() {
    let (machine, kernel) = stopped("commands_reflexes");
    let shown = |line: &str| {
        let target = Target::new(&machine, &kernel).with_cpu(&machine);
        text(&target, line)
    };
    for (typed, same) in [
        ("dS poi(nt!PsLoadedModuleList)+58", "du poi(poi(nt!PsLoadedModuleList)+60) Lc"),
        ("dd/c4 nt L8", "dd nt L8"),
        ("dd /c 4 nt L8", "dd nt L8"),
        ("s-b nt L1000 50 45 0 0", "s -b nt L1000 50 45 0 0"),
        ("s -a nt Lf000 7601.24540.amd64", "s -a nt Lf000 \"7601.24540.amd64\""),
        ("x /t nt!VfPoolTraces", "x nt!VfPoolTraces"),
        ("x /v nt!VfPoolTraces", "x nt!VfPoolTraces"),
        (
            "dt nt!_EPROCESS poi(nt!PsInitialSystemProcess) Pcb->DirectoryTableBase",
            "dt nt!_EPROCESS poi(nt!PsInitialSystemProcess) Pcb.DirectoryTableBase",
        ),
        ("!kdexts.verifier 3 myfault.sys", "!verifier 3 myfault.sys"),
        ("!verifier /?", "!verifier -?"),
        ("!help verifier", ".help verifier"),
        ("? @$ip", "? @rip"),
        ("? $csp + @$t0 + $t19", "? @rsp"),
        ("lmk", "lm"),
        (".reload/v", ".reload"),
        (".reload /n /v", ".reload"),
        ("lmo", "lm"),
    ] {
        let expected = shown(same);
        assert!(!expected.is_empty() && !expected.contains("usage:"), "{same}: {expected}");
        assert_eq!(shown(typed), expected, "{typed}");
    }
    assert_eq!(shown("? 'dcba'"), "Evaluate expression: 1684234849 = 00000000`64636261\n");
    assert_eq!(shown("dd /c1 nt L2").lines().count(), 2);
    assert_eq!(shown("db /c8 nt L20").lines().count(), 4);
    shown("dp nt!PsLoadedModuleList L1");
    assert_eq!(shown("? $p"), shown("? poi(nt!PsLoadedModuleList)"));
    assert!(shown("lmf").contains("nt       \\SystemRoot\\system32\\ntoskrnl.exe"), "{}", shown("lmf"));
    assert!(shown("version").ends_with(&format!("verikd {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(shown("version").starts_with(&shown("vertarget")));
    for (typed, said) in [
        ("? @$thread", "the pseudo-register $thread is not known here; $ip, $csp"),
        ("dt -l Flink nt!_LIST_ENTRY 0", "show each element by its address"),
        (".reload /i", "symbols of another build"),
        (".reload x.sys=fffff80000000000,1000", "cannot be declared"),
        ("!lmi nt", "`lmv m NAME`"),
        ("dD nt", "`dps` shows pointers"),
        ("!list", "`dl ADDRESS` shows the entries"),
        ("dd /c0 nt", "a line has 1 to"),
        ("!process 0 0", "processes and threads are not listed here"),
    ] {
        assert!(shown(typed).contains(said), "{typed}: {}", shown(typed));
    }
}

/// Types every line of a transcript and compares what is printed, notes included.
fn follow(name: &str) {
    let (machine, kernel) = stopped(&format!("transcript_{name}"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/transcripts/{name}.txt"));
    let expected = std::fs::read_to_string(&file).unwrap();
    let mut found = String::new();
    for line in expected.lines().filter_map(|line| line.strip_prefix(PROMPT)) {
        writeln!(found, "{PROMPT}{line}").unwrap();
        let target = Target::new(&machine, &kernel).with_cpu(&machine);
        match run(&target, line) {
            Ok(answer) => write_answer(&answer, &mut found),
            Err(error) => writeln!(found, "error: {error}").unwrap(),
        }
    }
    // The symbol folder is this test run's own.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).display().to_string();
    let found: String = found.lines().map(|line| line.trim_end().replace(&folder, "TMP") + "\n").collect();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "in {}", file.display());
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

fn write_answer(answer: &Answer, out: &mut String) {
    answer.write_text(Style::default(), out).unwrap();
    for note in &answer.notes {
        let kind = match note.kind {
            NoteKind::Remark => "note",
            NoteKind::Partial => "incomplete",
            NoteKind::Failed => "error",
        };
        writeln!(out, "{kind}: {}", note.text).unwrap();
    }
}

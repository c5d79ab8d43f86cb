//! Names that would take over a terminal: in images, drivers, symbols, types, texts, PDBs. None gets through, whatever is
//! asked, as text or as JSON, and none makes a line of its own.

mod support;

use proptest::prelude::*;
use support::image::pe_image;
use support::text::run;
use support::verifier::{Build, MYFAULT, MYFAULT_SIZE, NODE, SUSPECT, leak};
use support::{Booted, World};
use verikd::commands::{AnyAnswer, COMMANDS, NoteKind, QueryError, Run};
use verikd::memory::VirtAddr;
use verikd::output::{is_hazard, json};
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};

const OTHER: VirtAddr = VirtAddr(0xffff_f880_0500_0000);
const ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0330_0200);
const OTHER_ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0330_0400);
const THING: VirtAddr = VirtAddr(0xffff_fa80_0a00_0000);

/// Each with everything that a command may print of a target.
const LINES: &[&str] = &[
    "lm",
    "lmv",
    "lmvn",
    "lmnt",
    "lm1m",
    "lmsm",
    "lmv m other*",
    "lma fffff88005000010",
    "x myfault!*",
    "x *!*",
    "x /1 /n myfault!*",
    "x nt!*no*such*",
    "ln fffff8800447c010",
    "ln fffff8800447c000",
    "ln fffff88005000010",
    "dt myfault!*",
    "dt myfault!_T* fffffa800a000000",
    "dt -v myfault!_THING fffffa800a000000",
    "dt -r myfault!_THING",
    "dt myfault!_THING fffffa800a000000 Kind Nothing*",
    "dt myfault!_NOTHING",
    "dt nt!_KLDR_DATA_TABLE_ENTRY fffffa8003300200",
    "dps fffffa800a000000 L20",
    "dds fffffa800a000000 L4",
    "dqs fffffa800a000000 L4",
    "da fffffa800a000100",
    "du fffffa800a000200",
    "db fffffa800a000100 L80",
    "dc fffffa800a000100 L20",
    "dw fffffa800a000100 L20",
    "s -b fffffa800a000100 L80 1b",
    "!verifier",
    "!verifier 1",
    "!verifier 3",
    "!verifier 3 nosuch.sys",
    "!verifier 7cf",
    "!verifier 80",
    "!verifier 80 fffffa8005400000",
    ".reload /f",
    ".reload /u myfault",
    ".reload",
    ".bugcheck",
    "vertarget",
    "? myfault!nosuch",
    "? poi(myfault!nosuch)",
    "r",
    ".formats 1b1b1b1b07070707",
    ".sympath",
    "!sym",
    ".help",
    ".echo x",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_reaches_the_terminal_as_it_is(
        name in "[a-c]{1,3}[\\n\\r\\t\\x00\\x07\\x1b\\x7f\\x9b\u{85}\u{ad}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}]{1,6}[a-c]{1,3}"
    ) {
        let harmless: String = name.chars().map(|c| if is_hazard(c) { 'h' } else { c }).collect();
        let (hostile, harmless) = (named(&name), named(&harmless));
        let mut seen = 0;
        for line in LINES {
            let (shown, document) = both(&hostile, line);
            let (expected, _) = both(&harmless, line);
            let raw = shown.find(|c| is_hazard(c) && !matches!(c, '\n' | '\t'));
            prop_assert_eq!(raw, None, "{}: {:?}", line, shown);
            prop_assert_eq!(shown.lines().count(), expected.lines().count(), "{}:\n{}\n{}", line, shown, expected);
            prop_assert!(!document.contains(is_hazard), "{}: {:?}", line, document);
            seen += usize::from(shown.contains("\\x") || shown.contains("\\u{") || shown.contains("\\n"));
        }
        // Dots stand for texts of memory, so a name of newlines alone shows in fewer of them.
        prop_assert!(seen >= 8, "only {} answers showed the name", seen);
    }
}

/// A command that is not among the lines could print what it likes.
#[test]
fn every_command_that_asks_a_target_is_tried() {
    let tried = |name: &str| {
        LINES.iter().any(|line| line.split([' ', '/']).next().is_some_and(|it| it.starts_with(name)))
    };
    for spec in COMMANDS.iter().filter(|spec| matches!(spec.run, Run::Query(_))) {
        // Those of a kind share their text.
        let of_a_kind = spec.names[0].starts_with('d') || matches!(spec.names[0], "version");
        assert!(of_a_kind || spec.names.iter().any(|name| tried(name)), "{}", spec.names[0]);
    }
}

/// The published leak, in which everything that has a name is called `name`.
fn named(name: &str) -> Booted {
    let mut world = leak(Build::Windows7);
    let file = format!("{name}.sys");
    let units: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.put_string(ENTRY.offset(0x58), ENTRY.offset(0xe0), &file);
    // A module whose symbols nobody has, and whose PDB is called so too.
    let next = world.read(ENTRY, 8);
    world.write(ENTRY, &OTHER_ENTRY.0.to_le_bytes());
    world.write(OTHER_ENTRY, &next);
    world.put_pointers(OTHER_ENTRY.offset(0x30), &[OTHER.0]);
    world.write(OTHER_ENTRY.offset(0x40), &0x8000_u32.to_le_bytes());
    world.put_string(OTHER_ENTRY.offset(0x58), OTHER_ENTRY.offset(0xe0), &format!("other{file}"));
    // No file has a name with a colon: the harmless one is refused with the same words.
    let pdb = PdbIdentity { name: format!(":{name}.pdb"), guid: Guid([9; 16]), age: 1 };
    world.write(OTHER, &pe_image(0x8000, &pdb));
    world.write(MYFAULT, &pe_image(MYFAULT_SIZE, &pdb));
    put_suspect(&mut world, &file);
    // The types' own grammar has no room for spaces and line ends.
    let word: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    let types = format!(
        "_T{word} 10\n  F{word} 0 u64\n_THING 40\n  Kind 0 enum=_K\n  Code 8 code\n  Text 10 char[10]\n  Wide 20 wchar[8]\n  F{word} 38 *_T{word}\n"
    );
    let symbols = TableSymbols::new(pdb)
        .symbol(name, 0)
        .symbol(&format!("Other{name}"), 0x20)
        .symbol(&format!("?{name}@@YAXXZ"), 0x40)
        .enumeration("_K", &[(name, 1)])
        .types(&types);
    world.symbols(MYFAULT, MYFAULT_SIZE, symbols);
    world.write(THING, &[1, 0, 0, 0, 0, 0, 0, 0]);
    world.put_pointers(THING.offset(8), &[MYFAULT.0 + 4]);
    world.write(THING.offset(0x10), &file.as_bytes()[..file.len().min(15)]);
    world.write(THING.offset(0x20), &units[..units.len().min(14)]);
    world.put_pointers(THING.offset(0x38), &[OTHER.0 + 8]);
    world.write(THING.offset(0x100), file.as_bytes());
    world.write(THING.offset(0x200), &units);
    world.boot()
}

fn put_suspect(world: &mut World, file: &str) {
    let at = SUSPECT.offset(world.offset("_VF_SUSPECT_DRIVER_ENTRY", "BaseName"));
    let text = SUSPECT.offset(world.size("_VF_SUSPECT_DRIVER_ENTRY"));
    world.put_string(at, text, file);
    assert!(!world.read(NODE, 8).is_empty());
}

/// What a person and what a program is shown, notes and errors included.
fn both(booted: &Booted, line: &str) -> (String, String) {
    let target = booted.target();
    match run(&target, line) {
        Ok(answer) => (text_of(&*answer), json(&answer.to_json().unwrap())),
        Err(error) => (error_text(&error), json(&serde_json::json!({ "error": error.to_string() }))),
    }
}

fn text_of(answer: &dyn AnyAnswer) -> String {
    let mut text = String::new();
    answer.write_text(&mut text).unwrap();
    for note in answer.notes() {
        let kind = if note.kind == NoteKind::Failed { "error" } else { "note" };
        text += &format!("{kind}: {}\n", note.text);
    }
    text
}

/// Errors go through the same screen as everything that is no answer.
fn error_text(error: &QueryError) -> String {
    verikd::output::screened(&error.to_string())
}

//! Commands that show memory: WinDbg's columns, ranges, holes, and what they cost.

use std::ops::Range;
use std::sync::Arc;

use crate::support::machine::stopped;
use crate::support::text::WithNotes as _;
use crate::support::text::{notes, run, text};
use crate::support::{Booted, World};
use verikd::commands::Style;
use verikd::memory::{Address, CountingMemory, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};
use verikd::target::Target;

const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
const LIST: VirtAddr = VirtAddr(0xffff_f800_0140_4000);
const AT: VirtAddr = VirtAddr(0xffff_f880_0496_e3a0);

/// A memory that is interrupted at an address.
struct Interrupted<'a>(&'a dyn Memory, u64);

impl Memory for Interrupted<'_> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let room = self.1.saturating_sub(address.0) as usize;
        if room >= buf.len() {
            return self.0.read_virtual(address, buf);
        }
        let wanted = buf.len();
        self.0.read_virtual(address, &mut buf[..room])?;
        let cause = ReadCause::Interrupted;
        Err(ReadError { address: Address::Virtual(address), wanted, got: room, cause })
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.0.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.0.search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        self.0.stop()
    }
}

#[test]
fn a_display_ends_where_reading_was_broken_off() {
    let mut world = world();
    world.map(AT, 0x10_0000);
    let booted = world.boot();
    let memory = Interrupted(&booted.memory, AT.0 + 0x100);
    let target = Target::new(&memory, &booted.kernel);
    let answer = run(&target, &format!("db {AT:?} L100000")).unwrap();
    let mut shown = String::new();
    answer.write_text(Style::default(), &mut shown).unwrap();
    assert_eq!(shown.lines().count(), 0x10, "{shown}");
    assert!(answer.notes[0].text.contains("broken off: interrupted"), "{:?}", answer.notes);
    // Holes without end are given up, and what was not tried is not shown.
    let far = "ffff900000000008";
    let answer = run(&booted.target(), &format!("dq {far} L?20000")).unwrap();
    assert_eq!(answer.with_notes()["elements"].as_array().unwrap().len(), 0x100 * 0x1000 / 8 - 1);
}

#[test]
fn a_target_that_does_not_search_is_read_and_asked_once() {
    let lines = [
        "s -b fffff88004960000 L10000 4c 65 61 31",
        "s -a fffff88004960000 L10000 \"Lea1\"",
        "s -[1]b nt L10000 4c 65",
        "s -b fffff8800496d000 L4000 3a 3b",
        "s -b 0 L1000 4d",
    ];
    let booted = booted();
    let truth: Vec<_> = lines.iter().map(|line| shown(&booted, line)).collect();
    assert!(truth[0].contains("fffff880`0496e3b0"), "{}", truth[0]);
    for refusal in [
        ReadCause::Status(0xc000_0001),
        ReadCause::Unsupported("search"),
        ReadCause::NoAnswer { seconds: 10 },
    ] {
        let is_learned = !refusal.is_of_link();
        let blind = world().boot_blind(refusal.clone());
        for (line, expected) in lines.iter().zip(&truth) {
            assert_eq!(&shown(&blind, line), expected, "{line}, {refusal}");
        }
        let said = notes(&blind.target(), lines[0]);
        assert!(said[0].text.contains(&format!("did not search its memory ({refusal})")), "{said:?}");
        blind.memory.reset();
        shown(&blind, lines[0]);
        assert_eq!(blind.memory.searches() == 0, is_learned, "{refusal}");
    }
    // A match on the seam of two pieces, and a range that is nowhere.
    let mut world = world();
    let seam = VirtAddr(0xffff_f980_0000_fffe);
    world.map(VirtAddr(0xffff_f980_0000_0000), 0x2_0000);
    world.write(seam, b"Seam");
    let blind = world.boot_blind(ReadCause::Status(0xc000_0001));
    assert_eq!(shown(&blind, "s -[1]a fffff98000000000 L20000 \"Seam\""), "0xfffff980`0000fffe\n");
    let said = notes(&blind.target(), "s -b ffff900000000000 L?100000000 1");
    assert!(said.iter().any(|note| note.text.contains("and beyond was not read")), "{said:?}");
}

/// A kernel with a few bytes at `AT`, the page behind which is not mapped.
fn booted() -> Booted {
    world().boot()
}

fn world() -> World {
    let nt = TableSymbols::new(PdbIdentity::new("nt.pdb", Guid([7; 16]), 1)).symbol("KeBugCheckEx", 0x1000);
    let mut world = World::new(NT, 0x1_0000, Arc::new(nt));
    world.version.module_list = LIST;
    world.write(LIST, &LIST.0.to_le_bytes());
    let bytes: Vec<u8> = (0x3a..0x4a).chain(*b"Lea1\x05\0 \xff").collect();
    world.write(AT, &bytes);
    world.write(VirtAddr(AT.0 & !0xfff), &[(NT.0 + 0x1018).to_le_bytes(), AT.0.to_le_bytes()].concat());
    let wide: Vec<u8> =
        r"\SystemRoot\system32\drivers\myfault.sys".encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.write(VirtAddr(AT.0 + 0x100), &wide);
    world
}

fn shown(booted: &Booted, line: &str) -> String {
    text(&booted.target(), line)
}

#[test]
fn columns_are_windbgs() {
    let booted = booted();
    for (line, expected) in [
        (
            "db fffff880`0496e3a0 L18",
            "fffff880`0496e3a0  3a 3b 3c 3d 3e 3f 40 41-42 43 44 45 46 47 48 49  :;<=>?@ABCDEFGHI\n\
             fffff880`0496e3b0  4c 65 61 31 05 00 20 ff                          Lea1.. .\n",
        ),
        // As published: ntdebugging, "Troubleshooting Pool Leaks", part 3.
        ("dc fffff880`0496e3b0 l1", "fffff880`0496e3b0  3161654c                             Lea1\n"),
        ("dw fffff880`0496e3b0 L3", "fffff880`0496e3b0  654c 3161 0005\n"),
        ("dd 0xfffff8800496e3b0 L2", "fffff880`0496e3b0  3161654c ff200005\n"),
        (
            "dq fffff880`0496e3a0 fffff880`0496e3b0",
            "fffff880`0496e3a0  41403f3e`3d3c3b3a 49484746`45444342\nfffff880`0496e3b0  ff200005`3161654c\n",
        ),
        (
            "dps fffff880`0496e000 L2",
            "fffff880`0496e000  fffff800`01401018 nt!KeBugCheckEx+0x18\n\
             fffff880`0496e008  fffff880`0496e3a0\n",
        ),
        ("dds fffff880`0496e000 L1", "fffff880`0496e000  01401018\n"),
        ("da fffff880`0496e3b0", "fffff880`0496e3b0  \"Lea1.\"\n"),
        (
            "du fffff880`0496e4a0",
            "fffff880`0496e4a0  \"\\SystemRoot\\system32\\drivers\\myf\"\nfffff880`0496e4e0  \"ault.sys\"\n",
        ),
        (
            "db fffff880`0496e3b4 L-2",
            "fffff880`0496e3b2  61 31                                            a1\n",
        ),
        (
            "db fffff880`0496e3b0 L?1",
            "fffff880`0496e3b0  4c                                               L\n",
        ),
    ] {
        assert_eq!(shown(&booted, line), expected, "{line}\n{}", shown(&booted, line));
    }
}

#[test]
fn what_is_not_mapped_is_question_marks() {
    let booted = booted();
    for (line, expected) in [
        (
            "db fffff880`0496effe L4",
            "fffff880`0496effe  00 00 ?? ??                                      ..??\n",
        ),
        ("dd fffff880`0496effc L2", "fffff880`0496effc  00000000 ????????\n"),
        ("dq 0 L1", "00000000`00000000  ????????`????????\n"),
        ("dps 0 L1", "00000000`00000000  ????????`????????\n"),
        ("da 0", "00000000`00000000  \"????????????????????????????????\"\n"),
        // A page that is not mapped lies between two that are.
        ("dw fffff880`0496dffe L1", "fffff880`0496dffe  ????\n"),
    ] {
        assert_eq!(shown(&booted, line), expected, "{line}");
    }
    assert_eq!(notes(&booted.target(), "dq 0 L1")[0].text, "Nothing is mapped at 00000000`00000000");
    assert_eq!(shown(&booted, "dq fffff880`0496df00").lines().count(), 8);
    // A gap that is shown is told too: whoever reads the exit code has not read the rows.
    for (line, told) in [
        ("db fffff880`0496effe L4", "0x2 of 0x4 cannot be read, the first at fffff880`0496f000"),
        ("dps fffff880`0496eff0 L4", "0x2 of 0x4 cannot be read, the first at fffff880`0496f000"),
        ("dpp fffff880`0496eff0 L4", "0x2 of 0x4 cannot be read, the first at fffff880`0496f000"),
    ] {
        let notes = notes(&booted.target(), line);
        assert!(notes.iter().any(|note| note.text == told), "{line}: {notes:#?}");
    }
}

#[test]
fn a_command_without_an_address_goes_on_where_the_last_one_ended() {
    let booted = booted();
    let error = run(&booted.target(), "db").err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("no address to go on from"), "{error}");
    shown(&booted, "db fffff880`0496e3a0 L10");
    assert!(shown(&booted, "dd").starts_with("fffff880`0496e3b0  3161654c"));
    assert!(shown(&booted, "d").starts_with("fffff880`0496e430  "), "as dd did, 0x80 bytes on");
    shown(&booted, "da fffff880`0496e3b0");
    assert!(shown(&booted, "db").starts_with("fffff880`0496e3b6  20 ff"), "behind the text's 0");
}

#[test]
fn a_range_is_one_read_and_its_symbols_cost_nothing_more() {
    let (machine, kernel) = stopped("memory_requests");
    let memory = CountingMemory::new(machine);
    let target = || Target::new(&memory, &kernel);
    text(&target(), "lm");
    text(&target(), "ln nt!KeBugCheckEx");
    memory.reset();
    text(&target(), "db nt L1000");
    assert_eq!(memory.reads(), 1);
    memory.reset();
    let shown = text(&target(), "dps nt!PsLoadedModuleList L40");
    assert_eq!((memory.reads(), shown.lines().count()), (1, 0x40));
}

#[test]
fn a_search_costs_one_request_for_each_match_and_one_more() {
    let (machine, kernel) = stopped("memory_search");
    let memory = CountingMemory::new(machine);
    let target = || Target::new(&memory, &kernel);
    text(&target(), "lm");
    memory.reset();
    let shown = text(&target(), r#"s -u fffff8a0`00002000 L200 "system32""#);
    assert_eq!(memory.searches(), shown.lines().count() as u64 + 1, "{shown}");
    assert!(memory.reads() <= shown.lines().count() as u64);
}

#[test]
fn a_match_beyond_the_range_or_between_elements_is_none() {
    let booted = booted();
    let found = |line: &str| shown(&booted, line).lines().count();
    assert_eq!(found(r#"s -a fffff880`0496e3b0 L4 "Lea1""#), 1);
    assert_eq!(found(r#"s -a fffff880`0496e3b0 L3 "Lea1""#), 0);
    assert_eq!(found("s -w fffff880`0496e3b0 L8 654c"), 1);
    assert_eq!(found("s -w fffff880`0496e3af L8 654c"), 0);
    assert_eq!(found("s -b fffff880`0496e500 L1000 0"), 0x400);
    let note = &notes(&booted.target(), "s -b fffff880`0496e500 L1000 0")[0].text;
    assert_eq!(note, "Only the first 0x400 matches are shown; there may be more");
}

#[test]
fn a_range_that_cannot_be_meant_is_refused() {
    let booted = booted();
    for (line, problem) in [
        ("db fffff880`0496e3a0 fffff880`0496e300", "before it begins"),
        ("db nt L10000001", "write L?"),
        ("db nt L?10000001", "shown at once"),
        ("dq nt L?3000000000000000", "the range is too long"),
        ("db nt L1 L2", "`L2` is one argument too many"),
        ("db nt L", "Couldn't resolve error at the end"),
        ("db nt!", "cannot read `!`"),
    ] {
        let error = run(&booted.target(), line).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains(problem), "{line}: {error}");
    }
}

#[test]
fn json_has_the_numbers_of_the_text() {
    let booted = booted();
    let json = run(&booted.target(), "dps fffff880`0496e000 L2").unwrap().with_notes();
    assert_eq!(json["start"], "0xfffff8800496e000");
    assert_eq!(json["elements"], serde_json::json!(["0xfffff80001401018", "0xfffff8800496e3a0"]));
    assert_eq!(json["symbols"], serde_json::json!(["nt!KeBugCheckEx+0x18", null]));
    let json = run(&booted.target(), "da fffff880`0496e3b0").unwrap().with_notes();
    assert_eq!(json["text"], "Lea1.");
}

#[test]
fn what_pointers_lead_to_is_shown_behind_them() {
    let mut world = world();
    // To the text, to a pointer into the kernel, to the wide text, to nothing that is mapped, near to null.
    let (table, word, end) = (VirtAddr(AT.0 + 0x200), VirtAddr(AT.0 + 0x300), VirtAddr(AT.0 | 0xffe));
    world.put_pointers(table, &[AT.0, word.0, AT.0 + 0x100, AT.0 + 0x8000, 0x40, end.0]);
    world.put_pointers(word, &[NT.0 + 0x1018]);
    world.write(end, b"ab");
    let booted = world.boot();
    for (line, expected) in [
        (
            "dpp fffff880`0496e5a0 L6",
            "fffff880`0496e5a0  fffff880`0496e3a0 41403f3e`3d3c3b3a\n\
             fffff880`0496e5a8  fffff880`0496e6a0 fffff800`01401018 nt!KeBugCheckEx+0x18\n\
             fffff880`0496e5b0  fffff880`0496e4a0 00730079`0053005c\n\
             fffff880`0496e5b8  fffff880`049763a0\n\
             fffff880`0496e5c0  00000000`00000040\n\
             fffff880`0496e5c8  fffff880`0496effe\n",
        ),
        ("dpa fffff880`0496e5a0 L1", "fffff880`0496e5a0  fffff880`0496e3a0 \":;<=>?@ABCDEFGHILea1.\"\n"),
        // A text that ends where its page does.
        ("dqa fffff880`0496e5c8 L1", "fffff880`0496e5c8  fffff880`0496effe \"ab\"\n"),
        (
            "dpu fffff880`0496e5b0 L2",
            "fffff880`0496e5b0  fffff880`0496e4a0 \"\\SystemRoot\\system32\\drivers\\myfault.sys\"\n\
             fffff880`0496e5b8  fffff880`049763a0\n",
        ),
        ("ddp fffff880`0496e5a0 L1", "fffff880`0496e5a0  0496e3a0\n"),
    ] {
        assert_eq!(shown(&booted, line), expected, "{line}\n{}", shown(&booted, line));
    }
    // `d` goes on as the last of them did.
    shown(&booted, "dpa fffff880`0496e5a0 L2");
    assert!(
        shown(&booted, "d").starts_with("fffff880`0496e5b0  fffff880`0496e4a0 \""),
        "{}",
        shown(&booted, "d")
    );
    for (line, why) in
        [("dpp fffff880`0496e5a0 L2000", "each costs a request"), ("dpu fffff880`0496e5a0 L1 more", "dpu")]
    {
        let error = run(&booted.target(), line).map(|_| ()).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(why), "{line}: {error}");
    }
    let said = notes(&booted.target(), "dpp fffff880`0497e000");
    assert!(said.iter().any(|note| note.text.starts_with("Nothing can be read at")), "{said:?}");
}

#[test]
fn a_list_is_shown_entry_by_entry_until_it_ends() {
    let at = |number: u64| AT.0 + 0x200 + number * 0x40;
    let mut world = world();
    for number in 0..3 {
        let (next, last) = (at((number + 1) % 3), at((number + 2) % 3));
        world.put_pointers(VirtAddr(at(number)), &[next, last, number, 7]);
    }
    let booted = world.boot();
    let list = shown(&booted, "dl fffff880`0496e5a0");
    assert_eq!(
        list,
        "fffff880`0496e5a0  fffff880`0496e5e0 fffff880`0496e620\n\
         fffff880`0496e5b0  00000000`00000000 00000000`00000007\n\
         fffff880`0496e5e0  fffff880`0496e620 fffff880`0496e5a0\n\
         fffff880`0496e5f0  00000000`00000001 00000000`00000007\n\
         fffff880`0496e620  fffff880`0496e5a0 fffff880`0496e5e0\n\
         fffff880`0496e630  00000000`00000002 00000000`00000007\n"
    );
    assert_eq!(
        shown(&booted, "dlb fffff880`0496e5a0 2 1"),
        "fffff880`0496e5a0  fffff880`0496e5e0\nfffff880`0496e620  fffff880`0496e5a0\n"
    );
    // A null link ends it; so does a circle that leaves the first out, and what cannot be read, which are said.
    for (link, said) in [(0, None), (at(1), Some("leads back to")), (AT.0 + 0x8000, Some("cannot be read"))] {
        world.put_pointers(VirtAddr(at(2)), &[link]);
        let booted = world.boot();
        assert_eq!(shown(&booted, "dl fffff880`0496e5a0 20 1").lines().count(), 3, "{link:x}");
        let notes = notes(&booted.target(), "dl fffff880`0496e5a0");
        let is_said = |part: &str| notes.iter().any(|note| note.text.contains(part));
        assert!(said.map_or(notes.is_empty(), is_said), "{link:x}: {notes:?}");
    }
    for line in ["dl", "dl fffff880`0496e5a0 0", "dl fffff880`0496e5a0 1 41", "dl fffff880`0496e5a0 1 1 1"] {
        assert!(run(&booted.target(), line).map(|_| ()).unwrap_err().is_usage(), "{line}");
    }
}

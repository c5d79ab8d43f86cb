//! Instructions of code that a compiler wrote (tests/unwind/native/code.c), with its unwind information, in a kernel's place.

use std::fs;
use std::sync::Arc;

use object::LittleEndian as LE;
use object::pe::{ImageDosHeader, ImageNtHeaders64};
use object::read::pe::ImageNtHeaders;
use verikd::memory::VirtAddr;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};

use crate::support::text::{notes, run, text};
use crate::support::{Booted, World};

const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
const LIST: VirtAddr = VirtAddr(0xffff_fa80_0140_4000);

/// What the compiler made of each function, and where.
const FUNCTIONS: &[(&str, u32)] =
    &[("start", 0x1010), ("recursive", 0x1050), ("leaf", 0x1090), ("middle", 0x10a0)];

fn booted() -> Booted {
    let file = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/unwind/native/code.dll")).unwrap();
    let mut offset = ImageDosHeader::parse(&*file).unwrap().nt_headers_offset().into();
    let (nt, _) = ImageNtHeaders64::parse(&*file, &mut offset).unwrap();
    let size = nt.optional_header.size_of_image.get(LE);
    let identity = PdbIdentity::new("code.pdb", Guid([7; 16]), 1);
    let symbols =
        FUNCTIONS.iter().fold(TableSymbols::new(identity), |table, (name, rva)| table.symbol(name, *rva));
    let mut world = World::new(NT, size, Arc::new(symbols));
    world.version.module_list = LIST;
    world.write(LIST, &LIST.0.to_le_bytes());
    world.write(NT, &file[..0x400]);
    for section in nt.sections(&*file, offset).unwrap().iter() {
        let at = NT.offset(section.virtual_address.get(LE).into());
        world.map(at, section.virtual_size.get(LE).into());
        world.write(at, section.pe_data(&*file).unwrap());
    }
    world.boot()
}

fn shown(line: &str) -> String {
    text(&booted().target(), line)
}

#[test]
fn instructions_follow_one_another_under_the_names_of_what_they_are() {
    assert_eq!(
        shown("u nt!recursive La"),
        "nt!recursive:\n\
         fffff800`01401050 4157            push    r15\n\
         fffff800`01401052 4883ec20        sub     rsp,20h\n\
         fffff800`01401056 488b442428      mov     rax,qword ptr [rsp+28h]\n\
         fffff800`0140105b 4c8b05a62f0000  mov     r8,qword ptr [nt!middle+0x2f68 (fffff800`01404008)]\n\
         fffff800`01401062 4d8d4808        lea     r9,[r8+8]\n\
         fffff800`01401066 4c890d9b2f0000  mov     qword ptr [nt!middle+0x2f68 (fffff800`01404008)],r9\n\
         fffff800`0140106d 498900          mov     qword ptr [r8],rax\n\
         fffff800`01401070 85d2            test    edx,edx\n\
         fffff800`01401072 740a            je      nt!recursive+0x2e (fffff800`0140107e)\n\
         fffff800`01401074 83c2ff          add     edx,0FFFFFFFFh\n"
    );
    assert_eq!(
        shown("u nt!leaf+5 nt!leaf+10"),
        "nt!leaf+0x5:\n\
         fffff800`01401095 c3              ret\n\
         fffff800`01401096 662e0f1f840000000000 nop     word ptr [rax+rax]\n\
         nt!middle:\n\
         fffff800`014010a0 56              push    rsi\n"
    );
}

#[test]
fn what_comes_before_a_return_address_ends_with_the_call() {
    let expected = "nt!recursive+0x27:\n\
         fffff800`01401077 e8d4ffffff      call    nt!recursive (fffff800`01401050)\n\
         fffff800`0140107c eb05            jmp     nt!recursive+0x33 (fffff800`01401083)\n\
         fffff800`0140107e e81d000000      call    nt!middle (fffff800`014010a0)\n";
    assert_eq!(shown("ub nt!recursive+33 L3"), expected);
    // Across a function's beginning, into another's.
    let across = shown("ub nt!recursive+2 L3");
    assert!(across.contains("nt!recursive:\nfffff800`01401050 4157"), "{across}");
    // Not where an instruction begins: others lead up to it, or none.
    let told = notes(&booted().target(), "ub nt!leaf+3");
    assert!(told.iter().any(|note| note.text.contains("not known")), "{told:?}");
    let told = notes(&booted().target(), "ub nt!recursive+31");
    assert!(told.iter().any(|note| note.text.contains("No instructions lead up")), "{told:?}");
}

#[test]
fn a_function_is_shown_by_where_its_code_goes() {
    let whole = shown("uf nt!recursive+10");
    assert!(whole.starts_with("nt!recursive:\nfffff800`01401050 4157            push    r15\n"), "{whole}");
    let labels: Vec<_> = whole.lines().filter(|line| line.ends_with(':')).collect();
    assert_eq!(labels, ["nt!recursive:", "nt!recursive+0x24:", "nt!recursive+0x2e:", "nt!recursive+0x33:"]);
    assert!(whole.ends_with("fffff800`0140108c c3              ret\n"), "{whole}");
    assert_eq!(
        shown("uf nt!leaf"),
        "nt!leaf:\nfffff800`01401090 b801000000      mov     eax,1\nfffff800`01401095 c3              ret\n"
    );
}

#[test]
fn what_cannot_be_read_is_told() {
    let booted = booted();
    let target = booted.target();
    for line in ["u fffff90000000000", "ub fffff90000000000", "uf fffff90000000000", "u 0"] {
        let answer = run(&target, line).unwrap();
        assert!(
            answer.notes.iter().any(|note| note.kind == verikd::commands::NoteKind::Failed),
            "{line}: {:?}",
            answer.notes
        );
    }
    for line in [
        "u nt!start L0",
        "u nt!start L1001",
        "u nt!start nt!start-1",
        "u nt!start L2 3",
        "ub nt!start nt!leaf",
    ] {
        assert!(run(&target, line).is_err(), "{line}");
    }
}

//! `u`, `ub`, `uf` on a simulated machine that has a published function in its kernel: lines, labels, where they begin and end.

use verikd::memory::{Memory, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, NoteCode, Target};
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

use crate::simulated::{kernel, store};
use crate::support::machine::{Still, version_of};
use crate::support::reviewed::assert_reviewed;
use crate::support::text::{notes, run, text};

/// A function of a driver as `uf` of WinDbg printed it, in a driver author's notes: what lies outside of it is left out.
const PUBLISHED: &str = "\
NAME:
40 4053            push    rbx
42 4883ec20        sub     rsp,20h
46 80791000        cmp     byte ptr [rcx+10h],0
4a 488bd9          mov     rbx,rcx
4d 741b            je      NAME+0x2a (6a)  Branch

NAME+0xf:
4f 41b001          mov     r8b,1
52 418ad0          mov     dl,r8b
55 e82e2a0000      call    
5a 84c0            test    al,al
5c 7435            je      NAME+0x53 (93)  Branch

NAME+0x1e:
5e b201            mov     dl,1
60 488bcb          mov     rcx,rbx
63 e828b3ffff      call    
68 eb29            jmp     NAME+0x53 (93)  Branch

NAME+0x2a:
6a 8364243000      and     dword ptr [rsp+30h],0
6f 4c8d4c2430      lea     r9,[rsp+30h]
74 4c8d0585000000  lea     r8,[
7b 488bd3          mov     rdx,rbx
7e b900100000      mov     ecx,1000h
83 48ff15064e0100  call    qword ptr [
8a 0f1f440000      nop     dword ptr [rax+rax]
8f 8a442430        mov     al,byte ptr [rsp+30h]

NAME+0x53:
93 4883c420        add     rsp,20h
97 5b              pop     rbx
98 c3              ret
";
/// Where the function stands here: what the machine's tables say is one function, and long enough.
const NAME: &str = "nt!KiIdleLoop";

/// The lines of `PUBLISHED` as they are to be at `base`, up to where they are left out.
fn published(base: VirtAddr) -> Vec<String> {
    let line = |line: &str| {
        let Some((low, rest)) = line.split_once(' ').filter(|_| !line.starts_with("NAME")) else {
            return line.replace("NAME", NAME);
        };
        let at = |low: &str| base.offset(u64::from_str_radix(low, 16).unwrap() - 0x40).wide().to_string();
        let rest = match rest.split_once(" (") {
            Some((text, to)) => format!("{text} ({}){}", at(&to[..2]), &to[3..]),
            None => rest.to_owned(),
        };
        format!("{} {}", at(low), rest.replace("NAME", NAME))
    };
    PUBLISHED.lines().map(line).collect()
}

fn bytes() -> Vec<u8> {
    let digits =
        PUBLISHED.lines().filter_map(|line| line.split(' ').nth(1).filter(|_| !line.starts_with("NAME")));
    digits
        .flat_map(|it| (0..it.len()).step_by(2).map(|at| u8::from_str_radix(&it[at..at + 2], 16).unwrap()))
        .collect()
}

/// A machine that has the function, its kernel, and where the function is.
fn machine() -> (Still, Kernel, VirtAddr) {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = kernel(&machine, &store(&WINDOWS_7_SP1));
    let base = Target::new(&machine, &kernel).address_of(NAME).unwrap();
    let bytes = bytes();
    assert_eq!(bytes.len(), 0x59);
    assert_eq!(machine.write_virtual(base, &bytes), bytes.len());
    (machine, kernel, base)
}

#[test]
fn a_published_function_is_shown_as_windbg_showed_it() {
    let (machine, kernel, base) = machine();
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let expected = published(base);
    // From its begin, from its middle, and from an address of its last block.
    for at in ["", "+0x1e", "+0x57"] {
        let found = text(&target(), &format!("uf {NAME}{at}"));
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for (found, expected) in found.lines().zip(&expected) {
            let is_cut = expected.ends_with("call    ") || expected.ends_with('[');
            assert!(found == expected || (is_cut && found.starts_with(expected)), "{found}\n{expected}");
        }
        assert!(notes(&target(), &format!("uf {NAME}{at}")).is_empty());
    }
    // The same, one after another and from behind: without the jumps' mark, and with one label.
    let lines: Vec<_> = expected.iter().filter(|line| line.starts_with("ffff")).collect();
    for (count, line) in lines.iter().enumerate().skip(1) {
        let before = text(&target(), &format!("ub {} L{count:x}", &line[..17]));
        let shown: Vec<_> = before.lines().filter(|line| line.starts_with("ffff")).collect();
        assert_eq!(shown.len(), count, "{before}");
        for (shown, expected) in shown.iter().zip(&lines) {
            assert_eq!(&shown[..34], &expected[..34]);
        }
        assert!(notes(&target(), &format!("ub {} L{count:x}", &line[..17])).is_empty());
    }
}

#[test]
fn instructions_print_as_windbg_prints_them() {
    let (machine, kernel, _) = machine();
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let mut printed = String::new();
    for line in [
        "u",
        "u L2",
        "u nt!KiIdleLoop L4",
        "u",
        "u nt!KiIdleLoop nt!KiIdleLoop+2",
        "ub nt!KiIdleLoop+6 L4",
        "ub nt!KiIdleLoop+2a",
        "ub L1",
        "uf",
        "u fffffa7fdead0000",
    ] {
        printed.push_str(&format!("kd> {line}\n{}", text(&target(), line)));
    }
    assert_reviewed("unwind", "instructions", &printed);
}

#[test]
fn what_is_not_known_is_said() {
    let (machine, kernel, base) = machine();
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let told = |line: &str| notes(&target(), line).into_iter().map(|note| note.code).collect::<Vec<_>>();
    // A leaf without unwind information; nothing mapped.
    assert_eq!(told("ub nt!DbgBreakPointWithStatus+1 L2"), [NoteCode::Guessed]);
    assert_eq!(told("u fffffa7fdead0000"), [NoteCode::Unreadable]);
    assert_eq!(told("ub fffffa7fdead0000"), [NoteCode::NotFound]);
    assert_eq!(told("uf fffffa7fdead0000"), [NoteCode::Guessed, NoteCode::Unreadable]);
    for wrong in ["u nt nt-1", "u nt L0", "u nt L2001", "u 1 2 3", "ub nt 5", "uf nt L3", "u nosuch"] {
        assert!(run(&target(), wrong).is_err(), "{wrong}");
    }
    // The first byte of an instruction that goes on where nothing is mapped is told as that, not as another instruction.
    let (page, mut byte) = ((base.0 | 0xfff) + 1, [0]);
    let last = (0..0x4000)
        .map(|page_number| VirtAddr(page + page_number * 0x1000))
        .find(|at| machine.read_virtual(*at, &mut byte).is_err());
    let last = VirtAddr(last.expect("the image ends").0 - 1);
    let mut machine = machine.clone();
    machine.write_virtual(last, &[0xe8]);
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let shown = text(&target(), &format!("u {:x}", last.0));
    assert_eq!(shown.lines().last(), Some(format!("{} ??              ???", last.wide()).as_str()));
}

/// Names and files of nobody: the image itself says where the function begins and ends.
#[test]
fn without_symbols_the_image_says_where_functions_begin() {
    let (machine, _, base) = machine();
    let nameless = Kernel::new(version_of(&machine), SymbolPath::default());
    let shown =
        text(&Target::new(&machine, &nameless).with_cpu(&machine), &format!("uf {:x}", base.0 + 0x1e));
    let shown: Vec<_> =
        shown.lines().filter(|line| line.starts_with("ffff")).map(|line| &line[..34]).collect();
    let expected = published(base);
    let expected: Vec<_> =
        expected.iter().filter(|line| line.starts_with("ffff")).map(|line| &line[..34]).collect();
    assert_eq!(shown, expected);
}

use super::*;

const BASE: u64 = 0xffff_f800_1000_0000;
const STACK: u64 = 0xffff_8800_0000_0000;
const TABLE: u32 = 0x3000;
const INFOS: u32 = 0x4000;
const SIZE: u32 = 0x6000;
const RBX: usize = 3;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// An image made of what a test puts into it.
struct Made {
    image: Image,
    bytes: Vec<u8>,
    infos: u32,
}

impl Made {
    fn new() -> Self {
        let image = Image { base: BASE, size: SIZE, table: TABLE, table_size: 0 };
        // int 3: no epilog.
        Self { image, bytes: vec![0xcc; SIZE as usize], infos: INFOS }
    }

    fn put(&mut self, rva: u32, bytes: &[u8]) {
        self.bytes[rva as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn entry(&mut self, words: [u32; 3]) -> u32 {
        let at = TABLE + self.image.table_size;
        self.put(at, &entry(words));
        self.image.table_size += 12;
        at
    }

    /// Puts an `UNWIND_INFO` somewhere.
    fn info(&mut self, info: &[u8]) -> u32 {
        let at = self.infos;
        self.put(at, info);
        self.infos = (at + info.len() as u32).next_multiple_of(4);
        at
    }

    fn function(&mut self, begin: u32, end: u32, info: &[u8]) -> u32 {
        let info = self.info(info);
        self.entry([begin, end, info])
    }

    fn read(&self, what: What, at: u64, buf: &mut [u8]) -> Result<(), &'static str> {
        if what == What::Stack {
            buf.copy_from_slice(&word(at).to_le_bytes());
            return Ok(());
        }
        let from = usize::try_from(at.wrapping_sub(BASE)).map_err(|_| "far away")?;
        let bytes = self.bytes.get(from..).and_then(|rest| rest.get(..buf.len())).ok_or("outside")?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn step(&self, rva: u32, counter: Counter) -> Result<Step, Fault<&'static str>> {
        let general = std::array::from_fn(|number| Some(STACK + 0x10_0000 * (number as u64 + 1)));
        let registers = Registers { rip: BASE + u64::from(rva), rsp: STACK, general };
        step(&self.image, &registers, counter, &mut |what, at, buf: &mut [u8]| self.read(what, at, buf))
    }

    fn exact(&self, rva: u32) -> Registers {
        self.step(rva, Counter::Exact).unwrap().caller
    }
}

/// A word of the stack; no two are alike.
const fn word(at: u64) -> u64 {
    at.rotate_left(17)
}

fn entry(words: [u32; 3]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// push rbx; sub rsp, 28h
const PLAIN: [u8; 8] = [1, 5, 2, 0, 5, 0x42, 1, 0x30];

#[test]
fn each_instruction_of_a_prolog_is_undone_once_it_ran() {
    let mut made = Made::new();
    made.function(
        0x1000,
        0x1100,
        &[
            1, 0x20, 17, 0, //
            0x1e, 0xf5, 0x00, 0x10, 0x00, 0x00, // save r15 at 1000h, far
            0x18, 0xc4, 0x08, 0x00, // save r12 at 40h
            0x14, 0x68, 0x01, 0x00, // save xmm6
            0x10, 0x79, 0x00, 0x01, 0x00, 0x00, // save xmm7, far
            0x0c, 0x11, 0x00, 0x20, 0x00, 0x00, // sub rsp, 2000h
            0x08, 0x01, 0x20, 0x00, // sub rsp, 100h
            0x04, 0x32, // sub rsp, 20h
            0x01, 0x30, // push rbx
        ],
    );
    for (offset, pushed_at, saved) in [
        (0x00, None, 0),
        (0x01, Some(0), 0),
        (0x03, Some(0), 0),
        (0x04, Some(0x20), 0),
        (0x08, Some(0x120), 0),
        (0x0c, Some(0x2120), 0),
        (0x10, Some(0x2120), 0),
        (0x14, Some(0x2120), 0),
        (0x18, Some(0x2120), 1),
        (0x1e, Some(0x2120), 2),
        (0x80, Some(0x2120), 2),
    ] {
        let caller = made.exact(0x1000 + offset);
        let return_at = STACK + pushed_at.map_or(0, |at| at + 8);
        assert_eq!((caller.rip, caller.rsp), (word(return_at), return_at + 8), "{offset:#x}");
        let unchanged = |number: usize| STACK + 0x10_0000 * (number as u64 + 1);
        let is = |number: usize, saved_at: Option<u64>| {
            let expected = saved_at.map_or_else(|| unchanged(number), |at| word(STACK + at));
            assert_eq!(caller.general[number], Some(expected), "register {number} at {offset:#x}");
        };
        is(RBX, pushed_at);
        is(12, (saved >= 1).then_some(0x40));
        is(15, (saved >= 2).then_some(0x1000));
        assert_eq!(caller.general[0], None, "rax is nobody's");
    }
}

#[test]
fn a_frame_register_finds_the_frame_wherever_the_stack_pointer_is() {
    let mut made = Made::new();
    // push rbp; sub rsp, 50h; lea rbp, [rsp + 20h]; mov [rsp + 30h], rsi
    made.function(0x1000, 0x1100, &[1, 15, 5, 0x25, 15, 0x64, 6, 0, 10, 3, 5, 0x92, 1, 0x50]);
    let early = made.exact(0x1005);
    assert_eq!((early.rsp, early.general[RBP]), (STACK + 0x60, Some(word(STACK + 0x50))));
    let base = STACK + 0x10_0000 * 6 - 0x20;
    for (offset, rsi) in [(10, STACK + 0x10_0000 * 7), (15, word(base + 0x30)), (0x40, word(base + 0x30))] {
        let caller = made.exact(0x1000 + offset);
        assert_eq!((caller.rip, caller.rsp), (word(base + 0x58), base + 0x60));
        assert_eq!((caller.general[RBP], caller.general[RSI]), (Some(word(base + 0x50)), Some(rsi)));
    }
}

#[test]
fn a_part_is_undone_with_the_function_that_it_is_chained_to() {
    let mut made = Made::new();
    let whole = made.info(&PLAIN);
    made.entry([0x1000, 0x1200, whole]);
    // mov [rsp + 20h], rdi
    made.function(
        0x1400,
        0x1500,
        &[&[0x21, 4, 2, 0, 4, 0x74, 4, 0][..], &entry([0x1000, 0x1200, whole])].concat(),
    );
    for (offset, rdi) in [(0, STACK + 0x10_0000 * 8), (4, word(STACK + 0x20)), (0x80, word(STACK + 0x20))] {
        let step = made.step(0x1400 + offset, Counter::Exact).unwrap();
        assert_eq!((step.kind, step.begin), (Kind::Call, Some(0x1000)));
        let caller = step.caller;
        assert_eq!((caller.rip, caller.rsp), (word(STACK + 0x30), STACK + 0x38));
        assert_eq!(
            (caller.general[RBX], caller.general[RDI]),
            (Some(word(STACK + 0x28)), Some(rdi)),
            "{offset}"
        );
    }
}

#[test]
fn an_indirect_entry_is_undone_as_the_entry_that_it_leads_to() {
    let mut made = Made::new();
    let info = made.info(&PLAIN);
    let whole = made.entry([0x1000, 0x1200, info]);
    let part = made.entry([0x1400, 0x1500, whole | 1]);
    let step = made.step(0x1400, Counter::Exact).unwrap();
    assert_eq!((step.begin, step.caller.rsp), (Some(0x1000), STACK + 0x38), "no prolog begins there");
    made.entry([0x1600, 0x1700, part | 1]);
    assert!(matches!(
        made.step(0x1600, Counter::Exact),
        Err(Fault::Unknown { what: "it leads on twice", .. })
    ));
}

#[test]
fn version_2_says_where_epilogs_are() {
    let mut made = Made::new();
    // Six bytes at the end, and 20h bytes before it; push rbx; sub rsp, 28h
    made.function(0x1000, 0x1040, &[2, 5, 4, 0, 6, 0x16, 0x20, 6, 5, 0x42, 1, 0x30]);
    let epilog = [0x48, 0x83, 0xc4, 0x28, 0x5b, 0xc3];
    for start in [0x1010, 0x1020, 0x103a] {
        made.put(start, &epilog);
    }
    for start in [0x1020, 0x103a] {
        for (offset, rsp) in [(0, STACK + 0x38), (4, STACK + 0x10), (5, STACK + 8)] {
            assert_eq!(made.exact(start + offset).rsp, rsp, "{start:x}+{offset}");
        }
    }
    assert_eq!(made.exact(0x1014).rsp, STACK + 0x38, "what looks like one is none");
    assert_eq!(made.exact(0x1026).rsp, STACK + 0x38);
    assert_eq!(made.step(0x103f, Counter::Return).unwrap().caller.rsp, STACK + 0x38, "who called is in none");
}

#[test]
fn an_epilog_is_known_by_its_instructions() {
    // push rbx; sub rsp, 28h
    let fixed = |code: &[u8]| {
        let mut made = Made::new();
        made.function(0x1000, 0x1100, &PLAIN);
        made.function(0x1200, 0x1300, &PLAIN);
        made.put(0x1040, code);
        made.exact(0x1040).rsp - STACK
    };
    const BODY: u64 = 0x38;
    for (code, rsp) in [
        (&[0xc3][..], 8),
        (&[0xc2, 8, 0], 8),
        (&[0xf3, 0xc3], 8),
        (&[0x48, 0x83, 0xc4, 0x18, 0xc3], 0x20),
        (&[0x48, 0x81, 0xc4, 0, 2, 0, 0, 0x5b, 0x41, 0x5c, 0xc3], 0x218),
        (&[0x5b, 0x5f, 0xc3], 0x18),
        // jmp far outside, to another function, to its own begin
        (&[0xe9, 0, 0, 0, 0x20], 8),
        (&[0xe9, 0xbb, 0x01, 0, 0], 8),
        (&[0xeb, 0xbe], 8),
        // jmp [rip + 8]; jmp [rax]; jmp rax marked as a way out
        (&[0xff, 0x25, 8, 0, 0, 0], 8),
        (&[0xff, 0x20], 8),
        (&[0x48, 0xff, 0xe0], 8),
        // jmp within; jmp rax of a table; not at its end; into the middle of its prolog
        (&[0xeb, 0x10], BODY),
        (&[0xff, 0xe0], BODY),
        (&[0xff, 0x24, 0xc8], BODY),
        (&[0x5b, 0x90], BODY),
        (&[0x48, 0x83, 0xc4, 0x28, 0x90], BODY),
        (&[0x5c, 0xc3], BODY),
        (&[0xeb, 0xc0], BODY),
        // No frame register: lea rsp, [rbp + 10h] is no epilog.
        (&[0x48, 0x8d, 0x65, 0x10, 0xc3], BODY),
    ] {
        assert_eq!(fixed(code), rsp, "{code:x?}");
    }
}

#[test]
fn an_epilog_gives_back_a_frame_by_its_register() {
    let mut made = Made::new();
    // push rbp; sub rsp, 50h; lea rbp, [rsp + 20h]
    made.function(0x1000, 0x1100, &[1, 10, 3, 0x25, 10, 3, 5, 0x92, 1, 0x50]);
    let rbp = STACK + 0x10_0000 * 6;
    for (at, code, from) in [
        (0x1020, &[0x48, 0x8d, 0x65, 0x30, 0x5d, 0xc3][..], rbp + 0x30),
        (0x1030, &[0x48, 0x8d, 0xa5, 0x30, 1, 0, 0, 0x5d, 0xc3], rbp + 0x130),
        (0x1040, &[0x5d, 0xc3], STACK),
    ] {
        made.put(at, code);
        let caller = made.exact(at);
        assert_eq!((caller.rsp, caller.general[RBP]), (from + 0x10, Some(word(from))), "{code:x?}");
    }
    // lea rsp, [rbx + 30h] is of another register.
    made.put(0x1050, &[0x48, 0x8d, 0x63, 0x30, 0x5d, 0xc3]);
    assert_eq!(made.exact(0x1050).rsp, rbp - 0x20 + 0x60);
}

#[test]
fn a_jump_between_the_parts_of_a_function_is_no_epilog() {
    let mut made = Made::new();
    let whole = made.info(&PLAIN);
    made.entry([0x1000, 0x1200, whole]);
    made.function(0x1400, 0x1500, &[&[0x21, 0, 0, 0][..], &entry([0x1000, 0x1200, whole])].concat());
    // To 1100h from the part, to the part from the function.
    made.put(0x1440, &[0xe9, 0xbb, 0xfc, 0xff, 0xff]);
    made.put(0x1040, &[0xe9, 0xbb, 0x03, 0, 0]);
    assert_eq!((made.exact(0x1440).rsp, made.exact(0x1040).rsp), (STACK + 0x38, STACK + 0x38));
    // To the function's begin from the part: a call of it that returns to the caller.
    made.put(0x1440, &[0xe9, 0xbb, 0xfb, 0xff, 0xff]);
    assert_eq!(made.exact(0x1440).rsp, STACK + 8);
}

#[test]
fn an_interrupted_caller_is_found_where_the_processor_pushed_it() {
    let mut made = Made::new();
    // push rbp; sub rsp, 158h behind SS, RSP, EFLAGS, CS, RIP and an error code, or behind a word of the handler's own
    made.function(0x1000, 0x1100, &[1, 8, 4, 0, 8, 1, 0x2b, 0, 1, 0x50, 0, 0x1a]);
    made.function(0x1200, 0x1300, &[1, 12, 5, 0, 12, 1, 0x2b, 0, 5, 0x50, 4, 0x02, 0, 0x0a]);
    for rva in [0x1080, 0x1280] {
        let step = made.step(rva, Counter::Return).unwrap();
        assert_eq!((step.kind, step.counter), (Kind::Trap { frame: STACK }, Counter::Exact));
        assert_eq!((step.caller.rip, step.caller.rsp), (word(STACK + 0x168), word(STACK + 0x180)));
        assert_eq!(step.caller.general[RBP], Some(word(STACK + 0x158)));
    }
    // At the handler's first instruction.
    for (rva, at) in [(0x1000, 8), (0x1200, 0)] {
        let step = made.step(rva, Counter::Exact).unwrap();
        assert_eq!((step.caller.rip, step.caller.rsp), (word(STACK + at), word(STACK + at + 0x18)));
    }
}

#[test]
fn code_without_an_entry_has_its_return_address_on_top() {
    let mut made = Made::new();
    made.function(0x1000, 0x1100, &PLAIN);
    for rva in [0xfff, 0x1100, 0x2fff] {
        let step = made.step(rva, Counter::Exact).unwrap();
        assert_eq!((step.kind, step.begin, step.counter), (Kind::Leaf, None, Counter::Return));
        assert_eq!((step.caller.rip, step.caller.rsp), (word(STACK), STACK + 8));
    }
    // A function that ends with a call that never returns is found by that call.
    assert_eq!(made.step(0x1100, Counter::Return).unwrap().kind, Kind::Call);
    assert_eq!(made.step(0x1000, Counter::Return).unwrap().kind, Kind::Leaf);
}

#[test]
fn the_function_is_found_among_thousands() {
    let mut made = Made::new();
    made.bytes.resize(0x10_0000, 0xcc);
    made.image.size = 0x10_0000;
    let info = made.info(&PLAIN);
    made.image.table = 0x2_0000;
    let mut table = Vec::new();
    for number in 0..3000 {
        table.extend(entry([0x4_0000 + number * 0x20, 0x4_0000 + number * 0x20 + 0x18, info]));
    }
    made.put(0x2_0000, &table);
    made.image.table_size = table.len() as u32;
    for number in (0..3000).step_by(7).chain([2999]) {
        let begin = 0x4_0000 + number * 0x20;
        assert_eq!(made.step(begin + 0x10, Counter::Exact).unwrap().begin, Some(begin));
        assert_eq!(made.step(begin + 0x18, Counter::Exact).unwrap().begin, None, "between two");
    }
    assert_eq!(made.step(0x3_ffff, Counter::Exact).unwrap().begin, None);
    assert_eq!(made.step(0xf_0000, Counter::Exact).unwrap().begin, None);
}

#[test]
fn circles_and_nonsense_are_faults() {
    let unknown = |info: &[u8]| {
        let mut made = Made::new();
        made.function(0x1000, 0x1100, info);
        match made.step(0x1080, Counter::Exact) {
            Err(Fault::Unknown { at, what }) => {
                assert_eq!(at, BASE + u64::from(INFOS));
                what
            }
            other => panic!("{other:x?}"),
        }
    };
    let itself = [&[0x21, 0, 0, 0][..], &entry([0x1000, 0x1100, INFOS])].concat();
    assert_eq!(unknown(&itself), "its chain does not end");
    assert_eq!(unknown(&[3, 0, 0, 0]), "its version is neither 1 nor 2");
    assert_eq!(unknown(&[1, 4, 1, 0, 4, 1]), "its last code is cut off");
    assert_eq!(unknown(&[1, 4, 1, 0, 4, 11]), "a code that is not known");
    assert_eq!(unknown(&[1, 4, 2, 0, 4, 0x44, 1, 0]), "it saves the stack pointer");
    assert_eq!(unknown(&[1, 4, 2, 0, 4, 0x21, 1, 0]), "an allocation of no known form");
    assert_eq!(unknown(&[1, 4, 1, 0, 4, 3]), "it sets a frame register and names none");
    assert_eq!(unknown(&[1, 4, 1, 0, 4, 0x2a]), "a code that is not known");
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut made = Made::new();
    made.function(0x1000, 0x1100, &PLAIN);
    let of = |missing: What| {
        let registers = Registers { rip: BASE + 0x1080, rsp: STACK, ..Registers::default() };
        let read = &mut |what, at, buf: &mut [u8]| {
            if what == missing { Err("away") } else { made.read(what, at, buf) }
        };
        match step(&made.image, &registers, Counter::Exact, read) {
            Err(Fault::Read { what, at, error: "away" }) => (what, at),
            other => panic!("{other:x?}"),
        }
    };
    assert_eq!(of(What::Functions), (What::Functions, BASE + u64::from(TABLE)));
    assert_eq!(of(What::Info), (What::Info, BASE + u64::from(INFOS)));
    assert_eq!(of(What::Code), (What::Code, BASE + 0x1080));
    assert_eq!(of(What::Stack), (What::Stack, STACK + 0x28));
}

#[test]
fn a_frame_whose_register_is_not_known_is_not_guessed() {
    let mut made = Made::new();
    made.function(0x1000, 0x1100, &[1, 10, 3, 0x25, 10, 3, 5, 0x92, 1, 0x50]);
    let registers = Registers { rip: BASE + 0x1080, rsp: STACK, ..Registers::default() };
    let read = &mut |what, at, buf: &mut [u8]| made.read(what, at, buf);
    assert_eq!(step(&made.image, &registers, Counter::Return, read), Err(Fault::Register { number: 5 }));
}

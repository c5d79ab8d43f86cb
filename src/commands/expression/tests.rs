use std::sync::Arc;

use kd_protocol::MachineType;
use proptest::prelude::*;

use super::Expression;
use super::tree::{Binary, ExpressionCause, Node, Place, Unary};
use crate::memory::{ImageMemory, ReadCause, StoppedCpu, VirtAddr};
use crate::symbols::store::SymbolPath;
use crate::symbols::table::TableSymbols;
use crate::symbols::{Guid, PdbIdentity};
use crate::target::{Kernel, KernelVersion, Target};

const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);

#[test]
fn numbers_are_hexadecimal_unless_they_say_otherwise() {
    for (text, value) in [
        ("80", 0x80),
        ("0X8f", 0x8f),
        ("8fh", 0x8f),
        ("fffffa80`05400000", 0xffff_fa80_0540_0000),
        ("0xfffffa80`05400000", 0xffff_fa80_0540_0000),
        ("0n10", 10),
        ("0t17", 15),
        ("0y101", 5),
        ("fade", 0xfade),
    ] {
        assert_eq!(evaluate(text), Ok(value), "{text}");
    }
    for (text, problem) in [
        ("0x", "digits of a number"),
        ("1g", "digits of a number"),
        ("1`0", "a backtick stands"),
        ("fffffa80`05400000`00000000", "a backtick stands"),
        ("10000000000000000", "at most 64 bits"),
        ("0n18446744073709551616", "at most 64 bits"),
    ] {
        let error = evaluate(text).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn operators_bind_as_windbgs_do_and_wrap() {
    for (text, value) in [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10-1-1", 0xe),
        ("1 << 4 + 1", 0x20),
        ("1<<4 == 10", 1),
        ("1 < 2 & 3 > 2", 1),
        ("f0 | f ^ f & 3", 0xfc),
        ("f0 or f xor f and 3", 0xfc),
        ("7 mod 4 + 7 % 4", 6),
        ("-1", u64::MAX),
        ("- -1", 1),
        ("~0 - 1", u64::MAX - 1),
        ("not 0 + not 5", 1),
        ("hi(12345678)", 0x1234),
        ("low 12345678", 0x5678),
        ("ffffffffffffffff + 2", 1),
        ("ffffffff`ffffffff * 2", u64::MAX - 1),
        ("8000000000000000 >> 3f", 1),
        ("8000000000000000 >>> 3f", u64::MAX),
        ("1 << 40", 0),
        ("5 != 4", 1),
        ("4 >= 5", 0),
        ("4 <= 4", 1),
        ("1=1", 1),
        ("+5 + +5", 0xa),
    ] {
        assert_eq!(evaluate(text), Ok(value), "{text}");
    }
}

#[test]
fn names_are_symbols_modules_and_registers() {
    for (text, value) in [
        ("nt!Counter+10", NT.0 + 0x2010),
        ("nt", NT.0),
        ("Counter - nt", 0x2000),
        ("nt!Device::Dispatch", NT.0 + 0x3000),
        ("nt!?Dispatch@Device@@SAJXZ", NT.0 + 0x3000),
        ("@!\"nt!Device::Dispatch\"+1", NT.0 + 0x3001),
        ("@rax", 0x1122),
        ("rax + @al", 0x1144),
        ("@RIP", NT.0 + 0x1000),
        (". - nt", 0x1000),
    ] {
        assert_eq!(evaluate(text), Ok(value), "{text}");
    }
}

#[test]
fn memory_is_read_at_the_asked_width() {
    for (text, value) in [
        ("by nt!Counter", 0x88),
        ("wo(nt!Counter)", 0x7788),
        ("dwo(nt!Counter)", 0x5566_7788),
        ("qwo(nt!Counter)", 0x1122_3344_5566_7788),
        ("poi(nt!Counter+8)+1", NT.0 + 1),
        ("poi(poi(nt!Counter+8)+2000)", 0x1122_3344_5566_7788),
    ] {
        assert_eq!(evaluate(text), Ok(value), "{text}");
    }
}

#[test]
fn an_error_points_at_where_it_is_and_says_what_should_be_there() {
    for (text, error) in [
        ("1+", "Couldn't resolve error at the end: a number, a symbol or a register should stand here"),
        ("1+*2", "Couldn't resolve error at '*2': a number, a symbol or a register should stand here"),
        ("(1+2", "Couldn't resolve error at the end: a closing parenthesis should stand here"),
        ("1 2", "Couldn't resolve error at '2': an operator should stand here"),
        ("5/(3-3)", "Couldn't resolve error at '(3-3)': division by zero"),
        ("1+@zax", "Couldn't resolve error at '@zax': no register has this name"),
        (
            "@@c++(1)",
            "Couldn't resolve error at '@@c++(1)': C++ expressions are not read; MASM expressions are",
        ),
    ] {
        assert_eq!(evaluate(text), Err(error.to_owned()), "{text}");
    }
    for (text, start, part) in [
        (
            "1+poi(0)",
            "Couldn't resolve error at '(0)': the value at an address: read 0x0 of 0x8",
            "not mapped",
        ),
        ("nt!Countre+1", "Couldn't resolve error at 'nt!Countre+1': nt!Countre not found in nt.pdb", ""),
        ("Countre", "Couldn't resolve error at 'Countre': no module is called Countre", "no symbol in nt"),
        (
            "@$proc",
            "Couldn't resolve error at '@$proc': the pseudo-register $proc is not known here; $ip, $csp",
            "$t0 to $t19",
        ),
        ("$t20", "Couldn't resolve error at '$t20': the pseudo-register $t20 is not known here", ""),
    ] {
        let error = evaluate(text).unwrap_err();
        assert!(error.starts_with(start) && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn an_expression_ends_where_the_next_argument_begins() {
    let rest = |text| Expression::parse_prefix(text).unwrap().1;
    assert_eq!(rest("nt!Counter L20"), " L20");
    assert_eq!(rest("fffff880`0447c000 fffff880`0447c100"), " fffff880`0447c100");
    assert_eq!(rest("nt!Counter + 10 next"), " next");
    assert_eq!(rest("1 order"), " order", "a word that begins like an operator is none");
}

#[test]
fn a_long_or_deep_expression_is_refused() {
    let long = "1+".repeat(5_000) + "1";
    assert!(evaluate(&long).unwrap_err().ends_with("the expression is too long"));
    for deep in ["(".repeat(50_000), "-".repeat(50_000), "poi ".repeat(50_000)] {
        assert!(evaluate(&deep).unwrap_err().ends_with("the expression is nested too deeply"));
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        let _ = evaluate(&text);
    }

    #[test]
    fn no_line_of_its_own_words_makes_it_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..30)
    ) {
        let _ = evaluate(&words.concat());
    }

    #[test]
    fn what_is_printed_is_read_as_the_same_expression(node in any_node()) {
        let expression = Expression { node };
        let text = expression.to_string();
        let read = Expression::parse(&text).unwrap();
        // Positions differ with the text they are in, the printed form does not.
        prop_assert_eq!(read.to_string(), text);
        prop_assert_eq!(evaluate(&read.to_string()), evaluate(&expression.to_string()));
    }
}

const WORDS: &[&str] = &[
    "1",
    "0x",
    "0n9",
    "`",
    "nt",
    "!",
    "nt!Counter",
    "@",
    "rax",
    "$",
    "?",
    ":",
    "::",
    "~",
    "(",
    ")",
    "poi",
    "by ",
    "+",
    "-",
    "*",
    "/",
    "%",
    "<",
    "<<",
    ">",
    ">>>",
    "=",
    "!=",
    "&",
    "or ",
    " ",
    "\"",
    "@!\"",
    "é",
    ".",
    "L20",
    "h",
];

fn any_node() -> impl Strategy<Value = Node> {
    let name = prop_oneof![Just("nt!Counter"), Just("nt"), Just("nt!Device::Dispatch")];
    let leaf = prop_oneof![
        any::<u64>().prop_map(Node::Number),
        name.prop_map(|name| Node::Name(Place { name: name.to_owned(), at: 0 })),
        Just(Node::Register(Place { name: "rsp".to_owned(), at: 0 })),
    ];
    leaf.prop_recursive(5, 40, 2, |inner| {
        let unary = prop_oneof![
            Just(Unary::Negate),
            Just(Unary::Complement),
            Just(Unary::Not),
            Just(Unary::High),
            Just(Unary::Pointer)
        ];
        let binary = prop_oneof![
            Just(Binary::Add),
            Just(Binary::Divide),
            Just(Binary::Equal),
            Just(Binary::ShiftRightSigned),
            Just(Binary::Xor)
        ];
        prop_oneof![
            (unary, inner.clone()).prop_map(|(operator, operand)| Node::Unary(
                operator,
                Box::new(operand),
                0
            )),
            (binary, inner.clone(), inner).prop_map(|(operator, left, right)| Node::Binary(
                operator,
                Box::new(left),
                Box::new(right),
                0
            )),
        ]
    })
}

struct Cpu;

impl StoppedCpu for Cpu {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        let mut context = vec![0; 1232];
        context[0x78..0x7a].copy_from_slice(&[0x22, 0x11]);
        context[0xf8..0x100].copy_from_slice(&(NT.0 + 0x1000).to_le_bytes());
        Ok(context)
    }
}

/// The value in a kernel with one counter and a pointer to the kernel's base behind it, or the error's text.
fn evaluate(text: &str) -> Result<u64, String> {
    let mut memory = ImageMemory::new();
    let list = NT.offset(0x4000);
    memory.map(list, [list.0.to_le_bytes(), list.0.to_le_bytes()].concat());
    memory.map(NT.offset(0x2000), [0x1122_3344_5566_7788_u64.to_le_bytes(), NT.0.to_le_bytes()].concat());
    let symbols = TableSymbols::new(PdbIdentity::new("nt.pdb", Guid::default(), 1))
        .symbol("Counter", 0x2000)
        .symbol("?Dispatch@Device@@SAJXZ", 0x3000);
    let version = KernelVersion {
        machine: MachineType::AMD64,
        base: NT,
        module_list: list,
        ..KernelVersion::default()
    };
    let kernel = Kernel::new(version, SymbolPath::default());
    kernel.use_symbols(NT, 0x1_0000, Arc::new(symbols));
    let target = Target::new(&memory, &kernel).with_cpu(&Cpu);
    let value = Expression::parse(text).and_then(|expression| expression.evaluate(text, &target));
    value.map_err(|error| {
        let is_syntax = matches!(error.cause(), ExpressionCause::Syntax(_));
        assert!(!is_syntax || !error.to_string().contains("read 0x"));
        error.to_string()
    })
}

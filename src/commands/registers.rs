//! `r`: the registers of the CPU that stopped, or was chosen with `~Ns`.
//!
//! ```text
//! 0: kd> r
//! rax=0000000000000000 rbx=fffff800015ff180 rcx=0000000000000001
//! ..
//! iopl=0         nv up ei pl zr na pe nc
//! cs=0010  ss=0018  ds=002b  es=002b  fs=0053  gs=002b             efl=00000246
//! nt!DbgBreakPointWithStatus:
//! fffff800`014846a0 cc              int     3
//! 0: kd> r rip, zf
//! rip=fffff800014846a0 zf=1
//! ```
//! Of a 32-bit target:
//! ```text
//! eax=00000000 ebx=00000000 ecx=00000001 edx=00000000 esi=00000000 edi=00000000
//! eip=80527bdc esp=8054d500 ebp=00000000 iopl=0         nv up ei pl zr na pe nc
//! cs=0008  ss=0010  ds=0023  es=0023  fs=0030  gs=0000             efl=00000246
//! nt+0x4fbdc:
//! 80527bdc cc              int     3
//! ```
//! Of an ARM64 one:
//! ```text
//!  x0=0000000000000000   x1=0000000000000001   x2=ffffffffffffff80   x3=fffff803f3a36aa0
//! ..
//! x28=0000000000000000   fp=ffffe00e0e4bc4a0   lr=0000000000000000   sp=ffffe00e0e4bc4a0
//!  pc=fffff803f32de014  psr=80000144 N--- EL1
//! nt+0x4de014:
//! fffff803`f32de014
//! ```
//! `r REGISTER=VALUE` is a command of its own: [`change_registers`](super::change_registers).

use std::fmt;

use kd_protocol::MachineType;
use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::change_registers::ChangedRegisters;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use super::unassemble::{InstructionLine, instruction_at};
use crate::output::{self, Address};
use crate::target::{Register, Registers, Target, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["r"],
    usage: "r [REGISTER ...]",
    summary: "show the registers of the CPU that stopped, or was chosen, or change them",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[(
        "REGISTER=VALUE, ...",
        "change them: general registers, their parts, the program counter, flags",
    )],
    answers: &[RegisterView::SCHEMA, ChangedRegisters::SCHEMA],
    run: Run::Query(run),
};

/// WinDbg's order, line by line.
const GENERAL: [&[&str]; 6] = [
    &["rax", "rbx", "rcx"],
    &["rdx", "rsi", "rdi"],
    &["rip", "rsp", "rbp"],
    &["r8", "r9", "r10"],
    &["r11", "r12", "r13"],
    &["r14", "r15"],
];
/// The same on x86, where the flags stand behind the last of them.
const GENERAL_X86: [&[&str]; 2] = [&["eax", "ebx", "ecx", "edx", "esi", "edi"], &["eip", "esp", "ebp"]];
/// ARM64's, in lines of four.
const GENERAL_ARM64: [&str; 32] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "fp", "lr",
    "sp",
];
/// The flags of its psr, and their bits.
const FLAGS_ARM64: [(char, u32); 4] = [('N', 31), ('Z', 30), ('C', 29), ('V', 28)];
const SEGMENTS: [&str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
/// Each flag and how it is called when set and when clear.
const FLAGS: [(&str, &str, &str); 8] = [
    ("of", "ov", "nv"),
    ("df", "dn", "up"),
    ("if", "ei", "di"),
    ("sf", "ng", "pl"),
    ("zf", "zr", "nz"),
    ("af", "ac", "na"),
    ("pf", "pe", "po"),
    ("cf", "cy", "nc"),
];

/// Some registers.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct RegisterView {
    registers: Vec<Shown>,
    /// What the program counter points to, if all registers were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// The instruction there, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    instruction: Option<InstructionLine>,
    #[serde(skip)]
    machine: MachineType,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Shown {
    name: String,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    value: VirtAddr,
    bits: u32,
}

impl Shown {
    fn new(name: &str, Register { value, bits }: Register) -> Self {
        Self { name: name.to_owned(), value: VirtAddr(value), bits }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.bits.div_ceil(4) as usize;
        write!(f, "{}={:0width$x}", self.name, self.value.0)
    }
}

impl RegisterView {
    fn value(&self, name: &str) -> u64 {
        let found = self.registers.iter().find(|register| register.name == name);
        found.map_or(0, |register| register.value.0)
    }

    fn write_all(&self, at: &str, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.machine == MachineType::ARM64 {
            return self.write_all_arm64(at, out);
        }
        let is_64_bit = self.machine == MachineType::AMD64;
        let lines: &[&[&str]] = if is_64_bit { &GENERAL } else { &GENERAL_X86 };
        let width = if is_64_bit { 16 } else { 8 };
        for (number, names) in lines.iter().enumerate() {
            // r8 and r9 stand under the others' two-digit names.
            let shown: Vec<_> =
                names.iter().map(|name| format!("{name:>3}={:0width$x}", self.value(name))).collect();
            let is_followed = !is_64_bit && number + 1 == lines.len();
            write!(out, "{}{}", shown.join(" "), if is_followed { " " } else { "\n" })?;
        }
        let flags = FLAGS.map(|(flag, set, clear)| if self.value(flag) == 1 { set } else { clear });
        writeln!(out, "iopl={:x}         {}", self.value("iopl"), flags.join(" "))?;
        let segments = SEGMENTS.map(|name| format!("{name}={:04x}", self.value(name)));
        writeln!(out, "{}             efl={:08x}", segments.join("  "), self.value("efl"))?;
        let program_counter = VirtAddr(self.value(if is_64_bit { "rip" } else { "eip" }));
        let here = Address { address: program_counter, pointer_size: if is_64_bit { 8 } else { 4 } };
        match &self.instruction {
            Some(instruction) => writeln!(out, "{at}:\n{here} {instruction}"),
            None => writeln!(out, "{at}:\n{here}"),
        }
    }

    fn write_all_arm64(&self, at: &str, out: &mut dyn fmt::Write) -> fmt::Result {
        for names in GENERAL_ARM64.chunks(4) {
            let shown: Vec<_> =
                names.iter().map(|name| format!("{name:>3}={:016x}", self.value(name))).collect();
            writeln!(out, "{}", shown.join("  "))?;
        }
        let (pc, psr) = (self.value("pc"), self.value("psr"));
        let flags = FLAGS_ARM64.map(|(flag, bit)| if psr >> bit & 1 == 1 { flag } else { '-' });
        let flags: String = flags.iter().collect();
        writeln!(out, " pc={pc:016x}  psr={psr:08x} {flags} EL{}", psr >> 2 & 3)?;
        writeln!(out, "{at}:\n{}", Address { address: VirtAddr(pc), pointer_size: 8 })
    }
}

impl RegisterView {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("registers");
}

impl Facts for RegisterView {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(at) = &self.at {
            return self.write_all(at, out);
        }
        let shown: Vec<_> = self.registers.iter().map(Shown::to_string).collect();
        writeln!(out, "{}", shown.join(" "))
    }
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let arguments = Arguments::new(&COMMAND, text);
    let registers = target.registers().map_err(|source| QueryError::Target { command: "r", source })?;
    if arguments.is_empty() {
        return Ok(Box::new(all(registers, target)));
    }
    let mut view =
        RegisterView { registers: Vec::new(), at: None, instruction: None, machine: registers.machine() };
    for name in
        text.split([',', ' ']).map(|name| name.trim().trim_start_matches('@')).filter(|name| !name.is_empty())
    {
        let name = name.to_ascii_lowercase();
        if name.starts_with('$') {
            let value = Arguments::new(&COMMAND, &name).expression(target)?;
            let bits = 8 * target.pointer_size() as u32;
            view.registers.push(Shown::new(&name, Register { value, bits }));
            continue;
        }
        let Some(register) = registers.get(&name) else {
            const FLAGS: &str = "efl and its flags, segments and dr0 to dr7";
            let known = match view.machine {
                MachineType::ARM64 => "x0 to x28, w0 to w28, fp, lr, sp, pc, psr, fpcr and fpsr".to_owned(),
                MachineType::I386 => format!("eax to ebp, their parts, eip, {FLAGS}"),
                _ => format!("rax to r15, their parts, rip, {FLAGS}"),
            };
            let problem = format!("`{name}` is none of the registers that a CONTEXT has; {known} are");
            return Err(arguments.usage(problem));
        };
        view.registers.push(Shown::new(&name, register));
    }
    Ok(Box::new(view))
}

fn all(registers: &Registers, target: &Target<'_>) -> RegisterView {
    let machine = registers.machine();
    let general: Vec<&str> = match machine {
        MachineType::ARM64 => GENERAL_ARM64.into_iter().chain(["pc", "psr"]).collect(),
        MachineType::I386 => GENERAL_X86.concat(),
        _ => GENERAL.concat(),
    };
    // Of those an ARM64 CPU has none.
    let flags = SEGMENTS.into_iter().chain(["efl", "iopl"]).chain(FLAGS.map(|(name, ..)| name));
    let names = general.into_iter().chain(flags);
    let shown = names.filter_map(|name| Some(Shown::new(name, registers.get(name)?)));
    let at = target.symbol_at(registers.program_counter()).to_string();
    let instruction = instruction_at(target, registers.program_counter(), &[]);
    RegisterView { registers: shown.collect(), at: Some(at), instruction, machine }
}

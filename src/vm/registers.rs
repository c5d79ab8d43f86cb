//! What a machine's processors hold: what `info registers -a` says.

use super::error::shown;
use crate::physical::Processor;

/// No machine has more.
const MAX_PROCESSORS: usize = 4096;

/// The processors, in the order of their numbers.
///
/// ```text
/// CPU#0
/// RAX=0000000000000000 RBX=.. RCX=.. RDX=..
/// RIP=fffff80001486e80 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
/// CS =0010 0000000000000000 00000000 00209b00 DPL=0 CS64 [-RA]
/// IDT=     fffff80000b95080 00000fff
/// CR0=80050033 CR2=.. CR3=0000000000187000 CR4=000006f8
/// ```
/// One that is not in long mode has EAX, eight digits, and so on.
pub(super) fn of_all(text: &str) -> Result<Vec<Processor>, String> {
    let processors: Vec<_> = text.split("CPU#").skip(1).take(MAX_PROCESSORS).map(of_one).collect();
    match processors.into_iter().collect::<Option<Vec<_>>>() {
        Some(processors) if !processors.is_empty() => Ok(processors),
        _ => Err(shown(text)),
    }
}

fn of_one(text: &str) -> Option<Processor> {
    const GENERAL: [&str; 8] = ["AX", "BX", "CX", "DX", "SI", "DI", "SP", "BP"];
    const SEGMENTS: [&str; 6] = ["CS", "DS", "ES", "FS", "GS", "SS"];
    let mut cpu = Processor {
        rip: wide(text, "IP")?,
        rflags: wide(text, "FL")?,
        cr3: number(text, "CR3=")?,
        cr4: number(text, "CR4=")?,
        // Two words: where, how much.
        idt_base: number(text, "IDT=")?,
        ..Processor::default()
    };
    for (index, name) in GENERAL.iter().enumerate() {
        cpu.general[index] = wide(text, name)?;
    }
    for index in 8..16 {
        // Absent outside of long mode.
        cpu.general[index] = number(text, &format!("R{index:<2}=")).unwrap_or(0);
    }
    for (index, name) in SEGMENTS.iter().enumerate() {
        cpu.selectors[index] = u16::try_from(number(text, &format!("{name} ="))?).ok()?;
    }
    // The lower bits of cs say the ring, except in real mode.
    Some(cpu)
}

/// A register with R before its name in long mode, E elsewhere.
fn wide(text: &str, name: &str) -> Option<u64> {
    number(text, &format!("R{name}=")).or_else(|| number(text, &format!("E{name}=")))
}

/// The first word behind `name`, where `name` begins a word.
fn number(text: &str, name: &str) -> Option<u64> {
    let begins_word = |at: &usize| text[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let (at, _) = text.match_indices(name).find(|(at, _)| begins_word(at))?;
    let word = text[at + name.len()..].split_whitespace().next()?;
    u64::from_str_radix(word, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU 7.2: one in long mode, one at reset.
    const TEXT: &str = "\r\nCPU#0\r\n\
        RAX=0000000000000001 RBX=0000000000000002 RCX=00000000c0000082 RDX=0000000000000004\r\n\
        RSI=0000000000000005 RDI=0000000000000006 RBP=0000000000000008 RSP=fffff80000b9c000\r\n\
        R8 =0000000000000009 R9 =000000000000000a R10=000000000000000b R11=000000000000000c\r\n\
        R12=000000000000000d R13=000000000000000e R14=000000000000000f R15=0000000000000010\r\n\
        RIP=00000000ffff00b7 RFL=00000006 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
        ES =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n\
        CS =0018 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n\
        SS =0020 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n\
        DS =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\r\n\
        FS =0000 0000000000000000 0000ffff 00009300 DPL=0 DS   [-WA]\r\n\
        GS =002b fffff80000b9b000 0000ffff 00009300 DPL=0 DS   [-WA]\r\n\
        GDT=     ffff00c0 00000027\r\nIDT=     fffff80000b95080 00000fff\r\n\
        CR0=80010031 CR2=0000000000000000 CR3=0000000000187000 CR4=000006a0\r\n\
        EFER=0000000000000d01\r\n\r\nCPU#1\r\n\
        EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1\r\nESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000\r\n\
        EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
        ES =0000 00000000 0000ffff 00009300\r\nCS =f000 ffff0000 0000ffff 00009b00\r\nSS =0000 00000000 0000ffff 00009300\r\n\
        DS =0000 00000000 0000ffff 00009300\r\nFS =0000 00000000 0000ffff 00009300\r\nGS =0000 00000000 0000ffff 00009300\r\n\
        GDT=     00000000 0000ffff\r\nIDT=     00000000 0000ffff\r\nCR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\r\n";

    #[test]
    fn processors_in_long_mode_and_at_reset_are_read() {
        let [first, second] = &of_all(TEXT).unwrap()[..] else { panic!() };
        assert_eq!((first.cr3, first.cr4, first.idt_base), (0x18_7000, 0x6a0, 0xffff_f800_00b9_5080));
        assert_eq!((first.rip, first.rflags), (0xffff_00b7, 6));
        let general = [1, 2, 0xc000_0082, 4, 5, 6, 0xffff_f800_00b9_c000, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(first.general, general);
        assert_eq!(first.selectors, [0x18, 0x10, 0x10, 0, 0x2b, 0x20]);
        assert_eq!((second.rip, second.cr3, second.general[3]), (0xfff0, 0, 0x6_0fb1));
    }

    #[test]
    fn registers_of_another_machine_are_refused() {
        assert!(of_all("").is_err());
        assert!(of_all("CPU#0\n PC=0000000040000000 X00=0").is_err());
        assert!(of_all(&TEXT.replace("CR3=0000000000187000", "CR3=zz")).is_err());
    }
}

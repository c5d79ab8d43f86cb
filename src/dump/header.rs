//! `DUMP_HEADER64` and `DUMP_HEADER32`: who the machine was, and what kind of file this is.
//!
//! | field              | 64-bit | 32-bit | |
//! |--------------------|-------:|-------:|-|
//! | signature          |      0 |      0 | `PAGEDU64`, `PAGEDUMP` |
//! | MajorVersion       |      8 |      8 | 0xf free, 0xc checked |
//! | MinorVersion       |   0x0c |   0x0c | build |
//! | DirectoryTableBase |   0x10 |   0x10 | CR3 |
//! | PsLoadedModuleList |   0x20 |   0x18 | |
//! | MachineImageType   |   0x30 |   0x20 | |
//! | NumberProcessors   |   0x34 |   0x24 | |
//! | BugCheckCode, 1..4 |   0x38, 0x40 | 0x28, 0x2c | |
//! | KdDebuggerDataBlock|   0x80 |   0x60 | |
//! | PhysicalMemoryBlock|   0x88 |   0x64 | runs of type 1 |
//! | ContextRecord      |  0x348 |  0x320 | |
//! | Exception          |  0xf00 |  0x7d0 | |
//! | DumpType           |  0xf98 |  0xf88 | |
//! | SystemTime         |  0xfa8 |  0xfc0 | units of 100 ns since 1601 |
//! | SystemUpTime       | 0x1030 |  0xfb8 | units of 100 ns |
//! | Attributes         | 0x1050 |  0x8a0 | |
//!
//! A kernel fills the page with the text `PAGE` before it sets fields: a number that reads so is not set.
//!
//! Source: docs/dumps.md 2 and 3; `DUMP_HEADER64`, `DUMP_HEADER32` of the Windows SDK's `mindumpdef.h`.

use kd_protocol::MachineType;

use super::error::DumpError;
use crate::memory::{Noted, VirtAddr};

pub(super) const LEN_64: usize = 0x2000;
pub(super) const LEN_32: usize = 0x1000;

/// Bytes of a `CONTEXT`: x64, ARM64, x86.
pub(super) const CONTEXT_X64: usize = 0x4d0;
pub(super) const CONTEXT_ARM64: usize = 0x390;
pub(super) const CONTEXT_X86: usize = 0x2cc;

/// No machine has more.
const MAX_PROCESSORS: u32 = 2048;

/// `PAGE`, as a number: a field that nobody set.
const UNSET: u32 = 0x4547_4150;

/// `Attributes`.
const INSUFFICIENT_DUMPFILE_SIZE: u32 = 1 << 2;
const ENCRYPTED_DUMP_DATA: u32 = 1 << 8;

/// What the first page, or two, of a dump says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) is_64_bit: bool,
    pub(super) major: u16,
    pub(super) build: u16,
    pub(super) directory_table_base: u64,
    pub(super) module_list: VirtAddr,
    pub(super) machine: MachineType,
    /// At least one, and no more than any machine has.
    pub(super) processors: u32,
    pub(super) bug_check: Option<(u32, [u64; 4])>,
    pub(super) debugger_data: VirtAddr,
    /// Pages in the file behind the header, run by run: first frame, count. Nothing if the block is not set.
    pub(super) runs: Option<Vec<(u64, u64)>>,
    /// What the block says that the runs add up to.
    pub(super) pages: u64,
    pub(super) context: Option<Vec<u8>>,
    /// Code and address.
    pub(super) exception: Option<(u32, u64)>,
    pub(super) dump_type: u32,
    pub(super) system_time: Option<u64>,
    pub(super) up_time: Option<u64>,
    pub(super) is_pae: bool,
    /// Which parts a small dump has.
    pub(super) mini_dump_fields: u32,
    pub(super) attributes: u32,
}

/// Offsets that differ between the two forms.
pub(super) struct Form {
    pub(super) is_64_bit: bool,
    /// Bytes of the header.
    pub(super) len: usize,
    pub(super) module_list: usize,
    pub(super) process_list: usize,
    pub(super) machine: usize,
    pub(super) processors: usize,
    pub(super) bug_check: usize,
    pub(super) parameters: usize,
    pub(super) debugger_data: usize,
    pub(super) runs: usize,
    /// The most that are read.
    pub(super) max_runs: u32,
    /// Those that lie wholly in the block that Windows has for them.
    pub(super) whole_runs: usize,
    pub(super) context: usize,
    pub(super) context_room: usize,
    pub(super) exception: usize,
    pub(super) exception_len: usize,
    pub(super) comment: usize,
    pub(super) dump_type: usize,
    pub(super) mini_dump_fields: usize,
    pub(super) writer_status: usize,
    pub(super) required_space: usize,
    pub(super) system_time: usize,
    pub(super) up_time: usize,
    pub(super) attributes: usize,
}

impl Form {
    /// `ExceptionAddress` of the exception.
    pub(super) const fn exception_address(&self) -> usize {
        self.exception + if self.is_64_bit { 0x10 } else { 0xc }
    }
}

pub(super) const FORM_64: Form = Form {
    is_64_bit: true,
    len: LEN_64,
    process_list: 0x28,
    whole_runs: 42,
    context_room: 3000,
    exception_len: 0x98,
    comment: 0xfb0,
    mini_dump_fields: 0x1038,
    writer_status: 0x1048,
    required_space: 0xfa0,
    module_list: 0x20,
    machine: 0x30,
    processors: 0x34,
    bug_check: 0x38,
    parameters: 0x40,
    debugger_data: 0x80,
    runs: 0x88,
    // One more than whole runs fit in 700 bytes: QEMU writes it.
    max_runs: 43,
    context: 0x348,
    exception: 0xf00,
    dump_type: 0xf98,
    system_time: 0xfa8,
    up_time: 0x1030,
    attributes: 0x1050,
};

pub(super) const FORM_32: Form = Form {
    is_64_bit: false,
    len: LEN_32,
    process_list: 0x1c,
    whole_runs: 86,
    context_room: 1200,
    exception_len: 0x50,
    comment: 0x820,
    mini_dump_fields: 0xf8c,
    writer_status: 0xf9c,
    required_space: 0xfa0,
    module_list: 0x18,
    machine: 0x20,
    processors: 0x24,
    bug_check: 0x28,
    parameters: 0x2c,
    debugger_data: 0x60,
    runs: 0x64,
    max_runs: 86,
    context: 0x320,
    exception: 0x7d0,
    dump_type: 0xf88,
    system_time: 0xfc0,
    up_time: 0xfb8,
    attributes: 0x8a0,
};

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).map_or(0, |it| u32::from_le_bytes(it.try_into().expect("four bytes")))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).map_or(0, |it| u64::from_le_bytes(it.try_into().expect("eight bytes")))
    }

    /// 0 for what nobody set.
    fn set_u32(&self, at: usize) -> u32 {
        Some(self.u32(at)).filter(|it| *it != UNSET).unwrap_or(0)
    }

    /// 0 for what nobody set.
    fn set_u64(&self, at: usize) -> u64 {
        let unset = u64::from(UNSET) << 32 | u64::from(UNSET);
        Some(self.u64(at)).filter(|it| *it != unset).unwrap_or(0)
    }

    /// A field as wide as the form's addresses; 0 for what nobody set.
    fn word(&self, at: usize, is_64_bit: bool) -> u64 {
        if is_64_bit { self.set_u64(at) } else { self.set_u32(at).into() }
    }
}

impl Header {
    /// Reads the header's page or pages.
    pub(super) fn parse(bytes: &[u8], is_64_bit: bool) -> Result<Self, DumpError> {
        let form = if is_64_bit { &FORM_64 } else { &FORM_32 };
        if bytes.len() < form.len {
            return Err(DumpError::Truncated {
                what: "header",
                has: bytes.len() as u64,
                needs: form.len as u64,
            });
        }
        let fields = Fields(bytes);
        let word = |at| fields.word(at, is_64_bit);
        let machine = fields.set_u32(form.machine);
        let machine = match u16::try_from(machine).map(MachineType) {
            Ok(machine @ (MachineType::AMD64 | MachineType::ARM64)) if is_64_bit => machine,
            Ok(MachineType::I386) if !is_64_bit => MachineType::I386,
            _ => return Err(DumpError::field("MachineImageType", form.machine, machine.into())),
        };
        let width = if is_64_bit { 8 } else { 4 };
        let code = fields.set_u32(form.bug_check);
        let bug_check =
            (code != 0).then(|| (code, std::array::from_fn(|index| word(form.parameters + index * width))));
        let context_len = match machine {
            MachineType::AMD64 => CONTEXT_X64,
            MachineType::ARM64 => CONTEXT_ARM64,
            _ => CONTEXT_X86,
        };
        let context = &bytes[form.context..form.context + context_len];
        let is_set = |it: &[u8]| !it.iter().all(|byte| *byte == 0) && !it.starts_with(b"PAGEPAGEPAGE");
        let code = fields.set_u32(form.exception);
        let address = word(form.exception_address());
        let dump_type = fields.set_u32(form.dump_type);
        // Of other kinds nobody reads them, and a machine may have more than there is room for.
        let (runs, pages) = if dump_type == 1 { runs(&fields, form)? } else { (None, 0) };
        let header = Self {
            is_64_bit,
            major: fields.set_u32(8) as u16,
            build: fields.set_u32(0xc) as u16,
            directory_table_base: word(0x10),
            module_list: VirtAddr(word(form.module_list)),
            machine,
            processors: fields.set_u32(form.processors).clamp(1, MAX_PROCESSORS),
            bug_check,
            debugger_data: VirtAddr(word(form.debugger_data)),
            runs,
            pages,
            context: is_set(context).then(|| context.to_vec()),
            exception: (code != 0).then_some((code, address)),
            dump_type,
            system_time: Some(fields.set_u64(form.system_time)).filter(|it| *it != 0),
            up_time: Some(fields.set_u64(form.up_time)).filter(|it| *it != 0),
            is_pae: !is_64_bit && bytes[0x5c] == 1,
            mini_dump_fields: fields.set_u32(form.mini_dump_fields),
            attributes: fields.set_u32(form.attributes),
        };
        if header.attributes & ENCRYPTED_DUMP_DATA != 0 {
            return Err(DumpError::Refused("an encrypted dump: decrypt it first, where its key is".into()));
        }
        Ok(header)
    }

    /// Bytes of the header: what is behind it depends on the kind.
    pub(super) const fn len(&self) -> u64 {
        (if self.is_64_bit { LEN_64 } else { LEN_32 }) as u64
    }

    /// True if Windows found no room for the whole dump.
    pub(super) const fn lacks_pages(&self) -> bool {
        self.attributes & INSUFFICIENT_DUMPFILE_SIZE != 0
    }

    /// The bug check as a debugger writes it.
    pub(super) fn bug_check_words(&self) -> Option<[u64; 5]> {
        let (code, [first, second, third, fourth]) = self.bug_check?;
        Some([code.into(), first, second, third, fourth])
    }

    /// What it says of the stop.
    pub(super) fn noted(&self) -> Noted {
        Noted {
            bug_check: self.bug_check_words(),
            system_time: self.system_time,
            up_time: self.up_time,
            debugger_data: Some(self.debugger_data).filter(|it| !it.is_null()),
        }
    }

    /// What kind it calls itself.
    pub(super) fn kind(&self) -> String {
        match self.dump_type {
            1 => "full dump".into(),
            2 => "kernel dump".into(),
            4 => "small memory dump".into(),
            5 => "full bitmap dump".into(),
            6 | 7 => "kernel bitmap dump".into(),
            8 => "kernel range dump".into(),
            9 => "kernel and user range dump".into(),
            10 => "complete range dump".into(),
            other => format!("dump of type {other:#x}"),
        }
    }
}

type Runs = Option<Vec<(u64, u64)>>;

fn runs(fields: &Fields<'_>, form: &Form) -> Result<(Runs, u64), DumpError> {
    let (at, is_64_bit) = (form.runs, form.is_64_bit);
    let (pages_at, first, size) = if is_64_bit { (at + 8, at + 16, 16) } else { (at + 4, at + 8, 8) };
    let (count, pages) = (fields.u32(at), fields.word(pages_at, is_64_bit));
    if count == UNSET || pages == 0 {
        return Ok((None, 0));
    }
    if count > form.max_runs {
        return Err(DumpError::field("PhysicalMemoryBlock.NumberOfRuns", at, count.into()));
    }
    let run = |index: usize| {
        let at = first + index * size;
        (fields.word(at, is_64_bit), fields.word(at + size / 2, is_64_bit))
    };
    Ok((Some((0..count as usize).map(run).collect()), pages))
}

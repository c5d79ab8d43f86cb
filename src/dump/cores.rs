//! Files of virtual machines: ELF cores (QEMU's `dump-guest-memory`, VirtualBox) and LiME images.
//!
//! ```text
//!  ELF    header | PT_NOTE: QEMU's registers of each processor | PT_LOAD: physical address, bytes | ...
//!  LiME   { EMiL, 1, first, last, 0 } bytes { EMiL ... } bytes ...
//! ```
//! Source: docs/dumps.md 5.

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};

use super::error::DumpError;
use crate::physical::{PageMap, PositionedFile, Processor, Run};

/// Bytes of QEMU's note of an x64 processor, without its last field.
const QEMU_STATE: usize = 0x1b0;
/// Notes are short; a hostile file's may not be.
const MAX_NOTES: u64 = 16 << 20;
/// LiME's ranges: a machine has a handful.
const MAX_LIME_RANGES: usize = 4096;

/// The memory and the processors of an ELF core.
pub(super) fn elf(file: &PositionedFile) -> Result<(PageMap, Vec<Processor>), DumpError> {
    let reader = std::fs::File::open(file.path())
        .map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
    let cache = ReadCache::new(reader);
    let class = file.read_some(4, 1).ok().and_then(|it| it.first().copied());
    match class.map(elf::FileClass) {
        Some(elf::ELFCLASS32) => parse::<elf::FileHeader32<Endianness>, _>(file, &cache),
        Some(elf::ELFCLASS64) => parse::<elf::FileHeader64<Endianness>, _>(file, &cache),
        other => Err(DumpError::field("e_ident[EI_CLASS]", 4, other.map_or(0, |it| it.0.into()))),
    }
}

fn parse<'data, Elf, R>(file: &PositionedFile, data: R) -> Result<(PageMap, Vec<Processor>), DumpError>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let damaged = |error: object::Error| DumpError::Damaged(format!("its ELF headers: {error}"));
    let header = Elf::parse(data).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_type(endian) != elf::ET_CORE {
        return Err(DumpError::Refused("an ELF file, but no core: a program or a library".into()));
    }
    let mut map = PageMap::default();
    let mut processors = Vec::new();
    for segment in header.program_headers(endian, data).map_err(damaged)? {
        let (offset, len) = segment.file_range(endian);
        match segment.p_type(endian) {
            elf::PT_LOAD => map.push(Run { start: segment.p_paddr(endian).into(), len, offset })?,
            elf::PT_NOTE if len <= MAX_NOTES => {
                let notes = file.read_some(offset, len as usize);
                let notes =
                    notes.map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
                processors.extend(qemu_notes(&notes));
            }
            _ => {}
        }
    }
    Ok((map.sorted()?, processors))
}

/// The states that QEMU has noted, one a processor.
fn qemu_notes(mut notes: &[u8]) -> Vec<Processor> {
    let mut found = Vec::new();
    while let Some(head) = notes.get(..12) {
        let number =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let (name_len, len) = (number(0), number(4));
        let Some(description) = 12_usize.checked_add(name_len.next_multiple_of(4)) else { break };
        let Some(end) = description.checked_add(len) else { break };
        let (Some(name), Some(state)) =
            (notes.get(12..12_usize.saturating_add(name_len)), notes.get(description..end))
        else {
            break;
        };
        if name.starts_with(b"QEMU\0") && state.len() >= QEMU_STATE {
            found.push(processor(state));
        }
        notes = notes.get(end.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

fn processor(state: &[u8]) -> Processor {
    let word = |at: usize| u64::from_le_bytes(state[at..at + 8].try_into().expect("eight bytes"));
    let selector = |index: usize| {
        u32::from_le_bytes(state[0x98 + 24 * index..][..4].try_into().expect("four bytes")) as u16
    };
    Processor {
        general: std::array::from_fn(|index| word(8 + 8 * index)),
        rip: word(0x88),
        rflags: word(0x90),
        selectors: std::array::from_fn(selector),
        // cs ds es fs gs ss ldt tr gdt idt, 24 bytes each, the base in the last eight.
        idt_base: word(0x98 + 24 * 9 + 16),
        cr3: word(0x188 + 8 * 3),
        cr4: word(0x188 + 8 * 4),
        kernel_gs_base: state.get(0x1b0..0x1b8).map(|_| word(0x1b0)),
    }
}

/// The memory of a LiME image.
pub(super) fn lime(file: &PositionedFile) -> Result<PageMap, DumpError> {
    let mut map = PageMap::default();
    let mut at = 0;
    for _ in 0..MAX_LIME_RANGES {
        if at == file.len() {
            return Ok(map.sorted()?);
        }
        let head = file.read_some(at, 32);
        let head = head.map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
        if head.len() < 32 {
            return Err(DumpError::Truncated { what: "LiME header", has: file.len(), needs: at + 32 });
        }
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        if !head.starts_with(b"EMiL\x01\0\0\0") {
            return Err(DumpError::Field { field: "LiME magic", at, value: word(0) });
        }
        let (first, last) = (word(8), word(16));
        let len = last.checked_sub(first).and_then(|it| it.checked_add(1));
        let len = len.ok_or(DumpError::Field { field: "LiME range's end", at: at + 16, value: last })?;
        map.push(Run { start: first, len, offset: at + 32 })?;
        at = (at + 32).saturating_add(len).min(file.len());
    }
    Err(DumpError::Damaged(format!("it has more than {MAX_LIME_RANGES} LiME ranges")))
}

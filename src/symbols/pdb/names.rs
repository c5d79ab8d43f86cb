//! Names and addresses of a PDB: publics, globals and procedures, in order of address and by name.

use std::cmp::Reverse;
use std::sync::Arc;

use kd_protocol::wire::Reader;
use ms_pdb::syms::{Data, OffsetSegment, Proc, Pub, RefSym2, SymIter, SymKind};

use super::index::{NameTables, Table, hash};
use super::tables::{Records, Tables};
use super::{Container, Dbi};
use crate::symbols::{Rva, Symbol, SymbolError};

/// An image's sections, to turn `segment:offset` into an RVA.
#[derive(Debug, Default)]
pub(super) struct Sections(Vec<Section>);

#[derive(Clone, Copy, Debug)]
struct Section {
    start: u32,
    size: u32,
}

impl Sections {
    /// Reads the copy of the image's section headers, 40 bytes each (`IMAGE_SECTION_HEADER`).
    pub(super) fn read(container: &Container, dbi: &Dbi) -> Result<Self, SymbolError> {
        const READING: &str = "section headers";
        let Some(stream) = dbi.section_headers else {
            return Err(
                container.damaged(READING, "the PDB has none, so no symbol has an address".to_owned())
            );
        };
        let bytes = container.stream(stream, READING)?;
        let section = |header| -> Result<Section, kd_protocol::wire::DecodeError> {
            let mut reader = Reader::new("section header", header);
            reader.bytes(8)?;
            let virtual_size = reader.u32()?;
            let start = reader.u32()?;
            let raw_size = reader.u32()?;
            Ok(Section { start, size: virtual_size.max(raw_size) })
        };
        let sections: Result<Vec<_>, _> = bytes.chunks_exact(40).map(section).collect();
        sections.map(Self).map_err(|error| container.damaged(READING, error.to_string()))
    }

    /// Where `place` is; nothing for absolute symbols, whose segment is past the last section.
    fn rva(&self, place: OffsetSegment) -> Option<Rva> {
        let section = self.0.get(usize::from(place.segment()).checked_sub(1)?)?;
        section.start.checked_add(place.offset()).map(Rva)
    }

    /// The start of the section that `rva` lies in.
    fn of(&self, rva: Rva) -> Option<u32> {
        let section = self.0.iter().find(|section| rva.0.wrapping_sub(section.start) < section.size);
        section.map(|section| section.start)
    }

    fn rows(&self) -> Vec<[u32; 2]> {
        self.0.iter().map(|section| [section.start, section.size]).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    rva: Rva,
    kind: EntryKind,
    start: u32,
    len: u16,
}

/// Where a name was found. Of several names of one address the first kind is shown: publics may be decorated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum EntryKind {
    Procedure,
    Global,
    Public,
}

/// Calls `each` with kind, address and name of every symbol, in the order of the records; before an error with those
/// that come before the damage.
fn visit(records: &Records, mut each: impl FnMut(EntryKind, Rva, &[u8])) -> Result<(), SymbolError> {
    const READING: &str = "symbol records";
    let Records { container, dbi, sections, .. } = records;
    let bytes = dbi.symbol_records.map_or_else(|| Ok(Vec::new()), |at| container.stream(at, READING))?;
    let mut found = |kind, place, name: &[u8]| {
        if let Some(rva) = sections.rva(place) {
            each(kind, rva, name);
        }
    };
    let mut procedures = Vec::new();
    let mut symbols = SymIter::new(&bytes);
    for symbol in symbols.by_ref() {
        match symbol.kind {
            SymKind::S_PUB32 => {
                if let Ok(public) = symbol.parse_as::<Pub<'_>>() {
                    let name = if dbi.is_x86 { plain(public.name) } else { public.name };
                    found(EntryKind::Public, public.fixed.offset_segment, name);
                }
            }
            SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                if let Ok(data) = symbol.parse_as::<Data<'_>>() {
                    found(EntryKind::Global, data.header.offset_segment, data.name);
                }
            }
            SymKind::S_PROCREF | SymKind::S_LPROCREF => {
                if let Ok(reference) = symbol.parse_as::<RefSym2<'_>>() {
                    let header = reference.header;
                    procedures.push((header.module_index.get(), header.symbol_offset.get()));
                }
            }
            _ => {}
        }
    }
    let rest = symbols.rest().len();
    visit_procedures(container, dbi, procedures, found)?;
    if rest > 0 {
        let at = bytes.len() - rest;
        return Err(container.damaged(READING, format!("no record can begin at offset {at:#x}")));
    }
    Ok(())
}

/// Procedures are in their module's stream; the symbol records only say where.
fn visit_procedures(
    container: &Container,
    dbi: &Dbi,
    mut references: Vec<(u16, u32)>,
    mut found: impl FnMut(EntryKind, OffsetSegment, &[u8]),
) -> Result<(), SymbolError> {
    references.sort_unstable();
    references.dedup();
    for of_module in references.chunk_by(|a, b| a.0 == b.0) {
        let module = usize::from(of_module[0].0).checked_sub(1).and_then(|index| dbi.modules.get(index));
        let Some(Some((stream, symbols_len))) = module else { continue };
        let bytes = container.stream(*stream, "a module's symbols")?;
        let symbols = &bytes[..bytes.len().min(*symbols_len as usize)];
        for (_, offset) in of_module {
            let record = symbols.get(*offset as usize..).and_then(SymIter::one);
            let procedure = record.filter(|record| record.kind.is_proc());
            if let Some(Ok(procedure)) = procedure.as_ref().map(|record| record.parse_as::<Proc<'_>>()) {
                found(EntryKind::Procedure, procedure.fixed.offset_segment, procedure.name);
            }
        }
    }
    Ok(())
}

/// Puts names and addresses in order. Names lie in one run of bytes, so that forty thousand cost one allocation.
pub(super) fn tables(records: &Records) -> (NameTables, Option<SymbolError>) {
    let (mut text, mut entries) = (Vec::new(), Vec::new());
    let damage = visit(records, |kind, rva, name| {
        if let (Ok(start), Ok(len)) = (u32::try_from(text.len()), u16::try_from(name.len())) {
            text.extend_from_slice(name);
            entries.push(Entry { rva, kind, start, len });
        }
    });
    // Names are compared only where numbers don't decide: they are far from each other in memory.
    let key = |entry: &Entry| u64::from(entry.rva.0) << 2 | entry.kind as u64;
    entries.sort_unstable_by_key(key);
    for alike in entries.chunk_by_mut(|a, b| key(a) == key(b)).filter(|alike| alike.len() > 1) {
        alike.sort_unstable_by(|a, b| name_of(&text, a).cmp(name_of(&text, b)));
    }
    entries.dedup_by(|b, a| a.rva == b.rva && name_of(&text, a) == name_of(&text, b));
    let row = |entry: &Entry| [entry.rva.0, entry.start, u32::from(entry.len) | (entry.kind as u32) << 16];
    let name =
        |(index, entry): (u32, &Entry)| u64::from(hash(name_of(&text, entry))) << 32 | u64::from(index);
    let mut by_name: Vec<u64> = (0..).zip(&entries).map(name).collect();
    by_name.sort_unstable();
    let tables = NameTables {
        sections: records.sections.rows(),
        entries: entries.iter().map(row).collect(),
        names: by_name.into_iter().map(|key| [(key >> 32) as u32, key as u32]).collect(),
        text,
    };
    (tables, damage.err())
}

/// What [`Names::address_of`] finds, in one pass.
fn scan_for_name(records: &Records, name: &str) -> Option<Rva> {
    let mut best = None;
    let _ = visit(records, |kind, rva, found| {
        if found == name.as_bytes() {
            best = best.max(Some((kind, Reverse(rva))));
        }
    });
    best.map(|(_, Reverse(rva))| rva)
}

/// What [`Names::nearest`] finds, in one pass.
fn scan_for_address(records: &Records, rva: Rva) -> Option<Symbol<'static>> {
    let section = records.sections.of(rva)?;
    let mut best: Option<(Rva, EntryKind, Vec<u8>)> = None;
    let _ = visit(records, |kind, at, name| {
        let is_below = (section..=rva.0).contains(&at.0);
        let is_better = |(best_at, best_kind, best_name): &(Rva, EntryKind, Vec<u8>)| {
            at > *best_at || at == *best_at && (kind, name) < (*best_kind, best_name)
        };
        if is_below && best.as_ref().is_none_or(is_better) {
            best = Some((at, kind, name.to_vec()));
        }
    });
    best.map(|(rva, _, name)| Symbol { name: String::from_utf8_lossy(&name).into_owned().into(), rva })
}

/// Names and addresses, as the tables have them.
#[derive(Debug)]
pub(super) struct Names(pub(super) Arc<Tables>);

impl Names {
    pub(super) fn address_of(&self, name: &str) -> Option<Rva> {
        if let Some(first) = self.0.answer_first(|records| scan_for_name(records, name)) {
            return first;
        }
        let wanted = hash(name.as_bytes());
        let first = self.0.first_from::<2>(Table::Names, wanted);
        let rows = (first..).map_while(|index| self.0.row(Table::Names, index));
        let candidates = rows.take_while(|[hash, _]| *hash == wanted);
        let entries = candidates.filter_map(|[_, index]| self.entry(index as usize));
        // A static function may share its name with others; the public one is the one that is meant.
        let named = entries.filter(|(_, _, found)| found == name.as_bytes());
        named.max_by_key(|(rva, kind, _)| (*kind, Reverse(*rva))).map(|(rva, ..)| rva)
    }

    pub(super) fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        if let Some(first) = self.0.answer_first(|records| scan_for_address(records, rva)) {
            return first;
        }
        let section = self.section_of(rva)?;
        let above = match rva.0.checked_add(1) {
            Some(next) => self.0.first_from::<3>(Table::Entries, next),
            None => self.0.rows(Table::Entries),
        };
        let [below, ..] = self.0.row::<3>(Table::Entries, above.checked_sub(1)?)?;
        let first = self.0.first_from::<3>(Table::Entries, below);
        if below < section { None } else { self.symbol(first) }
    }

    pub(super) fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.symbol(self.0.first_from::<3>(Table::Entries, rva.0.checked_add(1)?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        (0..self.0.rows(Table::Entries)).filter_map(|index| self.symbol(index))
    }

    /// The start of the section that `rva` lies in.
    fn section_of(&self, rva: Rva) -> Option<u32> {
        let mut sections =
            (0..self.0.rows(Table::Sections)).filter_map(|index| self.0.row(Table::Sections, index));
        sections.find(|[start, size]| rva.0.wrapping_sub(*start) < *size).map(|[start, _]| start)
    }

    fn symbol(&self, index: usize) -> Option<Symbol<'_>> {
        let (rva, _, name) = self.entry(index)?;
        Some(Symbol { name: String::from_utf8_lossy(&name).into_owned().into(), rva })
    }

    /// Address, kind and name.
    fn entry(&self, index: usize) -> Option<(Rva, u32, Vec<u8>)> {
        let [rva, start, rest] = self.0.row(Table::Entries, index)?;
        Some((Rva(rva), rest >> 16, self.0.text(start, rest as u16)?))
    }
}

fn name_of<'a>(text: &'a [u8], entry: &Entry) -> &'a [u8] {
    &text[entry.start as usize..][..usize::from(entry.len)]
}

/// The name of a public symbol of an x86 image without what its calling convention adds, as WinDbg shows it.
///
/// ```text
///  _MmVerifierData                         variables, cdecl
///  _VerifierExAllocatePoolWithTag@12       stdcall: bytes of arguments
///  @ExReleaseFastMutex@4                   fastcall
///  ?Dispatch@Device@@SGJXZ                 C++: left as it is
/// ```
fn plain(name: &[u8]) -> &[u8] {
    let Some((b'_' | b'@', rest)) = name.split_first() else { return name };
    let at = rest.iter().rposition(|byte| *byte == b'@');
    let is_count = |at: &usize| rest.len() > at + 1 && rest[at + 1..].iter().all(u8::is_ascii_digit);
    let plain = at.filter(is_count).map_or(rest, |at| &rest[..at]);
    if plain.is_empty() { name } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_x86_name_is_shown_without_its_calling_convention() {
        for (decorated, name) in [
            ("_MmVerifierData", "MmVerifierData"),
            ("_VerifierExAllocatePoolWithTag@12", "VerifierExAllocatePoolWithTag"),
            ("@ExReleaseFastMutex@4", "ExReleaseFastMutex"),
            ("__SEH_prolog4", "_SEH_prolog4"),
            ("?Dispatch@Device@@SGJXZ", "?Dispatch@Device@@SGJXZ"),
            ("vdmDebugPoint", "vdmDebugPoint"),
            ("_Odd@x", "Odd@x"),
            ("_@4", "_@4"),
            ("_", "_"),
            ("", ""),
        ] {
            assert_eq!(plain(decorated.as_bytes()), name.as_bytes(), "{decorated}");
        }
    }
}

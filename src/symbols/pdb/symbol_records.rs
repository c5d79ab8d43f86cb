//! The records of a PDB's symbols: each looked at once, or put into the tables of names.

use std::cmp::Reverse;
use std::sync::Arc;

use ms_pdb::syms::{Data, OffsetSegment, Proc, Pub, RefSym2, SymIter, SymKind};

use super::container::Container;
use super::dbi::Dbi;
use super::sections::Sections;
use crate::symbols::error::SymbolError;
use crate::symbols::index::NameTables;
use crate::symbols::symbol::{Rva, Symbol};

/// Where the records are, and what is needed to read them.
#[derive(Debug)]
pub(super) struct SymbolRecords {
    pub(super) container: Arc<Container>,
    pub(super) dbi: Dbi,
    pub(super) sections: Sections,
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
fn visit(records: &SymbolRecords, mut each: impl FnMut(EntryKind, Rva, &[u8])) -> Result<(), SymbolError> {
    const READING: &str = "symbol records";
    let SymbolRecords { container, dbi, sections } = records;
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
pub(super) fn tables(records: &SymbolRecords) -> (NameTables, Option<SymbolError>) {
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
    let in_order = entries.iter().map(|entry| (entry.rva.0, entry.kind as u16, name_of(&text, entry)));
    (NameTables::new(records.sections.rows(), in_order), damage.err())
}

/// Where the symbol called `name` is, in one pass.
pub(super) fn scan_for_name(records: &SymbolRecords, name: &str) -> Option<Rva> {
    let mut best = None;
    let _ = visit(records, |kind, rva, found| {
        if found == name.as_bytes() {
            best = best.max(Some((kind, Reverse(rva))));
        }
    });
    best.map(|(_, Reverse(rva))| rva)
}

/// The symbol at `rva`, or the nearest below it, in one pass.
pub(super) fn scan_for_address(records: &SymbolRecords, rva: Rva) -> Option<Symbol<'static>> {
    let section = records.sections.of(rva)?;
    // Where records are in order of address, every one is better than the last: one buffer takes all their names.
    let (mut best, mut best_name) = (None::<(Rva, EntryKind)>, Vec::new());
    let _ = visit(records, |kind, at, name| {
        let is_below = (section..=rva.0).contains(&at.0);
        let is_better = |(best_at, best_kind): (Rva, EntryKind)| {
            at > best_at || at == best_at && (kind, name) < (best_kind, &*best_name)
        };
        if is_below && best.is_none_or(is_better) {
            best = Some((at, kind));
            best_name.clear();
            best_name.extend_from_slice(name);
        }
    });
    best.map(|(rva, _)| Symbol { name: String::from_utf8_lossy(&best_name).into_owned().into(), rva })
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

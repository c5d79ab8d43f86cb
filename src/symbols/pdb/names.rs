//! Names and addresses of a PDB: publics, globals and procedures, in order of address and by name.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use kd_protocol::wire::Reader;
use ms_pdb::syms::{Data, OffsetSegment, Proc, Pub, RefSym2, SymIter, SymKind};

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
    fn start_of(&self, rva: Rva) -> Option<u32> {
        let around = |section: &&Section| rva.0.wrapping_sub(section.start) < section.size;
        self.0.iter().find(around).map(|section| section.start)
    }
}

/// Names and addresses. Names lie in one run of bytes, so that forty thousand cost two allocations.
#[derive(Debug)]
pub(super) struct Names {
    text: Vec<u8>,
    /// In order of address; the preferred one of an address first.
    by_address: Vec<Entry>,
    /// Hash of a name and its index in `by_address`, in order.
    by_name: Vec<(u32, u32)>,
    sections: Sections,
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
enum EntryKind {
    Procedure,
    Global,
    Public,
}

impl Names {
    pub(super) fn read(container: &Container, dbi: &Dbi, sections: Sections) -> Result<Self, SymbolError> {
        const READING: &str = "symbol records";
        let records =
            dbi.symbol_records.map_or_else(|| Ok(Vec::new()), |at| container.stream(at, READING))?;
        let mut names = Self { text: Vec::new(), by_address: Vec::new(), by_name: Vec::new(), sections };
        let mut procedures = Vec::new();
        let mut symbols = SymIter::new(&records);
        for symbol in symbols.by_ref() {
            match symbol.kind {
                SymKind::S_PUB32 => {
                    if let Ok(public) = symbol.parse_as::<Pub<'_>>() {
                        names.add(EntryKind::Public, public.fixed.offset_segment, public.name);
                    }
                }
                SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                    if let Ok(data) = symbol.parse_as::<Data<'_>>() {
                        names.add(EntryKind::Global, data.header.offset_segment, data.name);
                    }
                }
                SymKind::S_PROCREF | SymKind::S_LPROCREF => {
                    if let Ok(reference) = symbol.parse_as::<RefSym2<'_>>() {
                        procedures.push((
                            reference.header.module_index.get(),
                            reference.header.symbol_offset.get(),
                        ));
                    }
                }
                _ => {}
            }
        }
        if !symbols.rest().is_empty() {
            let at = records.len() - symbols.rest().len();
            return Err(container.damaged(READING, format!("no record can begin at offset {at:#x}")));
        }
        names.read_procedures(container, dbi, procedures)?;
        names.index();
        Ok(names)
    }

    /// Procedures are in their module's stream; the symbol records only say where.
    fn read_procedures(
        &mut self,
        container: &Container,
        dbi: &Dbi,
        mut references: Vec<(u16, u32)>,
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
                    self.add(EntryKind::Procedure, procedure.fixed.offset_segment, procedure.name);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: EntryKind, place: OffsetSegment, name: &[u8]) {
        let Some(rva) = self.sections.rva(place) else { return };
        let (Ok(start), Ok(len)) = (u32::try_from(self.text.len()), u16::try_from(name.len())) else {
            return;
        };
        self.text.extend_from_slice(name);
        self.by_address.push(Entry { rva, kind, start, len });
    }

    fn index(&mut self) {
        let text = &self.text;
        let key = |entry: &Entry| (entry.rva, entry.kind, name_of(text, entry));
        self.by_address.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        self.by_address.dedup_by(|b, a| a.rva == b.rva && name_of(text, a) == name_of(text, b));
        let hashed = (0..).zip(&self.by_address).map(|(index, entry)| (hash(name_of(text, entry)), index));
        self.by_name = hashed.collect();
        self.by_name.sort_unstable();
    }

    pub(super) fn address_of(&self, name: &str) -> Option<Rva> {
        let wanted = hash(name.as_bytes());
        let first = self.by_name.partition_point(|(hash, _)| *hash < wanted);
        let candidates = self.by_name[first..].iter().take_while(|(hash, _)| *hash == wanted);
        let entries = candidates.map(|(_, index)| &self.by_address[*index as usize]);
        // A static function may share its name with others; the public one is the one that is meant.
        let named = entries.filter(|entry| name_of(&self.text, entry) == name.as_bytes());
        named.max_by_key(|entry| (entry.kind, std::cmp::Reverse(entry.rva))).map(|entry| entry.rva)
    }

    pub(super) fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        let section = self.sections.start_of(rva)?;
        let above = self.by_address.partition_point(|entry| entry.rva <= rva);
        let below = self.by_address[..above].last()?.rva;
        let first = self.by_address[..above].partition_point(|entry| entry.rva < below);
        (below.0 >= section).then(|| self.symbol(&self.by_address[first]))
    }

    pub(super) fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        let above = self.by_address.partition_point(|entry| entry.rva <= rva);
        self.by_address.get(above).map(|entry| self.symbol(entry))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.by_address.iter().map(|entry| self.symbol(entry))
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        Symbol { name: display_name(name_of(&self.text, entry)), rva: entry.rva }
    }
}

fn name_of<'a>(text: &'a [u8], entry: &Entry) -> &'a [u8] {
    &text[entry.start as usize..][..usize::from(entry.len)]
}

fn display_name(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// Half of a 64-bit hash: collisions cost a comparison, not a wrong answer.
fn hash(name: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}

//! An image's sections, as the PDB has a copy of their headers.

use kd_protocol::wire::Reader;
use ms_pdb::syms::OffsetSegment;

use super::container::Container;
use super::dbi::Dbi;
use crate::symbols::error::SymbolError;
use crate::symbols::symbol::Rva;

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
    pub(super) fn rva(&self, place: OffsetSegment) -> Option<Rva> {
        let section = self.0.get(usize::from(place.segment()).checked_sub(1)?)?;
        section.start.checked_add(place.offset()).map(Rva)
    }

    /// The start of the section that `rva` lies in.
    pub(super) fn of(&self, rva: Rva) -> Option<u32> {
        let section = self.0.iter().find(|section| rva.0.wrapping_sub(section.start) < section.size);
        section.map(|section| section.start)
    }

    pub(super) fn rows(&self) -> Vec<[u32; 2]> {
        self.0.iter().map(|section| [section.start, section.size]).collect()
    }
}

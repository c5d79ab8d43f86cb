//! The records of a PDB's types: where they are, and which of them define something.

use kd_protocol::wire::Reader;
use ms_pdb::types::{Leaf, TypeData, TypeIndex, TypeRecord, TypesIter};

use super::container::{Container, TYPE_STREAM};
use crate::symbols::error::SymbolError;
use crate::symbols::index::TypeTables;
use crate::symbols::rows::hash;

/// What the header of the TPI stream says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Where in the stream the records are.
    pub(super) records: std::ops::Range<usize>,
    /// First type index, and the one after the last.
    pub(super) first: u32,
    pub(super) end: u32,
    /// Where the hash table of types is, if there is one.
    pub(super) hash: Option<HashPlaces>,
}

/// Where in its stream the parts of the hash table of types are.
#[derive(Clone, Debug)]
pub(super) struct HashPlaces {
    pub(super) stream: u32,
    pub(super) key_len: u32,
    pub(super) bucket_count: u32,
    pub(super) buckets: std::ops::Range<usize>,
    pub(super) places: std::ops::Range<usize>,
}

impl Header {
    /// Checks the header of the TPI stream.
    ///
    /// | offset | size | field              |
    /// |-------:|-----:|--------------------|
    /// |      0 |    4 | version            |
    /// |      4 |    4 | bytes of header    |
    /// |      8 |    4 | first type index   |
    /// |     12 |    4 | end of type indexes|
    /// |     16 |    4 | bytes of records   |
    /// |     20 |    2 | stream of hashes, ffff: none |
    /// |     24 |    4 | bytes of a hash    |
    /// |     28 |    4 | buckets            |
    /// |     32 |  4+4 | offset and bytes of the hashes |
    /// |     40 |  4+4 | offset and bytes of the places |
    pub(super) fn read(container: &Container) -> Result<Self, SymbolError> {
        const READING: &str = "type stream";
        let len = usize::try_from(container.stream_len(TYPE_STREAM)).unwrap_or(usize::MAX);
        if len == 0 {
            let first = TypeIndex::MIN_BEGIN.0;
            return Ok(Self { records: 0..0, first, end: first, hash: None });
        }
        let bytes = container.part(TYPE_STREAM, 0..48.min(len), READING)?;
        let mut reader = Reader::new("its header", &bytes);
        let mut header = || -> Result<[u32; 5], kd_protocol::wire::DecodeError> {
            Ok([reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?])
        };
        let header = header().map_err(|error| container.damaged(READING, error.to_string()))?;
        let [_version, header_len, first, end, records_len] = header;
        let records = header_len as usize..(header_len as usize).saturating_add(records_len as usize);
        if records.end > len || header_len < 20 {
            let wrong = format!("records at {records:#x?} of {len:#x} bytes");
            return Err(container.damaged(READING, wrong));
        }
        Ok(Self { records, first, end, hash: Self::hash(&mut reader).ok().flatten() })
    }

    /// The rest of the header.
    fn hash(reader: &mut Reader<'_>) -> Result<Option<HashPlaces>, kd_protocol::wire::DecodeError> {
        let (stream, _auxiliary) = (reader.u16()?, reader.u16()?);
        let (key_len, bucket_count) = (reader.u32()?, reader.u32()?);
        let mut place = || -> Result<_, kd_protocol::wire::DecodeError> {
            let start = reader.u32()? as usize;
            Ok(start..start.saturating_add(reader.u32()? as usize))
        };
        let (buckets, places) = (place()?, place()?);
        let stream = u32::from(stream);
        Ok((stream != 0xffff).then_some(HashPlaces { stream, key_len, bucket_count, buckets, places }))
    }
}

/// Reads every record once: where each begins, and which of them define a structure or union.
pub(super) fn index_types(container: &Container, header: &Header) -> (TypeTables, Option<SymbolError>) {
    let mut tables = TypeTables::default();
    let bytes = match container.part(TYPE_STREAM, header.records.clone(), "type records") {
        Ok(bytes) => bytes,
        Err(damage) => return (tables, Some(damage)),
    };
    let mut records = TypesIter::new(&bytes);
    while let Some(record) = records.next() {
        let id = header.first.saturating_add(tables.starts.len() as u32);
        tables.starts.push([tables.types_end]);
        tables.types_end = (bytes.len() - records.rest().len()) as u32;
        if let Some(found) = composite(&record).filter(|found| !found.forward) {
            tables.definitions.push([hash(found.name), id]);
            if let Some(unique) = found.unique_name.filter(|unique| *unique != found.name) {
                tables.definitions.push([hash(unique), id]);
            }
        } else if let Some(Ok(TypeData::Enum(found))) = (record.kind == Leaf::LF_ENUM).then(|| record.parse())
            && !found.fixed.property.get().fwdref()
        {
            tables.enumerations.push([hash(found.name), id]);
        }
    }
    tables.definitions.sort_unstable();
    tables.enumerations.sort_unstable();
    (tables, None)
}

/// What structure, class and union records have in common.
pub(super) struct Composite<'a> {
    pub(super) name: &'a [u8],
    pub(super) unique_name: Option<&'a [u8]>,
    pub(super) size: u64,
    pub(super) fields: TypeIndex,
    pub(super) forward: bool,
}

pub(super) fn composite<'a>(record: &TypeRecord<'a>) -> Option<Composite<'a>> {
    let is_composite =
        matches!(record.kind, Leaf::LF_STRUCTURE | Leaf::LF_CLASS | Leaf::LF_INTERFACE | Leaf::LF_UNION);
    match is_composite.then(|| record.parse())? {
        Ok(TypeData::Struct(found)) => Some(Composite {
            name: found.name,
            unique_name: found.unique_name.map(|name| &**name),
            size: u64::try_from(found.length).ok()?,
            fields: found.fixed.field_list.get(),
            forward: found.fixed.property.get().fwdref(),
        }),
        Ok(TypeData::Union(found)) => Some(Composite {
            name: found.name,
            unique_name: found.unique_name.map(|name| &**name),
            size: u64::try_from(found.length).ok()?,
            fields: found.fixed.fields.get(),
            forward: found.fixed.property.get().fwdref(),
        }),
        _ => None,
    }
}

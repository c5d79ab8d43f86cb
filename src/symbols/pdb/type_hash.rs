//! The PDB's own table of types: finds the records of a name without reading the others.
//!
//! ```text
//!  type hash stream   | bucket of record 0x1000 | of 0x1001 | ..        a definition's: hash of its name, or unique name
//!                     | 0x1000, offset 0 | 0x1064, offset 0x1ff8 | ..   where a record begins, every 8 KiB or so
//! ```
//! What it finds is looked at before it is believed, and what it does not find is looked for among the records: a linker may
//! leave it out, and a damaged one may say anything.
//!
//! Source: <https://llvm.org/docs/PDB/TpiStream.html>; which of a definition's names is hashed: `TPI1::hashPrec` in
//! Microsoft's published `tpi.cpp`.

use std::ops::Range;
use std::sync::OnceLock;

use kd_protocol::wire::Reader;
use ms_pdb::hash::hash_mod_u32;
use ms_pdb::types::{TypeRecord, TypesIter};

use super::container::{Container, TYPE_STREAM};
use super::type_records::Header;

/// Longest run of records read for one of them; linkers write a place every 8 KiB, and a record has up to 64.
const MAX_RUN: usize = 0x4_0000;

/// Buckets and places, as the stream has them.
#[derive(Debug)]
pub(super) struct TypeHash {
    first: u32,
    /// Little-endian numbers, one for each record.
    buckets: Vec<u8>,
    bucket_count: u32,
    runs: Vec<Run>,
}

/// Records that follow each other.
#[derive(Debug)]
struct Run {
    first: u32,
    /// Where in the type stream they are.
    place: Range<usize>,
    bytes: OnceLock<Option<Vec<u8>>>,
}

impl TypeHash {
    /// Reads the table; nothing where there is none, or none that fits the records.
    pub(super) fn read(container: &Container, header: &Header) -> Option<Self> {
        const READING: &str = "type hashes";
        let hash = header.hash.as_ref()?;
        let part = |place: &Range<usize>| container.part(hash.stream, place.clone(), READING).ok();
        let count = header.end.checked_sub(header.first)? as usize;
        if hash.key_len != 4 || hash.bucket_count == 0 || hash.buckets.len() != count.checked_mul(4)? {
            return None;
        }
        let places = part(&hash.places)?;
        let mut reader = Reader::new(READING, &places);
        let mut starts = Vec::with_capacity(places.len() / 8 + 1);
        while reader.left() > 0 {
            starts.push((reader.u32().ok()?, reader.u32().ok()? as usize));
        }
        if starts.first() != Some(&(header.first, 0)) {
            return None;
        }
        starts.push((header.end, header.records.len()));
        let run = |pair: &[(u32, usize)]| {
            let [(first, start), (after, end)] = *pair else { return None };
            let place = header.records.start + start..header.records.start + end;
            let is_run =
                first < after && start < end && end <= header.records.len() && place.len() <= MAX_RUN;
            is_run.then(|| Run { first, place, bytes: OnceLock::new() })
        };
        let runs = starts.windows(2).map(run).collect::<Option<_>>()?;
        Some(Self {
            first: header.first,
            buckets: part(&hash.buckets)?,
            bucket_count: hash.bucket_count,
            runs,
        })
    }

    /// Type indexes of the records that may define `name`, in order.
    pub(super) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let wanted = hash_mod_u32(name, self.bucket_count).to_le_bytes();
        let buckets = (self.first..).zip(self.buckets.chunks_exact(4));
        buckets.filter(move |(_, bucket)| *bucket == wanted).map(|(index, _)| index)
    }

    /// The record of a type index.
    pub(super) fn record(&self, container: &Container, index: u32) -> Option<TypeRecord<'_>> {
        let run = self.runs.partition_point(|run| run.first <= index).checked_sub(1)?;
        let run = &self.runs[run];
        let read = || container.part(TYPE_STREAM, run.place.clone(), "type records").ok();
        let bytes = run.bytes.get_or_init(read).as_ref()?;
        TypesIter::new(bytes).nth((index - run.first) as usize)
    }
}

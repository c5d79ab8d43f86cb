//! Where the pages are in each kind of dump: runs, a bitmap, ranges.
//!
//! ```text
//!  runs     header | page of run 0 | next page | ...                                            type 1
//!  bitmap   header | SDMP/FDMP DUMP .. first page, pages, bits | bitmap | pages of its set bits  types 2, 5, 6, 7
//!  ranges   header | 40 RDMP DUMP .. | {first frame, pages} ... | pages                          types 8, 9, 0xA
//! ```
//! Source: docs/dumps.md 3.

use super::error::DumpError;
use super::header::Header;
use crate::physical::{BadRun, PageMap, PositionedFile, Run};

const PAGE: u64 = 0x1000;
/// Bytes of a bitmap that are read at a time.
const PIECE: usize = 0x1_0000;
/// Bytes of it that are compared at once with what most of it is.
const ALIKE: usize = 0x100;
const ALL: [u8; ALIKE] = [0xff; ALIKE];
const NONE: [u8; ALIKE] = [0; ALIKE];
/// What debuggers write again and again into a page that they could not read.
const UNREAD: [u8; 4] = 0xdead_feed_u32.to_le_bytes();
/// A machine's highest frame, and then some: 4 PiB.
const MAX_FRAMES: u64 = 1 << 40;

impl From<BadRun> for DumpError {
    fn from(bad: BadRun) -> Self {
        Self::Damaged(bad.to_string())
    }
}

/// The pages of a dump with this header.
pub(super) fn pages(file: &PositionedFile, header: &Header) -> Result<PageMap, DumpError> {
    let start = read(file, header.len(), 0x40)?;
    let is_bitmap = matches!(start.get(..8), Some(b"SDMPDUMP" | b"FDMPDUMP"));
    let is_ranges = start.get(..12) == Some(b"\x40\0\0\0RDMPDUMP");
    match header.dump_type {
        1 => of_runs(header),
        2 if is_bitmap => summary(file, header, &start).or_else(|_| bitmap(file, header, &start)),
        // What it calls itself is for people; the container says where the pages are.
        _ if is_bitmap => bitmap(file, header, &start),
        _ if is_ranges && header.is_64_bit => ranges(file, header, &start),
        3 => Err(DumpError::Refused("a header without pages".into())),
        2 | 5..=10 if file.len() < header.len() + 0x40 => {
            Err(DumpError::Truncated { what: "list of pages", has: file.len(), needs: header.len() + 0x40 })
        }
        2 | 5..=10 => Err(DumpError::Damaged(format!(
            "its type {:#x} has a list of pages (SDMPDUMP, FDMPDUMP or RDMPDUMP) at {:#x}, where this one has {}",
            header.dump_type,
            header.len(),
            start.get(..12).unwrap_or_default().escape_ascii()
        ))),
        other => {
            Err(DumpError::field("DumpType", if header.is_64_bit { 0xf98 } else { 0xf88 }, other.into()))
        }
    }
}

fn read(file: &PositionedFile, at: u64, len: usize) -> Result<Vec<u8>, DumpError> {
    file.read_some(at, len).map_err(|source| DumpError::File { path: file.path().to_owned(), source })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |it| u64::from_le_bytes(it.try_into().expect("eight bytes")))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).map_or(0, |it| u32::from_le_bytes(it.try_into().expect("four bytes")).into())
}

fn of_runs(header: &Header) -> Result<PageMap, DumpError> {
    let Some(runs) = &header.runs else {
        return Err(DumpError::Damaged(
            "its PhysicalMemoryBlock was never set, so that its pages have no addresses".into(),
        ));
    };
    let mut map = PageMap::default();
    let mut offset = header.len();
    for (first, count) in runs {
        let bad =
            || DumpError::Damaged(format!("a run of {count:#x} pages at frame {first:#x} is no machine's"));
        let len = count.checked_mul(PAGE).ok_or_else(bad)?;
        let start = first.checked_mul(PAGE).ok_or_else(bad)?;
        map.push(Run { start, len, offset })?;
        offset = offset.checked_add(len).ok_or_else(bad)?;
    }
    let (total, said) = (map.total() / PAGE, header.pages);
    // Some writers keep only the lower half of the number.
    if total != said && total & 0xffff_ffff != said {
        return Err(DumpError::Damaged(format!(
            "its runs have {total:#x} pages, NumberOfPages is {said:#x}"
        )));
    }
    Ok(map.sorted()?)
}

fn bitmap(file: &PositionedFile, header: &Header, start: &[u8]) -> Result<PageMap, DumpError> {
    let (first, pages, bits) = (u64_at(start, 0x20), u64_at(start, 0x28), u64_at(start, 0x30));
    of_bits(file, header.len() + 0x38, first, pages, bits)
}

/// The bitmap of Windows 7 and before.
fn summary(file: &PositionedFile, header: &Header, start: &[u8]) -> Result<PageMap, DumpError> {
    let (first, bits, pages) = (u32_at(start, 0xc), u32_at(start, 0x10), u32_at(start, 0x14));
    let bitmap = header.len() + if header.is_64_bit { 0x28 } else { 0x20 };
    of_bits(file, bitmap, first, pages, bits)
}

fn of_bits(
    file: &PositionedFile,
    bitmap: u64,
    first_page: u64,
    pages: u64,
    bits: u64,
) -> Result<PageMap, DumpError> {
    if bits > MAX_FRAMES {
        return Err(DumpError::Field { field: "bits of the bitmap", at: bitmap - 8, value: bits });
    }
    let len = bits.div_ceil(8);
    let end = bitmap + len;
    if end > file.len() {
        return Err(DumpError::Truncated { what: "bitmap", has: file.len(), needs: end });
    }
    if first_page < end {
        return Err(DumpError::Field { field: "first page's offset", at: bitmap - 0x18, value: first_page });
    }
    let mut map = PageMap::default();
    let (mut frame, mut offset, mut at) = (0_u64, first_page, bitmap);
    let mut piece = vec![0; PIECE.min(len as usize)];
    while at < end {
        let piece = &mut piece[..PIECE.min((end - at) as usize)];
        file.read_exact_at(at, piece)
            .map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
        at += piece.len() as u64;
        for bytes in piece.chunks(ALIKE) {
            let covered = 8 * bytes.len() as u64;
            // A machine's memory is mostly all there or not at all: most of the map is one of both for long.
            if bytes == &ALL[..bytes.len()] && frame + covered <= bits {
                offset = push_pages(&mut map, frame, covered, offset)?;
            } else if bytes != &NONE[..bytes.len()] {
                for (byte, frame) in bytes.iter().copied().zip((frame..).step_by(8)) {
                    if byte == 0xff && frame + 8 <= bits {
                        offset = push_pages(&mut map, frame, 8, offset)?;
                    } else if byte != 0 {
                        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1 && frame + bit < bits) {
                            offset = push_pages(&mut map, frame + bit, 1, offset)?;
                        }
                    }
                }
            }
            frame += covered;
        }
    }
    let total = map.total() / PAGE;
    if total != pages {
        return Err(DumpError::Damaged(format!(
            "its bitmap has {total:#x} pages, its header says {pages:#x}"
        )));
    }
    Ok(map)
}

fn push_pages(map: &mut PageMap, frame: u64, count: u64, offset: u64) -> Result<u64, DumpError> {
    let len = count * PAGE;
    map.push(Run { start: frame * PAGE, len, offset })?;
    offset.checked_add(len).ok_or_else(|| DumpError::Damaged("its pages lie beyond any file's end".into()))
}

/// The ranges that newer debuggers write.
fn ranges(file: &PositionedFile, header: &Header, start: &[u8]) -> Result<PageMap, DumpError> {
    let (metadata, first_page) = (u64_at(start, 0x10), u64_at(start, 0x18));
    let at = header.len();
    let fits = metadata % 16 == 0
        && metadata.checked_sub(0x20).is_some_and(|len| first_page.checked_sub(at + 0x40) == Some(len));
    if !fits {
        return Err(DumpError::Field { field: "metadata size", at: at + 0x10, value: metadata });
    }
    if first_page > file.len() {
        return Err(DumpError::Truncated { what: "list of ranges", has: file.len(), needs: first_page });
    }
    // Of a complete dump the total is known; what follows it is whatever lay there.
    let wanted = (header.dump_type == 10).then(|| u64_at(start, 0x28));
    let mut map = PageMap::filled_with(UNREAD);
    let (mut at, mut offset, mut total) = (at + 0x30, first_page, 0_u64);
    'file: while at + 16 <= first_page {
        let piece = read(file, at, PIECE.min((first_page - at) as usize) & !15)?;
        if piece.is_empty() {
            break;
        }
        at += piece.len() as u64;
        for entry in piece.chunks_exact(16) {
            let (frame, count) = (u64_at(entry, 0), u64_at(entry, 8));
            if wanted.is_some_and(|wanted| total >= wanted) || (wanted.is_none() && frame == 0) {
                break 'file;
            }
            let bad = || {
                DumpError::Damaged(format!("a range of {count:#x} pages at frame {frame:#x} is no machine's"))
            };
            if frame.max(count) > MAX_FRAMES {
                return Err(bad());
            }
            total += count;
            let len = count * PAGE;
            map.push(Run { start: frame * PAGE, len, offset })?;
            offset = offset.checked_add(len).ok_or_else(bad)?;
        }
    }
    Ok(map.sorted()?)
}

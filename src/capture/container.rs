//! Capture files: pcap and pcapng, gzipped or not, one frame at a time.
//!
//! ```text
//! file -> gzip? -> pcap:   header, then records   (16 or 24 bytes of header, bytes of a frame)
//!                  pcapng: blocks                 (section, interface, packet, others that are skipped)
//! ```
//!
//! Cuts the file into records itself, so that it knows where each begins and what is missing at the end; what a
//! record means is `pcap-parser`'s part. Holds one record in memory. Says nothing of what a frame carries.

use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, OptionCode, PcapHeader, PcapNGOption};
use pcap_parser::{parse_block_be, parse_block_le, parse_pcap_header};
use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified};

use super::interfaces;

/// No record of a sane capture is longer; a longer one is damage, and must not be allocated.
const MAX_RECORD_LEN: u64 = 16 << 20;
/// No sane section has more interfaces.
const MAX_INTERFACES: usize = 1 << 16;
/// Type, length, and a section's byte order mark.
const BLOCK_HEADER_LEN: u64 = 12;
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BIG_ENDIAN_MARK: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One frame as it was captured.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// From 1, as Wireshark numbers them.
    pub(super) number: u64,
    /// Nanoseconds since the first frame; may be negative. None if the file has no time for it.
    pub(super) time_ns: Option<i64>,
    /// What its first bytes are.
    pub(super) link_type: Linktype,
    /// The bytes that were captured, perhaps fewer than were sent.
    pub(super) bytes: &'a [u8],
    /// What its interface is for.
    pub(super) role: Role,
    /// True if the program that wrote the file sent it, if the file says.
    pub(super) is_outbound: Option<bool>,
}

/// What a frame's interface is for: [`super::write`] makes interfaces of the last two, others make the first only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Frames as they were on the wire.
    Wire,
    /// Datagrams without their encryption, each behind the one that it was in.
    Opened,
    /// Bytes of a serial line.
    Line,
}

/// Why there is no further frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContainerError {
    /// Not a capture file; its first bytes.
    #[error("begins with {0:02x?}")]
    Unknown(Vec<u8>),
    /// The file ends inside a record.
    #[error("ends inside a record")]
    CutOff,
    /// A record contradicts itself.
    #[error("{0}")]
    Damaged(&'static str),
    /// The file system's reason.
    #[error(transparent)]
    Read(io::Error),
}

impl From<io::Error> for ContainerError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // No file system says that: the decompressor does.
            ErrorKind::InvalidInput | ErrorKind::InvalidData => {
                Self::Damaged("its gzip stream does not unpack")
            }
            _ => Self::Read(error),
        }
    }
}

/// The frames of a capture, in the order of the file.
pub(super) struct Frames {
    input: Box<dyn Read>,
    format: Format,
    record: Vec<u8>,
    offset: u64,
    number: u64,
    first_time: Option<i128>,
    /// The gzip stream stopped before its end, which may be between two records.
    is_unzipping_cut: bool,
}

enum Format {
    Pcap(PcapHeader),
    PcapNg { big_endian: bool, interfaces: Vec<Interface> },
}

struct Interface {
    link_type: Linktype,
    role: Role,
    /// `if_tsresol`: 10^-n seconds, or 2^-n if the top bit is set.
    resolution: u8,
    offset_seconds: i64,
}

/// Where in [`Frames::record`] a packet's bytes are, and what is known of them.
struct Packet {
    bytes: std::ops::Range<usize>,
    time: Option<i128>,
    link_type: Linktype,
    role: Role,
    is_outbound: Option<bool>,
}

impl Frames {
    /// Opens a capture file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, ContainerError> {
        Self::new(Box::new(BufReader::new(File::open(path)?)))
    }

    /// Reads a capture's header from `input`.
    pub(super) fn new(input: Box<dyn Read>) -> Result<Self, ContainerError> {
        let (head, mut input) = peek::<2>(input)?;
        if head == GZIP {
            input = Box::new(BufReader::new(MultiGzDecoder::new(input)));
        }
        let (magic, input) = peek::<4>(input)?;
        let format = Format::PcapNg { big_endian: false, interfaces: Vec::new() };
        let mut frames = Self {
            input,
            format,
            record: Vec::new(),
            offset: 0,
            number: 0,
            first_time: None,
            is_unzipping_cut: false,
        };
        if magic != SECTION_HEADER {
            frames.format = Format::Pcap(frames.pcap_header(magic)?);
        }
        Ok(frames)
    }

    /// The next frame, or None at the end of the file.
    ///
    /// # Errors
    /// After an error there is nothing more to read: a record's place is known only from the one before it.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, ContainerError> {
        let packet = loop {
            if !self.read_record()? {
                return Ok(None);
            }
            if let Some(packet) = self.decode_record()? {
                break packet;
            }
        };
        self.number += 1;
        let time_ns = packet.time.map(|time| {
            let since_first = time - *self.first_time.get_or_insert(time);
            i64::try_from(since_first).unwrap_or(if since_first < 0 { i64::MIN } else { i64::MAX })
        });
        let bytes = &self.record[packet.bytes];
        let Packet { link_type, role, is_outbound, .. } = packet;
        Ok(Some(Frame { number: self.number, time_ns, link_type, bytes, role, is_outbound }))
    }

    /// Where the record that was read last, or could not be read, begins in the (unzipped) file.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    fn pcap_header(&mut self, magic: Vec<u8>) -> Result<PcapHeader, ContainerError> {
        const HEADER_LEN: u64 = 24;
        let complete = self.append(HEADER_LEN)?;
        match parse_pcap_header(&self.record) {
            Ok((_, header)) => {
                self.offset = HEADER_LEN;
                self.record.clear();
                Ok(header)
            }
            Err(pcap_parser::nom::Err::Incomplete(_)) if !complete && magic.len() == 4 => {
                Err(ContainerError::CutOff)
            }
            Err(_) => Err(ContainerError::Unknown(magic)),
        }
    }

    /// Replaces `record` with the next one, whole; false at the end of the file.
    fn read_record(&mut self) -> Result<bool, ContainerError> {
        self.offset += self.record.len() as u64;
        self.record.clear();
        let header_len = match &self.format {
            Format::Pcap(header) => pcap_record_header_len(header),
            Format::PcapNg { .. } => BLOCK_HEADER_LEN,
        };
        if !self.append(header_len)? {
            let is_at_end = self.record.is_empty() && !self.is_unzipping_cut;
            return if is_at_end { Ok(false) } else { Err(ContainerError::CutOff) };
        }
        let len = self.record_len();
        if len < header_len {
            return Err(ContainerError::Damaged("a record says that it is shorter than its own header"));
        }
        if len > MAX_RECORD_LEN {
            return Err(ContainerError::Damaged("a record says that it is longer than 16 MiB"));
        }
        if self.append(len - header_len)? { Ok(true) } else { Err(ContainerError::CutOff) }
    }

    /// How long the record whose header was read says that it is. For a section header, also adopts its byte order.
    fn record_len(&mut self) -> u64 {
        let field = |at: usize, big_endian: bool| {
            let bytes: [u8; 4] =
                self.record[at..at + 4].try_into().expect("a record header has three fields");
            u64::from(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        match &mut self.format {
            Format::Pcap(header) => pcap_record_header_len(header) + field(8, header.is_bigendian()),
            Format::PcapNg { big_endian, interfaces } => {
                if self.record[..4] == SECTION_HEADER {
                    *big_endian = self.record[8..12] == BIG_ENDIAN_MARK;
                    interfaces.clear();
                }
                field(4, *big_endian)
            }
        }
    }

    /// What the record is, if it is a packet.
    fn decode_record(&mut self) -> Result<Option<Packet>, ContainerError> {
        const CONTRADICTION: ContainerError =
            ContainerError::Damaged("a record's fields contradict each other");
        match &mut self.format {
            Format::Pcap(header) => {
                let parse = if header.is_modified_format() {
                    parse_pcap_frame_modified
                } else if header.is_bigendian() {
                    parse_pcap_frame_be
                } else {
                    parse_pcap_frame
                };
                let (_, packet) = parse(&self.record).map_err(|_| CONTRADICTION)?;
                let fraction =
                    i128::from(packet.ts_usec) * if header.is_nanosecond_precision() { 1 } else { 1000 };
                let start = self.record.len() - packet.data.len();
                // The upper bits of the field say whether frames end with a checksum.
                let link_type = Linktype(header.network.0 & 0xffff);
                let time = Some(i128::from(packet.ts_sec) * 1_000_000_000 + fraction);
                let bytes = start..self.record.len();
                Ok(Some(Packet { bytes, time, link_type, role: Role::Wire, is_outbound: None }))
            }
            Format::PcapNg { big_endian, interfaces } => {
                let parse = if *big_endian { parse_block_be } else { parse_block_le };
                let (_, block) = parse(&self.record).map_err(|_| CONTRADICTION)?;
                let no_interface = ContainerError::Damaged("a packet names an interface that the file lacks");
                Ok(match block {
                    Block::InterfaceDescription(block) => {
                        if interfaces.len() == MAX_INTERFACES {
                            return Err(ContainerError::Damaged("a section has more than 65536 interfaces"));
                        }
                        let name = block.options.iter().find(|it| it.code == OptionCode::IfName);
                        interfaces.push(Interface {
                            link_type: block.linktype,
                            role: Role::of(block.linktype, name.and_then(|it| it.as_bytes().ok())),
                            resolution: block.if_tsresol,
                            offset_seconds: block.if_tsoffset,
                        });
                        None
                    }
                    Block::EnhancedPacket(block) => {
                        const START: usize = 28;
                        let interface = interfaces.get(block.if_id as usize).ok_or(no_interface)?;
                        Some(Packet {
                            bytes: START..START + block.packet_data().len(),
                            time: Some(interface.time(block.ts_high, block.ts_low)),
                            link_type: interface.link_type,
                            role: interface.role,
                            is_outbound: direction(&block.options, *big_endian),
                        })
                    }
                    Block::SimplePacket(block) => {
                        const START: usize = 12;
                        let interface = interfaces.first().ok_or(no_interface)?;
                        let bytes = START..START + block.packet_data().len();
                        let Interface { link_type, role, .. } = *interface;
                        Some(Packet { bytes, time: None, link_type, role, is_outbound: None })
                    }
                    _ => None,
                })
            }
        }
    }

    /// Appends the next `count` bytes to `record`, as they come, so that nothing is allocated for bytes that are not
    /// there; false if the file ends before.
    fn append(&mut self, count: u64) -> Result<bool, ContainerError> {
        match self.input.by_ref().take(count).read_to_end(&mut self.record) {
            Ok(got) => Ok(got as u64 == count),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.is_unzipping_cut = true;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Role {
    fn of(link_type: Linktype, name: Option<&[u8]>) -> Self {
        match name {
            Some(interfaces::OPENED) if link_type == interfaces::LINK_TYPE_OF_OPENED => Self::Opened,
            Some(interfaces::LINE) if link_type == interfaces::LINK_TYPE_OF_LINE => Self::Line,
            _ => Self::Wire,
        }
    }
}

/// The lowest two bits of `epb_flags`.
fn direction(options: &[PcapNGOption<'_>], is_big_endian: bool) -> Option<bool> {
    const EPB_FLAGS: u16 = 2;
    let flags = options.iter().find(|it| it.code.0 == EPB_FLAGS)?.as_bytes().ok()?.first_chunk().copied()?;
    let flags = if is_big_endian { u32::from_be_bytes(flags) } else { u32::from_le_bytes(flags) };
    match flags & 3 {
        interfaces::INBOUND => Some(false),
        interfaces::OUTBOUND => Some(true),
        _ => None,
    }
}

impl Interface {
    /// Nanoseconds since 1970.
    fn time(&self, high: u32, low: u32) -> i128 {
        let ticks = i128::from(u64::from(high) << 32 | u64::from(low));
        let exponent = u32::from(self.resolution & 0x7f);
        let since = if self.resolution & 0x80 != 0 {
            // 2^64 ticks of a nanosecond-times-2^64 fit 128 bits; a finer resolution has no use for the rest.
            (ticks * 1_000_000_000).checked_shr(exponent).unwrap_or(0)
        } else if exponent <= 9 {
            ticks * 10_i128.pow(9 - exponent)
        } else {
            10_i128.checked_pow(exponent - 9).map_or(0, |divisor| ticks / divisor)
        };
        since + i128::from(self.offset_seconds) * 1_000_000_000
    }
}

fn pcap_record_header_len(header: &PcapHeader) -> u64 {
    if header.is_modified_format() { 24 } else { 16 }
}

/// The first bytes of `input`, at most `N`, and an input that still has them.
fn peek<const N: usize>(mut input: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut head = Vec::with_capacity(N);
    match input.by_ref().take(N as u64).read_to_end(&mut head) {
        // A gzip stream that stops early: what came out of it tells.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        other => _ = other?,
    }
    Ok((head.clone(), Box::new(Cursor::new(head).chain(input))))
}

//! `verikd capture --serial FILE`: what a debugger and a target said to each other over a serial line.
//!
//! ```text
//! raw bytes, of one direction or one direction after the other --+
//! JSON lines: {"t": 1.5, "dir": "h2t", "hex": "62"} -------------+--> pieces --> a decoder a direction --> lines, counts
//! a trace of verikd's own (pcapng) ------------------------------+
//! ```
//! Raw bytes don't say who sent them, so that their packets have no direction unless their kind tells. Files may be
//! gzipped; one piece is held at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kd_protocol::kd::{DebugIoApi, Packet, Payload};
use kd_protocol::kdcom::{Decoder, Frame};
use kd_protocol::kdnet::Direction;
use kd_protocol::link::Content;
use serde::{Deserialize, Serialize};

use super::container::{ContainerError, Frames, Role};
use super::datagram::{is_failure, kind_of};
use super::error::CaptureError;
use super::json::{self, PacketFields};
use super::summary::Ending;
use super::summary::{Census, Summary};
use super::text::{self, arrow};

/// Bytes taken from a raw file at a time.
const PIECE_LEN: usize = 64 << 10;
/// No piece of a line that is recorded as JSON is longer.
const MAX_LINE_LEN: u64 = 16 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What crossed the line at one time.
struct Piece {
    /// From 1, as the file has them.
    number: u64,
    time_ns: Option<i64>,
    what: What,
}

enum What {
    Bytes(Option<Direction>, Vec<u8>),
    /// The line was there again, or ended: what was on its way is lost.
    Break(String),
}

/// Shows the serial traffic in `path`: raw bytes or JSON lines.
pub(super) fn run(path: &Path, as_json: bool, out: &mut impl Write) -> Result<Summary, CaptureError> {
    let failed = |source| CaptureError::Read { path: path.to_path_buf(), source };
    let mut input: Box<dyn BufRead> = Box::new(BufReader::new(File::open(path).map_err(failed)?));
    if input.fill_buf().map_err(failed)?.starts_with(&GZIP) {
        input = Box::new(BufReader::new(MultiGzDecoder::new(input)));
    }
    let is_json = input.fill_buf().map_err(failed)?.starts_with(b"{");
    let mut shown = Shown::new(out, as_json);
    let mut number = 0;
    let result = loop {
        number += 1;
        let piece = if is_json { json_piece(&mut input, number) } else { raw_piece(&mut input, number) };
        match piece {
            Ok(Some(piece)) => shown.piece(&piece)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let summary = shown.finish()?;
    match result {
        Ok(()) => Ok(summary),
        Err(PieceError::Read(source)) => Err(failed(source)),
        Err(PieceError::Damaged(what)) => {
            Err(CaptureError::DamagedLine { path: path.to_path_buf(), line: number, what })
        }
    }
}

/// Shows the serial traffic in a trace that this program has written.
pub(super) fn run_trace(path: &Path, as_json: bool, out: &mut impl Write) -> Result<Summary, CaptureError> {
    let of = |error| match error {
        ContainerError::Read(source) => CaptureError::Read { path: path.to_path_buf(), source },
        _ => unreachable!("the file was read to its end before"),
    };
    let mut frames = Frames::open(path).map_err(of)?;
    let mut shown = Shown::new(out, as_json);
    let ending = loop {
        match frames.next() {
            Ok(Some(frame)) if frame.role == Role::Line => {
                let direction = frame.is_outbound.map(|is_outbound| match is_outbound {
                    true => Direction::HostToTarget,
                    false => Direction::TargetToHost,
                });
                let what = What::Bytes(direction, frame.bytes.to_vec());
                shown.piece(&Piece { number: frame.number, time_ns: frame.time_ns, what })?;
            }
            Ok(Some(_)) => {}
            Ok(None) => break Ending::Complete,
            Err(ContainerError::CutOff) => break Ending::CutOff { offset: frames.offset() },
            Err(error) => return Err(of(error)),
        }
    };
    Ok(Summary { ending, ..shown.finish()? })
}

enum PieceError {
    Read(io::Error),
    Damaged(&'static str),
}

fn raw_piece(input: &mut dyn BufRead, number: u64) -> Result<Option<Piece>, PieceError> {
    let mut bytes = vec![0; PIECE_LEN];
    let len = match input.read(&mut bytes) {
        Ok(len) => len,
        Err(error) => return Err(PieceError::Read(error)),
    };
    bytes.truncate(len);
    let piece = Piece { number, time_ns: None, what: What::Bytes(None, bytes) };
    Ok((len > 0).then_some(piece))
}

#[derive(Deserialize)]
struct JsonPiece {
    #[serde(default)]
    t: Option<f64>,
    dir: String,
    #[serde(default)]
    hex: String,
}

fn json_piece(input: &mut dyn BufRead, number: u64) -> Result<Option<Piece>, PieceError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = input.take(MAX_LINE_LEN).read_until(b'\n', &mut line).map_err(PieceError::Read)?;
        match len as u64 {
            0 => return Ok(None),
            MAX_LINE_LEN => return Err(PieceError::Damaged("is longer than 16 MiB")),
            _ if line.trim_ascii().is_empty() => {}
            _ => break,
        }
    }
    let piece: JsonPiece = serde_json::from_slice(&line)
        .map_err(|_| PieceError::Damaged("is not a JSON object with \"dir\" and \"hex\""))?;
    let bytes = || unhex(&piece.hex).ok_or(PieceError::Damaged("has \"hex\" that is not hexadecimal"));
    let what = match piece.dir.as_str() {
        "h2t" => What::Bytes(Some(Direction::HostToTarget), bytes()?),
        "t2h" => What::Bytes(Some(Direction::TargetToHost), bytes()?),
        other => What::Break(other.to_owned()),
    };
    // Out of range, a number of seconds saturates.
    let time_ns = piece.t.map(|seconds| (seconds * 1e9) as i64);
    Ok(Some(Piece { number, time_ns, what }))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((nibble(*high)? << 4 | nibble(*low)?) as u8)).collect()
}

/// The two directions of a line, and the frames that complete in each.
#[derive(Default)]
pub(super) struct LineText {
    from_host: Decoder,
    from_target: Decoder,
    from_unknown: Decoder,
}

impl LineText {
    /// The frames that `bytes` complete, in a line for people.
    pub(super) fn of(&mut self, direction: Direction, bytes: &[u8]) -> String {
        let frames = self.push(Some(direction), bytes);
        frames.iter().map(|frame| frame_text(frame, Some(direction))).collect::<Vec<_>>().join("; ")
    }

    fn push(&mut self, direction: Option<Direction>, bytes: &[u8]) -> Vec<Frame> {
        let decoder = self.decoder(direction);
        decoder.push(bytes);
        let frames = std::iter::from_fn(|| decoder.poll());
        // The letter in a target's text is no break-in: targets send none.
        let is_of_target = direction == Some(Direction::TargetToHost);
        frames.filter(|frame| !(is_of_target && *frame == Frame::BreakIn)).collect()
    }

    /// The stream ends: what is there of a packet is given up, and what it hid is found.
    fn end(&mut self, direction: Option<Direction>) -> Vec<Frame> {
        let decoder = self.decoder(direction);
        let mut frames = Vec::new();
        while decoder.is_partial() {
            frames.extend(decoder.give_up_partial());
            frames.extend(std::iter::from_fn(|| decoder.poll()));
        }
        frames
    }

    const fn decoder(&mut self, direction: Option<Direction>) -> &mut Decoder {
        match direction {
            Some(Direction::HostToTarget) => &mut self.from_host,
            Some(Direction::TargetToHost) => &mut self.from_target,
            None => &mut self.from_unknown,
        }
    }

    const fn skipped(&self) -> u64 {
        self.from_host.skipped() + self.from_target.skipped() + self.from_unknown.skipped()
    }
}

fn frame_text(frame: &Frame, direction: Option<Direction>) -> String {
    match frame {
        Frame::BreakIn => "BREAK_IN".into(),
        Frame::Damaged(error) => format!("DAMAGED: a packet that {error}"),
        // An id over a serial line does not tell a request from a reply.
        Frame::Packet(packet) => match Payload::decode(packet) {
            Ok(payload) if !packet.is_control && direction != Some(Direction::HostToTarget) => {
                format!("{} id={} {payload}", packet.packet_type, packet.id)
            }
            _ => packet.to_string(),
        },
    }
}

/// Who sends such packets only, if one does.
fn sender_of(packet: &Packet) -> Option<Direction> {
    match Payload::decode(packet).ok()? {
        Payload::StateChange(_) if !packet.is_control => Some(Direction::TargetToHost),
        Payload::DebugIo(io) if !packet.is_control && io.api_number == DebugIoApi::PRINT_STRING => {
            Some(Direction::TargetToHost)
        }
        _ => None,
    }
}

/// Shows pieces as they come, and counts.
struct Shown<'a, W> {
    out: &'a mut W,
    as_json: bool,
    line: LineText,
    census: Census,
    unknown: u64,
    pieces: u64,
    bytes: u64,
    packets: u64,
    break_ins: u64,
    damaged: u64,
    last_time_ns: i64,
    last_number: u64,
}

#[derive(Serialize)]
struct FrameLine {
    piece: u64,
    time_ns: Option<i64>,
    direction: Option<&'static str>,
    kind: String,
    text: String,
    #[serde(flatten)]
    packet: Option<PacketFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

#[derive(Serialize)]
struct SummaryLine {
    summary: SummaryFields,
}

#[derive(Serialize)]
struct SummaryFields {
    pieces: u64,
    last_time_ns: i64,
    bytes: u64,
    packets: u64,
    break_ins: u64,
    damaged: u64,
    skipped: u64,
}

impl<'a, W: Write> Shown<'a, W> {
    fn new(out: &'a mut W, as_json: bool) -> Self {
        Self {
            out,
            as_json,
            line: LineText::default(),
            census: Census::default(),
            unknown: 0,
            pieces: 0,
            bytes: 0,
            packets: 0,
            break_ins: 0,
            damaged: 0,
            last_time_ns: 0,
            last_number: 0,
        }
    }

    fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        self.pieces += 1;
        self.last_number = piece.number;
        self.last_time_ns = piece.time_ns.unwrap_or(self.last_time_ns);
        match &piece.what {
            What::Bytes(direction, bytes) => {
                self.bytes += bytes.len() as u64;
                for frame in self.line.push(*direction, bytes) {
                    self.frame(piece.number, piece.time_ns, *direction, &frame)?;
                }
            }
            What::Break(what) => {
                self.end_streams(piece.time_ns)?;
                if !self.as_json {
                    let what: String = what.chars().filter(char::is_ascii_graphic).take(40).collect();
                    writeln!(self.out, "-- {what}")?;
                }
            }
        }
        Ok(())
    }

    fn end_streams(&mut self, time_ns: Option<i64>) -> io::Result<()> {
        for direction in [Some(Direction::HostToTarget), Some(Direction::TargetToHost), None] {
            for frame in self.line.end(direction) {
                self.frame(self.last_number, time_ns, direction, &frame)?;
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        number: u64,
        time_ns: Option<i64>,
        direction: Option<Direction>,
        frame: &Frame,
    ) -> io::Result<()> {
        let (direction, kind) = match frame {
            Frame::Packet(packet) => {
                let direction = direction.or_else(|| sender_of(packet));
                let kind = kind_of(&Content::Kd(packet.clone()));
                self.packets += 1;
                match direction {
                    Some(direction) => {
                        self.census.add(direction, kind.clone(), is_failure(packet, direction))
                    }
                    None => self.unknown += 1,
                }
                (direction, kind)
            }
            Frame::BreakIn => {
                self.break_ins += 1;
                (direction, "BREAK_IN".into())
            }
            Frame::Damaged(_) => {
                self.damaged += 1;
                (direction, "DAMAGED".into())
            }
        };
        let text = frame_text(frame, direction);
        if !self.as_json {
            let time = time_ns.map_or_else(|| "-".into(), text::seconds);
            return writeln!(
                self.out,
                "{number:>7} {time:>12}  {}  serial  {text}",
                direction.map_or("?>?", arrow)
            );
        }
        let is_reply = direction == Some(Direction::TargetToHost);
        let (packet, body) = match frame {
            Frame::Packet(packet) => {
                (Some(json::packet_fields(packet, is_reply)), Some(json::hex(&packet.payload)))
            }
            _ => (None, None),
        };
        let direction = direction.map(arrow);
        json::write_line(self.out, &FrameLine { piece: number, time_ns, direction, kind, text, packet, body })
    }

    fn finish(mut self) -> io::Result<Summary> {
        self.end_streams(None)?;
        let skipped = self.line.skipped();
        let Self { pieces, bytes, packets, break_ins, damaged, last_time_ns, .. } = self;
        if self.as_json {
            let summary = SummaryFields { pieces, last_time_ns, bytes, packets, break_ins, damaged, skipped };
            json::write_line(self.out, &SummaryLine { summary })?;
        } else {
            text::write_census(self.out, &self.census)?;
            let mut say = |count: u64, what: &str| match count {
                0 => Ok(()),
                _ => writeln!(self.out, "{count} {what}"),
            };
            say(self.unknown, "packets whose sender the bytes do not tell")?;
            say(damaged, "damaged packets: bytes were lost or changed on the line, or by the recording")?;
            say(skipped, "bytes that belong to no packet: break-ins, text of a boot loader, noise")?;
            writeln!(self.out, "{bytes} bytes, {packets} packets, {break_ins} break-ins")?;
        }
        self.out.flush()?;
        Ok(Summary { line_pieces: pieces, last_time_ns, census: self.census, ..Summary::default() })
    }
}

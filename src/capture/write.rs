//! Writing a pcapng file of a session: each datagram as it was on the wire, with a line that says what is in it as its
//! comment, and behind it the same without its encryption; or the pieces of a serial line's bytes.
//!
//! | interface        | link type | frames                                                                      |
//! |------------------|-----------|-----------------------------------------------------------------------------|
//! | `KDNET`          | RAW       | IP, UDP, the datagram as it was sent: opens with the key, here and elsewhere |
//! | `verikd opened`  | USER0     | IP, UDP with the same addresses, `MDBG`, version, flags, inner header, body: neither padding nor tag |
//! | `serial line`    | USER1     | bytes of the stream; `epb_flags` says which way they went                   |
//!
//! Neither the key nor a data key is in it. Its plaintext is what the session read: the target's memory. Reading such a
//! file is [`super::container`]'s part.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::PacketBuilder;
use kd_protocol::kdnet::{Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::wire::Reader;
use pcap_parser::Linktype;

use super::interfaces::{INBOUND, LINE, LINK_TYPE_OF_LINE, LINK_TYPE_OF_OPENED, OPENED, OUTBOUND, WIRE};
use super::sessions::Sessions;
use super::text::{content_text, remarks};
use crate::capture::serial::LineText;

const INTERFACES: [(&[u8], Linktype); 3] =
    [(WIRE, Linktype::RAW), (OPENED, LINK_TYPE_OF_OPENED), (LINE, LINK_TYPE_OF_LINE)];
const SECTION_HEADER_BLOCK: u32 = 0x0a0d_0d0a;
const INTERFACE_BLOCK: u32 = 1;
const ENHANCED_PACKET_BLOCK: u32 = 6;
/// What an IP header of this machine's making has; the real one is not seen by a socket.
const TTL: u8 = 64;
/// A comment's length is 16 bits.
const MAX_COMMENT_LEN: usize = 4096;

/// Writes a session's traffic to a pcapng file that Wireshark and `verikd capture` read.
pub struct TraceWriter<W> {
    out: W,
    sessions: Sessions,
    line: LineText,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the file's header. `key` opens the datagrams; a serial line has none.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, key: Option<Key>) -> io::Result<Self> {
        let mut section = Vec::new();
        section.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        section.extend_from_slice(&[1, 0, 0, 0]);
        section.extend_from_slice(&u64::MAX.to_le_bytes());
        let program = concat!("verikd ", env!("CARGO_PKG_VERSION"));
        option(&mut section, 4, program.as_bytes());
        end_of_options(&mut section);
        block(&mut out, SECTION_HEADER_BLOCK, &section)?;
        for (name, link_type) in INTERFACES {
            let mut interface = Vec::new();
            let number = u16::try_from(link_type.0).expect("link types have 16 bits");
            interface.extend_from_slice(&number.to_le_bytes());
            interface.extend_from_slice(&[0; 6]);
            option(&mut interface, 2, name);
            option(&mut interface, 9, &[9]);
            end_of_options(&mut interface);
            block(&mut out, INTERFACE_BLOCK, &interface)?;
        }
        Ok(Self { out, sessions: Sessions::new(key), line: LineText::default() })
    }

    /// Writes a datagram that went from `source` to `destination`, `time_ns` nanoseconds after 1970 began.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write_datagram(
        &mut self,
        time_ns: u64,
        source: SocketAddr,
        destination: SocketAddr,
        is_outbound: bool,
        sealed: &[u8],
    ) -> io::Result<()> {
        let opened = Envelope::parse(sealed)
            .map_err(|error| error.to_string())
            .and_then(|it| self.sessions.open(&it, source, destination).map_err(|error| error.to_string()));
        let comment = match &opened {
            Ok(opened) => format!("{}{}", content_text(opened), remarks(opened)),
            Err(reason) => reason.clone(),
        };
        let frame = ip_udp(source, destination, sealed);
        self.packet(0, time_ns, is_outbound, &frame, &comment)?;
        if let Ok(opened) = opened {
            let plain = ip_udp(source, destination, &to_plain(&opened.datagram));
            self.packet(1, time_ns, is_outbound, &plain, &comment)?;
        }
        Ok(())
    }

    /// Writes bytes of a serial line's stream.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write_line(&mut self, time_ns: u64, is_outbound: bool, bytes: &[u8]) -> io::Result<()> {
        let direction = if is_outbound { Direction::HostToTarget } else { Direction::TargetToHost };
        let comment = self.line.of(direction, bytes);
        self.packet(2, time_ns, is_outbound, bytes, &comment)
    }

    /// Writes what waits in buffers.
    ///
    /// # Errors
    /// Those of the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn packet(
        &mut self,
        interface: u32,
        time_ns: u64,
        is_outbound: bool,
        frame: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        let len = u32::try_from(frame.len()).expect("datagrams and pieces are far below 4 GiB");
        let mut body = Vec::with_capacity(frame.len() + comment.len() + 64);
        for field in [interface, (time_ns >> 32) as u32, time_ns as u32, len, len] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        body.extend_from_slice(frame);
        pad(&mut body);
        if !comment.is_empty() {
            let end = comment.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_COMMENT_LEN).last();
            let end = if comment.len() > MAX_COMMENT_LEN { end.unwrap_or(0) } else { comment.len() };
            option(&mut body, 1, &comment.as_bytes()[..end]);
        }
        option(&mut body, 2, &(if is_outbound { OUTBOUND } else { INBOUND }).to_le_bytes());
        end_of_options(&mut body);
        block(&mut self.out, ENHANCED_PACKET_BLOCK, &body)
    }
}

/// A datagram without encryption, padding and tag.
fn to_plain(datagram: &Datagram) -> Vec<u8> {
    let direction = match datagram.direction {
        Direction::TargetToHost => 0,
        Direction::HostToTarget => 0x80,
    };
    let mut plain = b"MDBG".to_vec();
    plain.extend_from_slice(&[datagram.version, datagram.flags.bits()]);
    plain.extend_from_slice(&(datagram.sequence << 8 | direction).to_be_bytes());
    plain.extend_from_slice(&datagram.body);
    plain
}

/// Reads what [`to_plain`] writes.
pub(super) fn from_plain(plain: &[u8]) -> Option<Datagram> {
    let mut reader = Reader::new("opened datagram", plain.strip_prefix(b"MDBG")?);
    let [version, flags] = reader.array().ok()?;
    let inner = reader.u64_be().ok()?;
    let body = reader.bytes(reader.left()).ok()?;
    Some(Datagram {
        version,
        flags: Flags::from_bits_retain(flags),
        direction: if inner & 0x80 == 0 { Direction::TargetToHost } else { Direction::HostToTarget },
        sequence: inner >> 8,
        body: Bytes::copy_from_slice(body),
    })
}

/// `payload` behind the headers that it has on the wire, but for those fields that a socket does not see.
fn ip_udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let builder = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        _ => PacketBuilder::ipv6(v6(from), v6(to), TTL),
    };
    let mut frame = Vec::with_capacity(payload.len() + 48);
    builder
        .udp(source.port(), destination.port())
        .write(&mut frame, payload)
        .expect("what came in a datagram fits into one");
    frame
}

const fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len() + 12).expect("a block is far below 4 GiB").to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("options are short");
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend_from_slice(&[0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_datagram_reads_as_it_was_written() {
        let datagram = Datagram {
            version: 5,
            flags: Flags::CONTROL | Flags::IN_DEBUGGER,
            direction: Direction::HostToTarget,
            sequence: 0x12_3456_789a,
            body: Bytes::from_static(b"body"),
        };
        assert_eq!(from_plain(&to_plain(&datagram)), Some(datagram.clone()));
        for len in 0..14 {
            assert_eq!(from_plain(&to_plain(&datagram)[..len]), None, "{len}");
        }
    }
}

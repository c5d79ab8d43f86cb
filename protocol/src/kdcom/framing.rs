//! Packets to bytes, and bytes to packets: whatever was lost, damaged or put in between.

use bytes::{Buf, Bytes, BytesMut};

use crate::kd::{BREAK_IN, Packet};

/// The payload that one packet carries at most. Source: PROTOCOL.md 14.
pub const MAX_PAYLOAD_LEN: usize = 4000;
/// The byte behind a data packet's payload.
const TRAILER: u8 = 0xaa;
/// A leader is four of one of these.
const LEADER_BYTES: [u8; 2] = [b'0', b'i'];
const LEADER_LEN: usize = 4;
/// No side numbers its packet types higher than this; a leader before more is payload or noise.
const MAX_PACKET_TYPE: u16 = 12;

/// Appends a packet's bytes to `out`.
pub fn encode(packet: &Packet, out: &mut BytesMut) {
    out.extend_from_slice(&packet.encode());
    if !packet.is_control {
        out.extend_from_slice(&[TRAILER]);
    }
}

/// Something found in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole packet.
    Packet(Packet),
    /// The break-in byte.
    BreakIn,
    /// What began like a data packet and was none, or is none any more.
    Damaged(FrameError),
}

/// Why a data packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header names a length that no packet has.
    #[error("says that it has {0} bytes of payload, more than a packet carries")]
    Length(usize),
    /// The payload's sum is another one.
    #[error("has another sum than its header says")]
    Checksum,
    /// The byte behind the payload is not the trailer.
    #[error("does not end with the trailer byte")]
    Trailer,
    /// The rest did not come.
    #[error("was not finished")]
    Cut,
}

/// Finds packets in a stream.
///
/// Holds one packet's bytes at most: what lies before a leader is dropped as it is read.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    skipped: u64,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, once enough of it is here.
    pub fn poll(&mut self) -> Option<Frame> {
        loop {
            let first = *self.buffer.first()?;
            if !LEADER_BYTES.contains(&first) {
                self.skip(1);
                if first == BREAK_IN {
                    return Some(Frame::BreakIn);
                }
                continue;
            }
            let run = self.buffer.iter().take(LEADER_LEN).take_while(|byte| **byte == first).count();
            if run == self.buffer.len() && run < LEADER_LEN {
                return None;
            }
            if run < LEADER_LEN {
                self.skip(run);
                continue;
            }
            let header = self.buffer.get(..Packet::HEADER_LEN)?;
            let packet_type = u16::from_le_bytes([header[4], header[5]]);
            let payload_len = usize::from(u16::from_le_bytes([header[6], header[7]]));
            let is_control = first == b'i';
            if packet_type > MAX_PACKET_TYPE || is_control && payload_len > 0 {
                // Part of something else: a leader byte before the leader, or such bytes in a payload that was cut.
                self.skip(1);
                continue;
            }
            if is_control {
                let mut bytes = self.buffer.split_to(Packet::HEADER_LEN);
                // Control packets have no sum to be right or wrong.
                bytes[12..].fill(0);
                return Packet::decode(&bytes.freeze()).ok().map(Frame::Packet);
            }
            if payload_len > MAX_PAYLOAD_LEN {
                return Some(self.damaged(FrameError::Length(payload_len)));
            }
            let end = Packet::HEADER_LEN + payload_len;
            let trailer = *self.buffer.get(end)?;
            let packet = Packet::decode(&Bytes::copy_from_slice(&self.buffer[..end]));
            return Some(match packet {
                Ok(_) if trailer != TRAILER => self.damaged(FrameError::Trailer),
                Ok(packet) => {
                    self.buffer.advance(end + 1);
                    Frame::Packet(packet)
                }
                Err(_) => self.damaged(FrameError::Checksum),
            });
        }
    }

    /// True if part of a packet is here, and the rest is waited for.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Gives up the packet whose rest has not come for too long, and reads on behind its first byte.
    pub fn give_up_partial(&mut self) -> Option<Frame> {
        let is_data = self.buffer.starts_with(&[LEADER_BYTES[0]; LEADER_LEN]);
        let is_partial = self.is_partial();
        if is_partial {
            self.skip(1);
        }
        (is_partial && is_data).then_some(Frame::Damaged(FrameError::Cut))
    }

    /// Forgets what is here: the stream begins anew.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Bytes that belonged to no packet.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The packet is none; another one may begin inside.
    fn damaged(&mut self, error: FrameError) -> Frame {
        self.skip(1);
        Frame::Damaged(error)
    }

    fn skip(&mut self, count: usize) {
        self.buffer.advance(count);
        self.skipped += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kd::{PacketId, PacketType};

    fn data(payload: &'static [u8]) -> Packet {
        Packet::data(PacketType::DEBUG_IO, PacketId(0x8080_0800), Bytes::from_static(payload))
    }

    fn bytes_of(packet: &Packet) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(packet, &mut out);
        out.to_vec()
    }

    fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.poll()).collect()
    }

    #[test]
    fn a_data_packet_ends_with_the_trailer_and_a_control_packet_with_its_header() {
        assert_eq!(bytes_of(&data(b"up"))[16..], *b"up\xaa");
        let ack = Packet::control(PacketType::ACKNOWLEDGE, PacketId(0x8080_0000));
        assert_eq!(bytes_of(&ack), b"iiii\x04\x00\x00\x00\x00\x00\x80\x80\x00\x00\x00\x00");
    }

    #[test]
    fn packets_are_found_in_whatever_pieces_they_come() {
        let (one, two) = (data(b"one"), Packet::control(PacketType::RESET, PacketId(0)));
        let stream = [bytes_of(&one), vec![BREAK_IN], bytes_of(&two)].concat();
        let expected = [Frame::Packet(one), Frame::BreakIn, Frame::Packet(two)];
        assert_eq!(frames(&stream), expected);
        for size in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                found.extend(std::iter::from_fn(|| decoder.poll()));
            }
            assert_eq!(found, expected, "pieces of {size}");
            assert!(!decoder.is_partial());
        }
    }

    #[test]
    fn noise_before_a_packet_is_skipped_even_if_it_looks_like_a_leader() {
        let packet = data(b"000 iiii 0000");
        for noise in [&b"\x00\xff"[..], b"0", b"00000", b"ii", b"iiiii", b"0i0i", b"000i"] {
            let found = frames(&[noise, &bytes_of(&packet)].concat());
            assert_eq!(found.last(), Some(&Frame::Packet(packet.clone())), "{noise:?}");
            assert!(found.len() == 1, "{noise:?}: {found:?}");
        }
    }

    #[test]
    fn a_damaged_packet_is_named_and_the_next_one_found() {
        let next = Frame::Packet(data(b"next"));
        let follows = |bytes: &[u8]| frames(&[bytes, &bytes_of(&data(b"next"))].concat());
        let good = bytes_of(&data(b"payload"));
        let with = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            bytes
        };
        assert_eq!(follows(&with(16, b'P')), [Frame::Damaged(FrameError::Checksum), next.clone()]);
        assert_eq!(follows(&with(23, 0)), [Frame::Damaged(FrameError::Trailer), next.clone()]);
        assert_eq!(follows(&with(7, 0xff)), [Frame::Damaged(FrameError::Length(0xff07)), next.clone()]);
        assert_eq!(follows(&with(5, 0x80)), [next], "no such packet type: noise");
    }

    #[test]
    fn a_packet_without_its_end_is_waited_for_until_it_is_given_up() {
        let good = bytes_of(&data(b"payload"));
        let mut decoder = Decoder::default();
        decoder.push(&good[..20]);
        assert_eq!(decoder.poll(), None);
        assert!(decoder.is_partial());
        assert_eq!(decoder.give_up_partial(), Some(Frame::Damaged(FrameError::Cut)));
        decoder.push(&good);
        let found: Vec<Frame> = std::iter::from_fn(|| decoder.poll()).collect();
        assert_eq!(found, [Frame::Packet(data(b"payload"))]);
    }

    #[test]
    fn a_length_that_is_too_long_does_not_swallow_what_follows() {
        let mut long = bytes_of(&data(b"payload"));
        long[6..8].copy_from_slice(&100_u16.to_le_bytes());
        let stream = [long, bytes_of(&data(b"one")), bytes_of(&data(b"two"))].concat();
        let mut decoder = Decoder::default();
        decoder.push(&stream);
        assert_eq!(decoder.poll(), None, "a hundred bytes are waited for");
        let mut found = vec![decoder.give_up_partial().unwrap()];
        found.extend(std::iter::from_fn(|| decoder.poll()));
        let [Frame::Damaged(FrameError::Cut), one, two] = &found[..] else { panic!("{found:?}") };
        assert_eq!([one, two], [&Frame::Packet(data(b"one")), &Frame::Packet(data(b"two"))]);
    }
}

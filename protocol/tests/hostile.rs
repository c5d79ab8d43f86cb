//! Hostile bytes: every truncation and every bit flip of every vector, and bytes that nobody sent, give a typed error
//! or decode; what decodes prints and encodes to the same bytes. Never a panic.

mod common;

use bytes::Bytes;
use common::{Vector, Vectors};
use kd_protocol::kd::{Packet, PacketId, PacketType, Payload};
use kd_protocol::kdnet::{
    Channel, Cipher, Datagram, DatagramError, Direction, Envelope, Flags, Key, MIN_DATAGRAM_LEN,
};
use kd_protocol::link::Content;
use proptest::collection::vec;
use proptest::prelude::*;

/// Packet types whose payload is read into, and one whose is not.
const TYPES: [PacketType; 5] = [
    PacketType::STATE_CHANGE64,
    PacketType::STATE_MANIPULATE,
    PacketType::DEBUG_IO,
    PacketType::FILE_IO,
    PacketType::TRACE_IO,
];

#[test]
fn every_truncation_of_a_sealed_datagram_is_refused() {
    for_each_vector(|vector, cipher| {
        for len in 0..vector.raw.len() {
            let opened = Envelope::parse(&vector.raw[..len]).and_then(|it| it.open(cipher));
            let whole_blocks = len >= MIN_DATAGRAM_LEN && (len - MIN_DATAGRAM_LEN).is_multiple_of(16);
            let expected =
                if whole_blocks { DatagramError::NotAuthentic } else { DatagramError::Length(len) };
            assert_eq!(opened, Err(expected), "{} cut to {len} bytes", vector.name);
        }
    });
}

#[test]
fn every_flipped_bit_of_a_sealed_datagram_is_refused() {
    for_each_vector(|vector, cipher| {
        for byte in 0..vector.raw.len() {
            // All bits of the clear header, of the first block and of the tag; of each other byte one.
            let is_edge = byte < 32 || byte + 16 >= vector.raw.len();
            let bits = if is_edge { 0..8 } else { byte % 8..byte % 8 + 1 };
            for bit in bits {
                let opened = Envelope::parse(&flipped(&vector.raw, byte, bit)).and_then(|it| it.open(cipher));
                let expected = if byte < 4 { DatagramError::Signature } else { DatagramError::NotAuthentic };
                assert_eq!(opened, Err(expected), "{} with bit {bit} of byte {byte} flipped", vector.name);
            }
        }
    });
}

#[test]
fn every_truncation_and_flipped_bit_of_a_body_is_an_error_or_encodes_the_same() {
    for_each_vector(|vector, cipher| {
        let datagram = opened(vector, cipher);
        for_each_damage(&datagram.body, |body| check_body(datagram.channel(), body));
        for_each_damage(&datagram.body, |body| check_body(other(datagram.channel()), body));
    });
}

#[test]
fn every_truncation_and_flipped_bit_of_a_payload_is_an_error_or_encodes_the_same() {
    for_each_vector(|vector, cipher| {
        let Ok(Content::Kd(packet)) = Content::decode(&opened(vector, cipher)) else { return };
        for_each_damage(&packet.payload, |payload| check_payload(packet.packet_type, payload));
        // Sent as what it is not.
        for packet_type in TYPES {
            check_payload(packet_type, packet.payload.clone());
        }
    });
}

#[test]
fn damage_that_its_checksum_hides_from_a_packet_is_caught_by_the_packet() {
    for_each_vector(|vector, cipher| {
        let body = opened(vector, cipher).body;
        let Ok(Content::Kd(packet)) = Content::decode(&opened(vector, cipher)) else { return };
        for byte in Packet::HEADER_LEN..body.len() {
            let damaged = Packet::decode(&flipped(&body, byte, byte % 8));
            assert!(damaged.is_err(), "{} of {packet}", vector.name);
        }
    });
}

proptest! {
    #[test]
    fn any_bytes_as_a_datagram(bytes in vec(any::<u8>(), 0..200), control in any::<bool>(), whole in any::<bool>()) {
        let mut bytes = bytes;
        if whole {
            // Of the right form, so that the cipher gets to see it.
            bytes.resize(bytes.len().next_multiple_of(16) + MIN_DATAGRAM_LEN, 0);
            bytes[..6].copy_from_slice(&[b'M', b'D', b'B', b'G', 5, u8::from(control)]);
        }
        let opened = Envelope::parse(&bytes).and_then(|it| it.open(&key().control_cipher()));
        prop_assert!(opened.is_err(), "nobody guesses a tag");
        prop_assert_eq!(opened == Err(DatagramError::NotAuthentic), whole);
    }

    #[test]
    fn any_datagram_opens_to_what_was_sealed(
        version in any::<u8>(),
        flags in any::<u8>(),
        from_host in any::<bool>(),
        sequence in 0_u64..1 << 56,
        body in vec(any::<u8>(), 0..1500),
    ) {
        let direction = if from_host { Direction::HostToTarget } else { Direction::TargetToHost };
        let flags = Flags::from_bits_retain(flags);
        let datagram = Datagram { version, flags, direction, sequence, body: body.into() };
        let cipher = key().data_cipher(b"a response");
        let sealed = datagram.seal(&cipher);
        prop_assert_eq!(Envelope::parse(&sealed).and_then(|it| it.open(&cipher)), Ok(datagram));
        prop_assert!(Envelope::parse(&sealed).unwrap().open(&key().control_cipher()).is_err());
    }

    #[test]
    fn any_bytes_as_a_body(control in any::<bool>(), bytes in vec(any::<u8>(), 0..400)) {
        check_body(if control { Channel::Control } else { Channel::Data }, bytes.into());
    }

    #[test]
    fn any_bytes_as_a_control_message(kind in 0_u8..4, bytes in vec(any::<u8>(), 0..360), len in 0_usize..3) {
        let mut body = [&[1, kind], &bytes[..]].concat();
        match len {
            0 => body.resize(344, 0),
            1 => body.resize(322, 0),
            _ => {}
        }
        check_body(Channel::Control, body.into());
    }

    #[test]
    fn any_packet_encodes_to_what_decodes_to_it(
        is_control in any::<bool>(),
        packet_type in any::<u16>(),
        id in any::<u32>(),
        payload in vec(any::<u8>(), 0..1200),
    ) {
        let packet_type = PacketType(packet_type);
        let packet = Packet { is_control, packet_type, id: PacketId(id), payload: payload.into() };
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn any_bytes_as_a_payload(index in 0..TYPES.len(), bytes in vec(any::<u8>(), 0..400)) {
        check_payload(TYPES[index], bytes.into());
    }

    #[test]
    fn any_bytes_as_a_payload_of_a_known_api(
        (packet_type, api) in prop_oneof![
            (Just(PacketType::STATE_MANIPULATE), 0x3130_u32..0x3164),
            (Just(PacketType::STATE_CHANGE64), 0x3030_u32..0x3034),
            (Just(PacketType::DEBUG_IO), 0x3230_u32..0x3233),
            (Just(PacketType::FILE_IO), 0x3430_u32..0x3435),
        ],
        rest in vec(any::<u8>(), 0..400),
    ) {
        check_payload(packet_type, [&api.to_le_bytes()[..], &rest].concat().into());
    }

    #[test]
    fn any_text_as_a_key(text in "[0-9a-zA-Z.+ -]{0,60}|\\PC{0,20}") {
        if let Ok(key) = text.parse::<Key>() {
            prop_assert_eq!(text.split('.').count(), 4);
            prop_assert_ne!(key.control_key(), &[0; 32]);
        }
    }
}

/// An error, or a content that prints and encodes to `body`.
fn check_body(channel: Channel, body: Bytes) {
    let flags = match channel {
        Channel::Control => Flags::CONTROL,
        Channel::Data => Flags::empty(),
    };
    let direction = Direction::TargetToHost;
    let datagram = Datagram { version: 4, flags, direction, sequence: 1, body };
    let Ok(content) = Content::decode(&datagram) else { return };
    assert_eq!(content.encode(), datagram.body);
    assert_prints_one_line(&content);
    if let Content::Kd(packet) = content {
        check_payload(packet.packet_type, packet.payload);
    }
}

/// An error, or a payload that prints and encodes to `bytes`.
fn check_payload(packet_type: PacketType, bytes: Bytes) {
    for id in [PacketId::FIRST_OF_HOST, PacketId::FIRST_OF_TARGET] {
        // A packet prints whether its payload decodes or not.
        assert_prints_one_line(&Packet::data(packet_type, id, bytes.clone()));
    }
    let packet = Packet::data(packet_type, PacketId(0), bytes);
    let Ok(payload) = Payload::decode(&packet) else { return };
    assert_eq!(payload.encode(), packet.payload);
    assert_eq!(payload.packet_type(), packet_type);
    match payload {
        Payload::DebugIo(prompt) => {
            let answer = prompt.answer(Bytes::from_static(b"ignore"));
            assert!(answer.text.len() <= prompt.length_of_string_read as usize, "it fits the target's room");
        }
        Payload::FileIo(request) => assert!(request.refuse().data.is_empty()),
        Payload::Manipulate(request) => assert!(request.answers(&request)),
        Payload::StateChange(change) => assert!(change.is_load_symbols() || !change.is_reboot()),
        Payload::Other(..) => {}
    }
}

fn assert_prints_one_line(it: &impl std::fmt::Display) {
    assert!(!it.to_string().contains(['\n', '\r', '\x1b']), "{it}");
}

fn for_each_vector(check: impl Fn(&Vector, &Cipher)) {
    let vectors = Vectors::load();
    for vector in vectors.datagrams.iter().chain(&vectors.synthetic) {
        check(vector, &vectors.cipher(&vector.aes_key_ref));
    }
}

/// Calls `check` with every truncation of `bytes`, then with every bit of it flipped.
fn for_each_damage(bytes: &Bytes, check: impl Fn(Bytes)) {
    (0..=bytes.len()).for_each(|len| check(bytes.slice(..len)));
    for byte in 0..bytes.len() {
        (0..8).for_each(|bit| check(flipped(bytes, byte, bit)));
    }
}

fn flipped(bytes: &[u8], byte: usize, bit: usize) -> Bytes {
    let mut flipped = bytes.to_vec();
    flipped[byte] ^= 1 << bit;
    flipped.into()
}

fn opened(vector: &Vector, cipher: &Cipher) -> Datagram {
    Envelope::parse(&vector.raw).and_then(|it| it.open(cipher)).expect("a vector opens")
}

const fn other(channel: Channel) -> Channel {
    match channel {
        Channel::Control => Channel::Data,
        Channel::Data => Channel::Control,
    }
}

fn key() -> Key {
    "1.2.3.4".parse().expect("a valid key")
}

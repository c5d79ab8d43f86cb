//! KD packets: as bytes, and with a checksum that is right, so that what is wrong reaches the structures inside.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use kd_protocol::kd::{Packet, PacketId, PacketType, Payload};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    is_control: bool,
    packet_type: u8,
    id: u32,
    payload: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let bytes = Bytes::from(input.payload);
    if let Ok(packet) = Packet::decode(&bytes) {
        assert_eq!(packet.encode(), bytes);
        let _ = packet.to_string();
    }

    if bytes.len() > usize::from(u16::MAX) {
        return;
    }
    let packet_type = PacketType(u16::from(input.packet_type));
    let packet = Packet { is_control: input.is_control, packet_type, id: PacketId(input.id), payload: bytes };
    assert_eq!(Packet::decode(&packet.encode()).as_ref(), Ok(&packet));
    let _ = packet.to_string();
    if let Ok(payload) = Payload::decode(&packet) {
        assert_eq!(payload.encode(), packet.payload);
        assert_eq!(payload.packet_type(), packet_type);
    }
});

//! Known answers over a serial line: what Windows XP SP3 and WinDbg sent each other decodes, and encodes to the same bytes.

use std::collections::BTreeMap;

use bytes::BytesMut;
use kd_protocol::kd::{ApiNumber, Arm, Packet, PacketType, Payload};
use kd_protocol::kdcom::{Decoder, FIRST_ID, Frame, SYNC, encode};

/// Both directions one after another as they came: 27 packets.
const XP_SP3: &[u8] = include_bytes!("vectors/xp-sp3-serial.bin");

fn packets() -> (Vec<Packet>, Decoder) {
    let mut decoder = Decoder::default();
    decoder.push(XP_SP3);
    let frames = std::iter::from_fn(|| decoder.poll()).map(|frame| match frame {
        Frame::Packet(packet) => packet,
        other => panic!("nothing but packets: {other:?}"),
    });
    let packets = frames.collect();
    (packets, decoder)
}

#[test]
fn a_real_serial_session_encodes_to_the_same_bytes() {
    let (packets, decoder) = packets();
    assert_eq!((packets.len(), decoder.skipped(), decoder.is_partial()), (27, 0, false));
    let mut encoded = BytesMut::new();
    for packet in &packets {
        encode(packet, &mut encoded);
    }
    assert_eq!(encoded, XP_SP3);
}

#[test]
fn each_payload_is_understood_and_encodes_to_itself() {
    let mut kinds = BTreeMap::new();
    for packet in packets().0.iter().filter(|packet| !packet.is_control) {
        let kind = match Payload::decode(packet).unwrap() {
            Payload::StateChange(_) => "state change".into(),
            Payload::Manipulate(manipulate) => {
                assert_eq!(manipulate.encode(), packet.payload, "{manipulate}");
                manipulate.api_number.to_string()
            }
            other => panic!("{other}"),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let versions = kinds.get(&ApiNumber::GET_VERSION.to_string());
    assert!(versions.is_some_and(|count| *count >= 2), "a request and its reply: {kinds:?}");
    assert!(kinds.contains_key("state change"), "{kinds:?}");
}

#[test]
fn the_target_says_that_it_is_windows_xp() {
    let versions = packets().0.into_iter().filter_map(|packet| match Payload::decode(&packet) {
        Ok(Payload::Manipulate(it)) if !packet.is_control => match it.arm {
            Arm::GetVersion(version) => Some(version),
            _ => None,
        },
        _ => None,
    });
    let answered: Vec<_> = versions.filter(|it| it.minor_version != 0).collect();
    assert!(answered.iter().any(|it| it.minor_version == 2600), "{answered:?}");
}

#[test]
fn packet_ids_toggle_and_an_acknowledgement_has_no_sync_bit() {
    for packet in packets().0 {
        match packet.packet_type {
            PacketType::ACKNOWLEDGE => assert_eq!(packet.id.0 & !1, FIRST_ID.0, "{packet}"),
            // Five have id 0 and one has 5f863: the id of a RESET says nothing.
            PacketType::RESET => {}
            _ => assert_eq!(packet.id.0 & !(1 | SYNC), FIRST_ID.0, "{packet}"),
        }
    }
}

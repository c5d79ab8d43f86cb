//! Known answers: real captured datagrams open, authenticate, decode to typed packets and re-encode to the same bytes.

mod common;

use common::{Vectors, hex};
use kd_protocol::kd::{ApiNumber, Arm, NtStatus, Payload};
use kd_protocol::kdnet::{Control, DatagramError, Direction, Envelope, Key};
use kd_protocol::link::Content;

#[test]
fn keys_derive_to_the_known_bytes() {
    for key in &Vectors::load().keys {
        let parsed: Key = key.string.parse().unwrap();
        assert_eq!(hex(parsed.control_key()), key.control_key, "{}", key.string);
        assert_eq!(hex(&*parsed.hmac_key()), key.hmac_key, "{}", key.string);
    }
}

#[test]
fn invalid_keys_are_refused() {
    let vectors = Vectors::load();
    assert_eq!(vectors.invalid_keys.len(), 8);
    for text in &vectors.invalid_keys {
        assert!(text.parse::<Key>().is_err(), "{text:?} must be refused");
    }
}

#[test]
fn a_response_gives_the_sessions_data_key() {
    for session in &Vectors::load().sessions {
        let key: Key = session.key.parse().unwrap();
        let response =
            Envelope::parse(&session.response_datagram).unwrap().open(&key.control_cipher()).unwrap();
        assert_eq!(hex(&response.body), session.response_body_322);
        assert_eq!(hex(&*key.data_key(&response.body)), session.data_key, "session {}", session.name);
        let Content::Control(Control::Response(typed)) = Content::decode(&response).unwrap() else {
            panic!("a response decodes as one");
        };
        assert_eq!(Control::Response(typed).encode(), response.body);
    }
}

#[test]
fn every_datagram_decodes_to_what_it_says_and_encodes_to_the_same_bytes() {
    let vectors = Vectors::load();
    assert!(vectors.datagrams.len() >= 58);
    for vector in &vectors.datagrams {
        let name = &vector.name;
        let cipher = vectors.cipher(&vector.aes_key_ref);
        let datagram = Envelope::parse(&vector.raw).unwrap().open(&cipher).unwrap();
        let from_host = datagram.direction == Direction::HostToTarget;
        assert_eq!(from_host, vector.direction == "host_to_target", "{name}");
        assert_eq!(datagram.version, vector.version, "{name}");
        assert_eq!(datagram.sequence, vector.sequence.unwrap(), "{name}");
        assert_eq!(hex(&datagram.body), hex(&vector.body), "{name}");
        assert_eq!(hex(&datagram.seal(&cipher)), hex(&vector.raw), "{name}: sealing is deterministic");

        let content = Content::decode(&datagram).unwrap();
        assert_eq!(content.encode(), datagram.body, "{name}: content");
        if let (Content::Kd(packet), Some(kd)) = (&content, &vector.kd_packet) {
            assert_eq!(packet.packet_type.0, kd.packet_type, "{name}");
            assert_eq!(format!("0x{}", packet.id), kd.packet_id, "{name}");
            let payload = Payload::decode(packet).unwrap();
            assert_eq!(payload.encode(), packet.payload, "{name}: payload");
            assert_eq!(payload.packet_type(), packet.packet_type, "{name}");
        }
    }
}

#[test]
fn datagrams_that_must_fail_do() {
    let vectors = Vectors::load();
    assert_eq!(vectors.negative.len(), 4);
    for vector in &vectors.negative {
        let result =
            Envelope::parse(&vector.raw).and_then(|it| it.open(&vectors.cipher(&vector.aes_key_ref)));
        let expected = if vector.name.starts_with("too short") {
            DatagramError::Length(vector.raw.len())
        } else {
            DatagramError::NotAuthentic
        };
        assert_eq!(result, Err(expected), "{}", vector.name);
    }
}

#[test]
fn host_datagrams_that_we_seal_are_the_expected_bytes() {
    let vectors = Vectors::load();
    assert_eq!(vectors.synthetic.len(), 7);
    for vector in &vectors.synthetic {
        let cipher = vectors.cipher(&vector.aes_key_ref);
        let datagram = vector.datagram();
        assert_eq!(hex(&datagram.seal(&cipher)), hex(&vector.raw), "{}", vector.name);
        let content = Content::decode(&datagram).unwrap();
        assert_eq!(content.encode(), datagram.body, "{}", vector.name);
    }
}

#[test]
fn what_the_protocol_page_quotes_as_evidence_exists() {
    let vectors = Vectors::load();
    let page = include_str!("../PROTOCOL.md");
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
    let quoted: Vec<&str> = words
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.starts_with("A.") || word.starts_with("B."))
        .filter(|word| *word != "A.name" && *word != "B.name")
        .collect();
    assert!(quoted.len() > 40, "found only {}", quoted.len());
    for name in quoted {
        assert!(vectors.datagrams.iter().any(|it| it.name == name), "no vector is called {name}");
    }
}

#[test]
fn captured_packets_print_as_one_readable_line() {
    let line = |name: &str| Vectors::load().content(name).to_string();
    assert_eq!(line("A.ping"), "PING host 192.168.2.1 last sequence 0");
    assert_eq!(line("B.breakin"), "BREAK_IN");
    assert_eq!(line("A.host_reset"), "RESET id=80000060");
    assert_eq!(
        line("A.read_virtual_bad_reply"),
        "STATE_MANIPULATE id=0000005c ReadVirtualMemory fffff780`000003d8 +0x330 got 0x0 status UNSUCCESSFUL"
    );
    // Requests have leftovers in the fields that only a reply fills in.
    assert_eq!(
        line("A.read_virtual_bad_request"),
        "STATE_MANIPULATE id=80000058 ReadVirtualMemory fffff780`000003d8 +0x330"
    );
    assert_eq!(line("A.get_version_request"), "STATE_MANIPULATE id=80000000 GetVersion");
    assert_eq!(
        line("B.exception_breakin"),
        "STATE_CHANGE64 id=00000926 Exception cpu 0 pc fffff802`6bd72b90 code BREAKPOINT at fffff802`6bd72b90 first chance"
    );
    assert_eq!(
        line("B.offer_already_connected"),
        "OFFER #6110510259839585037 target 192.168.0.13:50000 host 192.168.0.11:50000 connected 192.168.0.11:50000"
    );
}

#[test]
fn a_failed_read_keeps_its_status_and_a_version_its_fields() {
    let vectors = Vectors::load();
    let Content::Kd(packet) = vectors.content("B.get_version_reply") else { panic!("a KD packet") };
    let Payload::Manipulate(reply) = Payload::decode(&packet).unwrap() else { panic!("a manipulate reply") };
    let Arm::GetVersion(version) = reply.arm else { panic!("a version") };
    assert_eq!((reply.api_number, reply.return_status), (ApiNumber::GET_VERSION, NtStatus::SUCCESS));
    assert_eq!((version.minor_version, version.flags.bits(), version.machine_type), (9600, 7, 0x8664));
}

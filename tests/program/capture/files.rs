//! The committed captures, read back; every link type; several sessions; what the command prints.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;

use bytes::Bytes;
use kd_protocol::kd::{Packet, PacketId, PacketType};
use kd_protocol::kdnet::{Control, Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::link::Content;
use verikd::capture::{Order, Unopened};

use super::generator::{self, SESSION_A, SESSION_B, Vectors};
use super::{KEY_A, KEY_B, committed, printed, read};
use crate::reviewed::assert_reviewed;

/// Rewrite them with `UPDATE_EXPECTED=1 cargo test --test program capture`.
#[test]
fn committed_captures_are_what_the_generator_makes() {
    let unzipped = |bytes: &[u8]| {
        let mut out = Vec::new();
        match flate2::read::GzDecoder::new(bytes).read_to_end(&mut out) {
            Ok(_) => out,
            Err(_) => bytes.to_vec(),
        }
    };
    for (name, bytes) in generator::committed() {
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(committed(name), &bytes).unwrap();
        }
        let file = fs::read(committed(name)).unwrap();
        // Another version of the compressor may write the same content in other bytes.
        assert!(unzipped(&file) == unzipped(&bytes), "{name}");
        assert!(file.len() < 8 << 10, "{name} stays small");
    }
}

#[test]
fn text_is_as_expected() {
    for (name, key) in [("session-a.pcap", KEY_A), ("late.pcapng.gz", KEY_A)] {
        let (text, result) = printed(&committed(name), key, false, true);
        result.unwrap();
        assert_reviewed("capture", name, &text);
    }
}

#[test]
fn json_is_one_object_a_line_and_ends_with_the_summary() {
    let (json, result) = printed(&committed("session-a.pcap"), KEY_A, true, false);
    result.unwrap();
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), SESSION_A.len() + 1);
    let reply = &lines[11];
    assert_eq!(reply["frame"], 12);
    assert_eq!(reply["time_ns"], 16_500_000);
    assert_eq!(reply["source"], generator::TARGET);
    assert_eq!(reply["direction"], "T>H");
    assert_eq!(reply["channel"], "data");
    assert_eq!((&reply["sequence"], &reply["session"]), (&94.into(), &1.into()));
    assert_eq!((&reply["order"], &reply["missing"]), (&"after".into(), &87.into()));
    assert_eq!(reply["kind"], "STATE_MANIPULATE ReadVirtualMemory");
    assert_eq!((&reply["api"], &reply["packet_id"]), (&"ReadVirtualMemory".into(), &"0000005c".into()));
    assert_eq!((&reply["status"], &reply["address"]), (&"UNSUCCESSFUL".into(), &"0xfffff780000003d8".into()));
    assert_eq!((&reply["count"], &reply["transferred"]), (&0x330.into(), &0.into()));
    assert!(lines[10].get("status").is_none(), "a request has no status");
    assert_eq!(lines[0]["kind"], "OFFER");
    assert!(lines[0].get("packet_type").is_none());
    assert_eq!(lines[12]["summary"]["authenticated"], 12);
    assert_eq!(lines[12]["summary"]["census"][0]["kind"], "ACK");
}

#[test]
fn big_endian_nanoseconds_and_vlan_tags_are_read() {
    let read = read(&fs::read(committed("session-b-vlan-be-ns.pcap")).unwrap(), KEY_B);
    assert_eq!(read.summary.authenticated, SESSION_B.len() as u64);
    let times: Vec<_> = read.datagrams.iter().map(|it| it.time_ns.unwrap()).collect();
    assert_eq!(times[..3], [0, 1_500_001, 3_000_002]);
    assert_eq!(read.summary.census.of(Direction::HostToTarget, "BREAK_IN"), 1);
    assert_eq!(read.summary.census.of(Direction::TargetToHost, "STATE_CHANGE64 Exception"), 1);
}

#[test]
fn interfaces_have_their_own_link_types_and_clocks_and_other_traffic_is_skipped() {
    let capture = fs::read(committed("two-keys.pcapng")).unwrap();
    let a = read(&capture, KEY_A);
    assert_eq!((a.summary.frames, a.summary.udp, a.summary.other_udp()), (13, 12, 1));
    assert_eq!((a.summary.datagrams, a.summary.authenticated), (11, 5));
    assert_eq!(a.summary.unopened.not_this_key, 2, "B's offer and response");
    assert_eq!(a.summary.unopened.no_session_key, 4, "B's data");
    let b = read(&capture, KEY_B);
    assert_eq!((b.summary.datagrams, b.summary.authenticated), (11, 6));
    assert_eq!(b.datagrams[0].source, "[fe80::b]:50000".parse().unwrap());
    let times = [0, 1].map(|index| b.datagrams[index].time_ns.unwrap());
    assert_eq!(times, [500_000_000, 500_001_000], "nanoseconds of one interface, microseconds of the other");
    assert_eq!(b.datagrams.last().unwrap().time_ns, None, "a simple packet has no time");
}

#[test]
fn a_capture_that_began_late_says_what_it_could_not_open() {
    let read = read(&fs::read(committed("late.pcapng.gz")).unwrap(), KEY_A);
    let contents: Vec<_> = read.datagrams.iter().map(|it| it.content.as_ref().map(|it| it.order)).collect();
    assert_eq!(contents[..2], [Err(&Unopened::NoSessionKey); 2]);
    assert_eq!(contents[2..5], [Ok(Order::Next); 3]);
    assert_eq!(contents[5], Ok(Order::Repeated));
    assert_eq!((read.summary.datagrams, read.summary.authenticated), (6, 4));
    assert_eq!((read.summary.unopened.no_session_key, read.summary.repeated), (2, 1));

    let (text, _) = printed(&committed("late.pcapng.gz"), KEY_A, false, false);
    assert!(text.contains("2 data datagrams could not be opened: the session began before the capture"));
    assert!(!text.contains("its session began"), "they are listed with --all only");
}

#[test]
fn every_link_type_is_read_with_ipv4_and_ipv6() {
    type Wrap = fn(SocketAddr, SocketAddr, &[u8]) -> Vec<u8>;
    let link_types: [(u32, Wrap); 13] = [
        (1, generator::ethernet),
        (1, generator::vlan),
        (113, generator::linux_sll),
        (276, generator::linux_sll2),
        (0, generator::null),
        (108, generator::null),
        (12, generator::raw),
        (14, generator::raw),
        (101, generator::raw),
        (228, generator::raw),
        (229, generator::raw),
        // The upper bits say that frames end with a checksum of four bytes.
        (0x2400_0001, |source, destination, payload| {
            [generator::ethernet(source, destination, payload), vec![1, 2, 3, 4]].concat()
        }),
        (276, generator::linux_sll2),
    ];
    let (offer, _) = Vectors::load().datagram("A.offer_initial");
    for (source, destination) in
        [(generator::TARGET, generator::HOST), ("[fe80::2]:50000", "[fe80::1]:50000")]
    {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        for (link_type, wrap) in link_types {
            let frames = [wrap(source, destination, &offer)];
            let capture = generator::pcap(false, generator::MICROSECONDS, link_type, &frames);
            let read = read(&capture, KEY_A);
            assert_eq!(read.summary.authenticated, 1, "link type {link_type}, {source}");
            assert_eq!((read.datagrams[0].source, read.datagrams[0].destination), (source, destination));
        }
    }
}

#[test]
fn a_rekeyed_target_and_a_second_target_are_followed_and_old_sessions_are_kept() {
    let key: Key = KEY_A.parse().unwrap();
    let (first, _) = Vectors::load().datagram("A.response");
    let first = Envelope::parse(&first).unwrap().open(&key.control_cipher()).unwrap();
    let Ok(Content::Control(Control::Response(mut response))) = Content::decode(&first) else {
        panic!("a response")
    };
    let mut handshake = |host_random: u8| {
        response.host_random = [host_random; 32];
        let body = Control::Response(response.clone()).encode();
        (Datagram { body: body.clone(), ..first.clone() }.seal(&key.control_cipher()), key.data_cipher(&body))
    };
    let (one, one_key) = handshake(1);
    let (two, two_key) = handshake(2);
    let (other, other_key) = handshake(3);
    let ack = |sequence: u64, cipher| {
        let body = Packet::control(PacketType::ACKNOWLEDGE, PacketId(2)).encode();
        let direction = Direction::HostToTarget;
        Datagram { version: 4, flags: Flags::empty(), direction, sequence, body }.seal(cipher)
    };
    let host = || generator::HOST.parse().unwrap();
    let to = |port: u16, payload: &[u8]| {
        generator::ethernet(host(), SocketAddr::from(([192, 168, 2, 72], port)), payload)
    };
    let other_target = SocketAddr::from(([192, 168, 2, 99], 50000));
    let frames = [
        to(50000, &one),
        to(50000, &ack(1, &one_key)),
        generator::ethernet(host(), other_target, &other),
        // A rebooted target may use another port.
        to(50007, &two),
        to(50007, &ack(1, &two_key)),
        generator::ethernet(host(), other_target, &ack(1, &other_key)),
        to(50000, &ack(2, &one_key)),
        to(50007, &ack(2, &two_key)),
        // The second interface of the capture saw a response again: no session of its own.
        to(50007, &two),
        to(50007, &ack(4, &two_key)),
        // A key of a session that nobody saw begin, between machines whose handshakes were seen.
        to(50007, &ack(5, &key.data_cipher(&Bytes::from_static(b"another response")))),
    ];
    let read = read(&generator::pcap(false, generator::MICROSECONDS, generator::ETHERNET, &frames), KEY_A);
    let sessions: Vec<_> =
        read.datagrams[..10].iter().map(|it| it.content.as_ref().unwrap().session.unwrap()).collect();
    assert_eq!(sessions, [1, 1, 2, 3, 3, 2, 1, 3, 3, 3]);
    assert_eq!(read.datagrams[10].content, Err(Unopened::NotThisSession));
    assert_eq!((read.summary.sessions, read.summary.missing), (3, 1));
}

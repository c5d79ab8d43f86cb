//! A real session of WinDbg with a boot debugger, 955 datagrams: every count, and every byte both ways.
//!
//! The capture is not in the project. It is looked for in `$VERIKD_SHARED`, then beside the project in `../shared`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use kd_protocol::kd::{Arm, NtStatus, Packet, PacketId, PacketType, Payload};
use kd_protocol::kdnet::{Channel, Control, Direction, Endpoint, Key, Offer};
use kd_protocol::link::Content;
use verikd::capture::{CaptureError, CapturedDatagram, Ending, NothingAuthentic, Opened};

use super::{KEY_A, Read, printed, read};

#[test]
fn every_datagram_seals_and_encodes_to_the_same_bytes() {
    let Some(capture) = capture() else { return };
    let key: Key = KEY_A.parse().unwrap();
    let control = key.control_cipher();
    let mut data = None;
    let mut payloads = 0;
    for captured in &capture.datagrams {
        let Opened { datagram, content, .. } = opened(captured);
        let content = content.as_ref().unwrap();
        if let Content::Control(Control::Response(_)) = content {
            data = Some(key.data_cipher(&datagram.body));
        }
        let cipher = match captured.channel() {
            Channel::Control => &control,
            Channel::Data => data.as_ref().expect("the handshake comes first"),
        };
        // The padding is part of what is sealed, so this shows that all of it is zeros, and the inner header's spare
        // bits as well.
        assert!(datagram.seal(cipher) == captured.sealed, "frame {}", captured.frame);
        assert_eq!(content.encode(), datagram.body, "frame {}", captured.frame);
        assert_eq!(datagram.version, 4);
        if let Content::Kd(packet) = content {
            let payload = Payload::decode(packet).unwrap();
            assert_eq!(payload.encode(), packet.payload, "frame {}", captured.frame);
            payloads += 1;
        }
    }
    assert_eq!((capture.datagrams.len(), payloads), (955, 526));
}

#[test]
fn its_census_is_the_published_one() {
    let Some(capture) = capture() else { return };
    let summary = &capture.summary;
    assert_eq!((summary.frames, summary.udp, summary.datagrams, summary.authenticated), (955, 955, 955, 955));
    assert_eq!((summary.sessions, summary.missing, summary.late, summary.repeated), (1, 0, 0, 0));
    assert_eq!((summary.ending, summary.other_udp()), (Ending::Complete, 0));
    let rows: Vec<_> =
        summary.census.rows().map(|row| (row.direction, row.kind, row.count, row.failures)).collect();
    use Direction::{HostToTarget as H, TargetToHost as T};
    let expected = [
        (H, "ACK", 132, 0),
        (H, "FILE_IO CreateFile", 33, 33),
        (H, "RESEND", 1, 0),
        (H, "RESET", 1, 0),
        (H, "RESPONSE", 1, 0),
        (H, "STATE_MANIPULATE Continue", 1, 0),
        (H, "STATE_MANIPULATE Continue2", 2, 0),
        (H, "STATE_MANIPULATE GetContext", 5, 0),
        (H, "STATE_MANIPULATE GetContextEx", 3, 0),
        (H, "STATE_MANIPULATE GetVersion", 1, 0),
        (H, "STATE_MANIPULATE ReadControlSpace", 3, 0),
        (H, "STATE_MANIPULATE ReadVirtualMemory", 44, 0),
        (H, "STATE_MANIPULATE RestoreBreakPoint", 32, 0),
        (H, "STATE_MANIPULATE SetContext", 2, 0),
        (H, "STATE_MANIPULATE WriteControlSpace", 2, 0),
        (T, "ACK", 127, 0),
        (T, "DEBUG_IO PrintString", 7, 0),
        (T, "FILE_IO CreateFile", 33, 0),
        (T, "OFFER", 427, 0),
        (T, "PING", 1, 0),
        (T, "RESEND", 1, 0),
        (T, "RESET", 1, 0),
        (T, "STATE_CHANGE64 Exception", 1, 0),
        (T, "STATE_CHANGE64 LoadSymbols", 2, 0),
        (T, "STATE_MANIPULATE GetContext", 5, 0),
        (T, "STATE_MANIPULATE GetContextEx", 3, 3),
        (T, "STATE_MANIPULATE GetVersion", 1, 0),
        (T, "STATE_MANIPULATE ReadControlSpace", 3, 0),
        (T, "STATE_MANIPULATE ReadVirtualMemory", 44, 1),
        (T, "STATE_MANIPULATE RestoreBreakPoint", 32, 32),
        (T, "STATE_MANIPULATE SetContext", 2, 0),
        (T, "STATE_MANIPULATE WriteControlSpace", 2, 0),
    ];
    // 95 requests: three have no reply, one is refused and repeated; one of the replies is repeated, which makes 92.
    assert_eq!(rows, expected);
    let manipulates = |direction| {
        let rows = summary.census.rows().filter(|row| row.direction == direction);
        rows.filter(|row| row.kind.starts_with("STATE_MANIPULATE")).map(|row| row.count).sum::<u64>()
    };
    assert_eq!((manipulates(H), manipulates(T)), (95, 92));
}

#[test]
fn its_offers_count_and_name_the_connected_host() {
    let Some(capture) = capture() else { return };
    let offers: Vec<(&CapturedDatagram, u64, &Offer)> = capture
        .datagrams
        .iter()
        .filter_map(|captured| match &opened(captured).content {
            Ok(Content::Control(Control::Offer(offer))) => {
                Some((captured, opened(captured).datagram.sequence, offer))
            }
            _ => None,
        })
        .collect();
    assert_eq!(offers.len(), 427);
    for pair in offers.windows(2) {
        let [(before_at, before_sequence, before), (at, sequence, offer)] = pair else { unreachable!() };
        assert_eq!(sequence - before_sequence, 3);
        assert_eq!(offer.target_random.counter, before.target_random.counter + 1);
        assert_eq!(offer.target_random.boot, before.target_random.boot);
        let interval =
            Duration::from_nanos((at.time_ns.unwrap() - before_at.time_ns.unwrap()).unsigned_abs());
        assert!((3.0155..4.1475).contains(&interval.as_secs_f64()), "frame {}: {interval:?}", at.frame);
        assert_eq!(offer.connected_host, "192.168.2.1:51111".parse::<std::net::SocketAddr>().unwrap().into());
    }
    assert_eq!(offers[0].2.connected_host, Endpoint::NONE);
    assert!(offers.iter().all(|(_, _, offer)| *offer.host_connection_info == [0; 256]));
}

#[test]
fn its_sequences_ids_and_acknowledgements_follow_the_rules() {
    let Some(capture) = capture() else { return };
    let mut sides = HashMap::from([
        (Direction::HostToTarget, Side::new(PacketId::FIRST_OF_HOST)),
        (Direction::TargetToHost, Side::new(PacketId::FIRST_OF_TARGET)),
    ]);
    for captured in &capture.datagrams {
        let Opened { datagram, content, is_retransmission, .. } = opened(captured);
        if captured.channel() == Channel::Control {
            continue;
        }
        let side = sides.get_mut(&datagram.direction).unwrap();
        side.sequence += 1;
        assert_eq!(datagram.sequence, side.sequence, "frame {}", captured.frame);
        let Ok(Content::Kd(packet)) = content else { continue };
        if packet.packet_type == PacketType::RESEND {
            assert_eq!(packet.id, PacketId(0));
        }
        if !packet.is_control {
            side.sent(packet, *is_retransmission);
        }
        if packet.packet_type == PacketType::ACKNOWLEDGE {
            let other = match datagram.direction {
                Direction::HostToTarget => Direction::TargetToHost,
                Direction::TargetToHost => Direction::HostToTarget,
            };
            assert!(
                sides.get_mut(&other).unwrap().unacknowledged.contains(&packet.id),
                "frame {}",
                captured.frame
            );
            sides.get_mut(&other).unwrap().unacknowledged.retain(|id| *id != packet.id);
        }
        assert!(
            sides[&Direction::HostToTarget].unacknowledged.len() <= 1,
            "the host asks one thing at a time"
        );
    }
    let (host, target) = (&sides[&Direction::HostToTarget], &sides[&Direction::TargetToHost]);
    assert_eq!((host.sequence, host.sent, host.sent_again), (262, 128, 1));
    assert_eq!((target.sequence, target.sent, target.sent_again), (265, 135, 2));
    assert_eq!((host.next, target.next), (PacketId(0x8000_00fe), PacketId(0x10a)));
    assert_eq!(host.unacknowledged, []);
    assert_eq!(target.unacknowledged, [PacketId(0x60)], "reply 0x60: WinDbg sent a request instead");
    assert_eq!(capture.summary.retransmissions, 3);
}

/// One side's KD packets.
struct Side {
    sequence: u64,
    next: PacketId,
    sent: u32,
    sent_again: u32,
    unacknowledged: Vec<PacketId>,
}

impl Side {
    fn new(first: PacketId) -> Self {
        Self { sequence: 0, next: first, sent: 0, sent_again: 0, unacknowledged: Vec::new() }
    }

    fn sent(&mut self, packet: &Packet, again: bool) {
        self.sent += 1;
        if again {
            self.sent_again += 1;
            assert_eq!(packet.id.next(), self.next);
        } else {
            assert_eq!(packet.id, self.next);
            self.next = packet.id.next();
            self.unacknowledged.push(packet.id);
        }
    }
}

#[test]
fn its_reads_have_the_sizes_and_statuses_of_the_statistics() {
    let Some(capture) = capture() else { return };
    let mut asked: HashMap<u32, u32> = HashMap::new();
    let mut failed = Vec::new();
    let (mut largest, mut smallest) = (0, usize::MAX);
    for captured in &capture.datagrams {
        largest = largest.max(captured.sealed.len());
        smallest = smallest.min(captured.sealed.len());
        let Opened { datagram, content: Ok(Content::Kd(packet)), .. } = opened(captured) else { continue };
        let Ok(Payload::Manipulate(manipulate)) = Payload::decode(packet) else { continue };
        let Arm::ReadMemory(read) = manipulate.arm else { continue };
        if datagram.direction == Direction::HostToTarget {
            *asked.entry(read.transfer_count).or_default() += 1;
        } else if manipulate.return_status == NtStatus::SUCCESS {
            assert_eq!(manipulate.data.len(), read.actual_bytes_read as usize, "frame {}", captured.frame);
            assert_eq!(read.actual_bytes_read, read.transfer_count);
        } else {
            failed.push((manipulate.return_status, read.target_base_address, manipulate.data.len()));
        }
    }
    assert_eq!((smallest, largest), (54, 1334));
    assert_eq!(failed, [(NtStatus::UNSUCCESSFUL, 0xffff_f780_0000_03d8, 0)]);
    let mut asked: Vec<_> = asked.into_iter().collect();
    asked.sort_unstable();
    let reads_of_control_space = (224, 3);
    let expected = [(2, 1), (8, 4), (16, 2), (58, 1), (62, 2), (64, 1), (128, 28), (136, 1)];
    let expected = [&expected[..], &[reads_of_control_space, (240, 1), (248, 2), (816, 1)]].concat();
    assert_eq!(asked, expected);
}

#[test]
fn another_key_is_a_wrong_key() {
    let Some(path) = path() else { return };
    let (text, result) = printed(&path, "8.8.8.9", false, false);
    assert_eq!(text, "");
    let Err(CaptureError::NothingAuthentic { reason, summary, .. }) = result else {
        panic!("nothing is authentic")
    };
    assert_eq!((reason, summary.datagrams, summary.authenticated), (NothingAuthentic::WrongKey, 955, 0));
}

#[test]
fn the_command_prints_a_line_a_datagram_and_ends_with_the_counts() {
    let Some(path) = path() else { return };
    let (text, result) = printed(&path, KEY_A, false, false);
    result.unwrap();
    assert!(
        text.ends_with(
            "955 frames, 1289.049869 seconds, sessions begun: 1\n955 datagrams, 955 authenticated\n"
        )
    );
    // WinDbg asks again without an acknowledgement, and the target wants it repeated.
    let expected = "    197     0.528150  H>T  data        97  STATE_MANIPULATE id=8000005e GetContext
    198     0.528193  T>H  data        99  RESEND id=00000000
    199     0.543656  H>T  data        98  STATE_MANIPULATE id=8000005e GetContext [sent again]
";
    assert!(text.contains(expected));
    let (json, result) = printed(&path, KEY_A, true, false);
    result.unwrap();
    assert_eq!(json.lines().count(), 956);
}

fn capture() -> Option<&'static Read> {
    static CAPTURE: OnceLock<Option<Read>> = OnceLock::new();
    CAPTURE.get_or_init(|| path().map(|path| read(&std::fs::read(path).unwrap(), KEY_A))).as_ref()
}

fn path() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("VERIKD_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join("captures/windbg-uncut.pcapng.gz");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there; VERIKD_SHARED names the folder that has captures/", path.display());
    None
}

fn opened(captured: &CapturedDatagram) -> &Opened {
    captured.content.as_ref().expect("all of it is authentic")
}

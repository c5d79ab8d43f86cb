//! Captures that are damaged, cut off, or of something else: typed errors that say what to do, and never a panic.

use std::path::Path;

use verikd::capture::{CaptureError, Ending, NothingAuthentic};

use super::generator::{self, ETHERNET, MICROSECONDS, PcapNg, SESSION_A, Vectors, ethernet};
use super::{KEY_A, KEY_B, committed, printed, printed_of, read};

const HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;

fn session_a() -> Vec<u8> {
    generator::pcap(false, MICROSECONDS, ETHERNET, &Vectors::load().frames(SESSION_A, ethernet))
}

fn reason(capture: &[u8], key: &str) -> (NothingAuthentic, String) {
    let (printed, result) = printed_of(capture, key);
    assert_eq!(printed, "", "nothing is printed of a capture in which nothing is authentic");
    let error = result.unwrap_err();
    let CaptureError::NothingAuthentic { reason, .. } = &error else { panic!("{error}") };
    (*reason, error.to_string())
}

#[test]
fn a_capture_cut_off_at_the_end_gives_what_was_read_and_a_warning() {
    let mut capture = session_a();
    capture.truncate(capture.len() - 5);
    let (text, result) = printed_of(&capture, KEY_A);
    let summary = result.unwrap();
    assert_eq!(summary.authenticated, SESSION_A.len() as u64 - 1);
    assert!(matches!(summary.ending, Ending::CutOff { .. }));
    assert!(
        text.contains("warning: incomplete capture. The file is cut off inside the record at byte 2328"),
        "{text}"
    );
    assert!(text.ends_with("11 datagrams, 11 authenticated\n"));
}

#[test]
fn every_truncation_of_a_capture_is_cut_off_or_empty_and_loses_only_the_end() {
    let whole = read(&session_a(), KEY_A);
    for capture in [session_a(), std::fs::read(committed("two-keys.pcapng")).unwrap()] {
        for len in (0..capture.len()).step_by(7) {
            let part = read(&capture[..len], KEY_A);
            assert!(!matches!(part.error, Some(CaptureError::Damaged { .. })), "{len} bytes");
            assert!(part.summary.authenticated <= whole.summary.authenticated);
        }
    }
    let zipped = std::fs::read(committed("late.pcapng.gz")).unwrap();
    for len in 2..zipped.len() {
        let part = read(&zipped[..len], KEY_A);
        match part.error {
            None => {
                assert!(part.summary.ending != Ending::Complete || part.summary.authenticated == 4, "{len}")
            }
            Some(CaptureError::NotACapture { .. } | CaptureError::NothingAuthentic { .. }) => {}
            Some(error) => panic!("{len} bytes: {error}"),
        }
    }
}

#[test]
fn a_damaged_record_says_where_it_is_and_what_was_read_before() {
    let mut capture = session_a();
    let second = HEADER_LEN + RECORD_HEADER_LEN + ethernet_len("A.offer_initial");
    capture[second + 8..][..4].copy_from_slice(&0xffff_ff00_u32.to_le_bytes());
    let (text, result) = printed_of(&capture, KEY_A);
    let error = result.unwrap_err();
    assert!(text.ends_with("1 datagrams, 1 authenticated\n"), "{text}");
    let CaptureError::Damaged { offset, summary, .. } = &error else { panic!("{error}") };
    assert_eq!((*offset, summary.authenticated), (second as u64, 1));
    assert!(
        error.to_string().contains("1 frames and 1 KDNET datagrams before it were read, 1 authenticated")
    );
}

#[test]
fn a_pcapng_block_that_contradicts_itself_is_damage_and_not_a_cut() {
    let offer = &Vectors::load().frames(&["A.offer_initial"], ethernet)[0];
    let file = |spoil: &dyn Fn(&mut [u8])| {
        let mut file = PcapNg::new();
        file.interface(1, 6);
        file.packet(0, 1, offer);
        let at = file.0.len();
        file.packet(0, 2, offer);
        spoil(&mut file.0[at..]);
        file.packet(0, 3, offer);
        let read = read(&file.0, KEY_A);
        assert_eq!(read.summary.authenticated, 1);
        match read.error {
            Some(CaptureError::Damaged { offset, what, .. }) => {
                assert_eq!(offset, at as u64);
                what
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(file(&|block| block[20] = 0xff), "a record's fields contradict each other", "captured length");
    assert_eq!(file(&|block| block[8] = 7), "a packet names an interface that the file lacks");
    assert_eq!(file(&|block| block[4] = 8), "a record's fields contradict each other", "length");
    assert_eq!(file(&|block| block[4..8].fill(0)), "a record says that it is shorter than its own header");
    assert_eq!(file(&|block| block[7] = 0x10), "a record says that it is longer than 16 MiB");
}

#[test]
fn a_gzip_stream_with_a_flipped_bit_is_damage() {
    let mut zipped = generator::gzip(&session_a());
    let at = zipped.len() - 6;
    zipped[at] ^= 1;
    let (text, result) = printed_of(&zipped, KEY_A);
    assert!(matches!(result, Err(CaptureError::Damaged { what: "its gzip stream does not unpack", .. })));
    assert!(text.ends_with("12 datagrams, 12 authenticated\n"));
}

#[test]
fn no_bit_flip_of_a_capture_panics() {
    for capture in [session_a(), std::fs::read(committed("two-keys.pcapng")).unwrap()] {
        // Every byte of the headers, and a sample of the rest.
        for at in (0..200).chain((200..capture.len()).step_by(31)) {
            let mut damaged = capture.clone();
            damaged[at] ^= 1 << (at % 8);
            let read = read(&damaged, KEY_A);
            assert!(read.summary.authenticated <= read.summary.datagrams);
        }
    }
}

#[test]
fn short_frames_of_every_link_type_are_skipped() {
    let offer = Vectors::load().datagram("A.offer_initial").0;
    let (source, destination) = (generator::TARGET.parse().unwrap(), generator::HOST.parse().unwrap());
    let whole = [
        (1, ethernet(source, destination, &offer)),
        (1, generator::vlan(source, destination, &offer)),
        (113, generator::linux_sll(source, destination, &offer)),
        (276, generator::linux_sll2(source, destination, &offer)),
        (0, generator::null(source, destination, &offer)),
        (101, generator::raw(source, destination, &offer)),
    ];
    for (link_type, frame) in whole {
        let frames: Vec<_> = (0..frame.len()).map(|len| frame[..len].to_vec()).collect();
        let read = read(&generator::pcap(false, MICROSECONDS, link_type, &frames), KEY_A);
        assert!(read.error.is_none());
        assert_eq!(read.summary.authenticated, 0);
        // From the signature on it is recognized as KDNET, whose end the capture does not have.
        assert_eq!(read.summary.unopened.cut_short, offer.len() as u64 - 4, "link type {link_type}");
        assert_eq!(read.summary.frames, frame.len() as u64);
    }
}

#[test]
fn ip_fragments_are_counted_and_not_read() {
    let mut frame = Vectors::load().frames(&["A.offer_initial"], ethernet).remove(0);
    const FRAGMENT_OFFSET_AT: usize = 14 + 6;
    // More fragments; the header's checksum is not looked at.
    frame[FRAGMENT_OFFSET_AT] = 0x20;
    let offer = Vectors::load().frames(&["A.offer_initial"], ethernet).remove(0);
    let read = read(&generator::pcap(false, MICROSECONDS, ETHERNET, &[frame, offer]), KEY_A);
    assert_eq!((read.summary.fragments, read.summary.authenticated), (1, 1));
}

#[test]
fn a_wrong_key_is_told_from_what_is_not_kdnet() {
    let udp =
        |payload: &[u8]| ethernet("10.0.0.1:53".parse().unwrap(), "10.0.0.2:53".parse().unwrap(), payload);
    let pcap = |link_type, frames: &[Vec<u8>]| generator::pcap(false, MICROSECONDS, link_type, frames);

    let (why, text) = reason(&session_a(), KEY_B);
    assert_eq!(why, NothingAuthentic::WrongKey);
    assert!(
        text.contains("wrong key: it has 12 KDNET datagrams, and none authenticates with this key"),
        "{text}"
    );
    assert!(text.contains("bcdedit /dbgsettings"));

    let (why, text) = reason(&pcap(ETHERNET, &[udp(b"a query"), udp(b"an answer")]), KEY_A);
    assert_eq!(why, NothingAuthentic::NotKdnet);
    assert!(text.contains("not KDNET: none of its 2 UDP datagrams begins with MDBG"), "{text}");

    let (why, text) = reason(&pcap(ETHERNET, &[vec![0; 60]]), KEY_A);
    assert_eq!(why, NothingAuthentic::NoUdp);
    assert!(text.contains("none of its 1 frames carries a UDP datagram"), "{text}");

    let (why, text) = reason(&pcap(105, &[vec![0; 60]]), KEY_A);
    assert_eq!(why, NothingAuthentic::NoUdp);
    assert!(text.contains("1 frames have link type 105, which verikd does not read"), "{text}");

    assert_eq!(reason(&pcap(ETHERNET, &[]), KEY_A).0, NothingAuthentic::Empty);

    let (why, text) = reason(&pcap(ETHERNET, &[udp(b"MDBG\x05\x01 of an impossible length")]), KEY_A);
    assert_eq!(why, NothingAuthentic::NothingWhole);
    assert!(text.contains("0 cut short, 1 with an impossible length"), "{text}");

    let late = Vectors::load().frames(&["A.host_ack", "A.load_symbols"], ethernet);
    let (why, text) = reason(&pcap(ETHERNET, &late), KEY_A);
    assert_eq!(why, NothingAuthentic::NoHandshake, "the key may well be right");
    assert!(text.contains("Begin the capture before the debugger connects"), "{text}");
}

#[test]
fn what_is_no_capture_says_so() {
    let error = |bytes: &[u8]| printed_of(bytes, KEY_A).1.unwrap_err();
    for bytes in [&b""[..], b"M", b"MZ\x90\0 and so on", &generator::gzip(b"plain text")] {
        assert!(matches!(error(bytes), CaptureError::NotACapture { .. }), "{bytes:02x?}");
    }
    assert!(error(b"MZ\x90\0").to_string().contains("is not a capture: it begins with [4d, 5a, 90, 00]"));
    assert!(error(b"").to_string().contains("is not a capture: it is empty."));
    let Err(broken) = printed_of(b"\x1f\x8b\xff and no gzip", KEY_A).1 else { panic!("not a capture") };
    assert!(matches!(broken, CaptureError::Damaged { what: "its gzip stream does not unpack", .. }));
    // A header and nothing else, and not even that.
    assert_eq!(reason(&session_a()[..HEADER_LEN], KEY_A).0, NothingAuthentic::Empty);
    assert!(reason(&session_a()[..10], KEY_A).1.contains("cut off"));

    let (_, missing) = printed(Path::new("/nonexistent/capture.pcap"), KEY_A, false, false);
    assert!(missing.unwrap_err().to_string().starts_with("cannot read /nonexistent/capture.pcap: "));
}

fn ethernet_len(name: &str) -> usize {
    Vectors::load().frames(&[name], ethernet)[0].len()
}

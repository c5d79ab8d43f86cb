//! Captures that kept the first bytes of each packet only, as `tcpdump -s 96` does: that is said, and nothing is lost.

use verikd::capture::{CaptureError, NothingAuthentic, Summary};

use super::generator::{ETHERNET, MICROSECONDS, SESSION_A, Vectors, ethernet, pcap};
use super::{KEY_A, printed_of, read};

/// Session A with `snap` bytes of each frame.
fn cut_to(snap: usize) -> Vec<u8> {
    const HEADER_LEN: usize = 24;
    let whole = pcap(false, MICROSECONDS, ETHERNET, &Vectors::load().frames(SESSION_A, ethernet));
    let (header, mut records) = whole.split_at(HEADER_LEN);
    let mut cut = header.to_vec();
    while let Some((record, rest)) = records.split_at_checked(16) {
        let len = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
        cut.extend_from_slice(&record[..8]);
        cut.extend_from_slice(&u32::try_from(len.min(snap)).unwrap().to_le_bytes());
        cut.extend_from_slice(&record[12..]);
        cut.extend_from_slice(&rest[..len.min(snap)]);
        records = &rest[len..];
    }
    cut
}

#[test]
fn without_a_whole_handshake_the_sentence_is_of_cut_packets() {
    for snap in [54, 96, 128, 262] {
        let (_, result) = printed_of(&cut_to(snap), KEY_A);
        let error = result.unwrap_err();
        let CaptureError::NothingAuthentic { reason, .. } = &error else { panic!("{snap}: {error}") };
        assert_eq!(*reason, NothingAuthentic::NothingWhole, "{snap}");
        let error = error.to_string();
        assert!(error.contains("cut short") && error.contains("tcpdump -s 0"), "{snap}: {error}");
        assert!(!error.contains("began before the capture"), "{snap}: {error}");
    }
}

#[test]
fn datagrams_that_were_cut_do_not_count_as_lost() {
    // The response is whole at 400 bytes, so that the session opens; offers and long replies are not.
    let (text, result) = printed_of(&cut_to(400), KEY_A);
    let Summary { authenticated, missing, unopened, .. } = result.unwrap();
    assert!(authenticated > 3 && unopened.cut_short > 0, "{authenticated}, {unopened:?}");
    // The vectors are a choice of the session's datagrams: what lies between them is missing indeed.
    let missing_in_whole = read(&cut_to(usize::MAX), KEY_A).summary.missing;
    assert_eq!(missing, missing_in_whole);
    assert!(text.contains("came cut short: capture whole packets"), "{text}");
    for snap in 42..1500 {
        assert!(read(&cut_to(snap), KEY_A).summary.missing <= missing_in_whole, "{snap}");
    }
}

//! Hostile bytes on a serial line, and an owner who asks at bad moments: the host link neither panics nor hangs nor floods.
//!
//! `PROPTEST_CASES=100000 cargo test --release -p kd-protocol --test hostile_stream` runs a longer search;
//! `fuzz/fuzz_targets/host_stream.rs` plays the same steps with libFuzzer.

#[path = "common/hostile_stream.rs"]
mod hostile_stream;

use std::time::Duration;

use bytes::Bytes;
use hostile_stream::{Step, play, steps_of};
use kd_protocol::kd::PacketType;
use proptest::collection::vec;
use proptest::prelude::*;

fn stop(id: u32) -> Step {
    let mut payload = vec![0; 240];
    payload[..2].copy_from_slice(&0x3030_u16.to_le_bytes());
    Step::Packet { is_control: false, packet_type: PacketType::STATE_CHANGE64.0, id, payload: payload.into() }
}

const fn control(packet_type: PacketType) -> Step {
    Step::Packet { is_control: true, packet_type: packet_type.0, id: 0, payload: Bytes::new() }
}

const READ: Step = Step::Request { api: 0x3130, address: 0x1000, count: 64 };

#[test]
fn resets_without_end_are_answered_one_for_one_and_hold_no_request_open() {
    let mut steps = vec![stop(0x8080_0800), READ];
    for _ in 0..50 {
        steps.extend([control(PacketType::RESET), Step::Wait(Duration::from_millis(300))]);
    }
    play(&steps);
}

#[test]
fn a_target_that_begins_anew_with_each_packet_holds_no_request_open() {
    let mut steps = Vec::new();
    for _ in 0..20 {
        steps.extend([stop(0x8080_0800), READ, stop(0x8080_0801), READ]);
    }
    play(&steps);
}

#[test]
fn a_line_that_never_falls_silent_holds_no_request_open() {
    let mut steps = vec![stop(0x8080_0800), READ];
    for _ in 0..200 {
        steps.extend([Step::Bytes(Bytes::from_static(b"x")), Step::Wait(Duration::from_millis(100))]);
    }
    play(&steps);
}

#[test]
fn a_stop_that_is_over_when_it_is_told_is_told_with_its_state() {
    // Found by the fuzz target host_stream: a stop, and behind it in the same read what ends it.
    play(&steps_of(b" \x02,0000\0\0\x08\x05\x01\0\0\0\0:\x01\xca\x9a;\xd0@\xb4@\xb4\xb4@\xb4\xd0@\xb4:\x01\xca\x9a;\xd0@\xb4"));
}

proptest! {
    #[test]
    fn nothing_on_the_line_and_nothing_its_owner_does_breaks_a_link(
        steps in vec(vec(any::<u8>(), 0..40), 0..80),
    ) {
        let steps: Vec<Step> = steps.iter().map(|bytes| Step::from_bytes(bytes)).collect();
        play(&steps);
    }

    #[test]
    fn the_same_on_a_stopped_target(steps in vec(vec(any::<u8>(), 0..40), 0..80)) {
        let steps: Vec<Step> =
            std::iter::once(stop(0x8080_0800)).chain(steps.iter().map(|bytes| Step::from_bytes(bytes))).collect();
        play(&steps);
    }
}

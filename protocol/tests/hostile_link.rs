//! A hostile target with the right key, and an owner who asks at bad moments: the host link neither panics nor hangs.
//!
//! `PROPTEST_CASES=200000 cargo test --release -p kd-protocol --test hostile_link` runs a longer search;
//! `fuzz/fuzz_targets/host_link.rs` plays the same steps with libFuzzer.

#[path = "common/hostile_target.rs"]
mod hostile_target;

use std::time::Duration;

use bytes::Bytes;
use hostile_target::{Id, Nag, Start, Step, play};
use kd_protocol::kd::{ApiNumber, PacketType};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn a_request_behind_a_continue_is_refused_not_sent_to_a_running_target() {
    play(Start::Stopped, &[read(), Step::Resume, read(), reply(), ACKNOWLEDGE, wait(1)]);
    let reboot = Step::Request { api: ApiNumber::REBOOT.0 as u16, address: 0, count: 0 };
    play(Start::Stopped, &[reboot, read(), ACKNOWLEDGE, nag(Nag::OpenFile, 0, 1)]);
}

#[test]
fn a_second_resume_does_not_let_the_next_stop_go() {
    play(Start::Stopped, &[read(), Step::Resume, Step::Resume, reply(), ACKNOWLEDGE, wait(1)]);
}

#[test]
fn a_module_event_like_the_one_before_is_told_as_another() {
    play(Start::Connected, &[nag(Nag::LoadSymbols, 0, 1), nag(Nag::LoadSymbols, 0, 1)]);
}

#[test]
fn file_requests_do_not_keep_a_request_open() {
    play(Start::Stopped, &[read(), read(), nag(Nag::OpenFile, 400_000, 100)]);
}

#[test]
fn acknowledgements_alone_do_not_keep_a_request_open() {
    play(Start::Stopped, &[read(), nag(Nag::Acknowledge, 400_000, 100)]);
}

#[test]
fn demands_to_resend_do_not_keep_a_request_open() {
    let steps = [vec![read()], vec![nag(Nag::Resend, 900, 250); 100]].concat();
    play(Start::Stopped, &steps);
}

#[test]
fn answers_that_nobody_waits_for_any_more_are_not_queued() {
    play(Start::Connected, &[nag(Nag::OpenFile, 1000, 100), nag(Nag::Prompt, 1000, 100)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_host_link_keeps_its_promises_to_any_target_and_owner(
        start in prop_oneof![1 => Just(Start::Unknown), 1 => Just(Start::Connected), 3 => Just(Start::Stopped)],
        steps in vec(vec(any::<u8>(), 1..80).prop_map(|bytes| Step::from_bytes(&bytes)), 0..60),
    ) {
        play(start, &steps);
    }
}

const ACKNOWLEDGE: Step = Step::Packet {
    session: 0,
    is_control: true,
    packet_type: PacketType::ACKNOWLEDGE.0,
    id: Id::Host,
    payload: Bytes::new(),
};

const fn read() -> Step {
    Step::Request { api: ApiNumber::READ_VIRTUAL_MEMORY.0 as u16, address: 0x1000, count: 8 }
}

const fn reply() -> Step {
    Step::Reply { status: 0, data: Bytes::new() }
}

const fn wait(seconds: u64) -> Step {
    Step::Wait(Duration::from_secs(seconds))
}

const fn nag(what: Nag, every_us: u64, times: u8) -> Step {
    Step::Nag { what, every: Duration::from_micros(every_us), times }
}

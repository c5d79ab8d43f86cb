//! Two ends of a serial line, virtual clock: what becomes of a session under noise, lost and flipped bytes, reboots, and
//! debuggers that come and go.
//!
//! `VERIKD_SEEDS=10000 cargo test --release -p kd-protocol --test line` runs a longer sweep.

mod common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::line::{Line, Noise};
use common::net::{breakpoint, end_of, memory_at};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{
    ApiNumber, BREAK_IN, DebugIo, DebugIoApi, LoadSymbols, Manipulate, NewState, NtStatus, Payload,
    StateChange, StateDetail,
};
use kd_protocol::kdcom::{Decoder, Frame};
use kd_protocol::link::{Event, Peer, RequestError, RunState, TargetEvent};

const CLEAN: Noise = Noise { lost: 0.0, flipped: 0.0, inserted: 0.0, cut: 0.0, spoils_from: None };
/// A packet of 4,000 bytes is hit about as often as not.
const NOISY: Noise = Noise { lost: 5e-5, flipped: 5e-5, inserted: 5e-5, cut: 2e-5, spoils_from: None };

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The packets in what one side has sent, one line each.
fn packets(bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.poll())
        .map(|frame| match frame {
            Frame::Packet(packet) => format!("{packet}").split(' ').take(2).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        })
        .collect()
}

fn module_event(base: u64) -> StateChange {
    let detail = StateDetail::LoadSymbols(LoadSymbols {
        path_name_length: 9,
        padding: 0,
        base_of_dll: VirtAddr(base),
        process_id: 0,
        check_sum: 0,
        size_of_image: 0x1000,
        unload_symbols: 0,
    });
    let data = Bytes::from_static(b"acpi.sys\0");
    StateChange { new_state: NewState::LOAD_SYMBOLS, detail, data, ..breakpoint(0) }
}

#[test]
fn a_session_goes_from_an_open_line_to_stop_to_reads_to_running() {
    let mut line = Line::new(1, CLEAN);
    let stop = line.stop_target();
    assert_eq!(stop.program_counter, VirtAddr(0xffff_f800_0140_0000));
    assert_eq!(line.host.peer(), Some(Peer::Kdcom));
    assert_eq!(line.read(0x1000, 3900).unwrap(), memory_at(0x1000, 3900));
    assert_eq!(line.read(0x2000, 16).unwrap(), memory_at(0x2000, 16));
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.wait_for("resume", |it| *it == Event::Resumed);
    assert!(line.target.is_running());
    line.target.print(line.now, Bytes::from_static(b"still alive\n"));
    line.wait_for("print", |it| *it == Event::DebugPrint(Bytes::from_static(b"still alive\n")));
    assert_eq!(
        packets(&line.sent),
        [
            "BreakIn",
            "ACK id=80800000",
            "STATE_MANIPULATE id=80800000",
            "ACK id=80800001",
            "STATE_MANIPULATE id=80800001",
            "ACK id=80800000",
            "STATE_MANIPULATE id=80800000",
            "ACK id=80800001",
        ],
        "a target that has just booted needs no RESET"
    );
}

#[test]
fn a_debugger_that_comes_later_asks_for_one_reset() {
    for earlier_reads in 0..4 {
        let mut line = Line::new(2, CLEAN);
        line.stop_target();
        for at in 0..earlier_reads {
            line.read(at, 8).unwrap();
        }
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        line.wait_for("resume", |it| *it == Event::Resumed);
        line.replace_host();
        line.sent.clear();
        let start = line.now;
        line.stop_target();
        assert_eq!(line.read(0x1000, 64).unwrap(), memory_at(0x1000, 64));
        assert_eq!(line.read(0x2000, 64).unwrap(), memory_at(0x2000, 64));
        let resets = packets(&line.sent).iter().filter(|it| it.starts_with("RESET")).count();
        assert_eq!(resets, 1, "after {earlier_reads} reads: {:?}", packets(&line.sent));
        assert!(line.now - start < Duration::from_millis(200), "took {:?}", line.now - start);
    }
}

#[test]
fn a_debugger_takes_over_a_stopped_target_whenever_the_last_one_died() {
    // The last one's request is cut off after each of its bytes and then some time later.
    for delay in 0..150 {
        let mut line = Line::new(3, CLEAN);
        line.stop_target();
        line.read(0x1000, 8).unwrap();
        line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x3000), 64));
        line.run_for(Duration::from_micros(delay * 20));
        line.replace_host();
        line.stop_target();
        assert_eq!(line.read(0x7000, 64).unwrap(), memory_at(0x7000, 64), "after {delay}");
        assert_eq!(line.read(0x8000, 64).unwrap(), memory_at(0x8000, 64), "after {delay}");
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        line.wait_for("resume", |it| *it == Event::Resumed);
        assert!(line.run_until(seconds(5), |line| line.target.is_running()), "after {delay}");
    }
}

#[test]
fn a_clean_line_carries_nothing_twice() {
    let mut line = Line::new(4, CLEAN);
    line.stop_target();
    for at in 0..200 {
        assert_eq!(line.read(at * 0x1000, 3900).unwrap(), memory_at(at * 0x1000, 3900));
    }
    assert_eq!(line.host.counters().retransmissions, 0);
    assert_eq!(line.executed.len(), 200);
}

#[test]
fn every_reply_belongs_to_its_request_however_noisy_the_line() {
    let seeds = std::env::var("VERIKD_SEEDS").map_or(40, |it| it.parse().expect("VERIKD_SEEDS is a number"));
    let (mut failed, mut reads) = (0, 0);
    for seed in 0..seeds {
        let mut line = Line::new(seed, NOISY);
        line.stop_target();
        for at in 0..12 {
            let at = 0x1000 + at * 0x1111;
            reads += 1;
            match line.read(at, 3900) {
                Ok(bytes) => {
                    assert!(bytes == memory_at(at, 3900), "seed {seed}: other bytes than at {at:#x}")
                }
                // Noise can look like a target that restarts; then it says so, and is stopped again.
                Err(Event::Failed(_, RequestError::TargetRunning | RequestError::TargetRestarted)) => {
                    failed += 1;
                    line.stop_target();
                }
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
        }
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "seed {seed}");
        // A byte of noise can be a break-in; the owner lets such a target go on.
        let goes_on = line.run_until(seconds(30), |line| {
            if line.host.state() == RunState::Stopped {
                line.host.resume(line.now, NtStatus::DBG_CONTINUE);
            }
            line.target.is_running()
        });
        assert!(goes_on, "seed {seed}: still stopped");
        assert!(line.now - line.start < seconds(120), "seed {seed} took {:?}", line.now - line.start);
    }
    assert!(failed * 50 <= reads, "{failed} of {reads} reads ended without an answer");
}

#[test]
fn each_stop_behind_a_continue_is_told_and_each_request_executed_once() {
    // Some packet of nearly every question is damaged.
    let noisy = Noise { lost: 3e-4, flipped: 3e-4, inserted: 3e-4, cut: 1e-4, spoils_from: None };
    let seeds = std::env::var("VERIKD_SEEDS").map_or(40, |it| it.parse().expect("VERIKD_SEEDS is a number"));
    for seed in 0..seeds {
        let mut line = Line::new(seed, noisy);
        line.steps = true;
        line.stop_target();
        let mut asked = Vec::new();
        for step in 1..40 {
            let at = 0x1000 + step * 0x1111;
            let read = Manipulate::read_virtual(VirtAddr(at), 256);
            match line.ask(read.clone()) {
                Event::Replied(_, reply) => {
                    assert!(reply.data == memory_at(at, 256), "seed {seed}: other bytes")
                }
                other => panic!("seed {seed}: {other:?}"),
            }
            asked.push(read);
            line.host.resume(line.now, NtStatus::DBG_CONTINUE);
            asked.push(Manipulate::continue2(NtStatus::DBG_CONTINUE));
            // A stop that comes instead is to be left like the last one.
            assert_eq!(line.leave(), Event::Resumed, "seed {seed}");
            let Event::Stopped(stop) = line.wait_for("stop", |it| matches!(it, Event::Stopped(_))) else {
                unreachable!()
            };
            assert_eq!((*stop).encode(), breakpoint(step + 1).encode(), "seed {seed}: a stop was not told");
            assert_eq!(line.executed, asked, "seed {seed}");
        }
        line.steps = false;
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "seed {seed}");
        assert!(line.target.is_running(), "seed {seed}: still stopped");
    }
}

#[test]
fn a_reply_that_is_too_long_for_its_line_does_not_keep_the_target_stopped() {
    for seed in 0..20 {
        let mut line = Line::new(seed, CLEAN);
        line.stop_target();
        line.noise = Noise { flipped: 2e-3, ..CLEAN };
        let asked = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x1000), 3900));
        line.wait_for("end of a request", |it| end_of(it) == Some(asked));
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "seed {seed}");
        assert!(line.target.is_running(), "seed {seed}: still stopped");
    }
}

/// Whoever leaves waits for a stop that may come yet. A break-in that a stopped target has come upon stops it once more, also where
/// the debugger before died in the middle of a question and the target repeats its reply.
#[test]
fn a_stop_that_comes_late_was_said_to_be_possible() {
    let mut late_stops = 0;
    for noise in [CLEAN, NOISY] {
        for moment in 0..120 {
            let mut line = Line::new(moment, CLEAN);
            line.stop_target();
            line.read(0x1000, 8).unwrap();
            line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x3000), 3900));
            line.run_for(Duration::from_micros(moment * 400));
            line.noise = noise;
            line.replace_host();
            line.stop_target();
            line.noise = CLEAN;
            line.host.resume(line.now, NtStatus::DBG_CONTINUE);
            assert_eq!(line.leave(), Event::Resumed, "{moment}");
            let may_stop_again = line.host.may_stop_again() || line.host.may_remember_break_in();
            line.target.print(line.now, Bytes::from_static(b"it runs\n"));
            let stops_again = line.run_until(seconds(3), |line| line.host.state() == RunState::Stopped);
            assert!(may_stop_again || !stops_again, "{moment}: stopped again, and nobody knew that it might");
            late_stops += u32::from(stops_again);
        }
    }
    assert!(late_stops > 0, "no moment of them all was one at which a break-in is remembered");
}

/// The target comes by a stop of its own while the break-in is on its way.
#[test]
fn a_break_in_that_another_stop_forestalled_is_still_on_its_way() {
    let mut line = Line::new(1, CLEAN);
    line.stop_target();
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.wait_for("resume", |it| *it == Event::Resumed);
    let mut step = breakpoint(9);
    if let StateDetail::Exception(exception) = &mut step.detail {
        exception.exception_code = NtStatus::SINGLE_STEP;
    }
    line.host.break_in(line.now);
    line.target.stop(line.now, step);
    line.wait_for("stop", |it| matches!(it, Event::Stopped(_)));
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.wait_for("resume", |it| *it == Event::Resumed);
    assert!(line.host.may_stop_again());
    line.target.print(line.now, Bytes::from_static(b"it runs\n"));
    line.wait_for("late stop", |it| matches!(it, Event::Stopped(_)));
    assert!(!line.host.may_stop_again());
}

#[test]
fn reads_shrink_until_their_replies_come_through_the_noise() {
    for spoils_from in [330, 400, 1000, 2000, 3900] {
        let mut line = Line::new(1, CLEAN);
        line.stop_target();
        line.noise.spoils_from = Some(spoils_from);
        let start = line.now;
        assert_eq!(line.read(0x1000, 3900).unwrap(), memory_at(0x1000, 3900), "{spoils_from}");
        assert!(line.now - start < seconds(12), "{spoils_from}: took {:?}", line.now - start);
        line.noise = CLEAN;
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "{spoils_from}");
        assert!(line.target.is_running(), "{spoils_from}: still stopped");
    }
}

#[test]
fn a_reply_that_nobody_waits_for_any_more_keeps_nobody_from_letting_the_target_run() {
    // However far the damaged replies have come: each moment of them is one to leave at.
    for moment in 0..400 {
        let mut line = Line::new(2, CLEAN);
        line.stop_target();
        line.noise.spoils_from = Some(300);
        let asked = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x1000), 3900));
        let behind = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x9000), 3900));
        line.run_for(Duration::from_millis(moment * 5));
        let start = line.now;
        for id in [behind, asked] {
            line.host.abandon(line.now, id);
        }
        let asked = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x3000), 128));
        let Event::Replied(_, reply) = line.wait_for("reply", |it| end_of(it) == Some(asked)) else {
            panic!("{moment}: no reply")
        };
        assert_eq!(reply.data, memory_at(0x3000, 128), "{moment}");
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "{moment}");
        assert!(line.target.is_running(), "{moment}: still stopped");
        assert!(line.now - start < Duration::from_millis(1200), "{moment}: took {:?}", line.now - start);
    }
}

#[test]
fn what_is_abandoned_is_answered_or_not_and_the_next_question_is_answered_right() {
    for moment in 0..60 {
        let mut line = Line::new(3, CLEAN);
        line.stop_target();
        for at in 1..8_u64 {
            let asked = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(at << 12), 3900));
            line.run_for(Duration::from_millis(moment));
            line.host.abandon(line.now, asked);
            // The same address with another length: a reply that comes late must not be taken for this one's.
            assert_eq!(line.read(at << 12, 64).unwrap(), memory_at(at << 12, 64), "{moment}");
        }
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        assert_eq!(line.leave(), Event::Resumed, "{moment}");
    }
}

#[test]
fn a_boot_goes_on_through_prints_and_modules_with_the_debugger_there_first() {
    let mut line = Line::new(5, CLEAN);
    line.target.print(line.now, Bytes::from_static(b"booting\n"));
    line.wait_for("connection", |it| *it == Event::Connected(Peer::Kdcom));
    line.wait_for("print", |it| *it == Event::DebugPrint(Bytes::from_static(b"booting\n")));
    for base in 1..40_u64 {
        line.target.stop(line.now, module_event(base << 12));
        line.wait_for("module", |it| matches!(it, Event::ModuleEvent(_)));
        assert!(line.run_until(seconds(5), |line| line.target.is_running()), "module {base}");
    }
    assert!(
        !packets(&line.sent).iter().any(|it| it.starts_with("RESET")),
        "the target said where it counts from"
    );
}

#[test]
fn a_target_that_talks_without_end_is_asked_to_stop_again_and_again() {
    let mut line = Line::new(13, CLEAN);
    // Each print begins when the last is acknowledged, so that nearly every byte meets a target that waits for an ACK.
    let print = |line: &mut Line| {
        if line.target.is_running() {
            line.target.print(line.now, Bytes::from_static(b"booting\n"));
        }
        line.events.iter().any(|it| matches!(it, Event::Stopped(_)))
    };
    for round in 0..50 {
        line.run_until(Duration::from_micros(round * 37), print);
        let start = line.now;
        line.sent.clear();
        line.host.break_in(line.now);
        assert!(line.run_until(seconds(15), print), "round {round}: not stopped in 15 s");
        let break_ins = packets(&line.sent).iter().filter(|it| *it == "BreakIn").count();
        assert!(break_ins <= 2, "round {round}: {break_ins} break-ins");
        assert!(line.now - start < seconds(1), "round {round}: took {:?}", line.now - start);
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        line.leave();
        line.events.clear();
    }
}

#[test]
fn the_acknowledgement_of_a_continue_and_the_next_stop_in_one_read_are_both_told() {
    let mut line = Line::new(16, CLEAN);
    line.stop_target();
    line.read(0x1000, 8).unwrap();
    line.run_for(Duration::from_millis(20));
    line.is_mute = true;
    line.received.clear();
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    let mut bytes = BytesMut::new();
    line.host.poll_transmit_stream(&mut bytes);
    line.target.handle_stream(line.now, &bytes);
    assert!(matches!(line.target.poll_event(), Some(TargetEvent::Request(_))));
    // It stops again at once, at the same place and for the same reason.
    line.target.stop(line.now, breakpoint(line.stops));
    bytes.clear();
    line.target.poll_transmit_stream(&mut bytes);
    line.host.handle_stream(line.now, &bytes);
    assert_eq!((line.host.poll_event(), line.host.state()), (Some(Event::Resumed), RunState::Running));
    assert!(matches!(line.host.poll_event(), Some(Event::Stopped(_))));
    assert_eq!((line.host.poll_event(), line.host.state()), (None, RunState::Stopped));
}

#[test]
fn a_restart_whose_first_packet_an_old_acknowledgement_hid_is_known_by_the_second() {
    let mut line = Line::new(18, CLEAN);
    line.stop_target();
    // The ACK of the stop is on its way, and fits the first packet of the next boot.
    line.target.reboot(line.now);
    line.target.print(line.now, Bytes::from_static(b"booting\n"));
    line.run_for(seconds(5));
    assert!(line.target.is_running());
    line.target.print(line.now, Bytes::from_static(b"second\n"));
    line.wait_for("restart", |it| matches!(it, Event::Restarted(_)));
    line.wait_for("print", |it| *it == Event::DebugPrint(Bytes::from_static(b"second\n")));
    line.stop_target();
    assert_eq!(line.read(0x4000, 8).unwrap(), memory_at(0x4000, 8));
}

#[test]
fn a_flipped_bit_in_an_id_is_no_restart() {
    for bit in 0..32 {
        let mut line = Line::new(17, CLEAN);
        line.stop_target();
        for at in 0..3 {
            line.read(at, 8).unwrap();
        }
        // The id of the third packet behind the ACK: a print, or the reply.
        for flips_reply in [false, true] {
            if !flips_reply {
                line.host.resume(line.now, NtStatus::DBG_CONTINUE);
                line.leave();
                line.target.print(line.now, Bytes::from_static(b"text\n"));
                line.flip_next_data_id(bit);
                line.wait_for("print", |it| matches!(it, Event::DebugPrint(_)));
            } else {
                line.run_for(seconds(1));
                line.stop_target();
                line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x5000), 8));
                line.flip_next_data_id(bit);
                let reply = line.wait_for("reply", |it| end_of(it).is_some());
                let Event::Replied(_, reply) = reply else { panic!("bit {bit}: {reply:?}") };
                assert_eq!(reply.data, memory_at(0x5000, 8));
            }
            line.run_for(seconds(3));
            let told = line.events.iter().find(|it| matches!(it, Event::Restarted(_) | Event::DebugPrint(_)));
            assert_eq!(told, None, "bit {bit}, {flips_reply}");
        }
    }
}

#[test]
fn a_restarted_target_is_known_by_its_first_packet() {
    let mut line = Line::new(6, CLEAN);
    line.stop_target();
    line.read(0x1000, 8).unwrap();
    line.is_dead = true;
    let pending = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x3000), 8));
    line.run_for(Duration::from_millis(20));
    line.target.reboot(line.now);
    line.is_dead = false;
    line.target.print(line.now, Bytes::from_static(b"booting\n"));
    line.wait_for("failure", |it| *it == Event::Failed(pending, RequestError::TargetRestarted));
    line.wait_for("restart", |it| *it == Event::Restarted(Peer::Kdcom));
    line.wait_for("print", |it| matches!(it, Event::DebugPrint(_)));
    line.stop_target();
    assert_eq!(line.read(0x4000, 8).unwrap(), memory_at(0x4000, 8));
}

#[test]
fn a_target_that_counts_anew_because_of_our_reset_has_not_restarted() {
    let mut line = Line::new(7, CLEAN);
    line.stop_target();
    line.is_mute = true;
    let id = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x3000), 64));
    line.run_for(seconds(3));
    line.is_mute = false;
    let Event::Replied(answered, reply) = line.wait_for("reply", |it| matches!(it, Event::Replied(..)))
    else {
        unreachable!()
    };
    assert_eq!((answered, reply.data), (id, memory_at(0x3000, 64).into()));
    assert!(!line.events.iter().any(|it| matches!(it, Event::Restarted(_))));
}

#[test]
fn a_dead_target_ends_a_request_in_bounded_time() {
    let mut line = Line::new(8, CLEAN);
    line.stop_target();
    line.is_dead = true;
    let (start, before) = (line.now, line.sent.len());
    let Err(Event::Failed(_, RequestError::NoAnswer { .. })) = line.read(0x1000, 8) else {
        panic!("a dead target answers nothing");
    };
    let waited = line.now - start;
    assert!((seconds(10)..seconds(11)).contains(&waited), "waited {waited:?}");
    assert!(
        line.sent.len() - before < 400,
        "{} bytes wait for a target that boots",
        line.sent.len() - before
    );
}

#[test]
fn a_silent_line_is_not_filled_with_break_ins() {
    let mut line = Line::new(9, CLEAN);
    line.is_dead = true;
    line.host.break_in(line.now);
    line.run_for(seconds(60));
    assert!((4..12).contains(&line.sent.len()), "{:?}", line.sent);
    assert!(line.sent.iter().all(|byte| *byte == BREAK_IN));
    line.host.cancel_break_in();
    let before = line.sent.len();
    line.run_for(seconds(600));
    assert_eq!(line.sent.len(), before);
}

#[test]
fn no_continue_and_no_reset_has_a_byte_that_stops_a_running_target() {
    let mut line = Line::new(10, CLEAN);
    line.stop_target();
    line.is_mute = true;
    line.sent.clear();
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.run_for(seconds(2));
    let executed: Vec<ApiNumber> = line.executed.iter().map(|it| it.api_number).collect();
    assert_eq!(executed, [ApiNumber::CONTINUE2], "what follows it meets a running target");
    let sent = packets(&line.sent);
    assert!(sent.iter().any(|it| it.starts_with("RESET")), "{sent:?}");
    assert!(!line.sent.contains(&BREAK_IN), "a running target looks at each byte");
}

#[test]
fn a_lost_acknowledgement_of_a_continue_is_made_good_by_another_stop() {
    let mut line = Line::new(14, CLEAN);
    line.stop_target();
    line.read(0x1000, 8).unwrap();
    line.events.clear();
    line.is_mute = true;
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.run_for(Duration::from_millis(20));
    line.is_mute = false;
    assert!(line.target.is_running());
    assert_eq!(line.leave(), Event::Resumed);
    assert!(line.target.is_running());
    line.run_for(seconds(30));
    assert!(line.target.is_running() && line.events.is_empty(), "{:?}", line.events);
}

#[test]
fn a_line_that_carries_nothing_proves_nothing() {
    for (is_dead, is_mute) in [(true, false), (false, true)] {
        let mut line = Line::new(15, CLEAN);
        line.stop_target();
        let start = line.now;
        (line.is_dead, line.is_mute) = (is_dead, is_mute);
        line.host.resume(line.now, NtStatus::DBG_CONTINUE);
        let Event::ResumeUnproven { after, .. } = line.leave() else { panic!("nothing was heard") };
        assert_eq!((after, line.now - start), (seconds(15), seconds(15)));
        assert_eq!(line.host.state(), RunState::Unknown);
    }
}

#[test]
fn a_prompt_is_shown_and_answered_once() {
    let noisy = Noise { flipped: 2e-3, ..CLEAN };
    for seed in 0..200 {
        let mut line = Line::new(seed, noisy);
        line.run_for(Duration::from_millis(10));
        let mut prompt = DebugIo::print(Bytes::from_static(b"Break, Ignore (bi)?"));
        prompt.api_number = DebugIoApi::GET_STRING;
        prompt.length_of_string_read = 2;
        line.target.ask(line.now, &Payload::DebugIo(prompt.clone()));
        let Event::Prompt(shown) = line.wait_for("prompt", |it| matches!(it, Event::Prompt(_))) else {
            unreachable!()
        };
        line.host.answer_prompt(line.now, &shown, Bytes::from_static(b"i"));
        assert!(line.run_until(seconds(30), |line| !line.prompt_answers.is_empty()), "seed {seed}");
        assert_eq!(line.prompt_answers, [Bytes::from_static(b"i")], "seed {seed}");
        line.run_for(seconds(2));
        assert!(!line.events.iter().any(|it| matches!(it, Event::Prompt(_))), "seed {seed}: asked twice");
    }
}

#[test]
fn a_line_that_ends_and_is_there_again_goes_on_with_the_same_stop() {
    let mut line = Line::new(11, CLEAN);
    line.stop_target();
    line.read(0x1000, 8).unwrap();
    let pending = line.host.request(line.now, Manipulate::read_virtual(VirtAddr(0x2000), 8));
    line.host.handle_stream_closed(line.now);
    line.wait_for("failure", |it| *it == Event::Failed(pending, RequestError::Disconnected));
    line.wait_for("end", |it| *it == Event::Disconnected);
    let late = line.host.request(line.now, Manipulate::get_version());
    line.wait_for("refusal", |it| *it == Event::Failed(late, RequestError::Disconnected));
    line.run_for(seconds(5));
    line.host.handle_stream_opened(line.now);
    line.wait_for("reconnection", |it| *it == Event::Reconnected);
    line.wait_for("stop", |it| matches!(it, Event::Stopped(_)));
    assert_eq!(line.read(0x3000, 8).unwrap(), memory_at(0x3000, 8));
}

#[test]
fn a_target_that_is_stopped_twice_for_one_wish_says_that_it_may_stop_again() {
    let mut line = Line::new(12, CLEAN);
    line.is_mute = true;
    line.host.break_in(line.now);
    line.run_for(seconds(3));
    line.is_mute = false;
    line.wait_for("stop", |it| matches!(it, Event::Stopped(_)));
    assert!(line.host.may_stop_again(), "two break-ins were sent, one stop came");
    line.host.resume(line.now, NtStatus::DBG_CONTINUE);
    line.wait_for("resume", |it| *it == Event::Resumed);
    line.stop_target();
    assert!(line.run_until(seconds(1), |line| line.host.may_stop_again()));
}

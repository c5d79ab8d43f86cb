//! Two ends, virtual clock: what becomes of a session under loss, duplication, reordering, damage and reboots.
//!
//! `VERIKD_SEEDS=5000 cargo test -p kd-protocol --test pair` runs a longer sweep.

mod common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::net::{Faults, HOST, TARGET, World, address, host_link, key, memory_at};
use kd_protocol::kd::{ApiNumber, DebugIo, DebugIoApi, Manipulate, NtStatus, Payload};
use kd_protocol::kdnet::{Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::link::{Event, HostLink, LinkConfig, RequestError, RunState, TargetConfig, TargetLink};
use kd_protocol::{VirtAddr, kdnet::DatagramError};

const PERFECT: Faults = Faults { loss: 0.0, duplicate: 0.0, reorder: 0.0, corrupt: 0.0 };
const BAD: Faults = Faults { loss: 0.2, duplicate: 0.1, reorder: 0.1, corrupt: 0.05 };

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_session_goes_from_offer_to_stop_to_reads_to_running() {
    let mut world = World::new(1, PERFECT);
    world.attach();
    let stop = world.stop_target();
    assert_eq!(stop.program_counter, VirtAddr(0xffff_f800_0140_0000));
    assert_eq!(world.read(0x1000, 1096).unwrap(), memory_at(0x1000, 1096));
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    world.wait_for("resume", |it| *it == Event::Resumed);
    world.run_until(seconds(1), |world| world.target.is_running());
    world.target.print(world.now, Bytes::from_static(b"still alive\n"));
    world.wait_for("print", |it| *it == Event::DebugPrint(Bytes::from_static(b"still alive\n")));
}

#[test]
fn a_perfect_network_needs_four_datagrams_a_request() {
    let mut world = World::new(1, PERFECT);
    world.attach();
    world.stop_target();
    world.run_for(Duration::from_millis(50));
    let before = world.host_datagrams;
    for at in 0..100 {
        world.read(at * 0x1000, 64).unwrap();
    }
    assert_eq!(world.host_datagrams - before, 200, "a request and an acknowledgement each");
    assert_eq!(world.host.counters().retransmissions, 0);
}

#[test]
fn every_reply_belongs_to_its_request_however_bad_the_network() {
    let seeds = std::env::var("VERIKD_SEEDS").map_or(40, |it| it.parse().expect("VERIKD_SEEDS is a number"));
    for seed in 0..seeds {
        let mut world = World::new(seed, BAD);
        world.attach();
        world.stop_target();
        for at in 0..60 {
            let at = 0x1000 + at * 0x111;
            assert_eq!(world.read(at, 200).unwrap(), memory_at(at, 200), "seed {seed}");
        }
        world.host.resume(world.now, NtStatus::DBG_CONTINUE);
        assert_eq!(world.leave(), Event::Resumed, "seed {seed}");
        assert!(
            world.run_until(seconds(30), |world| world.target.is_running()),
            "seed {seed}: still stopped"
        );
        let elapsed = world.now - world.start;
        assert!(elapsed < seconds(60), "seed {seed} took {elapsed:?}");
    }
}

#[test]
fn breaking_in_and_going_on_can_be_repeated_on_a_bad_network() {
    for seed in 0..20 {
        let mut world = World::new(seed, BAD);
        world.attach();
        for round in 0..10 {
            world.stop_target();
            assert_eq!(world.host.state(), RunState::Stopped);
            assert_eq!(world.read(round, 8).unwrap(), memory_at(round, 8), "seed {seed} round {round}");
            world.host.resume(world.now, NtStatus::DBG_CONTINUE);
            assert_eq!(world.leave(), Event::Resumed, "seed {seed} round {round}");
            assert!(
                world.run_until(seconds(20), |world| world.target.is_running()),
                "seed {seed} round {round}: the target was left stopped"
            );
        }
    }
}

#[test]
fn one_lost_datagram_costs_a_few_round_trips() {
    let mut world = World::new(3, PERFECT);
    world.attach();
    world.stop_target();
    for at in 0..20 {
        world.read(at, 8).unwrap();
    }
    let start = world.now;
    world.is_dead = true;
    world.host.request(world.now, Manipulate::read_virtual(VirtAddr(0x5000), 8));
    world.run_for(Duration::from_micros(600));
    world.is_dead = false;
    world.wait_for("reply", |it| matches!(it, Event::Replied(..)));
    assert!(world.now - start < Duration::from_millis(25), "took {:?}", world.now - start);
}

#[test]
fn keepalive_offers_are_left_unanswered() {
    let mut world = World::new(4, PERFECT);
    world.attach();
    world.stop_target();
    world.run_for(seconds(1));
    let before = world.host_datagrams;
    world.run_for(seconds(1288));
    assert_eq!(world.host_datagrams, before, "WinDbg was silent for 1288 s, and so are we");
    assert_eq!(world.read(0x2000, 16).unwrap(), memory_at(0x2000, 16), "and the session still stands");
}

#[test]
fn a_reboot_fails_what_was_pending_and_starts_a_new_session() {
    for faults in [PERFECT, BAD] {
        let mut world = World::new(5, faults);
        world.attach();
        world.stop_target();
        world.read(0x1000, 8).unwrap();
        world.is_dead = true;
        let pending = world.host.request(world.now, Manipulate::read_virtual(VirtAddr(0x3000), 8));
        world.run_for(Duration::from_millis(20));
        world.unplug_and_reboot();
        world.is_dead = false;
        world.wait_for("failure", |it| *it == Event::Failed(pending, RequestError::TargetRestarted));
        world.wait_for("restart", |it| matches!(it, Event::Restarted(_)));
        let late = world.host.request(world.now, Manipulate::get_version());
        world.wait_for("refusal", |it| *it == Event::Failed(late, RequestError::NotKnown));
        world.stop_target();
        assert_eq!(world.read(0x4000, 8).unwrap(), memory_at(0x4000, 8));
    }
}

#[test]
fn a_dead_target_ends_a_request_in_bounded_time() {
    let mut world = World::new(6, PERFECT);
    world.attach();
    world.stop_target();
    world.is_dead = true;
    let start = world.now;
    let Err(Event::Failed(_, RequestError::NoAnswer { tries, .. })) = world.read(0x1000, 8) else {
        panic!("a dead target answers nothing");
    };
    let waited = world.now - start;
    assert!((seconds(10)..seconds(11)).contains(&waited), "waited {waited:?}");
    assert!(tries >= 10, "sent {tries} times");
}

#[test]
fn nothing_but_a_break_in_is_sent_to_a_running_target() {
    let mut world = World::new(7, PERFECT);
    world.attach();
    world.run_for(seconds(1));
    let before = world.host_datagrams;
    let Event::Failed(_, error) = world.ask(Manipulate::get_version()) else { panic!("must fail") };
    assert_eq!(error, RequestError::NotKnown, "it has said nothing yet");
    assert_eq!(world.host_datagrams, before);
    assert_eq!(world.executed, []);
}

#[test]
fn a_target_that_is_not_heard_is_not_said_to_run_and_gets_no_break_in() {
    let mut world = World::new(8, PERFECT);
    world.attach();
    world.stop_target();
    world.is_mute = true;
    let start = world.now;
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    let Event::ResumeUnproven { after, tries } = world.leave() else { panic!("nothing was heard") };
    assert_eq!((after, world.now - start), (seconds(15), seconds(15)));
    assert!(tries > 20, "{tries}");
    assert_eq!(world.host.state(), RunState::Unknown);
    let executed: Vec<ApiNumber> = world.executed.iter().map(|it| it.api_number).collect();
    assert_eq!(executed, [ApiNumber::CONTINUE2], "repeated continues meet a running target");
    assert!(world.target.is_running(), "which nobody knows, and nothing undoes");
    world.is_mute = false;
    world.target.print(world.now, Bytes::from_static(b"still alive\n"));
    world.wait_for("late proof", |it| *it == Event::Resumed);
}

#[test]
fn a_lost_acknowledgement_of_a_continue_is_made_good_by_another_stop() {
    let mut world = World::new(16, PERFECT);
    world.attach();
    world.stop_target();
    world.read(0x1000, 8).unwrap();
    world.run_for(seconds(1));
    world.events.clear();
    let start = world.now;
    world.is_mute = true;
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    world.run_for(Duration::from_millis(5));
    assert!(world.target.is_running());
    world.is_mute = false;
    assert!(matches!(world.wait_for("event", |_| true), Event::Stopped(_)), "no Resumed comes first");
    assert_eq!(world.host.state(), RunState::Stopped);
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    world.wait_for("resume", |it| *it == Event::Resumed);
    assert!(world.target.is_running() && !world.host.may_stop_again());
    assert!(world.now - start < seconds(1), "took {:?}", world.now - start);
    world.run_for(seconds(60));
    assert!(world.target.is_running() && world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn a_stop_that_looks_like_the_one_before_is_another_if_the_target_ran_in_between() {
    let mut world = World::new(19, PERFECT);
    world.attach();
    let stop = world.stop_target();
    world.read(0x1000, 8).unwrap();
    world.run_for(seconds(1));
    for round in 0..3 {
        world.events.clear();
        world.is_mute = true;
        world.host.resume(world.now, NtStatus::DBG_CONTINUE);
        world.run_for(Duration::from_millis(1));
        assert!(world.target.is_running(), "round {round}: its word was lost, not the continue");
        world.is_mute = false;
        // The same instruction, by the same thread, on the same processor.
        world.target.stop(world.now, stop.clone());
        assert_eq!(world.wait_for("event", |_| true), Event::Resumed, "round {round}");
        assert!(matches!(world.wait_for("event", |_| true), Event::Stopped(_)), "round {round}");
        assert_eq!(world.read(0x2000 + round, 8).unwrap(), memory_at(0x2000 + round, 8));
    }
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    world.wait_for("resume", |it| *it == Event::Resumed);
    world.run_for(seconds(60));
    assert!(world.target.is_running());
}

#[test]
fn a_target_that_hears_nothing_stays_stopped_and_is_not_said_to_run() {
    let mut world = World::new(17, PERFECT);
    world.attach();
    world.stop_target();
    world.is_deaf = true;
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    assert!(matches!(world.leave(), Event::ResumeUnproven { .. }));
    assert!(world.target.is_stopped() && world.host.state() == RunState::Unknown);
}

#[test]
fn offers_that_said_that_the_target_is_stopped_say_that_it_runs() {
    let mut world = World::new(18, PERFECT);
    world.target.tell_in_debugger();
    world.attach();
    world.stop_target();
    world.run_for(seconds(4));
    world.is_mute = true;
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    world.run_for(Duration::from_millis(5));
    world.is_mute = false;
    world.wait_for("resume", |it| *it == Event::Resumed);
    assert_eq!(world.executed.len(), 1, "no stop was needed");
    assert!(world.target.is_running());
}

#[test]
fn whoever_is_said_to_run_runs_however_bad_the_network() {
    let half = Faults { loss: 0.5, duplicate: 0.1, reorder: 0.2, corrupt: 0.05 };
    let seeds = std::env::var("VERIKD_SEEDS").map_or(40, |it| it.parse().expect("VERIKD_SEEDS is a number"));
    let mut unproven = 0;
    for seed in 0..seeds {
        let mut world = World::new(seed, half);
        world.attach();
        for round in 0..5 {
            world.stop_target();
            world.host.resume(world.now, NtStatus::DBG_CONTINUE);
            if world.leave() != Event::Resumed {
                unproven += 1;
                continue;
            }
            world.run_until(Duration::from_millis(100), |_| false);
            assert!(world.target.is_running(), "seed {seed} round {round}: stopped");
            assert!(
                !world.events.iter().any(|it| matches!(it, Event::Stopped(_))),
                "seed {seed} round {round}: stopped again"
            );
        }
    }
    assert!(unproven * 50 <= seeds * 5, "{unproven} of {} resumes are unproven", seeds * 5);
}

#[test]
fn a_new_debugger_takes_over_from_one_that_died_with_a_reply_pending() {
    let mut world = World::new(9, PERFECT);
    world.attach();
    world.stop_target();
    world.host.request(world.now, Manipulate::read_virtual(VirtAddr(0x1000), 64));
    // The request arrives, and its host dies before the reply does.
    world.run_for(Duration::from_micros(600));
    world.host = host_link(77);
    world.attach();
    world.stop_target();
    assert_eq!(world.read(0x7000, 64).unwrap(), memory_at(0x7000, 64));
}

#[test]
fn a_session_that_another_debugger_keyed_away_is_won_back() {
    let mut world = World::new(14, PERFECT);
    world.attach();
    world.run_for(seconds(4));
    let first = std::mem::replace(&mut world.host, host_link(78));
    world.attach();
    world.run_for(seconds(1));
    world.host = first;
    world.stop_target();
    assert_eq!(world.read(0x9000, 64).unwrap(), memory_at(0x9000, 64));
}

#[test]
fn a_slow_search_is_repeated_seldom_while_the_target_works_and_done_once() {
    let mut world = World::new(10, PERFECT);
    world.attach();
    world.stop_target();
    world.execution = seconds(5);
    let search = Manipulate::search_memory(VirtAddr(0x1000), 0x10_0000, Bytes::from_static(b"12345678"));
    let Event::Replied(..) = world.ask(search) else { panic!("the search is answered") };
    assert!(world.host.counters().retransmissions <= 6, "{}", world.host.counters().retransmissions);
    assert_eq!(world.executed.len(), 1);
    let start = world.now;
    assert_eq!(world.read(0x1000, 8).unwrap(), memory_at(0x1000, 8));
    assert!(world.now - start < seconds(6), "took {:?}", world.now - start);
}

#[test]
fn a_lost_reply_of_a_search_is_asked_for() {
    let mut world = World::new(26, PERFECT);
    world.attach();
    world.stop_target();
    world.execution = Duration::from_millis(5);
    let search = || Manipulate::search_memory(VirtAddr(0x1000), 0x1000, Bytes::from_static(b"12345678"));
    for _ in 0..10 {
        world.ask(search());
    }
    let start = world.now;
    let id = world.host.request(world.now, search());
    world.run_for(Duration::from_millis(2));
    world.is_mute = true;
    world.run_for(Duration::from_millis(5));
    world.is_mute = false;
    world.wait_for("reply", |it| matches!(it, Event::Replied(reply, _) if *reply == id));
    let took = world.now - start;
    assert!(took < Duration::from_millis(30), "took {took:?}; the target itself repeats after 500 ms");
}

#[test]
fn break_ins_and_reads_recover_in_a_few_round_trips() {
    // A round trip is 1 ms. Break-ins are repeated after 25 ms, since targets look for them at the ticks of their clock.
    for (loss, slowest_of_a_hundred) in [(0.01, 60), (0.05, 260)] {
        let mut took = Vec::new();
        for seed in 0..10 {
            let mut world = World::new(seed, Faults { loss, ..PERFECT });
            world.attach();
            for round in 0..20 {
                world.run_for(Duration::from_millis(500));
                let start = world.now;
                world.stop_target();
                took.push(world.now - start);
                let start = world.now;
                assert_eq!(world.read(round, 8).unwrap(), memory_at(round, 8));
                took.push(world.now - start);
                world.host.resume(world.now, NtStatus::DBG_CONTINUE);
                assert_eq!(world.leave(), Event::Resumed);
                assert!(world.target.is_running());
            }
            assert!(!world.events.iter().any(|it| matches!(it, Event::Stopped(_))), "a stop follows a stop");
        }
        took.sort();
        let slow = took[took.len() * 99 / 100];
        assert!(slow < Duration::from_millis(slowest_of_a_hundred), "loss {loss}: {slow:?}");
    }
}

#[test]
fn a_prompt_is_shown_and_answered() {
    let mut world = World::new(11, BAD);
    world.attach();
    world.run_until(seconds(1), |world| world.target.is_running());
    let mut prompt = DebugIo::print(Bytes::from_static(b"Break, Ignore (bi)?"));
    prompt.api_number = DebugIoApi::GET_STRING;
    prompt.length_of_string_read = 2;
    world.target.ask(world.now, &Payload::DebugIo(prompt.clone()));
    let Event::Prompt(shown) = world.wait_for("prompt", |it| matches!(it, Event::Prompt(_))) else {
        unreachable!()
    };
    assert_eq!(shown.text, prompt.text);
    world.host.answer_prompt(world.now, &shown, Bytes::from_static(b"ignore"));
    assert!(world.run_until(seconds(10), |world| !world.prompt_answers.is_empty()));
    assert_eq!(world.prompt_answers, [Bytes::from_static(b"ig")], "cut to the room that the target has");
}

#[test]
fn a_target_whose_debugger_is_gone_runs_on_after_a_few_tries() {
    let mut world = World::new(15, PERFECT);
    world.attach();
    world.run_until(seconds(1), |world| world.target.is_running());
    world.host = host_link(79);
    world.is_dead = true;
    world.target.print(world.now, Bytes::from_static(b"anybody?\n"));
    assert!(!world.target.is_running(), "a print holds the machine");
    world.run_for(seconds(3));
    assert!(world.target.is_running());
    world.target.print(world.now, Bytes::from_static(b"nobody\n"));
    assert!(world.target.is_running(), "what nobody hears is not waited for again");
}

#[test]
fn a_second_machine_behind_the_targets_address_is_told_of_and_takes_nothing() {
    let from = address("192.168.2.72:50001");
    for is_first in [true, false] {
        // It offers itself before the first is proven, or while that works.
        let mut world = World::new(19, PERFECT);
        if is_first {
            world.run_for(Duration::from_micros(400));
            world.add_second(from, 99);
        }
        world.attach();
        let peer = world.host.peer();
        world.stop_target();
        world.add_second(from, 99);
        for round in 0..10 {
            world.run_for(seconds(5));
            assert_eq!(world.read(round, 8).unwrap(), memory_at(round, 8));
        }
        assert_eq!(world.host.peer(), peer);
        world.host.resume(world.now, NtStatus::DBG_CONTINUE);
        world.run_for(seconds(20));
        assert_eq!(world.events.last(), Some(&Event::Resumed));
        let told = world.log.iter().filter(|it| **it == Event::SecondTarget { address: from }).count();
        assert_eq!(told, 1);
        assert!(world.target.is_running());
    }
}

#[test]
fn a_target_that_restarts_behind_another_port_is_known_when_the_first_is_silent() {
    for (port, within) in [("192.168.2.72:50000", 1), ("192.168.2.72:50001", 11)] {
        let mut world = World::new(20, PERFECT);
        world.attach();
        world.stop_target();
        let start = world.now;
        world.target_address = address(port);
        world.unplug_and_reboot();
        world.wait_for("restart", |it| matches!(it, Event::Restarted(_)));
        assert!(world.now - start < seconds(within), "took {:?}", world.now - start);
        world.stop_target();
        assert_eq!(world.read(0x4000, 8).unwrap(), memory_at(0x4000, 8));
    }
}

#[test]
fn a_machine_that_went_back_to_an_earlier_state_is_found_again() {
    let mut world = World::new(21, PERFECT);
    let config = TargetConfig { key: key(), version: 5, address: address(TARGET), host: address(HOST) };
    let twin = |now| TargetLink::new(now, config.clone(), Box::new(common::net::Chance::new(7)));
    world.target = twin(world.now);
    world.attach();
    world.run_for(seconds(60));
    // The same random, and a counter that was seen long ago.
    world.is_dead = true;
    world.run_for(seconds(20));
    world.is_dead = false;
    world.target = twin(world.now);
    let start = world.now;
    world.stop_target();
    assert!(world.now - start < seconds(5), "took {:?}", world.now - start);
    assert_eq!(world.read(0x4000, 8).unwrap(), memory_at(0x4000, 8));
}

#[test]
fn replayed_offers_disturb_nothing_and_are_no_sign_of_life() {
    let mut world = World::new(22, PERFECT);
    let mut offers = Vec::new();
    let mut datagram = BytesMut::new();
    // What an observer has recorded of an earlier boot and of this one.
    for _ in 0..4 {
        world.target.handle_timeout(world.target.poll_timeout().unwrap());
        while world.target.poll_transmit(&mut datagram).is_some() {
            offers.push(datagram.to_vec());
        }
    }
    world.target.reboot(world.now);
    world.attach();
    world.stop_target();
    let (peer, events) = (world.host.peer(), world.events.clone());
    for round in 0..20 {
        for offer in &offers {
            let _ = world.host.handle_datagram(world.now, address(TARGET), offer);
        }
        assert_eq!(world.read(round, 8).unwrap(), memory_at(round, 8));
    }
    assert_eq!((world.host.peer(), &world.events), (peer, &events));
    world.is_mute = true;
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    for _ in 0..100 {
        world.run_for(Duration::from_millis(150));
        for offer in &offers {
            let _ = world.host.handle_datagram(world.now, address(TARGET), offer);
        }
    }
    world.wait_for("end", |it| matches!(it, Event::ResumeUnproven { .. }));
    assert!(world.target.is_running(), "no break-in was sent to a target that was not heard");
}

#[test]
fn nothing_that_was_recorded_of_a_target_is_taken_twice_within_or_across_keys() {
    let mut world = World::new(27, PERFECT);
    for boot in 0..3 {
        world.attach();
        for round in 0..70 {
            if round % 35 == 0 {
                world.stop_target();
            }
            world.read(round, 8).unwrap();
            if round % 35 == 34 {
                world.host.resume(world.now, NtStatus::DBG_CONTINUE);
                world.wait_for("resume", |it| *it == Event::Resumed);
            }
        }
        world.run_for(seconds(1));
        let (told, state) = (world.log.len(), world.host.state());
        let recorded: Vec<_> = world.record.iter().filter(|it| it.1 == address(HOST)).cloned().collect();
        for (from, _, datagram) in &recorded {
            let taken = world.host.handle_datagram(world.now, *from, datagram);
            // An offer of an earlier boot is answered, and that is all.
            assert!(taken.is_err() || datagram[5] & 1 == 1, "boot {boot}: a datagram was taken again");
        }
        world.run_for(seconds(1));
        assert_eq!((world.log.len(), world.host.state()), (told, state), "boot {boot}");
        assert!(world.target.is_running());
        world.unplug_and_reboot();
        world.wait_for("restart", |it| matches!(it, Event::Restarted(_)));
        world.host.break_in(world.now);
        world.wait_for("stop", |it| matches!(it, Event::Stopped(_)));
        world.host.resume(world.now, NtStatus::DBG_CONTINUE);
        world.wait_for("resume", |it| *it == Event::Resumed);
        world.events.push(Event::Connected(world.host.peer().unwrap()));
    }
}

#[test]
fn offers_of_unknown_lengths_are_answered_and_told_or_named() {
    let control = key().control_cipher();
    for len in [34, 35, 88, 360, 408] {
        let mut world = World::new(23, PERFECT);
        let mut body = vec![1; len];
        body[2..].fill(7);
        let offer = Datagram {
            version: 9,
            flags: Flags::CONTROL,
            direction: Direction::TargetToHost,
            sequence: 3,
            body: body.into(),
        };
        let from = address(TARGET);
        world.host.handle_datagram(world.now, from, &offer.seal(&control)).unwrap();
        assert_eq!(world.host.poll_event(), Some(Event::ForeignOffer { address: from, version: 9, len }));
        let mut datagram = BytesMut::new();
        assert_eq!(world.host.poll_transmit(&mut datagram), Some(from));
        let response = Envelope::parse(&datagram).unwrap().open(&control).unwrap();
        assert_eq!((response.version, response.sequence, &response.body[..2]), (9, 3, &[1, 2][..]));
        assert_eq!(response.body[2..34], [7; 32]);
    }
    let mut world = World::new(24, PERFECT);
    let (direction, body) = (Direction::TargetToHost, Bytes::from_static(&[1, 1, 0]));
    let offer = Datagram { version: 9, flags: Flags::CONTROL, direction, sequence: 3, body };
    let error = world.host.handle_datagram(world.now, address(TARGET), &offer.seal(&control));
    assert_eq!(error, Err(DatagramError::ShortOffer { version: 9, len: 3 }));
}

#[test]
fn a_target_known_by_its_address_alone_can_be_asked_for_an_offer() {
    let mut world = World::new(25, PERFECT);
    world.is_mute = true;
    world.run_for(Duration::from_millis(10));
    world.is_mute = false;
    world.host.poke(address(TARGET), 5);
    world.attach();
    assert!(world.now - world.start < Duration::from_millis(100), "the next offer was due in 3 s");
}

#[test]
fn a_wrong_key_is_noticed() {
    let mut world = World::new(12, PERFECT);
    let other: Key = "1.2.3.5".parse().unwrap();
    world.host = HostLink::new(LinkConfig::new(other), Box::new(common::net::Chance::new(1)));
    world.run_for(seconds(7));
    assert_eq!(world.events, []);
    let counters = world.host.counters();
    assert_eq!((counters.not_authentic, counters.datagrams_received), (3, 0), "offers at 0, 3 and 6 s");
}

#[test]
fn strangers_and_replays_are_dropped_with_a_reason() {
    let mut world = World::new(13, PERFECT);
    world.attach();
    let stranger = address("10.0.0.9:1");
    let drop =
        |world: &mut World, bytes: &[u8]| world.host.handle_datagram(world.now, stranger, bytes).unwrap_err();
    assert_eq!(drop(&mut world, b"hello"), DatagramError::Length(5));
    assert_eq!(drop(&mut world, &[0; 54]), DatagramError::Signature);
    assert_eq!(
        drop(&mut world, &[b"MDBG\x05\x00".as_slice(), &[7; 48]].concat()),
        DatagramError::NotAuthentic
    );
    assert_eq!(world.host.counters().dropped, 2);
}

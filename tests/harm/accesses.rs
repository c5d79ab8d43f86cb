//! `ba` and conditions: the machine stops for an access, by debug registers; nothing is written to its code, and whatever ends the
//! session leaves no register that watches and lets the machine run; signals and a suspension are tried with `breakpoints`.

use std::time::Duration;

use verikd_sim::windows::Stop;
use verikd_sim::{AtBoot, Faults, MachineState, SimulatorEvent};

use crate::field::{Debugger, Ended, PATIENCE, cut, debugging, is_left_in_peace, runs};

const OFTEN: Duration = Duration::from_millis(60);
/// Counts allocations of verified drivers.
const INDEX: &str = "nt!VfPoolTracesIndex";

fn said(ended: &Ended, wanted: &str) -> usize {
    ended.err.matches(wanted).count()
}

#[test]
fn it_stops_before_an_instruction_and_behind_a_write_and_its_code_is_not_touched() {
    for faults in [Faults::default(), Faults { loss: 0.05, seed: 11, ..Faults::default() }] {
        let commands = format!(
            "ba e1 nt!ExAllocatePoolWithTag \"kc 1\"; ba w 4 {INDEX}; bl; g; g; g; g; bl; bc 0; \
             g; ? wo({INDEX}); g; ? wo({INDEX}); bc *; bl; .echo END"
        );
        let (debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, faults);
        let ended = debugger.finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        // Each block that is taken enters the routine, then is counted; one that is given back is counted too.
        let (entered, counted) = (said(&ended, "Breakpoint 0 hit"), said(&ended, "Breakpoint 1 hit"));
        assert!(entered > 0 && counted > 2 && entered + counted == 6, "{ended:#?}");
        assert_eq!(ended.out.matches("00 nt!ExAllocatePoolWithTag\n").count(), entered, "{ended:#?}");
        let behind = ["nt!ExAllocatePoolWithTag+0x891:", "nt!ExFreePoolWithTag+0x1b4:"];
        assert_eq!(behind.iter().map(|at| said(&ended, at)).sum::<usize>(), counted, "{ended:#?}");
        let values: Vec<u64> = ended
            .out
            .lines()
            .filter_map(|line| line.strip_prefix("Evaluate expression: ")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!((values.len(), values[1] - values[0]), (2, 1), "no event is missed: {ended:#?}");
        let lists: Vec<_> = ended.out.lines().filter(|line| line.contains("Clear  ")).collect();
        assert_eq!(lists.len(), 4, "{lists:?}");
        assert!(lists[0].contains(" e 1 0001 (0001) nt!ExAllocatePoolWithTag"), "{lists:?}");
        assert!(lists[1].contains(" w 4 0001 (0001) nt!VfPoolTracesIndex"), "{lists:?}");
        assert_eq!(target.written(), 0, "nothing is in its memory");
        is_left_in_peace(&target, &ended);
    }
}

/// A register stops the machine before the instruction that the breakpoint is: it has come by both.
#[test]
fn a_register_and_a_breakpoint_at_one_address_are_both_met() {
    // The third parameter of the routine is the tag.
    let commands = "ba e1 /w \"0\" nt!ExAllocatePoolWithTag; bp /w \"@r8 == 0x6b61654c\" nt!ExAllocatePoolWithTag; \
                    g; r r8; g; bd 1; g nt!ExAllocatePoolWithTag; r rip; be 1; bp nt!ExAllocatePoolWithTag 3; bl; g; .echo END";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 1 hit"), 3, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 0 hit"), 0, "{ended:#?}");
    assert!(ended.out.contains("r8=000000006b61654c"), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_condition_lets_it_pass_where_it_does_not_hold_and_stops_it_where_nobody_knows() {
    let commands = format!(
        "bp /w \"(by({INDEX}) & 3) == 1\" nt!ExAllocatePoolWithTag; g; ? by({INDEX}) & 3; g; ? by({INDEX}) & 3; bl; bc *; \
         ba w 4 /w \"(by({INDEX}) & 3) == 2\" {INDEX}; g; ? by({INDEX}) & 3; bc *; \
         bp /w \"poi(0)\" nt!ExAllocatePoolWithTag; g; .echo END"
    );
    let (debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    let values: Vec<_> = ended.out.lines().filter(|line| line.starts_with("Evaluate expression: ")).collect();
    assert_eq!(values.len(), 3, "{ended:#?}");
    assert!(values[..2].iter().all(|line| line.contains("expression: 1 =")), "{values:?}");
    assert!(values[2].contains("expression: 2 ="), "{values:?}");
    assert!(ended.out.contains("ExAllocatePoolWithTag /w \"(by("), "{ended:#?}");
    assert_eq!(said(&ended, "Whether the condition of breakpoint 0 holds is not known"), 1, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 0 hit"), 4, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn steps_and_registers_go_together() {
    let commands = "ba e 1 nt!ExAllocatePoolWithTag 2; g; t; t; r rip; bl; gu; .echo END";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 0 hit"), 1, "its second pass: {ended:#?}");
    assert!(ended.out.contains(" e 1 0001 (0002) nt!ExAllocatePoolWithTag"), "{ended:#?}");
    assert_eq!(said(&ended, "nt!ExAllocatePoolWithTag:"), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let commands = "ba; ba x1 nt; ba e4 nt; ba w3 nt; ba w 8 nt+4; ba i4 60; ba w4\n\
                    ba w1 nt; ba w1 nt+1; ba r1 nt+2; ba e1 nt!KeBugCheckEx; ba w1 nt+5; ba w1 nt; bl";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], Duration::ZERO, Faults::default());
    let ended = debugger.finish();
    for wanted in [
        "which access: e, w or r",
        "`x` is none of the accesses",
        "`4` is no size that e has: 1",
        "`3` is no size that w has: 1, 2, 4 or 8",
        "is no multiple of 8",
        "`i` is none of the accesses e, w and r; ports are not watched",
        "an address is missing",
        "all 4 debug registers are in use",
        "breakpoint 0 redefined",
    ] {
        assert_eq!(said(&ended, wanted), 1, "{wanted}: {ended:#?}");
    }
    assert_eq!(ended.out.lines().filter(|line| line.contains("Clear  ")).count(), 4, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_new_boot_has_none_until_it_is_let_run() {
    let options = ["-b", "--reattach", "-c", "ba w4 nt!KiBugCheckData; g; bl; g; .echo END"];
    let (mut debugger, target, _) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    assert!(target.wait_for(MachineState::Running, PATIENCE));
    assert_eq!(target.debug_registers(), 1);
    target.reboot(AtBoot::Runs);
    debugger.wait_for("0: kd> bl");
    debugger.wait_for("Waiting for the target to stop by itself");
    assert!(target.wait_for(MachineState::Running, PATIENCE));
    assert_eq!(target.debug_registers(), 1, "by its name");
    debugger.signal("INT");
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// It stops for the register that the dead one has left, and whoever attaches switches that off by letting it run.
#[test]
fn a_killed_debugger_s_are_told_and_gone_with_the_next_one() {
    let options = ["-b", "-c", &format!("ba w4 {INDEX} 7fffffff; g")];
    let (mut debugger, target, port) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    debugger.signal("KILL");
    drop(debugger);
    assert!(target.wait_for(MachineState::Stopped, PATIENCE), "at the next block");
    let ended = Debugger::start(port, &["-b", "-c", "k 1"]).finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(said(&ended, "a debug register that nobody here has set"), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn of_a_lost_machine_it_is_said_what_stays_and_the_next_attach_switches_it_off() {
    let options =
        ["-b", "--leave-timeout", "3s", "--break-timeout", "3s", "-c", "ba w4 nt!KiBugCheckData; g; k"];
    let (mut debugger, target, port) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    target.set_faults(cut(), cut());
    debugger.signal("TERM");
    let ended = debugger.finish();
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert!(said(&ended, "its debug registers still watch fffff800") > 0, "{ended:#?}");
    assert_eq!(target.debug_registers(), 1);
    target.set_faults(Faults::default(), Faults::default());
    let next = Debugger::start(port, &["-b", "-c", "q"]).finish();
    assert_eq!(next.code, 0, "{next:#?}");
    is_left_in_peace(&target, &next);
}

/// The link lets it run by itself for each driver that is loaded.
#[test]
fn a_driver_that_is_loaded_meanwhile_switches_none_off() {
    let (mut debugger, target, _) =
        debugging(&["-b", "-c", "ba w4 nt!KiBugCheckData; g; k"], Duration::ZERO, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    assert!(runs(&target));
    while target.next_event(Some(Duration::ZERO)).is_some() {}
    for _ in 0..2 {
        target.stop_with(Stop::LoadSymbols);
        while target.next_event(Some(PATIENCE)).expect("it runs again") != SimulatorEvent::Resumed {}
        assert!(runs(&target));
        assert_eq!(target.debug_registers(), 1);
    }
    debugger.signal("INT");
    let ended = debugger.finish();
    is_left_in_peace(&target, &ended);
}

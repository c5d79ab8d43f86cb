//! Breakpoints and steps: the machine stops where it was told to, and whatever ends the session leaves none in its code and lets
//! it run.

use std::time::Duration;

use verikd_sim::{AtBoot, Faults, MachineState, Quirk, Simulator};

use crate::field::{
    Debugger, Ended, PATIENCE, cut, debugger_command, debugging, free_port, is_left_in_peace, leaking,
    leaking_with, runs,
};
use crate::terminal::{CTRL_C, Person};

const OFTEN: Duration = Duration::from_millis(60);

type Unmet = (&'static str, fn(&Simulator) -> usize);

/// Where nobody comes by and nobody writes, and how many of its kind the machine has: it runs on with one in it.
const UNMET: [Unmet; 2] = [
    ("bp nt!KeBugCheckEx", Simulator::breakpoints),
    ("ba w 4 nt!KiBugCheckData", Simulator::debug_registers),
];

fn said<'a>(ended: &'a Ended, wanted: &str) -> Vec<&'a str> {
    ended.err.lines().filter(|line| line.contains(wanted)).collect()
}

#[test]
fn a_breakpoint_stops_it_again_and_again_and_commands_are_run_there() {
    for faults in [Faults::default(), Faults { loss: 0.05, seed: 7, ..Faults::default() }] {
        let commands = "bp nt!ExAllocatePoolWithTag \"kc 2; .echo \\\"a; b\\\"\"; g; g; g; bl; bd 0; bl; be *; bc 0; bl; .echo END";
        let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, faults);
        let ended = debugger.finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        assert_eq!(said(&ended, "Breakpoint 0 hit").len(), 3, "{ended:#?}");
        // The commands are shown where they are run, and the code as the image has it.
        assert_eq!(ended.out.matches("00 nt!ExAllocatePoolWithTag\n").count(), 3, "{ended:#?}");
        assert_eq!(said(&ended, "nt!ExAllocatePoolWithTag:").len(), 3, "{ended:#?}");
        let lists: Vec<_> = ended.out.lines().filter(|line| line.contains("Clear  ")).collect();
        assert!(lists[0].starts_with(" 0 e Disable Clear  fffff800`"), "{lists:?}");
        assert_eq!(ended.out.matches("a; b\n").count(), 3, "{ended:#?}");
        let commands = r#""kc 2; .echo \"a; b\"""#;
        assert!(
            lists[0].ends_with(&format!("     0001 (0001) nt!ExAllocatePoolWithTag {commands}")),
            "{lists:?}"
        );
        assert!(lists[1].starts_with(" 0 d Enable Clear  fffff800`"), "{lists:?}");
        assert_eq!(lists.len(), 2, "{lists:?}");
        is_left_in_peace(&target, &ended);
    }
}

/// `bp nt!X "k; g"`, as everybody uses it, waits at the end of a script, and Ctrl+C ends that.
#[test]
fn commands_that_go_on_go_on_until_ctrl_c() {
    let (mut debugger, target, _) =
        debugging(&["-b", "-c", "bp nt!ExAllocatePoolWithTag \"kc 1; g\"; g"], OFTEN, Faults::default());
    for _ in 0..20 {
        debugger.wait_for("Breakpoint 0 hit");
    }
    debugger.signal("INT");
    let ended = debugger.finish();
    // Within a command it ends the script; while the machine runs it stops that, and there is nothing left to do.
    assert!([0, 130].contains(&ended.code), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// The same behind `head`: nobody is there to press it.
#[test]
fn commands_that_go_on_end_with_whoever_read_them() {
    let port = free_port();
    let script = "bp nt!ExAllocatePoolWithTag \"kc 1; g\"; g; lm";
    let mut debugger = Debugger::spawn(debugger_command(port, &["-b", "-c", script]));
    debugger.wait_for("Waiting for a target");
    let target = leaking(port, OFTEN, Faults::default());
    debugger.wait_for("Breakpoint 0 hit");
    debugger.close_stdout();
    let ended = debugger.finish();
    assert_eq!(ended.code, 141, "{ended:#?}");
    // The commands' own `g` may be left too.
    assert_eq!(said(&ended, "not run: whoever read the answers has gone away").len(), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn passes_are_gone_on_from_and_one_shots_are_gone() {
    let commands =
        "bp nt!ExAllocatePoolWithTag 5; g; bl; bc *; bp /1 nt!ExAllocatePoolWithTag; g; bl; .echo END";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 0 hit").len(), 2, "{ended:#?}");
    let lists: Vec<_> = ended.out.lines().filter(|line| line.contains("Clear  ")).collect();
    assert_eq!(lists.len(), 1, "{lists:?}");
    assert!(lists[0].ends_with("     0001 (0005) nt!ExAllocatePoolWithTag"), "{lists:?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn steps_end_where_they_should_and_show_no_exception() {
    let commands = "g myfault!MyfaultDeviceControl; t; t; gu; r rip; .echo END";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    // Only the break-in is one.
    assert_eq!(said(&ended, "exception - code").len(), 1, "{ended:#?}");
    assert_eq!(said(&ended, "myfault!MyfaultDeviceControl:").len(), 1, "{ended:#?}");
    assert_eq!(said(&ended, "myfault!MyfaultDeviceControl+0x").len(), 2, "{ended:#?}");
    assert_eq!(said(&ended, "myfault!MyfaultDispatch+0xb7:").len(), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// Whoever steps to see whether code comes by a breakpoint is told that it has: by a single step, by several, and by the step that
/// lets the machine off the one where it stands.
#[test]
fn a_breakpoint_that_a_step_comes_to_is_met() {
    let x = "nt!ExAllocatePoolWithTag";
    let commands = format!(
        "bp /1 {x}; g; bp {x}+2 \".echo CODE\"; ba e 1 {x}+3 \".echo REGISTER\"; bp {x}+7 3; bp /1 {x}+9; \
         p 20; .lastevent; t 20; .lastevent; p 20; .lastevent; t 2; .lastevent; bl; bc *; \
         g {x}; bp {x}; bp /w \"0\" {x}+1; bp {x}+2; g; r rip; g {x}+3; r rip; .echo END"
    );
    for faults in [Faults::default(), Faults { loss: 0.05, seed: 12, ..Faults::default() }] {
        let (debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, faults);
        let ended = debugger.finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        let events: Vec<_> = ended.out.lines().filter(|line| line.starts_with("Last event: ")).collect();
        let hit = |number: u32| format!("Last event: Breakpoint {number} hit");
        let step = "Last event: Single step exception - code 80000004 (first chance)";
        let wanted = [&hit(0), &hit(1), &hit(3), step];
        assert!(
            events.len() == 4 && events.iter().zip(wanted).all(|(is, wanted)| is.starts_with(wanted)),
            "{ended:#?}"
        );
        for (word, times) in [("CODE", 1), ("REGISTER", 1)] {
            assert_eq!(ended.out.lines().filter(|line| *line == word).count(), times, "{ended:#?}");
        }
        let list: Vec<_> = ended.out.lines().filter(|line| line.contains("Clear  ")).collect();
        assert!(list.iter().any(|line| line.contains("0002 (0003)")), "one pass is counted: {ended:#?}");
        assert!(!list.iter().any(|line| line.contains("Tag+0x9")), "it was for one stop: {ended:#?}");
        let place = |line: &str| u64::from_str_radix(line.strip_prefix("rip=").unwrap(), 16).unwrap();
        let places: Vec<_> = ended.out.lines().filter(|line| line.starts_with("rip=")).map(place).collect();
        assert_eq!(places[1], places[0] + 1, "{ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

/// Between two steps the machine stands still, and goes on by itself: Ctrl+C is for all of them, and for what stands behind them.
#[test]
fn ctrl_c_ends_steps_and_what_is_behind_them() {
    let port = free_port();
    let mut person = Person::at(port, &["-b"]);
    person.sees("Waiting for a target");
    let target = leaking(port, OFTEN, Faults::default());
    person.sees("kd> ");
    for line in ["t 8000; .echo BEHIND", "bp nt!ExAllocatePoolWithTag \"p 8000; g\"; g"] {
        person.enters(line);
        (0..3).for_each(|_| drop(person.sees("add     byte ptr [rax],al")));
        person.types(CTRL_C);
        person.sees("further steps are not made");
        person.sees("not run: Ctrl+C ended the steps before it");
        person.sees("kd> ");
        assert!(!person.screen().contains("\nBEHIND"), "{}", person.screen());
    }
    person.types("q\r");
    let left = person.leaves();
    assert_eq!(left.code, 0, "{}", left.screen);
    assert!(runs(&target), "left stopped:\n{}", left.screen);
    assert_eq!(target.breakpoints(), 0, "left in it:\n{}", left.screen);

    let script = "bp nt!ExAllocatePoolWithTag \"t 8000; g\"; g; .echo BEHIND";
    let (mut debugger, target, _) = debugging(&["-b", "-c", script], OFTEN, Faults::default());
    debugger.wait_for("Breakpoint 0 hit");
    debugger.wait_for("ExAllocatePoolWithTag+0x");
    debugger.signal("INT");
    let ended = debugger.finish();
    assert_eq!(ended.code, 130, "{ended:#?}");
    assert_eq!(said(&ended, "further steps are not made").len(), 1, "{ended:#?}");
    assert!(!ended.out.contains("BEHIND"), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// A step is over while the last one is still being told: each is shown, whatever else the machine of the tests does.
#[test]
fn all_steps_are_made_and_shown() {
    let commands = "bp /1 nt!ExAllocatePoolWithTag; g; t 400; r rip; .lastevent";
    let run = || {
        let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
        let ended = debugger.finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        let steps: Vec<_> =
            ended.err.lines().filter(|line| line.contains("add     byte ptr [rax],al")).collect();
        assert_eq!(steps.len(), 1 + 0x400, "the breakpoint, and each step");
        let rip = ended.out.lines().find_map(|line| line.strip_prefix("rip=")).unwrap();
        let last = steps.last().unwrap().replace('`', "");
        assert!(last.starts_with(rip), "{rip}, and the last step ended at {last}");
        let event = ended.out.lines().find(|line| line.starts_with("  at ")).unwrap().replace('`', "");
        assert!(event.contains(rip), "{rip}: {event}");
        is_left_in_peace(&target, &ended);
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(run))));
}

#[test]
fn in_json_each_stop_behind_a_command_is_a_line_of_its_own() {
    let commands = "bp /1 nt!ExAllocatePoolWithTag; g; t 2; gu; r rip";
    let (debugger, target, _) = debugging(&["-b", "--json", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    let lines = ended.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> =
        lines.map(|line| (line["command"].clone(), line["answer"]["event"].clone())).collect();
    let step = "Single step exception - code 80000004 (first chance)";
    let wanted = [
        ("bp /1 nt!ExAllocatePoolWithTag", None),
        ("g", None),
        ("(stop)", Some("Breakpoint 0 hit")),
        ("t 2", None),
        ("(stop)", Some(step)),
        ("(stop)", Some(step)),
        ("gu", None),
        ("(stop)", Some("Break instruction exception - code 80000003 (first chance)")),
        ("r rip", None),
    ];
    assert_eq!(lines.len(), wanted.len(), "{ended:#?}");
    for ((command, cause), (wanted, of_stop)) in lines.iter().zip(wanted) {
        assert_eq!((command.as_str(), cause.as_str()), (Some(wanted), of_stop), "{ended:#?}");
    }
    is_left_in_peace(&target, &ended);
}

/// A break-in stands at an `int 3`: a step there goes behind it, and no further.
#[test]
fn a_step_at_an_int3_carries_out_nothing_else_and_several_are_made_one_by_one() {
    for faults in [Faults::default(), Faults { loss: 0.05, seed: 11, ..Faults::default() }] {
        let commands =
            "r rip; ~1s; t\n~0s; t; r rip; g myfault!MyfaultDeviceControl; t 4; r rip; p 2; t 0; .echo END";
        let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, faults);
        let ended = debugger.finish();
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert_eq!(said(&ended, "nt!DbgBreakPointWithStatus+0x1:").len(), 1, "{ended:#?}");
        let rip = |line: &str| u64::from_str_radix(line.strip_prefix("rip=").unwrap(), 16).unwrap();
        let places: Vec<_> = ended.out.lines().filter(|line| line.starts_with("rip=")).map(rip).collect();
        assert_eq!(places[1], places[0] + 1, "{ended:#?}");
        // Each step is shown where it ends.
        let steps = said(&ended, "myfault!MyfaultDeviceControl+0x");
        assert_eq!(steps.len(), 6, "{ended:#?}");
        let mut places: Vec<_> = steps.iter().map(|line| line.rsplit_once("0x").unwrap().1).collect();
        places.dedup();
        assert_eq!(places.len(), 6, "{ended:#?}");
        assert_eq!(said(&ended, "no step is none").len(), 1, "{ended:#?}");
        assert_eq!(said(&ended, "only that one steps: ~0s chooses it again").len(), 1, "{ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

#[test]
fn whatever_else_stops_the_machine_ends_several_steps() {
    // A breakpoint in the way.
    let commands =
        "g myfault!MyfaultDeviceControl; bp @rip+2; t; bl; bc *; bp myfault!MyfaultDispatch+0xb7; gu 3; k 1";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(said(&ended, "Breakpoint 0 hit").len(), 1, "{ended:#?}");
    assert!(ended.out.contains("00 fff"), "{ended:#?}");
    is_left_in_peace(&target, &ended);
    // At the end of a script they are made too.
    let (debugger, target, _) =
        debugging(&["-b", "-c", "g myfault!MyfaultDeviceControl; t 3"], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!((ended.code, said(&ended, "myfault!MyfaultDeviceControl+0x").len()), (0, 3), "{ended:#?}");
    is_left_in_peace(&target, &ended);
    // Ctrl+C.
    let (mut debugger, target, _) = debugging(&["-b", "-c", "t 10000; k 1"], OFTEN, Faults::default());
    debugger.wait_for("nt!DbgBreakPointWithStatus+0x1:");
    debugger.signal("INT");
    let ended = debugger.finish();
    assert!([0, 130].contains(&ended.code), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// Whoever waits for a breakpoint that is not there would wait for ever.
#[test]
fn where_one_cannot_be_set_the_machine_stays_where_it_is() {
    let many: Vec<_> = (0..33).map(|it| format!("bp nt!KeBugCheckEx+{it:x}")).collect();
    let commands =
        format!("g ffff\nr rip\n{}\ng\nr rip\nbc *; g myfault!MyfaultDeviceControl; q", many.join("; "));
    let (debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, Faults::default());
    let ended = debugger.finish();
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert_eq!(said(&ended, "the breakpoint at 000000000000ffff, where it is to stop, is not set").len(), 1);
    // Nothing is mapped where it is to run to, and none was written.
    assert_eq!(said(&ended, "nothing is mapped there, as a read shows").len(), 1, "{ended:#?}");
    assert_eq!(
        said(&ended, "it has room for 32, one at an address; `bd 32` lets the target run without it").len(),
        1
    );
    let lines: Vec<_> = ended
        .err
        .lines()
        .filter(|it| it.contains("Breakpoints are written") || it.ends_with("r rip"))
        .collect();
    assert!(lines.len() == 3 && lines[1].starts_with("Breakpoints are written"), "{ended:#?}");
    assert_eq!(said(&ended, "myfault!MyfaultDeviceControl:").len(), 1, "{ended:#?}");
    let places: Vec<_> = ended.out.lines().filter(|line| line.starts_with("rip=")).collect();
    assert!(places.len() == 2 && places[0] == places[1], "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// It falls silent while they are set: those of whose requests nothing is known are not told to be there, and nothing that could be
/// typed helps.
#[test]
fn of_a_machine_that_no_longer_answers_it_is_not_said_that_a_breakpoint_is_in_it() {
    let many: Vec<_> = (0..12).map(|it| format!("bp nt!KeBugCheckEx+{it:x}")).collect();
    let commands = format!("{}; g", many.join("; "));
    let port = free_port();
    let timeouts = ["--request-timeout", "2s", "--leave-timeout", "2s"];
    let mut debugger = Debugger::start(port, &[&["-b", "-c", &commands][..], &timeouts].concat());
    debugger.wait_for("Waiting for a target");
    let _target = leaking_with(port, Duration::ZERO, Faults::default(), [Quirk::SilentAfterBreak].into());
    let ended = debugger.finish();
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert_eq!(said(&ended, "whether it is set is not known").len(), 1, "{ended:#?}");
    assert_eq!(said(&ended, "lets the target run without it"), [""; 0], "{ended:#?}");
    let warned = said(&ended, "WARNING");
    let (written, doubtful) = warned[0].split_once("breakpoints may be in its code (").expect("it warns");
    assert!(written.contains("breakpoints are still in its code (fffff800"), "{ended:#?}");
    assert!(doubtful.starts_with("fffff800"), "{ended:#?}");
}

/// With memory integrity the target takes a breakpoint and writes nothing; a debug register needs no code.
#[test]
fn of_code_that_cannot_be_written_it_is_said_that_the_breakpoint_is_not_there() {
    let commands = "ba e 1 nt!ExAllocatePoolWithTag; bp nt!ExAllocatePoolWithTag; bp nt!ExAllocatePoolWithTag+1; g; kc 1; t; \
         bd 0; bc 2; g; .echo END";
    let port = free_port();
    let mut debugger = Debugger::start(port, &["-b", "-c", commands, "--stop-timeout", "2s"]);
    debugger.wait_for("Waiting for a target");
    let target = leaking_with(port, OFTEN, Faults::default(), [Quirk::ProtectedCode].into());
    let ended = debugger.finish();
    assert_eq!(said(&ended, "its code there has not changed").len(), 2, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 0 hit").len(), 1, "{ended:#?}");
    assert_eq!(said(&ended, "Breakpoint 2 hit").len(), 1, "a step needs no byte: {ended:#?}");
    assert_eq!(said(&ended, ".echo END: not run: the target did not stop by itself").len(), 1, "{ended:#?}");
    assert_eq!((ended.code, target.written()), (1, 0), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_name_that_nothing_has_yet_is_kept_and_nonsense_is_told() {
    let commands = "bu nosuch!Driver; bl; bp; bp 1 0; bp /w; bc 7; bd x; bp nt \".if (1) { g }\"; bp nt!Ex*; ba e\n\
                    bp nt 'k'; bp /w \"foo == 1\" nt; bp /w \"@r99 == 1\" nt\nbp nt \"nosuch; g\"; bp \"nt\"; bp nt \"\n\
                    bp nt \"k; g\nbp /w \"@r8 == 1 nt\ng nosuch!x\nt -1\ngu 10001\nbc *; bl; q";
    let (debugger, target, _) = debugging(&["-b", "-c", commands], Duration::ZERO, Faults::default());
    let ended = debugger.finish();
    assert!(
        ended.out.contains("Bp expression 'nosuch!Driver' could not be resolved, adding deferred bp"),
        "{ended:#?}"
    );
    assert!(
        ended.out.contains(" 0 eu Disable Clear  ") && ended.out.contains("(nosuch!Driver)"),
        "{ended:#?}"
    );
    for wanted in [
        "an address is missing",
        "t: 0xffffffffffffffff is no number of steps: 1 to 0x10000",
        "gu: 0x10001 is no number of steps: 1 to 0x10000",
        "0x0 is no number of passes",
        "/w needs a condition in quotes",
        "there is no breakpoint with such a number",
        "`x` is no number of a breakpoint",
        "/w \"CONDITION\" stops only where it holds",
        "The breakpoint is not set, because its commands are refused: .if decides which commands are run",
        "The breakpoint is not set, because its commands are refused: unknown command nosuch",
        "bp: what stands in quotes is commands",
        "bp: the quote of the condition is not closed",
        "a pattern is no address",
        "how many bytes: ba e 1 ADDRESS",
        "commands stand in double quotes",
        "no module is called foo",
        "no register has this name",
        "no module called nosuch is loaded",
    ] {
        assert_eq!(said(&ended, wanted).len(), 1, "{wanted}: {ended:#?}");
    }
    assert_eq!(said(&ended, "bp: the quote of the commands is not closed").len(), 2, "{ended:#?}");
    // The rest of the line of the breakpoint that is refused is run.
    assert_eq!(said(&ended, "Nothing of this line was run"), [""; 0], "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn whoever_is_told_to_end_takes_them_out_of_a_running_machine_too() {
    for ((command, armed), (signal, code)) in
        UNMET.into_iter().flat_map(|kind| [("INT", 0), ("TERM", 143), ("HUP", 129)].map(|it| (kind, it)))
    {
        // Ctrl+C stops it for the rest of the script.
        let commands = format!("{command}; g; k");
        let (mut debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, Faults::default());
        debugger.wait_for("Waiting for the target to stop by itself");
        assert!(target.wait_for(MachineState::Running, PATIENCE));
        assert_eq!(armed(&target), 1, "{command}");
        // A debug register is in no memory.
        assert_eq!(target.written(), target.breakpoints() as u64, "{command}");
        debugger.signal(signal);
        let ended = debugger.finish();
        assert_eq!(ended.code, code, "{command}, SIG{signal}: {ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

#[test]
fn a_new_boot_has_none_until_it_is_let_run() {
    let options = ["-b", "--reattach", "-c", "bp nt!KeBugCheckEx; bp fffff800014846b0; g; bl; g; .echo END"];
    let (mut debugger, target, _) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    target.reboot(AtBoot::Runs);
    debugger.wait_for("is of an earlier boot");
    debugger.wait_for("Waiting for the target to stop by itself");
    assert_eq!(target.breakpoints(), 1, "by its name");
    debugger.signal("INT");
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(ended.out.contains(" 1 eu Disable Clear  "), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_killed_debugger_s_are_told_and_taken_out_by_the_next_one() {
    let options = ["-b", "-c", "bp nt!KeBugCheckEx; bp nt!ExAllocatePoolWithTag; g; g; k"];
    let (mut debugger, target, port) = debugging(&options, Duration::from_millis(800), Faults::default());
    debugger.wait_for("Breakpoint 1 hit");
    debugger.wait_for("Waiting for the target to stop by itself");
    debugger.signal("KILL");
    drop(debugger);
    let ended = Debugger::start(port, &["-b", "-c", ".lastevent; q"]).finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    // It may have been broken into before anybody came by: then nobody knows of them yet, and the next stop shows them.
    let ended = if said(&ended, "that nobody here has set").is_empty() {
        assert!(target.wait_for(MachineState::Stopped, PATIENCE), "{ended:#?}");
        Debugger::start(port, &["-b", "-c", "q"]).finish()
    } else {
        ended
    };
    assert_eq!(said(&ended, "left 2 in its code").len(), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// Nobody comes by there: whoever attaches next looks for what was left before it lets the machine run.
#[test]
fn a_killed_debugger_s_that_nobody_has_met_are_taken_out_too() {
    let options = ["-b", "-c", "bp nt!KeBugCheckEx; bp nt!KeBugCheck; g; k"];
    let (mut debugger, target, port) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    assert!(target.wait_for(MachineState::Running, PATIENCE));
    debugger.signal("KILL");
    drop(debugger);
    assert_eq!(target.breakpoints(), 2);
    let ended = Debugger::start(port, &["-b", "-c", "q"]).finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(said(&ended, "left 2 breakpoints in its code").len(), 1, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn of_a_lost_machine_it_is_said_what_stays_and_the_next_attach_clears_it() {
    let options = ["-b", "--leave-timeout", "3s", "--break-timeout", "3s", "-c", "bp nt!KeBugCheckEx; g; k"];
    let (mut debugger, target, port) = debugging(&options, OFTEN, Faults::default());
    debugger.wait_for("Waiting for the target to stop by itself");
    target.set_faults(cut(), cut());
    debugger.signal("TERM");
    let ended = debugger.finish();
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert_eq!(said(&ended, "WARNING").len(), 1, "{ended:#?}");
    assert_eq!(said(&ended, "breakpoints are still in its code (fffff800").len(), 1, "{ended:#?}");
    assert_eq!(target.breakpoints(), 1);
    target.set_faults(Faults::default(), Faults::default());
    // What was left has all of its slots to itself: the next one who sets that breakpoint is refused, and clears it.
    let next =
        Debugger::start(port, &["-b", "-c", "bp nt!KeBugCheckEx; g nt!ExAllocatePoolWithTag; q"]).finish();
    assert_eq!(next.code, 0, "{next:#?}");
    is_left_in_peace(&target, &next);
}

#[test]
fn a_suspended_debugger_leaves_none() {
    for (command, armed) in UNMET {
        let commands = format!("{command}; g; .echo END");
        let (mut debugger, target, _) = debugging(&["-b", "-c", &commands], OFTEN, Faults::default());
        debugger.wait_for("Waiting for the target to stop by itself");
        debugger.signal("TSTP");
        debugger.is_suspended();
        assert_eq!(armed(&target), 0, "{command}");
        assert!(target.wait_for(MachineState::Running, PATIENCE));
        debugger.signal("CONT");
        debugger.signal("TERM");
        let ended = debugger.finish();
        is_left_in_peace(&target, &ended);
    }
}

/// The machine goes on printing as it is let run; whoever has pressed Ctrl+Z does not wait for that, and is not left with a program
/// that stands still if he has thought better of it.
#[test]
fn what_is_said_while_it_suspends_itself_is_heeded() {
    for signals in [&["TSTP", "TERM"][..], &["TSTP", "CONT", "TERM"]] {
        let options = ["-b", "-c", "bp nt!KeBugCheckEx; g; k"];
        let (mut debugger, target, _) = debugging(&options, OFTEN, Faults::default());
        debugger.wait_for("Waiting for the target to stop by itself");
        assert!(target.wait_for(MachineState::Running, PATIENCE));
        signals.iter().for_each(|signal| debugger.signal(signal));
        let ended = debugger.finish();
        assert_eq!(ended.code, 143, "{signals:?}: {ended:#?}");
        assert!(ended.after < Duration::from_secs(8), "{signals:?}: {ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

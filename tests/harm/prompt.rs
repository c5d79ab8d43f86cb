//! The prompt on a real terminal: whoever sits there, whatever the machine does meanwhile, and however he leaves.

use std::sync::Arc;
use std::time::Duration;

use verikd_sim::windows::{Build, Chance, Stop};
use verikd_sim::{AtBoot, Faults, MachineState, Quirk, Simulator, SimulatorConfig};

use crate::field::{self, Debugger, cut, free_port, machine, runs};
use crate::terminal::{CTRL_C, CTRL_D, CTRL_Z, Desk, Left, Person};

/// A log that takes half a minute to read over this network.
const LONG: &str = "!verifier 80 0n4000";
const RUNNING: &str = "The target is running; Ctrl+C breaks in";
const ASSERTION: &str = "\n*** Assertion failed: Irql == PASSIVE_LEVEL\n\n\
     Break repeatedly, break Once, Ignore, terminate Process, or terminate Thread (boipt)? ";

fn slow() -> Faults {
    Faults { round_trip: Duration::from_millis(10), ..Faults::default() }
}

/// A person at the prompt of a stopped machine.
fn at_the_stopped_prompt(options: &[&str]) -> (Person, Simulator) {
    at_the_stopped_prompt_over(Faults::default(), options)
}

fn at_the_stopped_prompt_over(network: Faults, options: &[&str]) -> (Person, Simulator) {
    let port = free_port();
    let mut person = Person::at(port, &[&["-b"], options].concat());
    person.sees("Waiting for a target");
    let target = machine(port, network);
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    (person, target)
}

/// A person who is told that the machine runs.
fn at_a_running_machine(options: &[&str]) -> (Person, Simulator) {
    at_a_running_machine_of(free_port(), options)
}

fn at_a_running_machine_of(port: u16, options: &[&str]) -> (Person, Simulator) {
    let mut person = Person::at(port, options);
    person.sees("Waiting for a target");
    let target = machine(port, Faults::default());
    person.sees(RUNNING);
    assert!(runs(&target));
    (person, target)
}

fn is_out(left: &Left, code: i32, target: &Simulator) {
    assert_eq!(left.code, code, "{}", left.screen);
    assert!(left.after < Duration::from_secs(20), "took {:?}:\n{}", left.after, left.screen);
    assert!(runs(target), "left stopped:\n{}", left.screen);
}

/// Ends the session; the machine runs.
fn quits(person: Person, target: &Simulator) {
    quits_with(0, person, target);
}

/// The same after something was answered in part (3) or not at all (1).
fn quits_with(code: i32, mut person: Person, target: &Simulator) {
    person.enters("q");
    is_out(&person.leaves(), code, target);
}

fn count(text: &str, wanted: &str) -> usize {
    text.matches(wanted).count()
}

// Ways out.

#[test]
fn out_of_the_stopped_prompt_by_a_signal() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let (mut person, target) = at_the_stopped_prompt(&[]);
        person.signal(signal);
        let left = person.leaves();
        is_out(&left, code, &target);
        assert!(left.screen.contains(&format!("SIG{signal} ends verikd")), "{}", left.screen);
    }
}

#[test]
fn out_of_the_stopped_prompt_by_closing_the_window() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.closes_the_window();
    is_out(&person.leaves(), 129, &target);
}

#[test]
fn out_of_the_stopped_prompt_by_the_end_of_input() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types(CTRL_D);
    is_out(&person.leaves(), 0, &target);
}

#[test]
fn out_of_a_line_that_is_being_typed() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types("!verifier 3 my");
    person.sees("!verifier 3 my");
    person.signal("TERM");
    is_out(&person.leaves(), 143, &target);
}

#[test]
fn out_of_a_query_by_a_signal_or_a_closed_window() {
    for way in ["TERM", "HUP", "closed"] {
        let (mut person, target) = at_the_stopped_prompt_over(slow(), &[]);
        let before = target.requests();
        person.enters(LONG);
        while target.requests() < before + 20 {
            std::thread::sleep(Duration::from_millis(2));
        }
        if way == "closed" {
            person.closes_the_window()
        } else {
            person.signal(way)
        }
        is_out(&person.leaves(), if way == "TERM" { 143 } else { 129 }, &target);
    }
}

#[test]
fn out_while_the_machine_runs() {
    for way in ["TERM", "HUP", "closed"] {
        let (mut person, target) = at_a_running_machine(&[]);
        if way == "closed" {
            person.closes_the_window()
        } else {
            person.signal(way)
        }
        is_out(&person.leaves(), if way == "TERM" { 143 } else { 129 }, &target);
    }
}

// Restarts.

/// What `commands` are answered by a debugger that meets such a machine in this boot, and has seen no other.
fn fresh_answers(commands: &str) -> Vec<String> {
    let port = free_port();
    let target = machine(port, Faults::default());
    let (build, seed) = other_windows();
    target.reboot_as(build, seed, AtBoot::Stops(Stop::Breakpoint)).unwrap();
    let ended = Debugger::start(port, &["-b", "-c", commands]).finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(runs(&target));
    facts(&ended.out)
}

/// Lines that are true of a machine at any time.
fn facts(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.contains("ime:")).collect()
}

fn other_windows() -> (&'static Build, u64) {
    (Build::find(field::OTHER_BUILD).unwrap(), 5)
}

#[test]
fn a_machine_that_restarts_as_another_and_stops_is_known_anew() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    let of_old_boot = facts(&person.asks("vertarget"));
    let (build, seed) = other_windows();
    target.reboot_as(build, seed, AtBoot::Stops(Stop::Breakpoint)).unwrap();
    person.sees("The target restarted");
    person.sees("Connected to Windows build 19041");
    person.sees("Break instruction exception");
    let mut answers = facts(&person.asks("vertarget"));
    answers.extend(facts(&person.asks("!verifier 3")));
    assert_eq!(target.state(), MachineState::Stopped);
    assert!(!person.screen().contains("running"), "{}", person.screen());
    assert!(!person.screen().contains("Verifier is off"), "{}", person.screen());
    quits(person, &target);
    assert!(answers.iter().any(|line| line.contains("myfault.sys")), "{answers:#?}");
    assert_eq!(answers, fresh_answers("vertarget; !verifier 3"));
    assert_ne!(answers[..of_old_boot.len().min(answers.len())], of_old_boot[..]);
    assert!(runs(&target));
}

#[test]
fn a_line_typed_for_a_boot_that_is_over_is_not_answered_by_the_next() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types("vertarget; !verifier 3");
    person.sees("vertarget; !verifier 3");
    let (build, seed) = other_windows();
    target.reboot_as(build, seed, AtBoot::Runs).unwrap();
    person.sees("The target restarted");
    person.types("\r");
    // That it runs is known once it has said something.
    person.sees("error: ");
    person.sees(RUNNING);
    let screen = person.screen();
    for never in ["Kernel Version", "Verifier is off", "Driver Verifier"] {
        assert!(!screen.contains(never), "{never}:\n{screen}");
    }
    assert!(runs(&target), "{screen}");
    person.types(CTRL_C);
    person.sees("Connected to Windows build 19041");
    person.sees("kd> ");
    quits_with(1, person, &target);
}

// Ctrl+C.

#[test]
fn tab_completes_commands_and_their_words() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types("!verif\t");
    person.sees("!verifier");
    person.types(" /?\r");
    person.sees("!verifier 3 [DRIVER]");
    person.sees("kd> ");
    person.types("!sym no\t\r");
    person.sees("noisy");
    person.sees("noisy mode");
    quits(person, &target);
}

#[test]
fn a_typo_does_not_decide_how_a_session_went() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    for (typed, told) in
        [("!verifer 3", "is !verifier meant?"), (".if (1) { g }", "Nothing of this line was run")]
    {
        person.enters(typed);
        person.sees(told);
        person.sees("kd> ");
    }
    quits(person, &target);
}

#[test]
fn ctrl_c_stops_a_running_machine_and_hints_at_a_stopped_one() {
    let (mut person, target) = at_a_running_machine(&[]);
    person.types(CTRL_C);
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    person.types(CTRL_C);
    person.sees("The target is stopped; g lets it run, qd lets it run and ends verikd");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    person.enters("g");
    person.sees(RUNNING);
    assert!(runs(&target));
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

#[test]
fn ctrl_c_ends_a_query_and_leaves_the_machine_stopped() {
    let (mut person, target) = at_the_stopped_prompt_over(slow(), &[]);
    let before = target.requests();
    person.enters(LONG);
    while target.requests() < before + 20 {
        std::thread::sleep(Duration::from_millis(2));
    }
    person.types(CTRL_C);
    person.sees("interrupted");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    assert!(person.asks("r rip").contains("rip="), "{}", person.screen());
    let told = count(&person.screen(), "interrupted");
    assert_eq!(told, 1, "one word for it:\n{}", person.screen());
    quits_with(3, person, &target);
}

/// Whatever is asked, that it was ended is one sentence.
#[test]
fn a_query_that_ctrl_c_ended_is_told_so_once() {
    for query in ["!leaks -v", "!verifier 3", "!verifier 7cf", "!verifier 80 0n4000"] {
        let network = Faults { round_trip: Duration::from_millis(100), ..Faults::default() };
        let (mut person, target) = at_the_stopped_prompt_over(network, &[]);
        let before = target.requests();
        person.enters(query);
        while target.requests() < before + 3 {
            std::thread::sleep(Duration::from_millis(2));
        }
        person.types(CTRL_C);
        let above = person.sees("0: kd> ");
        let told: Vec<&str> = above.lines().filter(|line| line.contains("interrupted")).collect();
        assert_eq!(told.len(), 1, "{query}:\n{above}");
        assert_eq!(target.state(), MachineState::Stopped);
        person.signal("TERM");
        is_out(&person.leaves(), 143, &target);
    }
}

#[test]
fn ctrl_c_at_a_dead_machine_says_so_and_twice_leaves() {
    let (mut person, target) = at_a_running_machine(&["--break-timeout", "2s", "--leave-timeout", "2s"]);
    target.power_off();
    person.types(CTRL_C);
    person.sees("breaking in");
    person.sees("did not stop within 2s");
    person.sees("s ago");
    person.types(CTRL_C);
    person.sees("breaking in");
    person.types(CTRL_C);
    let left = person.leaves();
    assert_eq!(left.code, 4, "{}", left.screen);
    assert!(left.screen.contains("may still stand still"), "{}", left.screen);
}

// Silence.

#[test]
fn a_running_machine_that_vanishes_is_mentioned_and_so_is_its_return() {
    let (mut person, target) = at_a_running_machine(&[]);
    target.set_faults(cut(), cut());
    person.sees("Nothing was heard of the target for 1");
    target.set_faults(Faults::default(), Faults::default());
    person.sees("The target is heard again");
    assert!(runs(&target));
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

// Budget.

#[test]
fn the_freeze_budget_holds_at_the_prompt() {
    let (mut person, target) = at_the_stopped_prompt(&["--freeze-budget", "2s"]);
    person.types("vertar");
    person.sees("The freeze budget ends in ");
    person.sees("The freeze budget is spent; the target runs on");
    person.sees(RUNNING);
    assert!(runs(&target));
    person.sees("*BUSY* vertar");
    person.enters("get");
    person.sees("error: the target is running");
    assert!(runs(&target));
    // The next stop has a budget of its own.
    person.types(CTRL_C);
    person.sees("kd> ");
    person.sees("The freeze budget ends in ");
    quits_with(1, person, &target);
}

// Ctrl+Z.

#[test]
fn ctrl_z_at_the_prompt_lets_the_machine_run_first() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types(CTRL_Z);
    person.is_suspended();
    assert!(runs(&target), "{}", person.screen());
    person.finds_the_terminal_as_before();
    person.sees("Suspended; the target runs meanwhile");
    person.signal("CONT");
    person.sees("*BUSY* ");
    assert!(runs(&target));
    person.types(CTRL_C);
    person.sees("breaking in");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    assert!(person.asks("r rip").contains("rip="), "{}", person.screen());
    quits(person, &target);
}

#[test]
fn ctrl_z_in_a_query_lets_the_machine_run_first() {
    let (mut person, target) = at_the_stopped_prompt_over(slow(), &[]);
    let before = target.requests();
    person.enters(LONG);
    while target.requests() < before + 20 {
        std::thread::sleep(Duration::from_millis(2));
    }
    person.types(CTRL_Z);
    person.is_suspended();
    assert!(runs(&target), "{}", person.screen());
    person.finds_the_terminal_as_before();
    person.signal("CONT");
    person.sees(RUNNING);
    person.types(CTRL_C);
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    quits_with(3, person, &target);
}

/// The line that was begun is there again, and the terminal is given back meanwhile, whoever suspends.
#[test]
fn a_line_that_is_being_typed_outlives_a_suspension() {
    for is_key in [true, false] {
        let (mut person, target) = at_the_stopped_prompt(&[]);
        person.types(".echo the line");
        person.sees(".echo the line");
        if is_key {
            person.types(CTRL_Z)
        } else {
            person.signal("TSTP")
        }
        person.is_suspended();
        assert!(runs(&target), "{}", person.screen());
        person.finds_the_terminal_as_before();
        person.signal("CONT");
        person.sees(".echo the line");
        person.types(" is whole\r");
        // That it runs is told above the line, below it or below its answer, whichever comes first.
        person.sees(" is whole\n");
        person.sees("the line is whole\n");
        person.has_on_the_screen(RUNNING);
        person.signal("TERM");
        is_out(&person.leaves(), 143, &target);
    }
}

#[test]
fn ctrl_z_at_a_prompt_of_the_target_ignores_it() {
    let (mut person, target) = at_a_running_machine(&[]);
    target.ask(ASSERTION);
    person.sees("(boipt)? ");
    person.sees("*ASKS* ");
    person.types(CTRL_Z);
    person.is_suspended();
    assert!(runs(&target), "{}", person.screen());
    assert_eq!(target.answers(), ["i"]);
    person.signal("CONT");
    person.sees("*BUSY* ");
    assert!(runs(&target));
    assert_eq!(target.answers(), ["i"]);
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

// Prompts of the target.

#[test]
fn a_prompt_of_the_target_is_answered_by_what_is_typed() {
    let (mut person, target) = at_a_running_machine(&[]);
    target.ask(ASSERTION);
    person.sees("*** Assertion failed: Irql == PASSIVE_LEVEL");
    person.sees("(boipt)? ");
    person.sees("*ASKS* ");
    person.enters("i");
    assert!(runs(&target));
    // That repeats what was asked.
    person.sees("(answered: i)");
    target.ask(ASSERTION);
    person.sees("(boipt)? ");
    person.sees("*ASKS* ");
    person.types("\r");
    assert!(runs(&target));
    person.sees("(answered: i)");
    assert_eq!(target.answers(), ["i", "i"]);
    target.ask(ASSERTION);
    person.sees("(boipt)? ");
    person.sees("*ASKS* ");
    person.enters("b");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    person.enters("g");
    person.sees(RUNNING);
    assert!(runs(&target));
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

/// Out of the target's question: nobody answers it any more.
#[test]
fn out_of_a_prompt_of_the_target() {
    for (way, code) in [("TERM", 143), ("closed", 129), ("ctrl-d", 0)] {
        let (mut person, target) = at_a_running_machine(&[]);
        target.ask(ASSERTION);
        person.sees("(boipt)? ");
        person.sees("*ASKS* ");
        match way {
            "closed" => person.closes_the_window(),
            "ctrl-d" => {
                // Ignores the assertion; the program goes on.
                person.types(CTRL_D);
                assert!(runs(&target), "{}", person.screen());
                person.types(CTRL_C);
                person.sees("kd> ");
                person.types(CTRL_D);
            }
            signal => person.signal(signal),
        }
        is_out(&person.leaves(), code, &target);
    }
}

#[test]
fn a_prompt_whose_answer_is_lost_is_no_silent_way_out() {
    for (way, options) in [("TERM", &[][..]), ("ctrl-d", &["--leave-timeout", "2s"])] {
        let port = free_port();
        let (mut person, target) = at_a_running_machine_of(port, options);
        target.ask(ASSERTION);
        person.sees("(boipt)? ");
        person.sees("*ASKS* ");
        target.set_faults(Faults::default(), cut());
        if way == "ctrl-d" {
            person.types(CTRL_D);
            person.sees("(answered: i)");
            person.signal("TERM");
        } else {
            person.signal(way);
        }
        let left = person.leaves();
        assert_eq!(left.code, 4, "{}", left.screen);
        assert!(
            left.screen.contains("it waits at a prompt, and has not taken the answer"),
            "{}",
            left.screen
        );
        assert_eq!(target.state(), MachineState::WaitingAtPrompt);
        assert!(field::runs_after_the_advice(&target, port), "{}", left.screen);
    }
}

#[test]
fn a_prompt_that_waits_before_anybody_attaches_is_no_hang() {
    for options in [&["-b"][..], &[]] {
        let port = free_port();
        let mut person = Person::at(port, options);
        person.sees("Waiting for a target");
        let connect = ([127, 0, 0, 1], port).into();
        let quirks = [Quirk::PromptAtBoot].into();
        let target =
            Simulator::start(SimulatorConfig { quirks, ..SimulatorConfig::new(connect, field::key()) })
                .unwrap();
        person.sees("(boipt)? ");
        if options.is_empty() {
            person.sees(RUNNING);
            assert!(runs(&target));
            person.types(CTRL_C);
        }
        person.sees("kd> ");
        assert_eq!(target.state(), MachineState::Stopped);
        quits(person, &target);
    }
}

// Stops.

const STOPS: [(Stop, &str); 3] = [
    (Stop::Assertion, "Assertion failure - code c0000420 (first chance)"),
    (Stop::Breakpoint, "Break instruction exception - code 80000003 (first chance)"),
    (Stop::AccessViolation(Chance::First), "Access violation - code c0000005 (first chance)"),
];

#[test]
fn g_goes_on_at_every_kind_of_stop() {
    let (mut person, target) = at_a_running_machine(&[]);
    for (stop, reason) in STOPS {
        let stops = target.stops();
        target.stop_with(stop);
        person.sees(reason);
        person.sees("kd> ");
        person.enters("g");
        person.sees(RUNNING);
        assert!(runs(&target), "{reason}");
        assert_eq!(target.stops(), stops + 1, "{reason} happened again");
    }
    person.signal("TERM");
    is_out(&person.leaves(), 143, &target);
}

#[test]
fn q_leaves_a_running_machine_at_every_kind_of_stop() {
    for (stop, reason) in STOPS {
        let (mut person, target) = at_a_running_machine(&[]);
        target.stop_with(stop);
        person.sees(reason);
        person.sees("kd> ");
        quits(person, &target);
    }
}

#[test]
fn a_machine_that_stops_again_at_once_is_announced_once_each() {
    let port = free_port();
    let mut person = Person::at(port, &["-b"]);
    person.sees("Waiting for a target");
    let quirks = [Quirk::StopsAgain].into();
    let connect = ([127, 0, 0, 1], port).into();
    let target =
        Simulator::start(SimulatorConfig { quirks, ..SimulatorConfig::new(connect, field::key()) }).unwrap();
    person.sees("kd> ");
    let before = count(&person.screen(), "Break instruction exception");
    person.enters("g");
    person.sees("Break instruction exception");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    assert_eq!(count(&person.screen(), "Break instruction exception"), before + 1, "{}", person.screen());
    person.enters("g");
    person.sees(RUNNING);
    assert!(runs(&target));
    assert_eq!(count(&person.screen(), "Break instruction exception"), before + 1, "{}", person.screen());
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

// Prints.

#[test]
fn what_the_target_prints_does_not_destroy_the_line_being_typed() {
    let (mut person, target) = at_the_stopped_prompt(&["--freeze-budget", "2s"]);
    person.sees("The freeze budget is spent");
    person.sees(RUNNING);
    assert!(runs(&target));
    person.types(".echo the line");
    person.sees(".echo the line");
    for number in 0..50 {
        target.print(format!("myfault: line {number}\n"));
    }
    for number in 0..50 {
        person.sees(&format!("myfault: line {number}\n"));
    }
    // It is shown again, and goes on.
    person.sees(".echo the line");
    person.types(" is whole\r");
    person.sees(" is whole\n");
    person.sees("the line is whole\n");
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

// Typed ahead, pasted.

#[test]
fn lines_that_are_typed_ahead_or_pasted_in_one_burst_are_run_one_after_another() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types(".echo one\r.echo two\r.echo three\r");
    for wanted in ["\none\n", "\ntwo\n", "\nthree\n"] {
        person.sees(wanted);
    }
    person.sees("kd> ");
    quits(person, &target);
}

/// A terminal that marks what is pasted gives all lines at once: each is shown before its answer.
#[test]
fn lines_that_were_pasted_are_shown_before_their_answers() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.types("\x1b[200~.echo one\r.echo two\r.echo three\x1b[201~\r");
    for wanted in ["one", "two", "three"] {
        person.sees(&format!("0: kd> .echo {wanted}\n{wanted}\n"));
    }
    quits(person, &target);
}

#[test]
fn what_follows_g_on_its_line_is_run_at_the_next_stop() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.enters("g; .echo stopped again");
    person.sees(RUNNING);
    person.types(CTRL_C);
    person.sees("0: kd> .echo stopped again\n");
    person.sees("stopped again\n");
    assert_eq!(target.state(), MachineState::Stopped);
    quits(person, &target);
}

// While it runs.

#[test]
fn commands_that_need_no_stopped_machine_work_while_it_runs() {
    let (mut person, target) = at_a_running_machine(&[]);
    person.sees("*BUSY* ");
    person.enters(".help g");
    person.sees("let the target run");
    person.sees("*BUSY* ");
    person.enters("lm");
    person.sees("error: the target is running");
    person.sees("*BUSY* ");
    assert!(runs(&target));
    quits_with(1, person, &target);
}

/// What was begun as a command does not become the answer to a question that comes meanwhile.
#[test]
fn a_question_of_the_target_does_not_take_a_command_for_its_answer() {
    let (mut person, target) = at_a_running_machine(&[]);
    person.sees("*BUSY* ");
    person.types(".echo b");
    person.sees(".echo b");
    target.ask(ASSERTION);
    person.sees("(boipt)? ");
    person.sees("*BUSY* .echo b");
    person.types("\r");
    person.sees("\nb\n");
    person.sees("*ASKS* ");
    person.enters("i");
    assert!(runs(&target));
    assert_eq!(target.answers(), ["i"]);
    person.types(CTRL_C);
    person.sees("kd> ");
    quits(person, &target);
}

// The reader of the answers.

#[test]
fn tee_that_ends_at_ctrl_c_does_not_end_the_session() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let behind = Some(format!("| tee '{}'", log.display()));
    let mut person = Person::sits_at(&Desk { behind, ..Desk::at(port, &["-b"]) });
    person.sees("Waiting for a target");
    let target = machine(port, slow());
    person.sees("kd> ");
    // What `tee` shows comes when it comes: above the next prompt or behind it.
    person.enters(".echo kept");
    person.sees("kept\n");
    let before = target.requests();
    person.enters(LONG);
    while target.requests() < before + 20 {
        std::thread::sleep(Duration::from_millis(2));
    }
    person.types(CTRL_C);
    person.sees("interrupted");
    assert_eq!(target.state(), MachineState::Stopped);
    // Until `tee` gets to its own end it shows what it is given.
    let is_told = (0..20).any(|_| {
        person.enters(".echo shown here");
        person.sees("shown here\n");
        person.screen().contains(".logopen FILE")
    });
    assert!(is_told, "{}", person.screen());
    person.enters("q");
    person.leaves();
    assert!(runs(&target));
    assert!(std::fs::read_to_string(&log).unwrap().contains("kept\n"));
}

// Logs.

#[test]
fn a_log_has_what_was_typed_answered_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a log");
    let (mut person, target) = at_the_stopped_prompt(&[]);
    person.asks(".echo before");
    let opened = person.asks(&format!(".logopen {}", log.display()));
    assert!(opened.contains("Opened log file"), "{opened}");
    person.asks(".echo one");
    person.asks("nosuch");
    assert!(person.asks(".logclose").contains("Closing open log file"), "{}", person.screen());
    person.asks(".echo after");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("0: kd> .echo one\none\n0: kd> nosuch\nerror: unknown command nosuch"), "{text}");
    assert!(!text.contains("before") && !text.contains("after"), "{text}");
    assert!(person.asks(&format!(".logappend {}; .echo two", log.display())).contains("two"));
    assert!(person.asks(".logfile").contains("is open"), "{}", person.screen());
    quits(person, &target);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("\none\n") && text.contains("\ntwo\n"), "{text}");
}

// History.

#[test]
fn two_sessions_side_by_side_keep_each_other_s_history() {
    let desk = |port| Desk::at(port, &["-b"]);
    let (one, other) = (free_port(), free_port());
    let first_desk = desk(one);
    let second_desk = Desk { home: Arc::clone(&first_desk.home), ..desk(other) };
    let third = free_port();
    let third_desk = Desk { home: Arc::clone(&first_desk.home), ..desk(third) };
    let sit = |desk: &Desk, port| {
        let mut person = Person::sits_at(desk);
        person.sees("Waiting for a target");
        let target = machine(port, Faults::default());
        person.sees("kd> ");
        (person, target)
    };
    let (mut first, first_target) = sit(&first_desk, one);
    let (mut second, second_target) = sit(&second_desk, other);
    first.asks(".echo of the first");
    second.asks(".echo of the second");
    first.asks(".echo of the first again");
    quits(second, &second_target);
    quits(first, &first_target);
    let (mut person, target) = sit(&third_desk, third);
    // q, q, and what was typed before.
    person.types("\x12of the second");
    person.sees(".echo of the second");
    person.types("\r");
    person.sees("\nof the second\n");
    person.sees("kd> ");
    person.types("\x12the first again");
    person.sees(".echo of the first again");
    person.types("\r");
    person.sees("\nof the first again\n");
    person.sees("kd> ");
    quits(person, &target);
}

// Tab.

#[test]
fn tab_completes_what_the_target_knows() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    for (typed, line) in [
        ("dps nt!VfPoolTracesI\t", "dps nt!VfPoolTracesIndex"),
        ("? poi(nt!VfPoolTracesL\t)", "? poi(nt!VfPoolTracesLength)"),
        ("dt nt!_UNICODE_STR\t", "dt nt!_UNICODE_STRING"),
        ("dt nt!_UNICODE_STRING poi(nt!PsLoadedModuleList)+58 Len\t", "+58 Length"),
        ("!verifier 3 myf\t", "!verifier 3 myfault.sys"),
        ("lm m myf\t", "lm m myfault"),
        ("!leaks -b\t", "!leaks -b"),
    ] {
        person.types(typed);
        person.sees(line);
        person.types("\r");
        person.sees("kd> ");
    }
    quits(person, &target);
}

// Colours and hints.

#[test]
fn hints_and_colours_are_there_unless_somebody_wants_none() {
    for (environment, is_plain) in
        [(vec![], false), (vec![("NO_COLOR", "1")], true), (vec![("TERM", "dumb")], true)]
    {
        let port = free_port();
        let mut person = Person::sits_at(&Desk { environment, ..Desk::at(port, &["-b"]) });
        person.sees("Waiting for a target");
        let target = machine(port, Faults::default());
        person.sees("kd> ");
        person.types("ln ");
        if !is_plain {
            person.sees("ADDRESS");
        }
        person.types("nt\r");
        person.sees("nt");
        person.sees("kd> ");
        assert_eq!(person.screen().contains("ADDRESS"), !is_plain, "{}", person.screen());
        assert_eq!(person.raw_screen().contains("\x1b[1m"), !is_plain, "{:?}", person.raw_screen());
        quits(person, &target);
    }
}

// Long answers, narrow windows.

#[test]
fn a_long_answer_says_how_long_it_is_and_is_shown_a_screen_at_a_time() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    let answer = person.asks("db nt L2800");
    assert!(answer.contains("46 of 640 rows; .more shows the next ones, .more all the 594"), "{answer}");
    assert!(answer.lines().count() < 50, "{answer}");
    assert!(person.asks(".more").contains("548 rows are left"), "{}", person.screen());
    assert!(person.asks(".more all").lines().count() > 540);
    assert!(person.asks(".more").contains("No rows are left"));
    quits(person, &target);
}

#[test]
fn help_is_broken_between_words_at_80_columns() {
    let port = free_port();
    let mut person = Person::sits_at(&Desk { columns: 80, ..Desk::at(port, &["-b"]) });
    person.sees("Waiting for a target");
    let target = machine(port, Faults::default());
    person.sees("kd> ");
    // A transcript has a prompt in it.
    let mut asks = |command: &str| {
        person.enters(&format!("{command}; .echo END"));
        let text = person.sees("\nEND\n");
        person.sees("kd> ");
        text
    };
    for command in [".help", ".help !verifier", ".help !leaks"] {
        let text = asks(command);
        let mut forms = text.lines().take_while(|line| !line.starts_with("0: kd> "));
        let long = forms.find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{command}: {text}");
    }
    let of_go = asks(".help g");
    assert!(of_go.contains("let the target run") && !of_go.contains(".reboot"), "{of_go}");
    quits(person, &target);
}

// -c, and the prompt behind it.

#[test]
fn commands_of_the_command_line_can_be_followed_by_the_prompt() {
    let (mut person, target) = at_the_stopped_prompt(&["-c", ".echo first; .echo second", "--stay"]);
    person.sees(".echo first\nfirst\n0: kd> .echo second\nsecond\n");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    quits(person, &target);
}

#[test]
fn restart_waits_until_the_machine_is_back_and_stops_it() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    let boots = target.boot();
    person.enters(".restart; .echo back");
    person.sees("The target restarted");
    person.sees("0: kd> .echo back\n");
    person.sees("back\n");
    assert_eq!((target.boot(), target.state()), (boots + 1, MachineState::Stopped));
    quits(person, &target);
}

// A whole session.

#[test]
fn a_session_from_the_first_key_to_the_last() {
    let port = free_port();
    let desk = Desk::at(port, &[]);
    let mut person = Person::sits_at(&desk);
    person.sees("Waiting for a target");
    let target = machine(port, Faults::default());
    person.sees(RUNNING);
    person.sees("*BUSY* ");
    assert!(runs(&target));
    // It is broken into.
    person.types(CTRL_C);
    person.sees("Break instruction exception - code 80000003 (first chance)");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    // Both queries, the name of the command completed.
    person.types("!veri\t");
    person.sees("!verifier");
    person.types(" 3 myfault.sys\r");
    person.sees("fffffa8005400000     0x000fb000     Leak      fffff8800447d634");
    person.sees("kd> ");
    assert!(person.asks("!verifier 80 fffffa8005400000").contains("myfault!MyfaultDeviceControl+0x358"));
    // It runs, and prints while half a line is typed.
    person.enters("g");
    person.sees(RUNNING);
    person.sees("*BUSY* ");
    assert!(runs(&target));
    person.types(".echo half");
    person.sees(".echo half");
    for number in 0..5 {
        target.print(format!("myfault: line {number}\n"));
    }
    for number in 0..5 {
        person.sees(&format!("myfault: line {number}\n"));
        person.sees("*BUSY* .echo half");
    }
    person.types(" and half\r");
    person.sees(" and half\n");
    person.sees("half and half\n");
    // It is broken into again; the window becomes narrow.
    person.sees("*BUSY* ");
    person.types(CTRL_C);
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped);
    person.resizes(60);
    person.enters(".help lm; .echo END");
    let help = person.sees("\nEND\n");
    person.sees("kd> ");
    // What a transcript shows is as wide as it is.
    let mut forms = help.lines().take_while(|line| !line.starts_with("0: kd> "));
    assert!(forms.all(|line| line.chars().count() <= 60), "{help}");
    quits(person, &target);
    // Another session knows what was typed in this one.
    let port = free_port();
    let desk = Desk { home: Arc::clone(&desk.home), ..Desk::at(port, &["-b"]) };
    let mut person = Person::sits_at(&desk);
    person.sees("Waiting for a target");
    let target = machine(port, Faults::default());
    person.sees("kd> ");
    for (key, line) in [("\x1b[A", "q"), ("\x1b[A", ".help lm; .echo END"), ("\x1b[A", ".echo half and half")]
    {
        person.types(key);
        person.sees(&format!("kd> {line}"));
    }
    person.types("\r");
    person.sees("\nhalf and half\n");
    person.sees("kd> ");
    quits(person, &target);
    assert!(runs(&target));
}

// The demo.

#[test]
fn the_demo_says_what_to_type_next_and_leads_to_the_leak_s_stack() {
    let mut person = Person::sits_at(&Desk::with(&["demo"]));
    person.sees("myfault!MyfaultDeviceControl");
    person.sees("What to try next:");
    person.sees(".help");
    person.sees("kd> ");
    assert!(person.asks("!leaks").contains("myfault!MyfaultDeviceControl"), "{}", person.screen());
    person.enters("g");
    person.sees(RUNNING);
    person.types(CTRL_C);
    person.sees("kd> ");
    person.enters("q");
    let left = person.leaves();
    assert_eq!(left.code, 0, "{}", left.screen);
}

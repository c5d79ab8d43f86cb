//! Ways out, and what a machine does meanwhile: whoever leaves, restarts or suspends, it runs afterwards.

use super::*;

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

/// A person whose query Ctrl+C has ended.
fn at_the_prompt_behind_an_ended_query() -> (Person, Simulator) {
    let (mut person, target) = at_the_stopped_prompt_over(slow(), &[]);
    let before = target.requests();
    person.enters(LONG);
    while target.requests() < before + 20 {
        std::thread::sleep(Duration::from_millis(2));
    }
    person.types(CTRL_C);
    person.sees("interrupted");
    person.sees("kd> ");
    (person, target)
}

#[test]
fn ctrl_c_a_second_time_offers_to_leave_and_a_third_leaves() {
    let (mut person, target) = at_the_prompt_behind_an_ended_query();
    person.types(CTRL_C);
    person.sees("Ctrl+C once more lets the target run and ends verikd");
    person.sees("kd> ");
    assert_eq!(target.state(), MachineState::Stopped, "an offer is no leaving");
    person.types(CTRL_C);
    is_out(&person.leaves(), 3, &target);
}

#[test]
fn whoever_types_on_after_the_offer_to_leave_stays() {
    let (mut person, target) = at_the_prompt_behind_an_ended_query();
    person.types(CTRL_C);
    person.sees("Ctrl+C once more");
    person.sees("kd> ");
    assert!(person.asks("r rip").contains("rip="), "{}", person.screen());
    person.types(CTRL_C);
    person.sees("The target is stopped; g lets it run");
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

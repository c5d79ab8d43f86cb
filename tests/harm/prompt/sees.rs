//! What a person sees and types: lines, answers, colours, history, and what the target prints between them.

use super::*;

// Names.

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

#[test]
fn ctrl_c_ends_a_list_of_what_tab_has_found() {
    let port = free_port();
    let mut person = Person::sits_at(&Desk { columns: 24, ..Desk::at(port, &["-b"]) });
    person.sees("Waiting for");
    let target = machine(port, Faults::default());
    person.sees("kd> ");
    person.types("dt nt!_\t\t");
    person.sees("--More--");
    person.types(CTRL_C);
    // The line is there as it was; the next one ends it, as ever.
    person.sees("kd> dt nt!_");
    person.types(CTRL_C);
    person.sees("kd> ");
    person.types(".echo all is well\r");
    person.sees("\nall is well\n");
    quits(person, &target);
}

#[test]
fn enter_alone_makes_the_next_step_and_shows_the_next_rows() {
    let (mut person, target) = at_the_stopped_prompt(&[]);
    let answer = person.asks("t");
    assert!(answer.contains("nt!DbgBreakPointWithStatus+0x1:"), "{answer}");
    assert!(!answer.contains("The target is running"), "{answer}");
    person.types("\r");
    person.sees("nt!KdCheckForDebugBreak+0x3b:");
    person.sees("kd> ");
    person.types("r rip\r");
    person.sees("rip=fffff");
    // No other command is run once more.
    person.types("\r\r.echo END\r");
    person.sees("\nEND\n");
    assert_eq!(count(&person.screen(), "rip=fffff"), 1, "{}", person.screen());
    person.asks("db nt L2800");
    person.types(".more\r");
    person.sees("548 rows are left");
    person.types("\r");
    person.sees("502 rows are left");
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

/// What each command is shown with by its help, typed at a terminal of 80 columns: no row is longer than that, unless it is one word.
#[test]
fn no_row_of_any_answer_breaks_inside_a_word_at_80_columns() {
    let left_out = [
        "g",
        "t",
        "p",
        "gu",
        "q",
        "qd",
        ".reboot",
        ".restart",
        ".more",
        ".logopen",
        ".logappend",
        ".logclose",
        ".logfile",
        ".dump",
        ".sympath+",
        ".sympath",
        // It puts a server on the path, which names would be looked for at from there on.
        ".symfix",
        // It waits for as long as nobody allocates, and stops its machine in the middle of something.
        "!poolhit",
    ];
    let examples = include_str!("../../../src/commands/transcripts.txt");
    let typed: std::collections::BTreeSet<&str> = examples
        .lines()
        .filter_map(|line| line.strip_prefix("0: kd> "))
        .filter(|line| {
            !line.starts_with('$') && !left_out.contains(&line.split(' ').next().unwrap_or_default())
        })
        .collect();
    assert!(typed.len() > 50, "{typed:?}");
    let port = free_port();
    let mut person = Person::sits_at(&Desk { columns: 80, ..Desk::at(port, &["-b"]) });
    person.sees("Waiting for a target");
    let target = machine(port, Faults::default());
    person.sees("kd> ");
    let mut wrapped = 0;
    for command in
        typed.into_iter().chain(["!poolfind -k Leak", "!leaks -v", "lmv m nt", "nosuch", "!process 0 0"])
    {
        person.enters(&format!("{command}; .echo END"));
        // Some answer nothing.
        let text = person.sees("END\n");
        person.sees("kd> ");
        // The line that was typed is the terminal's, and a bar is drawn over itself.
        for row in text.lines().filter(|row| !row.contains("kd> ") && !row.contains(['\u{2588}', '\u{2591}']))
        {
            let is_long = row.chars().count() > 80;
            assert!(!is_long || row.split_whitespace().count() == 1, "{command}:\n{row}\nin\n{text}");
            wrapped += usize::from(row.starts_with("    "));
        }
    }
    assert!(wrapped > 0, "some are longer than that");
    // Some of them have gaps, or are none.
    person.enters("q");
    person.leaves();
    assert!(runs(&target));
}

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

// Breakpoints.

#[test]
fn a_breakpoint_s_commands_are_run_until_ctrl_c_and_a_removed_one_stops_nobody() {
    let port = free_port();
    let mut person = Person::at(port, &["-b"]);
    person.sees("Waiting for a target");
    let target = leaking(port, Duration::from_millis(150), Faults::default());
    person.sees("kd> ");
    person.enters("bp nt!ExAllocatePoolWithTag \"kc 1; g\"");
    person.sees("kd> ");
    person.enters("g; .echo BEHIND");
    for _ in 0..3 {
        person.sees("Breakpoint 0 hit");
        person.sees("00 nt!ExAllocatePoolWithTag");
    }
    // Whether the machine runs or stands still at one just then: it ends that.
    person.types(CTRL_C);
    person.sees("BEHIND\n");
    person.sees("kd> ");
    person.enters("g nt!ExAllocatePoolWithTag");
    person.sees("nt!ExAllocatePoolWithTag:");
    person.sees("kd> ");
    person.enters("g");
    person.sees("*BUSY* ");
    // The list can be changed while it runs.
    person.enters("bc *");
    person.enters("bl");
    let before = target.breakpoints();
    assert!(before <= 1);
    person.enters("q");
    person.leaves();
    assert!(runs(&target));
    assert_eq!(target.breakpoints(), 0);
}

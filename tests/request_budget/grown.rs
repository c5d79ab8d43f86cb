//! The same queries on a machine as they are in the field: two hundred modules, a hundred verified drivers, addresses
//! that were allocated and freed again and again.

use verikd::shell::Shell;
use verikd::source::{Control, Resumed, Source};
use verikd_sim::windows::{Build, Growth, Scenario, WINDOWS_7_SP1};

use super::live::Live;

const GROWN: Growth = Growth { modules: 200, drivers: 100, reuse: 1000, busy: 0, processors: 0, callers: 0 };
/// The kernel, hal, ndis and myfault are loaded too, and myfault is verified.
const LOADED: u64 = 204;
const VERIFIED: u64 = 101;

/// Counts requests of one command after the other, and holds each to its bar at the end, so that a failure shows all.
struct Counts<'a> {
    live: &'a Live,
    spent: u64,
    rows: Vec<(String, u64, u64)>,
}

impl<'a> Counts<'a> {
    fn new(live: &'a Live) -> Self {
        Self { live, spent: live.session.counters().requests, rows: Vec::new() }
    }

    fn count(&mut self, what: &str, bar: u64) {
        let spent = self.live.session.counters().requests;
        self.rows.push((what.to_owned(), spent - self.spent, bar));
        self.spent = spent;
    }

    fn run(&mut self, shell: &mut Shell, command: &str, bar: u64) {
        shell.run(command);
        self.count(command, bar);
    }

    /// Lets the target run and stops it again.
    fn stop_again(&mut self, shell: &mut Shell) {
        assert_eq!(self.live.session.go(), Resumed::Running);
        shell.break_in().unwrap();
        self.count("resume and stop", 10);
    }

    fn hold(self) {
        let mut table = String::new();
        for (what, requests, bar) in &self.rows {
            table.push_str(&format!("{requests:>8} of {bar:>5}  {what}\n"));
        }
        println!("{table}");
        assert!(self.rows.iter().all(|(_, requests, bar)| requests <= bar), "\n{table}");
    }
}

#[test]
fn a_question_costs_what_it_depends_on_and_not_what_the_machine_has() {
    let live = Live::grown(&WINDOWS_7_SP1, Scenario::Myfault, GROWN);
    let (mut shell, out) = live.shell();
    let mut counts = Counts::new(&live);
    shell.break_in().unwrap();
    counts.count("attach to prompt, symbols at hand", 5);
    let begins = "!verifier 80 fffffa80052fb000";
    counts.run(&mut shell, begins, 16);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, begins, 14);
    counts.run(&mut shell, begins, 0);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, "!verifier 80 fffffa80052fb123", 24);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, "!verifier 3 myfault.sys", 40);
    counts.stop_again(&mut shell);
    // Its node, its counters and its name lie in three blocks of pool for each driver: memory/need.rs.
    counts.run(&mut shell, "!verifier 1", 3 * VERIFIED + 5);
    counts.stop_again(&mut shell);
    // Pointers into eleven drivers of which nothing is known: entry, headers and debug directory of each.
    counts.run(&mut shell, "dps nt!PsInvertedFunctionTable+10 L20", 3 * 11 + 4);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, "dps nt!PsInvertedFunctionTable+10 L20", 6);
    counts.stop_again(&mut shell);
    // An entry lies anywhere in pool, so each costs a request; the others are the head and what was unloaded.
    counts.run(&mut shell, "lm", LOADED + 7);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, "lm", 4);
    counts.stop_again(&mut shell);
    // Frames, and pointers into pool: that they lie in no module takes every entry, which the list has.
    counts.run(&mut shell, "dps poi(nt!VfPoolTraces)+10 L20", 20);
    counts.stop_again(&mut shell);
    counts.run(&mut shell, begins, 14);
    shell.run(".kdstats");
    let text = out();
    hold_to_model(&text);
    assert_eq!(text.matches("Pool block fffffa80052fb000, Size 00000000000fa000").count(), 5, "{text}");
    assert!(text.contains("myfault!MyfaultDeviceControl+0x358"), "{text}");
    counts.hold();
}

/// Every command takes little more requests than what it had to read takes at the least.
fn hold_to_model(text: &str) {
    let mut requests = 0;
    let mut held = 0;
    let number = |line: &str| line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    for line in text.lines() {
        if let Some(asked) = line.trim_start().split_once(" requests, ").and_then(|(asked, _)| number(asked))
        {
            requests = asked;
        }
        let Some(needed) = line.strip_prefix("    needed: ").and_then(number) else { continue };
        println!("{requests:>8} asked, {needed} needed");
        assert!(requests <= needed + needed / 10 + 4, "{requests} requests, {needed} needed:\n{text}");
        held += 1;
    }
    assert!(held >= 10, "{held} commands");
}

#[test]
fn a_worn_out_address_costs_its_entries() {
    let live = Live::grown(&WINDOWS_7_SP1, Scenario::Myfault, GROWN);
    let (mut shell, out) = live.shell();
    let mut counts = Counts::new(&live);
    shell.break_in().unwrap();
    counts.count("attach to prompt, symbols at hand", 5);
    shell.run("!verifier 80 fffffa8005400000");
    let entries = out().matches("Pool block fffffa8005400000").count() as u64;
    assert!(entries > 1990, "{entries}");
    counts.count("an address with two thousand entries in the log", 2 * entries + 24);
    counts.run(&mut shell, "!verifier 80 fffffa8005400000", 0);
    counts.hold();
}

#[test]
fn a_large_log_costs_what_is_found_in_it() {
    let build = Build::find("11-25h2").unwrap();
    let live = Live::grown(build, Scenario::BigLog, Growth { reuse: 50, ..GROWN });
    let (mut shell, out) = live.shell();
    let mut counts = Counts::new(&live);
    shell.break_in().unwrap();
    counts.count("attach to prompt, symbols at hand", 5);
    shell.run("!verifier 80 fffffa8005400000");
    let entries = out().matches("Pool block fffffa8005400000").count() as u64;
    assert!(entries >= 100, "{entries}");
    counts.count("an address with a hundred entries in the log of 424 MiB", 2 * entries + 24);
    counts.run(&mut shell, "!verifier 80 fffffa80052fb123", 48);
    counts.hold();
}

#[test]
fn one_driver_among_many_reads_as_it_does_among_all() {
    for windows in ["7sp1", "11-25h2"] {
        let live = Live::grown(Build::find(windows).unwrap(), Scenario::Myfault, GROWN);
        let (mut shell, out) = live.shell();
        shell.break_in().unwrap();
        let mut answer = |command: &str| {
            let before = out().len();
            shell.run(command);
            out()[before..].to_owned()
        };
        let all = answer("!verifier 1");
        for name in ["myfault", "netflt.sys", "STORPORT.SYS", r"\SystemRoot\system32\drivers\audclass.sys"] {
            let one = answer(&format!("!verifier 1 {name}"));
            let file = name.rsplit('\\').next().unwrap().to_lowercase();
            let rows: Vec<_> =
                one.lines().filter(|line| line.contains(file.trim_end_matches(".sys"))).collect();
            assert!(!rows.is_empty(), "{name}:\n{one}");
            assert!(rows.iter().all(|row| all.contains(row)), "{name}:\n{one}");
            assert!(one.len() < all.len() / 2, "{name}:\n{one}");
        }
    }
}

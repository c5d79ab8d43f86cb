//! Every scenario: over a wire each command prints and says what it does without one.

use verikd_sim::SimulatorConfig;
use verikd_sim::windows::{Build, Scenario, WINDOWS_7_SP1};

use crate::play::{AGAIN, Carrier, FIRST, Played, each, play, quiet};

/// The oldest Windows that can be in it.
fn build_for(scenario: Scenario) -> &'static Build {
    match scenario.check(&WINDOWS_7_SP1) {
        Ok(()) => &WINDOWS_7_SP1,
        Err(_) => Build::find("2022").unwrap(),
    }
}

/// It bug-checks by itself as soon as it runs.
fn bug_checks(scenario: Scenario) -> bool {
    use Scenario::{Bugcheck7e, BugcheckC4F6, BugcheckC460, BugcheckC462};
    matches!(scenario, Bugcheck7e | BugcheckC4F6 | BugcheckC460 | BugcheckC462)
}

#[test]
fn every_scenario_over_every_carrier_is_answered_as_without_one() {
    // One case again: VERIKD_CASE=unloaded
    let wanted = std::env::var("VERIKD_CASE").ok();
    let is_wanted = |scenario: &Scenario| wanted.as_ref().is_none_or(|name| name == scenario.name());
    let cases: Vec<(Scenario, Carrier)> = Scenario::ALL
        .into_iter()
        .filter(is_wanted)
        .flat_map(|scenario| [Carrier::Kdnet, Carrier::Tcp].map(|carrier| (scenario, carrier)))
        .collect();
    each(&cases, |(scenario, carrier)| {
        let build = build_for(scenario);
        wrong(scenario, &play(carrier, &[], |config| SimulatorConfig { build, scenario, ..config }))
    });
}

fn wrong(scenario: Scenario, played: &Played) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut complain_unless = |is_right: bool, what: String| {
        if !is_right {
            wrong.push(what);
        }
    };
    let quiet = quiet(build_for(scenario), scenario, |_| {});
    for (answer, quiet) in played.first.iter().zip(&quiet) {
        complain_unless(
            answer.text == quiet.text,
            format!("{answer:#?} is not what the machine itself answers: {}", quiet.text),
        );
        let says_it = |(gap, _): &(String, i32)| {
            let first = gap.lines().next().unwrap_or_default();
            answer.names_a_gap() && answer.said.iter().any(|line| line.contains(first))
        };
        complain_unless(
            quiet.gap.as_ref().map_or_else(|| !answer.names_a_gap(), says_it),
            format!("{answer:#?} does not say {:?}", quiet.gap),
        );
    }
    let is_whole = (played.first.len(), played.again.len()) == (FIRST.len(), AGAIN.len());
    complain_unless(is_whole, "not all was asked".into());
    let codes = || quiet.iter().filter_map(|quiet| Some(quiet.gap.as_ref()?.1));
    let is_told = played.says("may still stand still");
    let code = if bug_checks(scenario) {
        // Let go, it restarts and bug-checks anew, as often as it is let go. Then it stands still, which is told.
        // The kernel prints it, or the debugger says it: once.
        let at_attach = played.told.iter().take_while(|line| !line.contains(": kd> "));
        let times = at_attach.filter(|line| line.contains("*** Fatal System Error")).count();
        complain_unless(times == 1, format!("the bug check is told {times} times"));
        complain_unless(played.boot > 1 && is_told && !played.runs, "it was not let go, or not told".into());
        4
    } else {
        complain_unless(played.runs && played.stops == played.resumes, "left stopped".into());
        complain_unless(played.boot == 1 && !is_told, "a word about a machine that stands still".into());
        if codes().any(|code| code == 1) { 1 } else { codes().max().unwrap_or(0) }
    };
    complain_unless(played.code == code, format!("exit code {}, not {code}", played.code));
    if !wrong.is_empty() {
        wrong.push(format!("{} to {} stops; it was told: {:#?}", played.resumes, played.stops, played.told));
    }
    wrong
}

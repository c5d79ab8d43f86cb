//! Every quirk: what other kernels do must not change an answer, or it is said what could not be had.

use verikd_sim::windows::{Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{Quirk, SimulatorConfig};

use crate::play::{AGAIN, Carrier, FIRST, Played, each, play, quiet, quiet_machine};

/// What may be otherwise than with the quiet machine. A quirk that is not named here may change nothing.
struct Otherwise {
    /// Commands that cannot be answered as on the quiet machine, and what says so; nothing where the answer itself does.
    gaps: &'static [(&'static str, Option<&'static str>)],
    /// Said at attach, where the session cannot go on.
    ends: Option<&'static str>,
    exit_code: i32,
    /// The machine stands still at the end, and its debugger has said so.
    stays_stopped: bool,
}

const NOTHING: Otherwise = Otherwise { gaps: &[], ends: None, exit_code: 0, stays_stopped: false };
const NO_DIRECTORY: &str = "its image does not say which PDB is its own: it has no debug directory";

const fn otherwise(quirk: Quirk) -> Otherwise {
    match quirk {
        Quirk::NoDebugDirectory => Otherwise {
            gaps: &[
                ("lm", None),
                ("!verifier", Some(NO_DIRECTORY)),
                ("!verifier 3 myfault.sys", Some(NO_DIRECTORY)),
                ("!verifier 80 8", Some(NO_DIRECTORY)),
            ],
            exit_code: 1,
            ..NOTHING
        },
        Quirk::NoVersion => Otherwise {
            ends: Some("does not say who it is: the target refused it with status C0000001"),
            exit_code: 1,
            ..NOTHING
        },
        Quirk::SilentAfterBreak => Otherwise {
            ends: Some("the target is lost: no answer within"),
            exit_code: 4,
            stays_stopped: true,
            ..NOTHING
        },
        _ => NOTHING,
    }
}

fn change(quirk: Quirk, machine: &mut Machine) {
    match quirk {
        Quirk::NoDebugDirectory => machine.remove_debug_directories(),
        Quirk::NoDebuggerData => machine.remove_debugger_data(),
        _ => {}
    }
}

#[test]
fn every_quirk_over_every_carrier_is_answered_or_named() {
    // One case again: VERIKD_CASE=stops-again
    let wanted = std::env::var("VERIKD_CASE").ok();
    let is_wanted = |quirk: &&Quirk| wanted.as_ref().is_none_or(|name| name == quirk.name());
    let cases: Vec<(Quirk, Carrier)> = Quirk::ALL
        .iter()
        .filter(is_wanted)
        .flat_map(|quirk| [Carrier::Kdnet, Carrier::UnixSocket].map(|carrier| (*quirk, carrier)))
        .collect();
    each(&cases, |(quirk, carrier)| {
        // Whoever falls silent is waited for no longer than it takes to be sure.
        let short: &[&str] = match otherwise(quirk).stays_stopped {
            true => &["--request-timeout", "4s", "--leave-timeout", "4s"],
            false => &[],
        };
        let played = play(carrier, short, |config| SimulatorConfig { quirks: [quirk].into(), ..config });
        wrong(quirk, &played)
    });
}

fn wrong(quirk: Quirk, played: &Played) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut complain_unless = |is_right: bool, what: String| {
        if !is_right {
            wrong.push(what);
        }
    };
    let right = otherwise(quirk);
    let own = quiet(&WINDOWS_7_SP1, Scenario::default(), |machine| change(quirk, machine));
    for ((answer, own), quiet) in played.first.iter().zip(own).zip(quiet_machine()) {
        if right.ends.is_some() && answer.text.is_empty() {
            continue;
        }
        complain_unless(answer.text == own.text, format!("not what the machine itself answers: {answer:#?}"));
        let gap = right.gaps.iter().find(|(command, _)| *command == answer.command);
        match gap {
            None => complain_unless(
                answer.text == quiet.text && !answer.names_a_gap(),
                format!("not what the quiet machine answers: {answer:#?}"),
            ),
            Some((_, None)) => complain_unless(!answer.names_a_gap(), format!("a gap: {answer:#?}")),
            Some((_, Some(sentence))) => complain_unless(
                answer.names_a_gap() && answer.said.iter().any(|line| line.contains(sentence)),
                format!("a gap without a name: {answer:#?}"),
            ),
        }
    }
    let is_whole = (played.first.len(), played.again.len()) == (FIRST.len(), AGAIN.len());
    match right.ends {
        None => complain_unless(is_whole, "not all was asked".into()),
        Some(sentence) => {
            complain_unless(!is_whole && played.says(sentence), format!("never said {sentence:?}"))
        }
    }
    complain_unless(played.code == right.exit_code, format!("exit code {}", played.code));
    let is_named = played.says("Connected to Windows build 7601 x64 target at ");
    complain_unless(is_named == (quirk != Quirk::NoVersion), "a banner that does not fit".into());
    let is_free = played.runs && played.stops == played.resumes && played.boot == 1;
    let is_told = played.says("may still stand still");
    complain_unless(is_free != right.stays_stopped, "left stopped".into());
    complain_unless(is_told == right.stays_stopped, "a word about a machine that stands still".into());
    if !wrong.is_empty() {
        wrong.push(format!("{} to {} stops; it was told: {:#?}", played.resumes, played.stops, played.told));
    }
    wrong
}

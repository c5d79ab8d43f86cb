//! The main job on a bad network, as a person does it: the program as a process, a simulated machine over real UDP. What it
//! prints is the published transcripts, or nothing that could be taken for them; the machine runs afterwards.
//!
//! Seeds are 1 to `VERIKD_SEEDS`; one alone is played again with `VERIKD_SEED`. A seed fixes what happens to which datagram;
//! which datagrams there are depends on how busy this machine is, too, so that a seed that failed may need some tries.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use verikd_sim::Faults;

use crate::field::{Debugger, Ended, free_port, machine, runs, runs_after_the_advice};
use crate::program::normalized;

const SCRIPT: &str = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000";
const LIST: &str = include_str!("../golden/verifier-3-myfault.txt");
const LOG: &str = include_str!("../golden/verifier-80.txt");
/// Seeds that are played where nothing else is said.
const SEEDS: u64 = 6;
/// Sessions at a time; they wait most of the time.
const AT_A_TIME: usize = 12;

#[test]
fn a_network_that_loses_every_third_datagram_changes_no_byte() {
    let ends = each_seed(0.3, |ended, is_right, runs| {
        let is_warned = ended.err.contains("may still stand still");
        match () {
            () if ended.code != 0 => Err("did not end with 0"),
            () if !is_right => Err("a wrong answer"),
            () if !runs || is_warned => Err("the machine is not known to run"),
            () => Ok("right"),
        }
    });
    assert_eq!(ends.keys().collect::<Vec<_>>(), [&"right"]);
}

#[test]
fn a_network_that_loses_half_of_all_answers_rightly_or_says_why_not() {
    each_seed(0.5, |ended, is_right, runs| {
        let is_warned = ended.err.contains("may still stand still") && ended.code == 4;
        let explanation = EXPLANATIONS.iter().find(|sentence| ended.err.contains(**sentence));
        match explanation {
            _ if !is_right && !is_whole(&ended.out) => Err("a wrong answer"),
            _ if !is_right && ended.code == 0 => Err("0 without the answer"),
            _ if !runs && !is_warned => Err("left stopped without a word"),
            _ if ended.code == 0 => Ok("right"),
            Some(explanation) => Ok(explanation),
            None => Err("no word why"),
        }
    });
}

/// What a session that such a network defeats says, one of them at least.
const EXPLANATIONS: [&str; 6] = [
    "may still stand still",
    "the target is lost",
    "did not stop within",
    "no datagram arrived",
    "does not react to answers",
    "does not say who it is",
];

/// True for one whole answer after the other, or none.
fn is_whole(out: &str) -> bool {
    let (list, log) = (normalized(LIST), normalized(LOG));
    [vec![], list, log].contains(&normalized(out))
}

/// Plays every seed and asks its machine; how many ended in which way. Complaints are about seeds.
fn each_seed(
    loss: f64,
    judge: impl Fn(&Ended, bool, bool) -> Result<&'static str, &'static str> + Sync,
) -> BTreeMap<&'static str, u64> {
    let number = |name| std::env::var(name).ok().map(|it| it.parse::<u64>().expect("a number"));
    let (first, last) = match number("VERIKD_SEED") {
        Some(seed) => (seed, seed),
        None => (1, number("VERIKD_SEEDS").unwrap_or(SEEDS)),
    };
    let (next, ends) = (AtomicU64::new(first), Mutex::new(BTreeMap::new()));
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| play(seed, loss, &judge))) {
                        Ok(Ok(end)) => *ends.lock().unwrap().entry(end).or_insert(0) += 1,
                        Ok(Err(complaint)) => complaints.lock().unwrap().push(complaint),
                        Err(panic) => {
                            let what = panic.downcast::<String>().map_or_else(|_| String::new(), |it| *it);
                            complaints.lock().unwrap().push(format!("VERIKD_SEED={seed}: {what}"));
                        }
                    }
                }
            });
        }
    });
    let (ends, complaints) = (ends.into_inner().unwrap(), complaints.into_inner().unwrap());
    println!("{} % lost, seeds {first} to {last}: {ends:?}, {} wrong", loss * 100.0, complaints.len());
    assert!(complaints.is_empty(), "at {} % loss: {}", loss * 100.0, complaints.join("\n"));
    ends
}

fn play(
    seed: u64,
    loss: f64,
    judge: impl Fn(&Ended, bool, bool) -> Result<&'static str, &'static str>,
) -> Result<&'static str, String> {
    let port = free_port();
    let mut debugger = Debugger::start(port, &["-b", "-c", SCRIPT]);
    debugger.wait_for("Waiting for a target");
    let faults = Faults { loss, duplicate: 0.1, reorder: 0.1, corrupt: 0.05, seed, ..Faults::default() };
    let target = machine(port, faults);
    let ended = debugger.finish();
    let right = [normalized(LIST), normalized(LOG)].concat();
    let (is_right, runs) = (normalized(&ended.out) == right, runs(&target));
    let end = judge(&ended, is_right, runs);
    if !runs && !runs_after_the_advice(&target, port) {
        return Err(format!("VERIKD_SEED={seed}: the advice does not help: {ended:#?}"));
    }
    end.map_err(|wrong| format!("VERIKD_SEED={seed}: {wrong}: {ended:#?}"))
}

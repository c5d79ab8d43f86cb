//! The prompt on a real terminal: whoever sits there, whatever the machine does meanwhile, and however he leaves.

use std::sync::Arc;
use std::time::Duration;

use verikd_sim::windows::{Build, Chance, Stop};
use verikd_sim::{AtBoot, Faults, MachineState, Quirk, Simulator, SimulatorConfig};

use crate::field::{self, Debugger, cut, free_port, leaking, machine, runs};
use crate::terminal::{CTRL_C, CTRL_D, CTRL_Z, Desk, Left, Person};

mod out;
mod sees;

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

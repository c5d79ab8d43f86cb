//! What a breakpoint costs a machine that stands still at it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use verikd::commands::ControlCommand;
use verikd::debugger::{Debugger, Notice, Observer, Stop, StopCause};
use verikd::source::{Control, Halt, IGNORE, Source, Wait};
use verikd_sim::windows::Growth;

use super::live::{Live, PATIENCE};

struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        Bytes::from_static(IGNORE)
    }
}

/// Lets it run to the breakpoint; passes are gone on from.
fn run_to_it(debugger: &mut Debugger, control: &dyn Control) -> Stop {
    debugger.go_to("", &mut Nobody).unwrap();
    loop {
        let halt = control.wait_for_halt(None, Some(Instant::now() + PATIENCE));
        assert!(matches!(halt, Wait::Done(Halt::Stopped(_))), "{halt:?}");
        if let Some(stop) = debugger.present_stop(true, &mut Nobody).unwrap() {
            return stop;
        }
    }
}

/// What reaching a breakpoint costs the first time, a later one, and all stops up to its eighth pass.
fn costs(command: ControlCommand, place: &str) -> [u64; 3] {
    let growth = Growth { processors: 4, callers: 3, ..Growth::default() };
    let live = Live::leaking(growth, Duration::from_millis(30));
    let mut debugger = live.debugger();
    let session = Arc::clone(&live.session);
    debugger.break_in(&mut Nobody).unwrap();
    let cost = |debugger: &mut Debugger| {
        let before = session.counters().requests;
        let stop = run_to_it(debugger, &*session);
        assert_eq!(stop.cause, StopCause::Breakpoint(0));
        session.counters().requests - before
    };
    debugger.set_breakpoint(command, place).unwrap();
    let (first, later) = (cost(&mut debugger), cost(&mut debugger));
    let before = session.counters().requests;
    debugger.set_breakpoint(command, &format!("{place} 8")).unwrap();
    assert_eq!(session.counters().requests, before, "what is known is not asked for");
    let eighth = cost(&mut debugger);
    assert_eq!(session.leave(), verikd::source::Resumed::Running);
    assert_eq!((live.breakpoints(), live.debug_registers()), (0, 0));
    [first, later, eighth]
}

#[test]
fn a_breakpoint_costs_a_handful_of_requests_each_time() {
    let [first, later, eighth] = costs(ControlCommand::SetBreakpoint, "nt!ExAllocatePoolWithTag");
    let pass = (eighth - later).div_ceil(7);
    println!("bp: the first stop {first} requests, a later one {later}, a pass {pass}");
    assert!(first <= 12, "{first}");
    assert!(later <= 4, "{later}");
    assert!(pass <= 4, "{pass}");
}

/// Two a processor when they are set, and none from then on: each continue says which are on.
#[test]
fn a_debug_register_costs_nothing_but_its_setting() {
    let [first, later, eighth] = costs(ControlCommand::SetBreakpointOnAccess, "w4 nt!VfPoolTracesIndex");
    let pass = eighth.div_ceil(8);
    println!("ba: the first stop {first} requests, a later one {later}, a pass {pass}");
    // What lies at a place that was not met yet is read for its description.
    assert!(first <= 2 * 4 + 6, "{first}");
    assert!(later <= 1 && pass <= 1, "{later} {pass}");
}

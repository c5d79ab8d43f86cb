//! Where and why a machine stops by itself: what a driver did, and what the kernel makes of it.
//!
//! Whatever the reason, every processor is frozen as at a break-in; the first stands where it happened.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, Site};
use super::place::{CallFrame, Place};
use super::scenario::Scenario;
use super::{leak, modules, processes, processors, verified};

/// Why a machine stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A driver executes an `int 3` that somebody compiled into it: 80000003.
    Breakpoint,
    /// A driver's assertion fails, `int 2c`: c0000420, at the instruction. Told to go on there, it stops there again.
    Assertion,
    /// A driver reads what is not mapped: c0000005.
    AccessViolation(Chance),
    /// One instruction was executed: 80000004.
    SingleStep,
    /// A driver was loaded.
    LoadSymbols,
    /// A driver is being unloaded.
    UnloadSymbols,
    /// The machine says that it restarts, and does so when it is told to go on.
    Restart,
    /// `KeBugCheckEx`: the kernel prints what happened and stops, stops again when it is told to go on, then restarts.
    BugCheck {
        /// `KiBugCheckData[0]`.
        code: u32,
        /// The four behind it.
        parameters: [u64; 4],
    },
}

/// Who has seen an exception before the debugger is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chance {
    /// Nobody. A handler of the driver takes it if the debugger doesn't.
    First,
    /// Every handler. If the debugger does not handle it either, the machine bug-checks.
    Second,
}

/// `DBG_STATUS_BUGCHECK_FIRST`: no bug-check callback was called yet.
pub(super) const BUGCHECK_FIRST: u64 = 3;
/// `DBG_STATUS_BUGCHECK_SECOND`: they were.
pub(super) const BUGCHECK_SECOND: u64 = 4;

/// A parameter that says where a driver was, for the bug checks that have one: code, number of the parameter.
const PLACES_OF_BUG_CHECKS: [(u32, usize); 5] = [(0xa, 3), (0xd1, 3), (0x1e, 1), (0x3b, 1), (0x7e, 1)];

/// Where the first processor is when the machine was just broken into: on the breakpoint instruction of
/// `nt!DbgBreakPointWithStatus`, below the clock interrupt that noticed the debugger. It broke into the idle loop, or, where
/// drivers have much to do, into one that had interrupted another.
pub(super) fn break_in_place(kernel: &Kernel, scenario: Scenario) -> Place {
    const DBG_STATUS_CONTROL_C: u64 = 1;
    let is_there = |driver: &str| {
        let images = kernel.layouts.images.iter();
        scenario.is_loaded(driver) && images.map(|(_, layout)| layout).any(|layout| layout.module == driver)
    };
    let is_busy = is_there("myfault") && is_there("netfilt");
    let (interrupted, user) = if is_busy {
        let below = PACKET_STACK.iter().take(PACKET_IN_DPC).chain(&[DPC]).chain(REQUEST_STACK);
        (below.copied().collect(), Place::USER)
    } else {
        (processors::IDLE_STACK.to_vec(), None)
    };
    let stack = kernel.stack(&[CLOCK_STACK, &interrupted].concat());
    Place {
        rip: kernel.symbol("DbgBreakPointWithStatus"),
        rcx: DBG_STATUS_CONTROL_C,
        stack,
        user,
        arguments: None,
        thread: None,
    }
}

/// Where the first processor is when the machine stops by itself. Puts the instruction there that makes it stop.
pub(super) fn place(kernel: &mut Kernel, scenario: Scenario, stop: Stop) -> Place {
    let mut in_driver = |instruction: &[u8], rcx| {
        let place = driver_place(kernel, scenario);
        kernel.write(place.rip, instruction);
        Place { rcx, ..place }
    };
    match stop {
        Stop::Breakpoint => in_driver(&[0xcc], 0),
        Stop::Assertion => in_driver(&[0xcd, 0x2c], 0),
        // mov rax, [rcx]
        Stop::AccessViolation(_) => in_driver(&[0x48, 0x8b, 0x01], UNMAPPED),
        Stop::SingleStep => in_driver(&[0x90], 0),
        Stop::LoadSymbols | Stop::UnloadSymbols | Stop::Restart => {
            let stack = kernel.stack(LOAD_STACK);
            Place {
                rip: kernel.symbol("DbgLoadImageSymbols"),
                rcx: 0,
                stack,
                user: None,
                arguments: None,
                thread: None,
            }
        }
        Stop::BugCheck { code, parameters } => {
            note_bug_check(kernel, code, parameters);
            bug_check_place(kernel, scenario, BUGCHECK_FIRST)
        }
    }
}

/// Where the first processor is when a bug-checked machine stops with this `DBG_STATUS`.
pub(super) fn bug_check_place(kernel: &Kernel, scenario: Scenario, status: u64) -> Place {
    let driver = driver_place(kernel, scenario);
    let mut stack = kernel.stack(BUG_CHECK_STACK);
    stack.push(driver.rip);
    stack.extend(driver.stack);
    Place { rip: kernel.symbol("DbgBreakPointWithStatus"), rcx: status, stack, ..driver }
}

/// What `KeBugCheckEx` prints, each line with its end.
///
/// Source: its text in published sessions of WinDbg; addresses in capitals, as the kernel's `%p` prints them.
pub(super) fn bug_check_text(kernel: &Kernel, code: u32, parameters: [u64; 4]) -> Vec<String> {
    let place =
        PLACES_OF_BUG_CHECKS.iter().find(|(of, _)| *of == code).map(|(_, number)| parameters[*number]);
    let driver = place.and_then(|place| {
        let images = kernel.layouts.images.iter().map(|(_, layout)| layout);
        images
            .filter(|layout| layout.module != "nt")
            .find(|layout| (layout.base..layout.base + u64::from(layout.size_of_image())).contains(&place))
            .map(|layout| (place, &*layout.file, layout.base, layout.timestamp))
    });
    bug_check_lines(16, code, parameters, driver)
}

/// The same for addresses of so many digits, and the driver at fault: where, its file, base and timestamp.
pub(super) fn bug_check_lines(
    digits: usize,
    code: u32,
    parameters: [u64; 4],
    driver: Option<(u64, &str, u64, u32)>,
) -> Vec<String> {
    let [first, second, third, fourth] = parameters.map(|parameter| format!("{parameter:0digits$X}"));
    let mut lines = vec![
        "\n".to_owned(),
        format!("*** Fatal System Error: 0x{code:08x}\n"),
        format!("                       (0x{first},0x{second},0x{third},0x{fourth})\n\n"),
    ];
    if let Some((place, file, base, timestamp)) = driver {
        lines.push("Driver at fault: \n".to_owned());
        lines.push(format!(
            "***    {file} - Address {place:0digits$X} base at {base:0digits$X}, DateStamp {timestamp:08x}\n.\n"
        ));
    }
    lines
}

/// What a machine in this scenario bug-checks with as soon as it runs, if it does. Writes what the parameters lead to.
///
/// Source: Microsoft's pages on bug checks C4 and 7E. \[uncertain: whether C4/62 has the driver's name as characters or as a
/// UNICODE_STRING; these are characters\]
pub(super) fn bug_check_of(kernel: &mut Kernel, scenario: Scenario) -> Option<Stop> {
    const VIOLATION: u32 = 0xc4;
    const THREAD_EXCEPTION: u32 = 0x7e;
    const ACCESS_VIOLATION: u64 = 0xffff_ffff_c000_0005;
    const USER_HANDLE: u64 = 0x1a4;
    let in_driver = driver_code(kernel, scenario).0;
    let (code, parameters) = match scenario {
        Scenario::BugcheckC462 => {
            let name = modules::base_name_of(kernel, driver(scenario).0);
            (VIOLATION, [0x62, name.0, verified::MYFAULT.entry.0, leak::BLOCKS_AT_FIRST_STOP])
        }
        Scenario::BugcheckC460 => {
            let blocks = leak::BLOCKS_AT_FIRST_STOP;
            (VIOLATION, [0x60, 0, blocks * leak::BLOCK, blocks])
        }
        Scenario::BugcheckC4F6 => (VIOLATION, [0xf6, USER_HANDLE, processes::LEAKING_PROCESS.0, in_driver]),
        Scenario::Bugcheck7e => {
            let (record, context) = exception_records(kernel, in_driver);
            (THREAD_EXCEPTION, [ACCESS_VIOLATION, in_driver, record.0, context.0])
        }
        _ => return None,
    };
    Some(Stop::BugCheck { code, parameters })
}

/// Writes an EXCEPTION_RECORD and a CONTEXT of an access violation below what the stack of the first processor uses.
fn exception_records(kernel: &mut Kernel, at: u64) -> (VirtAddr, VirtAddr) {
    let record = VirtAddr(processors::FIRST_STACK.0 - 0x2000);
    let context = record.offset(0x100);
    const ACCESS_VIOLATION: u64 = 0xc000_0005;
    const READ: u64 = 0;
    // Code, Flags; ExceptionRecord; ExceptionAddress; NumberParameters; ExceptionInformation.
    for (offset, value) in
        [(0, ACCESS_VIOLATION), (8, 0), (0x10, at), (0x18, 2), (0x20, READ), (0x28, UNMAPPED)]
    {
        kernel.write_u64(record.offset(offset), value);
    }
    let fields =
        [("ContextFlags", 0x10_001f), ("SegCs", 0x10), ("EFlags", 0x1_0246), ("Rip", at), ("Rcx", UNMAPPED)];
    kernel.set_all(context, "_CONTEXT", &fields);
    (record, context)
}

/// The driver that is loaded or unloaded at a stop of that kind: its path, base and size.
pub(super) fn loaded_driver(kernel: &Kernel, scenario: Scenario) -> (String, u64, u32) {
    let layout = kernel.image(driver(scenario).0);
    (modules::full_name(layout), layout.base, layout.size_of_image())
}

/// What no machine maps: the address that a driver reads in an access violation.
pub(super) const UNMAPPED: u64 = 0xffff_fa7f_dead_0000;

fn note_bug_check(kernel: &mut Kernel, code: u32, parameters: [u64; 4]) {
    let data = kernel.symbol("KiBugCheckData");
    kernel.write_u64(data, code.into());
    for (number, parameter) in (1..).zip(parameters) {
        kernel.write_u64(data.offset(number * 8), parameter);
    }
}

fn driver_code(kernel: &Kernel, scenario: Scenario) -> VirtAddr {
    let (module, routine, displacement) = driver(scenario);
    kernel.address_in(module, routine, displacement)
}

/// A driver's code, and who called it: a program's request, or a packet that has come.
fn driver_place(kernel: &Kernel, scenario: Scenario) -> Place {
    let (sites, user) = driver_stack(scenario);
    Place {
        rip: driver_code(kernel, scenario),
        rcx: 0,
        stack: kernel.stack(&sites[1..]),
        user,
        arguments: None,
        thread: None,
    }
}

/// A routine of a driver that the scenario has loaded.
fn driver(scenario: Scenario) -> Site {
    driver_stack(scenario).0[0]
}

/// The same with its callers, and the program that called the kernel.
fn driver_stack(scenario: Scenario) -> (&'static [Site], Option<CallFrame>) {
    let (sites, user) =
        if scenario.is_loaded("myfault") { (REQUEST_STACK, Place::USER) } else { (PACKET_STACK, None) };
    assert!(scenario.is_loaded(sites[0].0), "every scenario loads one of them");
    (sites, user)
}

const REQUEST_STACK: &[Site] = &[
    ("myfault", "MyfaultDeviceControl", 0x1e0),
    ("myfault", "MyfaultDispatch", 0xb7),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

const PACKET_STACK: &[Site] = &[
    ("netfilt", "FilterReceiveNetBufferLists", 0x120),
    ("ndis", "ndisMIndicateNetBufferListsToOpen", 0x8c),
    ("ndis", "ndisMDispatchReceiveNetBufferLists", 0x1d2),
    ("ndis", "NdisMIndicateReceiveNetBufferLists", 0x64),
    ("ndis", "ndisInterruptDpc", 0x155),
    ("nt", "KiRetireDpcList", 0x1bc),
    ("nt", "KiIdleLoop", 0x5a),
];

/// How many of those run at the interrupt level of deferred calls, from which others can be interrupted.
const PACKET_IN_DPC: usize = 6;
const DPC: Site = ("nt", "KiDpcInterrupt", 0x16d);

/// The clock interrupt sees that the debugger wants the machine.
const CLOCK_STACK: &[Site] = &[
    ("nt", "KdCheckForDebugBreak", 0x3b),
    ("nt", "KeUpdateRunTime", 0x142),
    ("nt", "KeUpdateSystemTime", 0x17a),
    ("hal", "HalpClockInterrupt", 0x8b),
    ("nt", "KiInterruptDispatch", 0x12c),
];

const LOAD_STACK: &[Site] = &[
    ("nt", "IopLoadDriver", 0x3a),
    ("nt", "IopLoadUnloadDriver", 0x55),
    ("nt", "ExpWorkerThread", 0x111),
    ("nt", "PspSystemThreadStartup", 0x5a),
    ("nt", "KiStartSystemThread", 0x16),
];

const BUG_CHECK_STACK: &[Site] = &[("nt", "KeBugCheck2", 0x5d1), ("nt", "KeBugCheckEx", 0x104)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn stops_lie_in_their_routines() {
        let stacks = [
            REQUEST_STACK,
            PACKET_STACK,
            CLOCK_STACK,
            &[DPC],
            LOAD_STACK,
            BUG_CHECK_STACK,
            &processors::IDLE_STACK,
        ];
        assert_sites_lie_in_their_routines(stacks.into_iter().flatten());
    }
}

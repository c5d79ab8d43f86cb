//! The simulated machine's handle, over real sockets: what tests can do to a machine from any thread.

use std::net::UdpSocket;
use std::time::Duration;

use crate::junk::Junk;
use kd_protocol::kdnet::Key;
use verikd_sim::windows::{Build, Scenario, Stop};
use verikd_sim::{AtBoot, Faults, MachineState, Simulator, SimulatorConfig};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Debugger {
    socket: UdpSocket,
    simulator: Simulator,
}

impl Debugger {
    fn of(configure: impl FnOnce(SimulatorConfig) -> SimulatorConfig) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let key: Key = "1.2.3.4".parse().unwrap();
        let config = configure(SimulatorConfig::new(socket.local_addr().unwrap(), key));
        Self { socket, simulator: Simulator::start(config).unwrap() }
    }

    /// The length of the next datagram.
    fn receive(&self) -> usize {
        self.socket.recv(&mut [0; 2000]).unwrap()
    }
}

#[test]
fn orders_are_carried_out_when_they_return_whoever_gives_them() {
    let debugger = Debugger::of(|config| config);
    let machine = &debugger.simulator;
    debugger.receive();
    assert!(machine.wait_for(MachineState::Running, PATIENCE));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine.suspend();
            assert_eq!((machine.state(), machine.is_running()), (MachineState::Suspended, false));
            machine.wake();
            assert!(machine.is_running());
        });
    });
    machine.stop_with(Stop::Breakpoint);
    assert_eq!((machine.state(), machine.stops(), machine.resumes()), (MachineState::Stopped, 1, 0));
    machine.reboot_as(Build::find("11-24h2").unwrap(), 1, AtBoot::Runs).unwrap();
    assert_eq!((machine.state(), machine.boot(), machine.resumes()), (MachineState::Running, 2, 1));
    machine.power_off();
    assert_eq!((machine.state(), machine.is_running()), (MachineState::Off, false));
    machine.power_on();
    assert_eq!((machine.state(), machine.boot()), (MachineState::Running, 3));
    machine.reboot(AtBoot::Asks("Break, Ignore (bi)? ".into()));
    assert_eq!((machine.state(), machine.boot()), (MachineState::WaitingAtPrompt, 4));
    assert_eq!((machine.written(), machine.requests(), machine.answers()), (0, 0, Vec::new()));
}

#[test]
fn a_machine_cannot_become_one_that_its_scenario_is_not_for() {
    let debugger = Debugger::of(|config| SimulatorConfig {
        build: Build::find("2022").unwrap(),
        scenario: Scenario::AdvancedTracking,
        ..config
    });
    let refused = debugger.simulator.reboot_as(Build::find("7sp1").unwrap(), 0, AtBoot::Runs);
    assert!(refused.unwrap_err().to_string().contains("nt!ViPoolInfoAvl"));
    assert_eq!(debugger.simulator.boot(), 1);
}

#[test]
fn a_network_that_was_silent_speaks_when_it_is_told_to() {
    let silent = Faults { silence: true, ..Faults::default() };
    let debugger = Debugger::of(|config| SimulatorConfig { faults: silent, ..config });
    debugger.simulator.reboot(AtBoot::Runs);
    debugger.socket.set_nonblocking(true).unwrap();
    assert!(debugger.socket.recv(&mut [0; 2000]).is_err(), "a machine that boots offers itself at once");
    debugger.socket.set_nonblocking(false).unwrap();
    debugger.simulator.set_faults(Faults::default(), silent);
    assert!(debugger.receive() > 300, "an offer");
}

#[test]
fn junk_from_a_third_socket_does_not_reach_the_machine() {
    let debugger = Debugger::of(|config| config);
    debugger.receive();
    let address = (std::net::Ipv4Addr::LOCALHOST, debugger.simulator.address().unwrap().port()).into();
    let junk = Junk::flood(address, 3);
    debugger.receive();
    debugger.simulator.stop_with(Stop::Assertion);
    debugger.simulator.reboot(AtBoot::Runs);
    debugger.receive();
    assert!(junk.sent() > 100, "{}", junk.sent());
    assert_eq!((debugger.simulator.requests(), debugger.simulator.stops()), (0, 1));
}

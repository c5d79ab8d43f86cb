//! A simulated machine of either width.

use std::time::Duration;

use kd_protocol::kd::{Context, ControlReport};
use kd_protocol::wire::Reader;
use kd_protocol::{PhysAddr, VirtAddr};

use super::debugger_data::Version;
use super::growth::Growth;
use super::images::Build;
use super::ledger::Outstanding;
use super::machine::{Machine, Met};
use super::processors::Processor;
use super::scenario::Scenario;
use super::stops::Stop;
use super::x86::{self, X86Machine};

/// A simulated machine of either width.
#[derive(Clone, Debug)]
pub enum System {
    /// x64.
    X64(Box<Machine>),
    /// x86 with PAE.
    X86(Box<X86Machine>),
}

macro_rules! either {
    ($self:ident, $machine:ident => $do:expr) => {
        match $self {
            System::X64($machine) => $do,
            System::X86($machine) => $do,
        }
    };
}

/// What every machine does; each method is described at [`Machine`]'s.
#[expect(missing_docs, reason = "described at Machine")]
impl System {
    /// A machine with this Windows, as [`Machine::grown`] makes one. A 32-bit one is always at its place and of one size.
    ///
    /// # Panics
    /// As [`Machine::grown`].
    #[must_use]
    pub fn new(build: &Build, scenario: Scenario, seed: u64, slide: u16, growth: Growth) -> Self {
        if build.is_32_bit() {
            scenario.check(build).unwrap_or_else(|error| panic!("{error}"));
            return Self::X86(Box::new(X86Machine::new(scenario)));
        }
        Self::X64(Box::new(Machine::grown(build, scenario, seed, slide, growth)))
    }

    pub fn leak_every(&mut self, interval: Duration) {
        if let Self::X64(machine) = self {
            machine.leak_every(interval);
        }
    }

    /// Nothing on a 32-bit machine, of which no such account is kept.
    #[must_use]
    pub fn outstanding_at(&self, event: u32) -> Option<Vec<Outstanding>> {
        match self {
            Self::X64(machine) => machine.outstanding_at(event),
            Self::X86(_) => None,
        }
    }

    pub fn break_in(&mut self) {
        either!(self, machine => machine.break_in());
    }

    pub fn stop_by_itself(&mut self, stop: Stop) {
        either!(self, machine => machine.stop_by_itself(stop));
    }

    pub fn stop_after_bug_check(&mut self) {
        either!(self, machine => machine.stop_after_bug_check());
    }

    pub fn bug_check(&mut self) -> Option<Stop> {
        either!(self, machine => machine.bug_check())
    }

    pub fn print_bug_check(&mut self, code: u32, parameters: [u64; 4]) -> Vec<String> {
        match self {
            Self::X64(machine) => machine.print_bug_check(code, parameters),
            Self::X86(machine) => machine.bug_check_text(code, parameters),
        }
    }

    pub fn print(&mut self, line: &str) {
        if let Self::X64(machine) = self {
            machine.print(line);
        }
    }

    pub fn run_for(&mut self, time: Duration) -> Vec<String> {
        either!(self, machine => machine.run_for(time))
    }

    /// Nothing on a 32-bit machine, whose code is not run.
    pub fn stop_on_the_way(&mut self) -> Option<Met> {
        match self {
            Self::X64(machine) => machine.stop_on_the_way(),
            Self::X86(_) => None,
        }
    }

    pub fn set_breakpoints(&mut self, breakpoints: Vec<VirtAddr>) {
        if let Self::X64(machine) = self {
            machine.set_breakpoints(breakpoints);
        }
    }

    /// Where the kernel has what is called so.
    #[must_use]
    pub fn address_of(&self, symbol: &str) -> Option<VirtAddr> {
        match self {
            Self::X64(machine) => machine.address_of(symbol),
            Self::X86(_) => None,
        }
    }

    pub fn take_debug_registers(&mut self, processor: usize) {
        if let Self::X64(machine) = self {
            machine.take_debug_registers(processor);
        }
    }

    pub fn set_debug_control(&mut self, control: u64) {
        if let Self::X64(machine) = self {
            machine.set_debug_control(control);
        }
    }

    pub fn stops_at_register(&mut self, processor: usize) -> bool {
        match self {
            Self::X64(machine) => machine.stops_at_register(processor),
            Self::X86(_) => false,
        }
    }

    #[must_use]
    pub fn debug_registers(&self) -> usize {
        match self {
            Self::X64(machine) => machine.debug_registers(),
            Self::X86(_) => 0,
        }
    }

    #[must_use]
    pub fn is_on_its_guard(&self) -> bool {
        matches!(self, Self::X64(machine) if machine.is_on_its_guard())
    }

    pub fn step(&mut self, processor: usize) {
        either!(self, machine => machine.step(processor));
    }

    #[must_use]
    pub fn pool_hit_tag(&self) -> Option<[u8; 4]> {
        match self {
            Self::X64(machine) => machine.pool_hit_tag(),
            Self::X86(_) => None,
        }
    }

    pub fn reboot(&mut self) {
        either!(self, machine => machine.reboot());
    }

    #[must_use]
    pub fn driver(&self) -> (String, VirtAddr, u32) {
        either!(self, machine => machine.driver())
    }

    pub fn remove_debug_directories(&mut self) {
        either!(self, machine => machine.remove_debug_directories());
    }

    pub fn remove_debugger_data(&mut self) {
        either!(self, machine => machine.remove_debugger_data());
    }

    pub fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> usize {
        either!(self, machine => machine.read_virtual(address, buf))
    }

    pub fn write_virtual(&mut self, address: VirtAddr, bytes: &[u8]) -> usize {
        either!(self, machine => machine.write_virtual(address, bytes))
    }

    pub fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> usize {
        either!(self, machine => machine.read_physical(address, buf))
    }

    pub fn write_physical(&mut self, address: PhysAddr, bytes: &[u8]) -> usize {
        either!(self, machine => machine.write_physical(address, bytes))
    }

    #[must_use]
    pub fn search_virtual(&self, start: VirtAddr, length: u64, pattern: &[u8]) -> Option<VirtAddr> {
        either!(self, machine => machine.search_virtual(start, length, pattern))
    }

    #[must_use]
    pub fn processors(&self) -> &[Processor] {
        either!(self, machine => machine.processors())
    }

    pub fn processor_mut(&mut self, number: usize) -> Option<&mut Processor> {
        either!(self, machine => machine.processor_mut(number))
    }

    #[must_use]
    pub fn version(&self) -> &Version {
        either!(self, machine => machine.version())
    }

    #[must_use]
    pub fn running(&self) -> Duration {
        either!(self, machine => machine.running())
    }

    #[must_use]
    pub fn is_32_bit(&self) -> bool {
        matches!(self, Self::X86(_))
    }

    /// Rip or Eip of a processor; the latter sign-extended, as every address of a 32-bit machine is on the wire.
    #[must_use]
    pub fn program_counter(&self, processor: usize) -> VirtAddr {
        match self {
            Self::X64(machine) => context(machine, processor).rip,
            Self::X86(machine) => machine.register(processor, x86::EIP),
        }
    }

    /// Rcx or Ecx, in which an access violation has its address.
    #[must_use]
    pub fn counter(&self, processor: usize) -> u64 {
        match self {
            Self::X64(machine) => context(machine, processor).rcx,
            Self::X86(machine) => machine.register(processor, x86::ECX).0,
        }
    }

    /// Rax or Eax, a breakpoint's second parameter.
    #[must_use]
    pub fn accumulator(&self, processor: usize) -> u64 {
        match self {
            Self::X64(machine) => context(machine, processor).rax,
            Self::X86(machine) => machine.register(processor, x86::EAX).0,
        }
    }

    /// The control report of a state change: what the machine's own width has there.
    #[must_use]
    pub fn control_report(&self, processor: usize) -> ControlReport {
        let mut instruction_stream = [0; 16];
        let at = self.program_counter(processor);
        let instruction_count =
            u16::try_from(self.read_virtual(at, &mut instruction_stream)).expect("at most 16");
        let machine = match self {
            Self::X64(machine) => machine,
            Self::X86(machine) => {
                return machine.control_report(processor, instruction_stream, instruction_count);
            }
        };
        let context = context(machine, processor);
        ControlReport {
            dr6: context.dr6,
            dr7: context.dr7,
            e_flags: context.e_flags,
            instruction_count,
            report_flags: 3,
            instruction_stream,
            seg_cs: context.seg_cs,
            seg_ds: context.seg_ds,
            seg_es: context.seg_es,
            seg_fs: context.seg_fs,
        }
    }

    /// What a read of control space finds at a selector, which is an offset on x86.
    #[must_use]
    pub fn control_space(&self, number: usize, selector: u64) -> Option<Vec<u8>> {
        if let Self::X86(machine) = self {
            return machine.control_space(number, selector);
        }
        let processor = self.processors().get(number)?;
        match selector {
            0 => Some(processor.kpcr.0.to_le_bytes().to_vec()),
            1 => Some(processor.kprcb.0.to_le_bytes().to_vec()),
            2 => Some(processor.special_registers.clone()),
            3 => Some(processor.thread.0.to_le_bytes().to_vec()),
            _ => None,
        }
    }

    /// The selector of `KSPECIAL_REGISTERS` in control space.
    #[must_use]
    pub fn special_registers_selector(&self) -> u64 {
        match self {
            Self::X64(_) => 2,
            Self::X86(_) => x86::CONTEXT_SIZE as u64,
        }
    }
}

fn context(machine: &Machine, processor: usize) -> Context {
    let bytes = &machine.processors()[processor].context;
    Context::decode(&mut Reader::new("CONTEXT", bytes)).expect("a machine's context is whole")
}

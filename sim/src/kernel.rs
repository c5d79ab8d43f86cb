//! What the simulated kernel's debug engine answers: manipulate requests against a machine's memory and registers.
//!
//! Behaviour is PROTOCOL.md 9, where each API has its evidence; what is uncertain there is refused, as an unknown API is.

use bytes::Bytes;
use kd_protocol::kd::{
    ApiNumber, Arm, Exception, GetVersion64, LoadSymbols, Manipulate, NewState, NtStatus, StateChange,
    StateDetail, VersionFlags,
};
use kd_protocol::{PhysAddr, VirtAddr};

use super::quirks::{Quirk, Quirks};
use super::windows::{Chance, Met, Stop, System};

/// Slots of the kernel's breakpoint table.
const BREAKPOINTS: usize = 32;
/// Bytes at the program counter that a state change tells.
const REPORTED: u64 = 16;
/// `int3`.
const INT3: u8 = 0xcc;
/// `int 2c`: a failed assertion.
const INT_2C: [u8; 2] = [0xcd, 0x2c];
/// `STATUS_ASSERTION_FAILURE`.
const ASSERTION_FAILURE: NtStatus = NtStatus(0xc000_0420);
/// `STATUS_ACCESS_VIOLATION`.
const ACCESS_VIOLATION: NtStatus = NtStatus(0xc000_0005);
/// `KMODE_EXCEPTION_NOT_HANDLED`: what becomes of an exception that nobody handles.
const KMODE_EXCEPTION_NOT_HANDLED: u32 = 0x1e;
/// Family 6: what x64 processors of that time report.
const PROCESSOR_LEVEL: u16 = 6;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A reply packet.
    Reply(Box<Manipulate>),
    /// Acknowledged, and nothing more.
    Silence,
    /// The machine is told to go on, the exception being handled or not: [`Debuggee::resume`].
    Resume {
        /// Whether it was.
        status: NtStatus,
        /// One instruction only.
        traces: bool,
    },
    /// The machine stops on another processor, or again on this one.
    Report,
    /// The machine starts anew.
    Reboot,
}

/// What becomes of a machine that is told to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It runs.
    Runs,
    /// It stops again at once.
    Stops(Box<StateChange>),
    /// Nobody has handled its exception: it bug-checks.
    BugChecks(Stop),
    /// It starts anew.
    Restarts,
}

/// Why the machine stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The debugger wanted it to.
    BreakIn,
    /// An exception, which nobody has seen before (first chance) or nobody has handled.
    Exception { code: NtStatus, chance: Chance, parameters: [u64; 2] },
    /// A driver was loaded or is unloaded.
    Module { is_unloaded: bool },
    /// It is about to restart.
    Restart,
    /// A bug check; its callbacks were called or not.
    BugCheck { has_called_back: bool },
}

/// A machine and its kernel debug engine's own state.
#[derive(Debug)]
pub struct Debuggee {
    /// The machine.
    pub machine: System,
    breakpoints: [Option<Breakpoint>; BREAKPOINTS],
    /// Data that one reply carries.
    reply_data: usize,
    quirks: Quirks,
    /// The processor that reported the stop.
    processor: usize,
    /// The one that has stopped the others, which goes on from there.
    stopped_by: usize,
    cause: Cause,
    /// Where the machine stood when it stopped.
    stopped_at: VirtAddr,
    /// Bytes of memory that the debugger has overwritten.
    written: u64,
    /// A context can be set only after it was read in the same stop.
    is_context_read: bool,
    /// Pieces of a context that is being set.
    pending_context: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Breakpoint {
    address: VirtAddr,
    original: u8,
}

impl Debuggee {
    /// A machine that nobody has stopped yet, whose packets carry `reply_data` bytes of data, and what it does unlike Windows.
    #[must_use]
    pub const fn new(machine: System, reply_data: usize, quirks: Quirks) -> Self {
        Self {
            machine,
            reply_data,
            quirks,
            breakpoints: [None; BREAKPOINTS],
            processor: 0,
            stopped_by: 0,
            cause: Cause::BreakIn,
            stopped_at: VirtAddr(0),
            written: 0,
            is_context_read: false,
            pending_context: Vec::new(),
        }
    }

    /// Stops the machine as a break-in does, and says what to announce.
    pub fn break_in(&mut self) -> StateChange {
        self.machine.break_in();
        self.stopped(Cause::BreakIn)
    }

    /// Stops the machine as it does by itself, and says what to announce.
    pub fn stop_by_itself(&mut self, stop: Stop) -> StateChange {
        const READ: u64 = 0;
        self.machine.stop_by_itself(stop);
        let exception = |code, chance, parameters| Cause::Exception { code, chance, parameters };
        let rcx = self.machine.counter(0);
        self.stopped(match stop {
            Stop::Breakpoint => exception(NtStatus::BREAKPOINT, Chance::First, [0; 2]),
            Stop::Assertion => exception(ASSERTION_FAILURE, Chance::First, [0; 2]),
            Stop::AccessViolation(chance) => exception(ACCESS_VIOLATION, chance, [READ, rcx]),
            Stop::SingleStep => exception(NtStatus::SINGLE_STEP, Chance::First, [0; 2]),
            Stop::LoadSymbols => Cause::Module { is_unloaded: false },
            Stop::UnloadSymbols => Cause::Module { is_unloaded: true },
            Stop::Restart => Cause::Restart,
            Stop::BugCheck { .. } => Cause::BugCheck { has_called_back: false },
        })
    }

    /// Stops the machine if a processor has come to a breakpoint, or somebody has just used the tag in `nt!PoolHitTag`, and
    /// says what to announce.
    pub fn stop_on_the_way(&mut self) -> Option<(Met, StateChange)> {
        let met = self.machine.stop_on_the_way()?;
        let processor = match &met {
            Met::Breakpoint(processor) | Met::Register(processor) => *processor,
            Met::PoolHit(hit) => hit.processor,
        };
        let code = if matches!(met, Met::Register(_)) { NtStatus::SINGLE_STEP } else { NtStatus::BREAKPOINT };
        let cause = Cause::Exception { code, chance: Chance::First, parameters: [0; 2] };
        let change = self.stopped_on(processor, cause);
        Some((met, change))
    }

    /// Lets the machine go on. `status` says whether its exception was handled: failure if not.
    ///
    /// A processor that still stands on the instruction that stopped it stops there again. One that `traces` stops behind the
    /// next one.
    pub fn resume(&mut self, status: NtStatus, traces: bool) -> Resumed {
        let cause = self.cause;
        match cause {
            Cause::Restart | Cause::BugCheck { has_called_back: true } => return Resumed::Restarts,
            Cause::BugCheck { has_called_back: false } => {
                self.machine.stop_after_bug_check();
                return self.stops_again(Cause::BugCheck { has_called_back: true });
            }
            Cause::Exception { code, chance: Chance::Second, parameters } if !status.is_success() => {
                let parameters = [code.0.into(), self.stopped_at.0, parameters[0], parameters[1]];
                return Resumed::BugChecks(Stop::BugCheck { code: KMODE_EXCEPTION_NOT_HANDLED, parameters });
            }
            // The driver has a handler for these alone.
            Cause::Exception { code: ACCESS_VIOLATION, .. } if !status.is_success() => return Resumed::Runs,
            Cause::Exception { code, chance: Chance::First, parameters } if !status.is_success() => {
                return self.stops_again(Cause::Exception { code, chance: Chance::Second, parameters });
            }
            _ => {}
        }
        // The others idle.
        self.processor = self.stopped_by;
        let rip = self.machine.program_counter(self.processor);
        let mut instruction = [0; 2];
        let read = self.machine.read_virtual(rip, &mut instruction);
        let code = match (&instruction[..read], cause) {
            ([INT3, ..], _) => NtStatus::BREAKPOINT,
            (bytes, _) if bytes == INT_2C => ASSERTION_FAILURE,
            (_, Cause::Exception { code: ACCESS_VIOLATION, .. }) if rip == self.stopped_at => {
                ACCESS_VIOLATION
            }
            _ if self.machine.stops_at_register(self.processor) => NtStatus::SINGLE_STEP,
            _ if traces => {
                self.machine.step(self.processor);
                NtStatus::SINGLE_STEP
            }
            _ => return Resumed::Runs,
        };
        let parameters = match cause {
            Cause::Exception { code: same, parameters, .. } if same == code => parameters,
            _ => [0; 2],
        };
        self.stops_again(Cause::Exception { code, chance: Chance::First, parameters })
    }

    fn stopped(&mut self, cause: Cause) -> StateChange {
        self.stopped_on(0, cause)
    }

    fn stopped_on(&mut self, processor: usize, cause: Cause) -> StateChange {
        self.processor = processor;
        self.stopped_by = processor;
        self.cause = cause;
        self.stopped_at = self.machine.program_counter(self.processor);
        self.report()
    }

    fn stops_again(&mut self, cause: Cause) -> Resumed {
        self.cause = cause;
        self.stopped_at = self.machine.program_counter(self.processor);
        Resumed::Stops(Box::new(self.report()))
    }

    /// The state change for the processor that is being debugged.
    ///
    /// The breakpoints in the bytes that are told are taken away by that. Source: PROTOCOL.md 8.
    pub fn report(&mut self) -> StateChange {
        self.is_context_read = false;
        self.pending_context.clear();
        self.drop_breakpoints();
        let report = StateChange {
            processor_level: PROCESSOR_LEVEL,
            processor: u16::try_from(self.processor).expect("a few processors"),
            number_processors: u32::try_from(self.machine.processors().len()).expect("a few processors"),
            thread: self.machine.processors()[self.processor].thread,
            ..StateChange::exception(self.exception(), self.machine.control_report(self.processor))
        };
        let (load, path) = match self.cause {
            Cause::Module { is_unloaded } => self.load_symbols(is_unloaded),
            Cause::Restart => restart_notice(),
            _ => return report,
        };
        StateChange {
            new_state: NewState::LOAD_SYMBOLS,
            detail: StateDetail::LoadSymbols(load),
            data: path,
            ..report
        }
    }

    fn drop_breakpoints(&mut self) {
        let at = self.machine.program_counter(self.processor);
        for slot in 0..BREAKPOINTS {
            let is_told = |it: &mut Breakpoint| (at..at.offset(REPORTED)).contains(&it.address);
            if let Some(breakpoint) = self.breakpoints[slot].take_if(is_told) {
                self.write_code(breakpoint.address, breakpoint.original);
            }
        }
        self.tell_breakpoints();
    }

    /// Bytes that have changed: what cannot be written is not told of.
    fn write_code(&mut self, at: VirtAddr, byte: u8) -> u64 {
        let is_protected = self.quirks.has(Quirk::ProtectedCode);
        if is_protected { 0 } else { self.machine.write_virtual(at, &[byte]) as u64 }
    }

    /// The kernel's own table has them too. \[inferred: an entry is as in ReactOS: flags, page tables, address, the byte that was
    /// there; 0x20 bytes\]
    fn tell_breakpoints(&mut self) {
        const ENTRY: usize = 0x20;
        const IN_USE: u32 = 1;
        if let Some(table) = self.machine.address_of("KdpBreakpointTable") {
            let mut entries = [0; BREAKPOINTS * ENTRY];
            for (entry, slot) in entries.chunks_exact_mut(ENTRY).zip(&self.breakpoints) {
                if let Some(Breakpoint { address, original }) = slot {
                    entry[..4].copy_from_slice(&IN_USE.to_le_bytes());
                    entry[0x10..0x18].copy_from_slice(&address.0.to_le_bytes());
                    entry[0x18] = *original;
                }
            }
            self.machine.write_virtual(table, &entries);
        }
        // Where nothing is in the code nobody stops.
        let is_written = !self.quirks.has(Quirk::ProtectedCode);
        let breakpoints = self.breakpoints.iter().flatten().filter(|_| is_written);
        self.machine.set_breakpoints(breakpoints.map(|it| it.address).collect());
    }

    /// Slots of the table of breakpoints that are taken.
    #[must_use]
    pub fn breakpoints(&self) -> usize {
        self.breakpoints.iter().flatten().count()
    }

    fn exception(&self) -> Exception {
        let mut exception_information = [0; 15];
        let (code, chance, number_parameters) = match self.cause {
            Cause::Exception { code, chance, parameters } => {
                exception_information[..2].copy_from_slice(&parameters);
                (code, chance, if code == ACCESS_VIOLATION { 2 } else { 1 })
            }
            _ => {
                exception_information[1] = self.machine.accumulator(self.processor);
                (NtStatus::BREAKPOINT, Chance::First, 1)
            }
        };
        Exception {
            exception_code: code,
            exception_flags: 0,
            exception_record: VirtAddr(0),
            exception_address: self.machine.program_counter(self.processor),
            number_parameters,
            padding: 0,
            exception_information,
            first_chance: u32::from(chance == Chance::First),
            tail_padding: 0,
        }
    }

    fn load_symbols(&self, is_unloaded: bool) -> (LoadSymbols, Bytes) {
        let (path, base, size) = self.machine.driver();
        let path = path + "\0";
        let load = LoadSymbols {
            path_name_length: u32::try_from(path.len()).expect("a path is short"),
            padding: 0,
            base_of_dll: base,
            process_id: 0,
            check_sum: 0,
            size_of_image: size,
            unload_symbols: u8::from(is_unloaded),
        };
        (load, path.into())
    }

    /// Bytes of memory that the debugger has overwritten since the machine was made, breakpoints too.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Starts the machine anew, as another one if there is one.
    pub fn restart(&mut self, another: Option<System>) {
        match another {
            Some(machine) => self.machine = machine,
            None => self.machine.reboot(),
        }
        self.breakpoints = [None; BREAKPOINTS];
        self.processor = 0;
        self.stopped_by = 0;
        self.cause = Cause::BreakIn;
        self.is_context_read = false;
        self.pending_context.clear();
    }

    /// Carries out one request.
    pub fn answer(&mut self, request: &Manipulate) -> Answer {
        let reply = match (request.api_number, request.arm) {
            (_, Arm::Continue(arm)) => {
                return Answer::Resume { status: arm.continue_status, traces: false };
            }
            (_, Arm::Continue2(arm)) => {
                self.machine.set_debug_control(arm.dr7);
                return Answer::Resume { status: arm.continue_status, traces: arm.trace_flag != 0 };
            }
            (ApiNumber::REBOOT | ApiNumber::CAUSE_BUG_CHECK, _) => return Answer::Reboot,
            (ApiNumber::SWITCH_PROCESSOR, _) => {
                if usize::from(request.processor) < self.machine.processors().len() {
                    self.processor = request.processor.into();
                }
                return Answer::Report;
            }
            (api, _) if !api.has_reply() => return Answer::Silence,
            (ApiNumber::GET_VERSION, _) if self.quirks.has(Quirk::NoVersion) => refuse(request),
            (ApiNumber::GET_VERSION, _) => self.version(request),
            (_, Arm::SearchMemory(_)) if self.quirks.has(Quirk::NoSearch) => refuse(request),
            // Neither is there in Windows XP: its highest API is 315c.
            (_, Arm::ContextEx(_)) if self.quirks.has(Quirk::NoContextEx) || self.machine.is_32_bit() => {
                refuse(request)
            }
            (_, Arm::Msr(_)) if self.machine.is_32_bit() => refuse(request),
            (_, Arm::ReadMemory(_)) => self.read(request),
            (_, Arm::WriteMemory(_)) => self.write(request),
            (_, Arm::SearchMemory(_)) => self.search(request),
            (_, Arm::FillMemory(_)) => self.fill(request),
            (_, Arm::QueryMemory(_)) => query(request),
            (_, Arm::GetContext(_) | Arm::SetContext(_) | Arm::ContextEx(_)) => self.context_request(request),
            (_, Arm::WriteBreakPoint(_) | Arm::RestoreBreakPoint(_)) => self.breakpoint(request),
            (ApiNumber::READ_MACHINE_SPECIFIC_REGISTER, Arm::Msr(_)) => self.read_msr(request),
            (_, Arm::IoSpace(_)) => port(request),
            _ => refuse(request),
        };
        Answer::Reply(Box::new(reply))
    }

    fn version(&self, request: &Manipulate) -> Manipulate {
        let version = self.machine.version();
        let arm = GetVersion64 {
            major_version: version.major,
            minor_version: version.minor,
            protocol_version: version.protocol,
            kd_secondary_version: version.secondary,
            flags: VersionFlags::from_bits_retain(version.flags),
            machine_type: version.machine_type,
            max_packet_type: version.max_packet_type,
            max_state_change: version.max_state_change,
            max_manipulate: version.max_manipulate,
            simulation: 0,
            unused: 0,
            kern_base: version.kern_base,
            ps_loaded_module_list: version.ps_loaded_module_list,
            debugger_data_list: version.debugger_data_list,
        };
        Manipulate { arm: Arm::GetVersion(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
    }

    fn read(&self, request: &Manipulate) -> Manipulate {
        let Arm::ReadMemory(mut arm) = request.arm else { return refuse(request) };
        let asked = (arm.transfer_count as usize).min(self.reply_data);
        let mut data = vec![0; asked];
        let (got, wanted) = match request.api_number {
            ApiNumber::READ_VIRTUAL_MEMORY => {
                (self.machine.read_virtual(VirtAddr(arm.target_base_address), &mut data), asked)
            }
            ApiNumber::READ_PHYSICAL_MEMORY => {
                (self.machine.read_physical(PhysAddr(arm.target_base_address), &mut data), asked)
            }
            ApiNumber::READ_CONTROL_SPACE => {
                match self.machine.control_space(request.processor.into(), arm.target_base_address) {
                    Some(item) => {
                        // A longer request is clipped to the item, and that is success.
                        let len = item.len().min(asked);
                        data[..len].copy_from_slice(&item[..len]);
                        (len, len)
                    }
                    None => (0, 1),
                }
            }
            // Windows 7 has no long physical reads.
            _ => return refuse(request),
        };
        data.truncate(got);
        arm.actual_bytes_read = u32::try_from(got).expect("at most one packet");
        let status = if got == wanted { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL };
        Manipulate { arm: Arm::ReadMemory(arm), ..request.reply(status, data.into()) }
    }

    fn write(&mut self, request: &Manipulate) -> Manipulate {
        let Arm::WriteMemory(mut arm) = request.arm else { return refuse(request) };
        let data = &request.data[..request.data.len().min(arm.transfer_count as usize)];
        let written = match request.api_number {
            ApiNumber::WRITE_VIRTUAL_MEMORY => {
                self.machine.write_virtual(VirtAddr(arm.target_base_address), data)
            }
            ApiNumber::WRITE_PHYSICAL_MEMORY => {
                self.machine.write_physical(PhysAddr(arm.target_base_address), data)
            }
            ApiNumber::WRITE_CONTROL_SPACE
                if arm.target_base_address == self.machine.special_registers_selector() =>
            {
                match self.machine.processor_mut(request.processor.into()) {
                    Some(processor) => {
                        let len = data.len().min(processor.special_registers.len());
                        processor.special_registers[..len].copy_from_slice(&data[..len]);
                        self.machine.take_debug_registers(request.processor.into());
                        len
                    }
                    None => return refuse(request),
                }
            }
            _ => return refuse(request),
        };
        if request.api_number != ApiNumber::WRITE_CONTROL_SPACE {
            self.written += written as u64;
        }
        arm.actual_bytes_written = u32::try_from(written).expect("at most one packet");
        let status = if written == data.len() { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL };
        Manipulate { arm: Arm::WriteMemory(arm), ..request.reply(status, Bytes::new()) }
    }

    fn search(&self, request: &Manipulate) -> Manipulate {
        let Arm::SearchMemory(mut arm) = request.arm else { return refuse(request) };
        if request.data.is_empty() || request.data.len() != arm.pattern_length as usize {
            return request.reply(NtStatus::INVALID_PARAMETER, Bytes::new());
        }
        match self.machine.search_virtual(arm.search_address, arm.search_length, &request.data) {
            Some(found) => {
                arm.search_address = found;
                Manipulate { arm: Arm::SearchMemory(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
            }
            None => request.reply(NtStatus::NO_MORE_ENTRIES, Bytes::new()),
        }
    }

    fn fill(&mut self, request: &Manipulate) -> Manipulate {
        const VIRTUAL: u16 = 1;
        const PHYSICAL: u16 = 2;
        let Arm::FillMemory(mut arm) = request.arm else { return refuse(request) };
        let pattern = &request.data[..request.data.len().min(arm.pattern_length.into())];
        if pattern.is_empty() || !matches!(arm.flags, VIRTUAL | PHYSICAL) {
            return request.reply(NtStatus::INVALID_PARAMETER, Bytes::new());
        }
        let mut filled = 0;
        while filled < arm.length {
            let piece = &pattern[..pattern.len().min((arm.length - filled) as usize)];
            let at = arm.address.offset(filled.into());
            let written = match arm.flags {
                VIRTUAL => self.machine.write_virtual(at, piece),
                _ => self.machine.write_physical(PhysAddr(at.0), piece),
            };
            filled += u32::try_from(written).expect("at most one packet");
            if written < piece.len() {
                break;
            }
        }
        self.written += u64::from(filled);
        let status = if filled == arm.length { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL };
        arm.length = filled;
        Manipulate { arm: Arm::FillMemory(arm), ..request.reply(status, Bytes::new()) }
    }

    fn context_request(&mut self, request: &Manipulate) -> Manipulate {
        let reply_data = self.reply_data;
        let Some(processor) = self.machine.processor_mut(request.processor.into()) else {
            return refuse(request);
        };
        let total = processor.context.len();
        match request.arm {
            Arm::GetContext(_) => {
                self.is_context_read = true;
                request.reply(NtStatus::SUCCESS, processor.context.clone().into())
            }
            Arm::SetContext(_) if self.is_context_read && request.data.len() == total => {
                processor.context = request.data.to_vec();
                request.reply(NtStatus::SUCCESS, Bytes::new())
            }
            Arm::ContextEx(mut arm) if request.api_number == ApiNumber::GET_CONTEXT_EX => {
                let echoes = self.quirks.has(Quirk::ContextEcho);
                let end = u64::from(arm.offset) + u64::from(arm.byte_count);
                if echoes && end > total as u64 {
                    return refuse(request);
                }
                let offset = (arm.offset as usize).min(total);
                let piece = (total - offset).min(arm.byte_count as usize).min(reply_data);
                self.is_context_read |= offset + piece == total;
                arm.offset = u32::try_from(offset).expect("a context is small");
                if !echoes {
                    arm.byte_count = u32::try_from(total).expect("a context is small");
                }
                arm.bytes_copied = u32::try_from(piece).expect("a context is small");
                let data = Bytes::copy_from_slice(&processor.context[offset..offset + piece]);
                Manipulate { arm: Arm::ContextEx(arm), ..request.reply(NtStatus::SUCCESS, data) }
            }
            Arm::ContextEx(mut arm) if self.is_context_read => {
                let (offset, data) = (arm.offset as usize, &request.data);
                let end = offset + data.len();
                if end > total || arm.bytes_copied as usize != total || arm.byte_count as usize != data.len()
                {
                    return refuse(request);
                }
                if self.pending_context.len() != total {
                    self.pending_context = processor.context.clone();
                }
                self.pending_context[offset..end].copy_from_slice(data);
                if end == total {
                    processor.context = std::mem::take(&mut self.pending_context);
                }
                arm.bytes_copied = arm.byte_count;
                Manipulate { arm: Arm::ContextEx(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
            }
            _ => refuse(request),
        }
    }

    fn breakpoint(&mut self, request: &Manipulate) -> Manipulate {
        match request.arm {
            Arm::WriteBreakPoint(mut arm) => {
                let is_set =
                    self.breakpoints.iter().flatten().any(|it| it.address == arm.break_point_address);
                let free = self.breakpoints.iter().position(Option::is_none).filter(|_| !is_set);
                let mut original = [0];
                let is_mapped = self.machine.read_virtual(arm.break_point_address, &mut original) == 1;
                let Some(slot) = free.filter(|_| is_mapped) else { return refuse(request) };
                self.written += self.write_code(arm.break_point_address, INT3);
                self.breakpoints[slot] =
                    Some(Breakpoint { address: arm.break_point_address, original: original[0] });
                arm.break_point_handle = u32::try_from(slot + 1).expect("32 slots");
                self.tell_breakpoints();
                Manipulate {
                    arm: Arm::WriteBreakPoint(arm),
                    ..request.reply(NtStatus::SUCCESS, Bytes::new())
                }
            }
            Arm::RestoreBreakPoint(arm) => {
                let slot = (arm.break_point_handle as usize).checked_sub(1);
                let slot = slot.and_then(|slot| self.breakpoints.get_mut(slot));
                let Some(breakpoint) = slot.and_then(Option::take) else { return refuse(request) };
                self.written += self.write_code(breakpoint.address, breakpoint.original);
                self.tell_breakpoints();
                request.reply(NtStatus::SUCCESS, Bytes::new())
            }
            _ => refuse(request),
        }
    }

    fn read_msr(&self, request: &Manipulate) -> Manipulate {
        const EFER: u32 = 0xc000_0080;
        const GS_BASE: u32 = 0xc000_0101;
        /// System calls, long mode enabled and active, no-execute: what every x64 Windows runs with.
        const EFER_VALUE: u64 = 0xd01;
        let Arm::Msr(mut arm) = request.arm else { return refuse(request) };
        let Some(processor) = self.machine.processors().get(usize::from(request.processor)) else {
            return refuse(request);
        };
        let value = match arm.msr {
            EFER => EFER_VALUE,
            GS_BASE => processor.kpcr.0,
            _ => return refuse(request),
        };
        arm.data_value_low = value as u32;
        arm.data_value_high = (value >> 32) as u32;
        Manipulate { arm: Arm::Msr(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
    }
}

/// What a machine says before it restarts: that a module is unloaded which isn't any.
fn restart_notice() -> (LoadSymbols, Bytes) {
    let load = LoadSymbols {
        path_name_length: 0,
        padding: 0,
        base_of_dll: LoadSymbols::REBOOT,
        process_id: 0,
        check_sum: 0,
        size_of_image: 0,
        unload_symbols: 1,
    };
    (load, Bytes::new())
}

/// What a kernel answers that cannot or will not: the request, echoed.
fn refuse(request: &Manipulate) -> Manipulate {
    request.reply(NtStatus::UNSUCCESSFUL, Bytes::new())
}

fn query(request: &Manipulate) -> Manipulate {
    const PROCESS: u32 = 0;
    const KERNEL: u32 = 2;
    /// Read, write and execute: not the page's real protection.
    const FLAGS: u32 = 7;
    let Arm::QueryMemory(mut arm) = request.arm else { return refuse(request) };
    if arm.address_space != 0 {
        return request.reply(NtStatus::INVALID_PARAMETER, Bytes::new());
    }
    arm.address_space = if arm.address.is_kernel() { KERNEL } else { PROCESS };
    arm.flags = FLAGS;
    Manipulate { arm: Arm::QueryMemory(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
}

/// Ports of a machine without devices: reads float high, writes go nowhere.
fn port(request: &Manipulate) -> Manipulate {
    let Arm::IoSpace(mut arm) = request.arm else { return refuse(request) };
    let mask = match arm.data_size {
        1 => 0xff,
        2 => 0xffff,
        4 => u32::MAX,
        _ => return request.reply(NtStatus::INVALID_PARAMETER, Bytes::new()),
    };
    if request.api_number == ApiNumber::READ_IO_SPACE {
        arm.data_value = mask;
    }
    Manipulate { arm: Arm::IoSpace(arm), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
}

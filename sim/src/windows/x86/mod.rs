//! A 32-bit machine: Windows XP SP3 with its PAE kernel, as far as a debugger needs it to attach, stop, read and go on.
//!
//! Memory is mapped by real PAE tables. Addresses have 32 bits there; wherever KD has 64 for one, it is sign-extended. The
//! kernel's own places (image, list of modules, debugger data, state change) are those of a real one's session with WinDbg over
//! a serial line; what that session does not show is put where there is room.
//!
//! It has no Driver Verifier: `MmVerifierData` is there and says that it is off.

mod image;

use std::time::Duration;

use kd_protocol::kd::ControlReport;
use kd_protocol::wire::Reader;
use kd_protocol::{PhysAddr, VirtAddr};

use self::image::{DRIVER, HAL, NT};
use super::debugger_data::Version;
use super::headers::debug_directory;
use super::images::WINDOWS_XP_X86;
use super::layout::Release;
use super::processors::Processor;
use super::scenario::Scenario;
use super::stops::{BUGCHECK_FIRST, BUGCHECK_SECOND, Stop, bug_check_lines};
use super::time::{self, BOOT_TIME};
use crate::paging::{Access, VirtualMemory};

/// Bytes of RAM.
const RAM: u64 = 0x2000_0000;
/// Bytes of `CONTEXT`.
pub(crate) const CONTEXT_SIZE: usize = 0x2cc;
/// Bytes of `KSPECIAL_REGISTERS`.
const SPECIAL_SIZE: usize = 0x54;

const MODULE_LIST: u32 = 0x8055_4fc0;
const DEBUGGER_DATA_LIST: u32 = 0x8067_8ef4;
const DEBUGGER_DATA: u32 = 0x8054_6ae0;
const BUILD_LAB: u32 = 0x804d_8c5c;
const IDLE_THREAD: u32 = 0x8055_3740;
/// `int3; ret 4`.
const BREAK_WITH_STATUS: u32 = 0x8052_7bdc;
const BUG_CHECK_DATA: u32 = 0x8055_1d40;
const VERIFIER_DATA: u32 = 0x8055_2000;
const UNLOADED_DRIVERS: u32 = 0x8055_2100;
const LAST_UNLOADED_DRIVER: u32 = 0x8055_2104;
const CSD_VERSION: u32 = 0x8055_2108;
const HIGHEST_USER_ADDRESS: u32 = 0x8055_210c;
const PROCESSOR_BLOCK: u32 = 0x8055_2180;
const PROCESS_HEAD: u32 = 0x8055_2200;
/// KUSER_SHARED_DATA, and two clocks in it.
const SHARED_DATA: u32 = 0xffdf_0000;
const INTERRUPT_TIME: u32 = SHARED_DATA + 0x8;
const SYSTEM_TIME: u32 = SHARED_DATA + 0x14;
const KPCR: u32 = 0xffdf_f000;
const KPRCB: u32 = 0xffdf_f120;
/// `_KPRCB.ProcessorState`.
const PROCESSOR_STATE: u32 = KPRCB + 0x18;
const STACK_TOP: u32 = 0x8054_d600;
/// First of the entries of the list of modules, in nonpaged pool.
const FIRST_ENTRY: u32 = 0x821f_c008;
const ENTRY_STRIDE: u32 = 0x100;
/// Where the driver stops by itself.
const DRIVER_CODE: u32 = DRIVER.base + 0x1480;
/// What is not mapped.
const UNMAPPED: u32 = 0xdead_0000;

/// The machine.
#[derive(Clone, Debug)]
pub struct X86Machine {
    memory: VirtualMemory,
    processors: Vec<Processor>,
    version: Version,
    scenario: Scenario,
    /// How long it has been running since it started.
    running: Duration,
    /// When it booted, in units of 100 ns since 1601.
    boot_time: u64,
}

impl X86Machine {
    /// A machine that has just started.
    pub(super) fn new(scenario: Scenario) -> Self {
        let release = WINDOWS_XP_X86.release().expect("a test parses the committed files");
        let version = Version {
            major: 0xf,
            minor: release.number,
            protocol: 6,
            secondary: 0,
            flags: 2,
            machine_type: 0x14c,
            max_packet_type: 12,
            max_state_change: 3,
            max_manipulate: release.max_manipulate,
            kern_base: extended(NT.base),
            ps_loaded_module_list: extended(MODULE_LIST),
            debugger_data_list: extended(DEBUGGER_DATA_LIST),
        };
        let mut machine = Self {
            memory: VirtualMemory::pae(RAM, 0x187),
            processors: Vec::new(),
            version,
            scenario,
            running: Duration::ZERO,
            boot_time: BOOT_TIME,
        };
        machine.furnish(&release);
        machine.stop_at(BREAK_WITH_STATUS, 1);
        machine
    }

    /// Stops the machine as a break-in does.
    pub(super) fn break_in(&mut self) {
        const DBG_STATUS_CONTROL_C: u32 = 1;
        self.stop_at(BREAK_WITH_STATUS, DBG_STATUS_CONTROL_C);
    }

    /// Stops the machine as it does by itself for this reason.
    pub(super) fn stop_by_itself(&mut self, stop: Stop) {
        let mut in_driver = |instruction: &[u8], ecx| {
            self.memory.write(extended(DRIVER_CODE), instruction);
            self.stop_at(DRIVER_CODE, ecx);
        };
        match stop {
            Stop::Breakpoint => in_driver(&[0xcc], 0),
            Stop::Assertion => in_driver(&[0xcd, 0x2c], 0),
            // mov eax, [ecx]
            Stop::AccessViolation(_) => in_driver(&[0x8b, 0x01], UNMAPPED),
            Stop::SingleStep | Stop::LoadSymbols | Stop::UnloadSymbols | Stop::Restart => {
                in_driver(&[0x90], 0)
            }
            Stop::BugCheck { code, parameters } => {
                let data = [u64::from(code), parameters[0], parameters[1], parameters[2], parameters[3]];
                for (number, value) in (0..).zip(data) {
                    self.write(BUG_CHECK_DATA + number * 4, value as u32);
                }
                self.stop_at(BREAK_WITH_STATUS, BUGCHECK_FIRST as u32);
            }
        }
    }

    pub(super) fn stop_after_bug_check(&mut self) {
        self.stop_at(BREAK_WITH_STATUS, BUGCHECK_SECOND as u32);
    }

    pub(super) fn bug_check_text(&self, code: u32, parameters: [u64; 4]) -> Vec<String> {
        let driver = parameters
            .into_iter()
            .find(|at| (DRIVER.base..DRIVER.base + DRIVER.size).contains(&(*at as u32)))
            .map(|at| (at, DRIVER.file, DRIVER.base.into(), DRIVER.timestamp));
        bug_check_lines(8, code, parameters, driver)
    }

    /// What it bug-checks with as soon as it runs, in the scenario in which it does.
    pub(super) fn bug_check(&self) -> Option<Stop> {
        const ACCESS_VIOLATION: u64 = 0xc000_0005;
        let stack = u64::from(STACK_TOP - 0x800);
        let parameters = [ACCESS_VIOLATION, DRIVER_CODE.into(), stack, stack + 0x50];
        (self.scenario == Scenario::Bugcheck7e).then_some(Stop::BugCheck { code: 0x7e, parameters })
    }

    /// Lets the machine run. Returns what its driver prints: that it runs, every second.
    pub(super) fn run_for(&mut self, time: Duration) -> Vec<String> {
        let before = self.running.as_secs();
        self.running = self.running.saturating_add(time);
        self.set_time();
        (before + 1..=self.running.as_secs()).map(|second| format!("myfault: up {second} s\n")).collect()
    }

    pub(super) fn reboot(&mut self) {
        let boot_time = time::next_boot_time(self.boot_time, self.running);
        *self = Self { boot_time, ..Self::new(self.scenario) };
        self.set_time();
    }

    /// The driver that comes and goes: its path, base and size.
    pub(super) fn driver(&self) -> (String, VirtAddr, u32) {
        (DRIVER.path(), extended(DRIVER.base), DRIVER.size)
    }

    /// One instruction of its made code: a return, or one that is gone past.
    pub(super) fn step(&mut self, processor: usize) {
        let register =
            |machine: &Self, at: usize| u32::from_le_bytes(four(&machine.processors[processor].context, at));
        let (eip, esp) = (register(self, EIP), register(self, ESP));
        let mut code = [0; 3];
        self.memory.read(extended(eip), &mut code);
        let (eip, esp) = match code {
            // ret 4, and its like
            [0xc2, low, high] => {
                let mut back = [0; 4];
                self.memory.read(extended(esp), &mut back);
                (u32::from_le_bytes(back), esp + 4 + u32::from(u16::from_le_bytes([low, high])))
            }
            [0x90 | 0xcc, ..] => (eip + 1, esp),
            _ => (eip + 2, esp),
        };
        let context = &mut self.processors[processor].context;
        for (at, value) in [(EIP, eip), (ESP, esp)] {
            context[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn remove_debug_directories(&mut self) {
        for module in [NT, HAL, DRIVER] {
            self.memory.write(extended(module.base + debug_directory(true)), &[0; 8]);
        }
    }

    pub(super) fn remove_debugger_data(&mut self) {
        const DATA: u16 = 2;
        self.memory.write(extended(DEBUGGER_DATA), &[0; 0x290]);
        self.memory.write(extended(DEBUGGER_DATA_LIST), &[0; 8]);
        self.version.flags &= !DATA;
        self.version.debugger_data_list = VirtAddr(0);
    }

    pub(super) fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> usize {
        self.memory.read(address, buf)
    }

    pub(super) fn write_virtual(&mut self, address: VirtAddr, bytes: &[u8]) -> usize {
        self.memory.write(address, bytes)
    }

    pub(super) fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> usize {
        self.memory.physical.read(address, buf)
    }

    pub(super) fn write_physical(&mut self, address: PhysAddr, bytes: &[u8]) -> usize {
        self.memory.physical.write(address, bytes)
    }

    /// As that of a 64-bit machine; what it finds is sign-extended.
    pub(super) fn search_virtual(&self, start: VirtAddr, length: u64, pattern: &[u8]) -> Option<VirtAddr> {
        let start = start.0 & 0xffff_ffff;
        let length = length.min((1 << 32) - start);
        self.memory.search(VirtAddr(start), length, pattern).map(|found| extended(found.0 as u32))
    }

    pub(super) fn processors(&self) -> &[Processor] {
        &self.processors
    }

    pub(super) fn processor_mut(&mut self, number: usize) -> Option<&mut Processor> {
        self.processors.get_mut(number)
    }

    pub(super) const fn version(&self) -> &Version {
        &self.version
    }

    pub(super) const fn running(&self) -> Duration {
        self.running
    }

    /// A register of a processor, sign-extended.
    pub(super) fn register(&self, processor: usize, offset: usize) -> VirtAddr {
        extended(u32::from_le_bytes(four(&self.processors[processor].context, offset)))
    }

    /// `X86_DBGKD_CONTROL_REPORT` where the one of x64 has its bytes: 40 bytes of other sizes in another order.
    ///
    /// | offset | size | field             |
    /// |-------:|-----:|-------------------|
    /// |      0 |    4 | Dr6               |
    /// |      4 |    4 | Dr7               |
    /// |      8 |    2 | InstructionCount  |
    /// |     10 |    2 | ReportFlags       |
    /// |     12 |   16 | InstructionStream |
    /// |     28 |    8 | Cs, Ds, Es, Fs    |
    /// |     36 |    4 | EFlags            |
    ///
    /// Source: the state change of a real Windows XP SP3 in a serial trace.
    pub(super) fn control_report(&self, processor: usize, stream: [u8; 16], count: u16) -> ControlReport {
        const REPORT_FLAGS: u16 = 3;
        let context = &self.processors[processor].context;
        let mut bytes = Vec::with_capacity(ControlReport::LEN);
        bytes.extend(four(context, DR6));
        bytes.extend(four(context, DR7));
        bytes.extend(count.to_le_bytes());
        bytes.extend(REPORT_FLAGS.to_le_bytes());
        bytes.extend(stream);
        for segment in [SEG_CS, SEG_DS, SEG_ES, SEG_FS] {
            bytes.extend_from_slice(&context[segment..segment + 2]);
        }
        bytes.extend(four(context, E_FLAGS));
        bytes.resize(ControlReport::LEN, 0);
        ControlReport::decode(&mut Reader::new("control report", &bytes)).expect("it has that many bytes")
    }

    /// `KPROCESSOR_STATE` from an offset on: what control space is on x86.
    pub(super) fn control_space(&self, processor: usize, offset: u64) -> Option<Vec<u8>> {
        let processor = self.processors.get(processor)?;
        let state = [&processor.context[..], &processor.special_registers[..]].concat();
        let from = usize::try_from(offset).ok().filter(|from| *from < state.len())?;
        Some(state[from..].to_vec())
    }

    fn furnish(&mut self, release: &Release) {
        for module in [NT, HAL, DRIVER] {
            self.map(module.base, module.size, Access::Write);
            self.memory.write(extended(module.base), &module.headers());
        }
        self.map(KPCR, 0x1000, Access::Write);
        self.map(SHARED_DATA, 0x1000, Access::Read);
        // NtMajorVersion, NtMinorVersion.
        self.write(SHARED_DATA + 0x26c, release.version.0.into());
        self.write(SHARED_DATA + 0x270, release.version.1.into());
        self.set_time();
        self.map(FIRST_ENTRY & !0xfff, 0x1000, Access::Write);
        for (at, bytes) in [(BREAK_WITH_STATUS, &[0xcc, 0xc2, 4, 0][..]), (BUILD_LAB, release.lab.as_bytes())]
        {
            self.memory.write(extended(at), bytes);
        }
        self.write(CSD_VERSION, release.service_pack.into());
        self.write(HIGHEST_USER_ADDRESS, release.highest_user_address as u32);
        self.write(PROCESSOR_BLOCK, KPRCB);
        self.empty_list(PROCESS_HEAD);
        // Self and Prcb of the _KPCR, CurrentThread of the _KPRCB.
        for (at, value) in [(KPCR + 0x1c, KPCR), (KPCR + 0x20, KPRCB), (KPRCB + 4, IDLE_THREAD)] {
            self.write(at, value);
        }
        self.list_modules();
        self.publish_debugger_data(release);
    }

    /// Writes the clocks of the data page shared with user mode.
    fn set_time(&mut self) {
        let elapsed = time::ticks(self.running);
        for (clock, time) in [(INTERRUPT_TIME, elapsed), (SYSTEM_TIME, self.boot_time + elapsed)] {
            self.write(clock, time as u32);
            self.write(clock + 4, (time >> 32) as u32);
            self.write(clock + 8, (time >> 32) as u32);
        }
    }

    /// The list of modules. Offsets of `_LDR_DATA_TABLE_ENTRY`.
    fn list_modules(&mut self) {
        self.empty_list(MODULE_LIST);
        for (number, module) in (0..).zip([NT, HAL, DRIVER]) {
            let entry = FIRST_ENTRY + number * ENTRY_STRIDE;
            self.append(MODULE_LIST, entry);
            for (offset, value) in [
                (0x18, module.base),
                (0x1c, module.base + 0x1000),
                (0x20, module.size),
                (0x34, 0x0900_4000),
                (0x38, 1),
                (0x40, module.check_sum),
            ] {
                self.write(entry + offset, value);
            }
            self.unicode_string(entry + 0x24, entry + 0x80, &module.path());
            self.unicode_string(entry + 0x2c, entry + 0x60, module.file);
        }
    }

    fn publish_debugger_data(&mut self, release: &Release) {
        self.empty_list(DEBUGGER_DATA_LIST);
        self.append(DEBUGGER_DATA_LIST, DEBUGGER_DATA);
        self.memory.write(extended(DEBUGGER_DATA + 0x10), b"KDBG");
        self.write(DEBUGGER_DATA + 0x14, release.debugger_data_size);
        const PAE_ENABLED: u16 = 1;
        self.memory.write(extended(DEBUGGER_DATA + 0x36), &PAE_ENABLED.to_le_bytes());
        for (offset, address) in [
            (0x18, NT.base),
            (0x20, BREAK_WITH_STATUS),
            (0x48, MODULE_LIST),
            (0x50, PROCESS_HEAD),
            (0x88, BUG_CHECK_DATA),
            (0x1c8, HIGHEST_USER_ADDRESS),
            (0x208, BUILD_LAB),
            (0x218, PROCESSOR_BLOCK),
            (0x220, UNLOADED_DRIVERS),
            (0x228, LAST_UNLOADED_DRIVER),
            (0x248, VERIFIER_DATA),
            (0x268, CSD_VERSION),
        ] {
            self.memory.write(extended(DEBUGGER_DATA + offset), &extended(address).0.to_le_bytes());
        }
        self.memory.write(extended(DEBUGGER_DATA + 0x138), &0x1000_u64.to_le_bytes());
    }

    fn stop_at(&mut self, eip: u32, ecx: u32) {
        let mut context = vec![0; CONTEXT_SIZE];
        let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_le_bytes());
        const CONTEXT_ALL: u32 = 0x1_003f;
        for (at, value) in [
            (0, CONTEXT_ALL),
            (DR6, 0xffff_0ff0),
            (DR7, 0x400),
            (SEG_FS, 0x30),
            (SEG_ES, 0x23),
            (SEG_DS, 0x23),
            (ECX, ecx),
            (EIP, eip),
            (SEG_CS, 8),
            (E_FLAGS, 0x246),
            (ESP, STACK_TOP - 0x2c),
            (SEG_SS, 0x10),
        ] {
            set(at, value);
        }
        let mut special_registers = vec![0; SPECIAL_SIZE];
        let mut set =
            |at: usize, value: u32| special_registers[at..at + 4].copy_from_slice(&value.to_le_bytes());
        // Cr0, Cr2, Cr3, Cr4.
        let root = u32::try_from(self.memory.root().0).expect("RAM is below 4 GiB");
        for (at, value) in [(0, 0x8001_003b), (8, root), (0xc, 0x6f9), (0x20, 0xffff_0ff0), (0x24, 0x400)] {
            set(at, value);
        }
        self.memory.write(extended(PROCESSOR_STATE), &[&context[..], &special_registers[..]].concat());
        self.processors = vec![Processor {
            kpcr: extended(KPCR),
            kprcb: extended(KPRCB),
            thread: extended(IDLE_THREAD),
            context,
            special_registers,
            frames: Vec::new(),
        }];
    }

    fn map(&mut self, start: u32, size: u32, access: Access) {
        let range = VirtAddr(start.into())..VirtAddr(u64::from(start) + u64::from(size));
        self.memory.map(range, access).expect("RAM holds what a machine starts with");
    }

    fn write(&mut self, at: u32, value: u32) {
        self.memory.write(extended(at), &value.to_le_bytes());
    }

    fn read(&self, at: u32) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read(extended(at), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn empty_list(&mut self, head: u32) {
        self.write(head, head);
        self.write(head + 4, head);
    }

    fn append(&mut self, head: u32, entry: u32) {
        let last = self.read(head + 4);
        for (at, value) in [(entry, head), (entry + 4, last), (last, entry), (head + 4, entry)] {
            self.write(at, value);
        }
    }

    fn unicode_string(&mut self, at: u32, buffer: u32, text: &str) {
        let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u32::try_from(bytes.len()).expect("a name is short");
        bytes.extend([0, 0]);
        self.memory.write(extended(buffer), &bytes);
        self.write(at, length | (length + 2) << 16);
        self.write(at + 4, buffer);
    }
}

/// Offsets in the x86 `CONTEXT`.
const DR6: usize = 0x14;
const DR7: usize = 0x18;
const SEG_FS: usize = 0x90;
const SEG_ES: usize = 0x94;
const SEG_DS: usize = 0x98;
pub(super) const ECX: usize = 0xac;
pub(super) const EAX: usize = 0xb0;
pub(super) const EIP: usize = 0xb8;
const SEG_CS: usize = 0xbc;
const E_FLAGS: usize = 0xc0;
const ESP: usize = 0xc4;
const SEG_SS: usize = 0xc8;

fn four(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes[at..at + 4].try_into().expect("four bytes")
}

/// A 32-bit address as KD writes it.
const fn extended(address: u32) -> VirtAddr {
    VirtAddr(address as i32 as i64 as u64)
}

//! A simulated machine: what a debugger's target answers with, and what happens while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kd_protocol::{PhysAddr, VirtAddr};

use super::breathing::Breathing;
use super::debug_registers::DebugRegisters;
use super::debugger_data::{self, Version};
use super::growth::Growth;
use super::images::{Build, WINDOWS_7_SP1};
use super::kernel::{Kernel, Layouts};
use super::ledger::Outstanding;
use super::passing::Pass;
use super::place::Place;
use super::pool::hit::{self, Coming, Hits, PoolHit, Use};
use super::pool::{big, code, counters, heap, trackers};
use super::pool_account::{PoolBlock, TagUse};
use super::processors::{self, Processor};
use super::scenario::Scenario;
use super::stops::{self, BUGCHECK_SECOND, Stop};
use super::verified::Tracking;
use super::{globals, leak, modules, processes, stepping, time};
use crate::paging::Translation;

/// Bytes of RAM.
const RAM: u64 = 0x8000_0000;
/// The kernel is moved by multiples of this.
const SLIDE: u64 = 0x20_0000;
/// How often it leaks, unless told otherwise.
const LEAK_EVERY: Duration = Duration::from_secs(2);

/// What a processor has met on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// A debugger's breakpoint, on this processor.
    Breakpoint(usize),
    /// A debug register, on this processor.
    Register(usize),
    /// A use of the tag in `nt!PoolHitTag`.
    PoolHit(PoolHit),
}

/// A Windows machine with a driver that leaks nonpaged pool, under Driver Verifier unless the [`Scenario`] says otherwise,
/// standing still unless it is [run](Self::run_for).
///
/// It has no clock: time passes as its owner says. The same calls always lead to the same state.
///
/// The first stop finds it where the published case was stopped: ten blocks leaked. Leaking goes on only after that stop.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: Kernel,
    scenario: Scenario,
    seed: u64,
    processors: Vec<Processor>,
    version: Version,
    leak_every: Option<Duration>,
    /// How long the machine has been running since it started.
    running: Duration,
    /// `running` at the first stop, from when on blocks are leaked.
    first_stop: Option<Duration>,
    /// Blocks leaked so far.
    blocks: u64,
    /// A driver that takes blocks and gives them back.
    breathing: Breathing,
    /// Blocks taken or given back for which the machine is still to stop.
    hits: Hits,
    debug_registers: DebugRegisters,
    /// When the next block is leaked, counted as `running`.
    next_leak: Option<Duration>,
    stops: u64,
}

impl Machine {
    /// A machine with this Windows, two processors and 2 GiB of RAM, just started, on which what was published happens.
    #[must_use]
    pub fn new(build: &Build) -> Self {
        Self::with_scenario(build, Scenario::default(), 0)
    }

    /// The same with the kernel and the HAL loaded elsewhere: `slide` times 2 MiB above where [`Self::with_scenario`] has them.
    ///
    /// # Panics
    /// As [`Self::with_scenario`].
    #[must_use]
    pub fn moved(build: &Build, scenario: Scenario, seed: u64, slide: u16) -> Self {
        Self::grown(build, scenario, seed, slide, Growth::default())
    }

    /// The same as large as those in the field are.
    ///
    /// # Panics
    /// As [`Self::with_scenario`].
    #[must_use]
    pub fn grown(build: &Build, scenario: Scenario, seed: u64, slide: u16, growth: Growth) -> Self {
        scenario.check(build).unwrap_or_else(|error| panic!("{error}"));
        let layouts = Layouts::of(build, scenario.drivers()).moved(u64::from(slide) * SLIDE).grown(growth);
        Self::start(Arc::new(layouts), scenario, seed, Some(LEAK_EVERY), growth)
    }

    /// The same for another scenario. `seed` chooses what is damaged where something is.
    ///
    /// # Panics
    /// If this Windows cannot be in the scenario, as [`Scenario::check`] says.
    #[must_use]
    pub fn with_scenario(build: &Build, scenario: Scenario, seed: u64) -> Self {
        Self::moved(build, scenario, seed, 0)
    }

    /// A machine with Windows 7 SP1 x64 (7601).
    #[must_use]
    pub fn windows_7_sp1() -> Self {
        Self::new(&WINDOWS_7_SP1)
    }

    /// Changes how often the driver leaks a block; zero stops it from leaking.
    pub fn leak_every(&mut self, interval: Duration) {
        self.leak_every = Some(interval).filter(|interval| !interval.is_zero());
        let interval = self.leak_interval().filter(|_| self.first_stop.is_some());
        self.next_leak = interval.map(|interval| self.running + interval);
    }

    /// Stops the machine as a break-in does: the first processor stands at `nt!DbgBreakPointWithStatus`.
    pub fn break_in(&mut self) {
        let place = stops::break_in_place(&self.kernel, self.scenario);
        let processors = processors::stop_at(&mut self.kernel, 0, &place);
        self.stopped(processors);
    }

    /// Stops the machine as it does by itself for this reason: the first processor stands where it happened.
    pub fn stop_by_itself(&mut self, stop: Stop) {
        let place = stops::place(&mut self.kernel, self.scenario, stop);
        let processors = processors::stop_at(&mut self.kernel, 0, &place);
        self.stopped(processors);
    }

    /// Stops a bug-checked machine once more, when its bug-check callbacks were called.
    pub fn stop_after_bug_check(&mut self) {
        let place = stops::bug_check_place(&self.kernel, self.scenario, BUGCHECK_SECOND);
        let processors = processors::stop_at(&mut self.kernel, 0, &place);
        self.stopped(processors);
    }

    /// What it bug-checks with as soon as it runs, if its scenario is one in which it does.
    pub fn bug_check(&mut self) -> Option<Stop> {
        stops::bug_check_of(&mut self.kernel, self.scenario)
    }

    /// Stops the machine where its memory is written to a file: at the bug check that its scenario ends in, else as a
    /// break-in does.
    pub fn stop_for_dump(&mut self) {
        match self.bug_check() {
            Some(stop) => {
                if let Stop::BugCheck { code, parameters } = stop {
                    self.print_bug_check(code, parameters);
                }
                self.stop_by_itself(stop);
            }
            None => self.break_in(),
        }
    }

    /// What its kernel prints when it bug-checks, each line with its end. It is in the print buffer then, too.
    pub fn print_bug_check(&mut self, code: u32, parameters: [u64; 4]) -> Vec<String> {
        let lines = stops::bug_check_text(&self.kernel, code, parameters);
        for line in &lines {
            globals::debug_print(&mut self.kernel, line);
        }
        lines
    }

    /// Notes a line that something prints in the print buffer.
    pub fn print(&mut self, line: &str) {
        globals::debug_print(&mut self.kernel, line);
    }

    /// Takes from every image's header that it has a debug directory.
    pub fn remove_debug_directories(&mut self) {
        modules::remove_debug_directories(&mut self.kernel, self.scenario);
    }

    /// Takes the kernel's `KDDEBUGGER_DATA64` away, and everything that leads to it.
    pub fn remove_debugger_data(&mut self) {
        debugger_data::remove(&mut self.kernel, &mut self.version);
    }

    /// Encodes the kernel's `KDDEBUGGER_DATA64`, as one does that was not booted for debugging. `seed` chooses with what.
    pub fn encode_debugger_data(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        debugger_data::encode(&mut self.kernel, random.u64(..), random.u64(..));
    }

    /// The driver that [`Stop::LoadSymbols`] and [`Stop::UnloadSymbols`] are about: its path, base and size.
    #[must_use]
    pub fn driver(&self) -> (String, VirtAddr, u32) {
        let (path, base, size) = stops::loaded_driver(&self.kernel, self.scenario);
        (path, VirtAddr(base), size)
    }

    /// Where the kernel has what is called so, if this build has it.
    pub fn address_of(&self, symbol: &str) -> Option<VirtAddr> {
        self.kernel.find_symbol(symbol)
    }

    fn stopped(&mut self, processors: Vec<Processor>) {
        self.processors = processors;
        for (number, processor) in self.processors.iter_mut().enumerate() {
            self.debug_registers.show(number, None, processor);
        }
        self.stops += 1;
        if self.first_stop.is_none() {
            self.first_stop = Some(self.running);
            self.next_leak = self.leak_interval().map(|interval| self.running + interval);
        }
    }

    /// Lets the machine run for `time`. Returns what it printed to the debugger meanwhile, each line with its end: one a
    /// second to say that it runs, and one for each block it leaks.
    ///
    /// Running in pieces leads to the same state and the same lines as running at once. It ends early where somebody uses
    /// the tag in `nt!PoolHitTag`: see [`stop_at_pool_hit`](Self::stop_at_pool_hit).
    pub fn run_for(&mut self, time: Duration) -> Vec<String> {
        let end = self.running.saturating_add(time);
        let mut lines = Vec::new();
        while !self.hits.is_due(&self.kernel, &self.debug_registers) {
            let beat = Duration::from_secs(self.running.as_secs().saturating_add(1));
            let work = self.works().then(|| self.breathing.due());
            let due = [self.next_leak, work].into_iter().flatten().fold(beat, Duration::min);
            if due > end {
                self.running = end;
                break;
            }
            self.running = due;
            if self.next_leak == Some(due) {
                lines.push(self.leak_block());
                self.next_leak = self.leak_interval().map(|interval| due + interval);
            }
            if work == Some(due) {
                self.breathing.work(&mut self.kernel, due, &mut self.hits, &mut self.debug_registers);
            }
            if due == beat {
                trackers::work(&mut self.kernel);
                counters::publish(&mut self.kernel);
                lines.push(self.beat());
                let place = || stops::break_in_place(&self.kernel, self.scenario);
                self.hits.note_accesses(&self.kernel, &mut self.debug_registers, place);
            }
        }
        globals::set_time(&mut self.kernel, self.running);
        for line in &lines {
            globals::debug_print(&mut self.kernel, line);
        }
        lines
    }

    /// Stops the machine if somebody has just used the tag in `nt!PoolHitTag`: a processor stands at the instruction that
    /// is compiled into the kernel for that.
    pub fn stop_at_pool_hit(&mut self) -> Option<PoolHit> {
        loop {
            match self.stop_on_the_way()? {
                Met::PoolHit(hit) => return Some(hit),
                Met::Breakpoint(_) | Met::Register(_) => {}
            }
        }
    }

    /// Stops the machine if a processor has come to a breakpoint that [was set](Self::set_breakpoints), or somebody uses the tag
    /// in `nt!PoolHitTag`.
    pub fn stop_on_the_way(&mut self) -> Option<Met> {
        match self.hits.next(&self.kernel, &self.debug_registers)? {
            Coming::Pass(pass) => {
                let (at, processor) = (pass.at, pass.processor);
                self.stopped_at(pass);
                // Code that has a breakpoint is another instruction, in front of which the register is met first.
                match self.debug_registers.executed(processor, at) {
                    Some(register) => Some(self.met(processor, register)),
                    None => Some(Met::Breakpoint(processor)),
                }
            }
            Coming::Access(pass, register) => {
                let processor = pass.processor;
                self.stopped_at(pass);
                Some(self.met(processor, register))
            }
            Coming::Use(used) => Some(Met::PoolHit(self.hit(&used))),
        }
    }

    fn stopped_at(&mut self, pass: Pass) {
        const RAX: usize = 0x78;
        const RCX_RDX_R8: [usize; 3] = [0x80, 0x88, 0xb8];
        let Pass { at, processor, thread, callers, user, result, given } = pass;
        let place = Place { rip: at, rcx: 0, stack: callers, user, arguments: None, thread };
        let mut processors = processors::stop_at(&mut self.kernel, processor, &place);
        let given = RCX_RDX_R8.into_iter().zip(given.into_iter().flatten());
        for (at, value) in result.map(|result| (RAX, result)).into_iter().chain(given) {
            processors[processor].context[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        self.stopped(processors);
    }

    fn met(&mut self, processor: usize, register: usize) -> Met {
        self.debug_registers.show(processor, Some(register), &mut self.processors[processor]);
        Met::Register(processor)
    }

    /// Takes over the debug registers that a debugger has written to a stopped processor.
    pub fn take_debug_registers(&mut self, processor: usize) {
        if let Some(of) = self.processors.get(processor) {
            self.debug_registers.take(processor, of);
        }
    }

    /// The machine goes on with this in every processor's Dr7.
    pub fn set_debug_control(&mut self, control: u64) {
        self.debug_registers.go_on(control, &self.kernel);
        for (number, processor) in self.processors.iter_mut().enumerate() {
            self.debug_registers.show(number, None, processor);
        }
    }

    /// True if a processor that goes on stops at once, as its debug registers watch for the instruction where it stands, and no
    /// resume flag lets it pass that. Then it stands there anew.
    pub fn stops_at_register(&mut self, processor: usize) -> bool {
        const RIP: usize = 0xf8;
        const EFLAGS: usize = 0x44;
        const RESUME: u32 = 1 << 16;
        let Some(of) = self.processors.get_mut(processor) else { return false };
        let rip = VirtAddr(u64::from_le_bytes(of.context[RIP..RIP + 8].try_into().expect("eight bytes")));
        let flags = u32::from_le_bytes(of.context[EFLAGS..EFLAGS + 4].try_into().expect("four bytes"));
        let register = self.debug_registers.executed(processor, rip).filter(|_| flags & RESUME == 0);
        if register.is_some() {
            self.debug_registers.show(processor, register, of);
        }
        register.is_some()
    }

    /// Debug registers that watch for something.
    #[must_use]
    pub fn debug_registers(&self) -> usize {
        self.debug_registers.on()
    }

    /// Where a debugger has breakpoints: a processor that comes by stops there. Its code has them too, as everybody reads it.
    pub fn set_breakpoints(&mut self, breakpoints: Vec<VirtAddr>) {
        self.hits.set_breakpoints(breakpoints);
    }

    /// True if it may have to stop at any moment: for a breakpoint, or a tag.
    #[must_use]
    pub fn is_on_its_guard(&self) -> bool {
        self.hits.has_breakpoints() || self.debug_registers.is_on() || self.pool_hit_tag().is_some()
    }

    /// Executes one instruction on a stopped processor.
    pub fn step(&mut self, processor: usize) {
        if let Some(processor) = self.processors.get_mut(processor) {
            stepping::step(&mut self.kernel, processor);
        }
    }

    fn hit(&mut self, used: &Use) -> PoolHit {
        let place = used.place(&self.kernel);
        let processors = processors::stop_at(&mut self.kernel, used.processor, &place);
        self.stopped(processors);
        let Processor { thread, frames, .. } = &self.processors[used.processor];
        let frames = frames.iter().map(|frame| frame.program_counter).collect();
        let Use { tag, is_free, processor, given, block, .. } = *used;
        PoolHit { tag, is_free, processor, thread: *thread, given, block, frames }
    }

    /// The tag that a debugger has written to `nt!PoolHitTag`, in memory order.
    #[must_use]
    pub fn pool_hit_tag(&self) -> Option<[u8; 4]> {
        hit::watched(&self.kernel)
    }

    /// Starts the machine anew: everything is as it was when it was made, but for how often it leaks.
    pub fn reboot(&mut self) {
        let Self { scenario, seed, leak_every, .. } = *self;
        let boot_time = time::next_boot_time(self.kernel.boot_time, self.running);
        let fresh = Self::start(self.kernel.layouts.clone(), scenario, seed, leak_every, self.kernel.growth);
        *self = Self { stops: self.stops + 1, ..fresh };
        self.kernel.boot_time = boot_time;
        globals::set_time(&mut self.kernel, Duration::ZERO);
    }

    /// Overwrites bytes at a virtual address, whatever their page's protection, as a debugger does.
    ///
    /// Returns how many there were before the first page that is not mapped.
    pub fn write_virtual(&mut self, address: VirtAddr, bytes: &[u8]) -> usize {
        self.kernel.memory.write(address, bytes)
    }

    /// Overwrites bytes of RAM. Returns how many there were before the end of RAM.
    pub fn write_physical(&mut self, address: PhysAddr, bytes: &[u8]) -> usize {
        self.kernel.memory.physical.write(address, bytes)
    }

    /// A processor, to change its registers; `None` if there are not as many.
    pub fn processor_mut(&mut self, number: usize) -> Option<&mut Processor> {
        self.processors.get_mut(number)
    }

    /// Copies bytes at a virtual address, through the kernel's page tables.
    ///
    /// Returns how many there are before the first page that is not mapped; the rest of `buf` is as it was.
    pub fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> usize {
        self.kernel.memory.read(address, buf)
    }

    /// Copies bytes of RAM. Returns how many there are before the end of RAM.
    pub fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> usize {
        self.kernel.memory.physical.read(address, buf)
    }

    /// The first match of `pattern` that starts in the `length` bytes from `start` on; it may end behind them.
    ///
    /// Bytes that are not mapped match nothing and are no error.
    #[must_use]
    pub fn search_virtual(&self, start: VirtAddr, length: u64, pattern: &[u8]) -> Option<VirtAddr> {
        self.kernel.memory.search(start, length, pattern)
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn ram(&self) -> u64 {
        self.kernel.memory.physical.size()
    }

    /// Frames of the pages that are in use, in order.
    #[must_use]
    pub fn pages_in_use(&self) -> Vec<u64> {
        self.kernel.memory.frames_in_use()
    }

    /// What CR3 holds: where the top page table is.
    #[must_use]
    pub fn page_table_root(&self) -> PhysAddr {
        self.kernel.memory.root()
    }

    /// The physical address of a mapped byte.
    #[must_use]
    pub fn translate(&self, address: VirtAddr) -> Option<PhysAddr> {
        match self.kernel.memory.translate(address) {
            Translation::Mapped { at, .. } => Some(at),
            Translation::Hole { .. } => None,
        }
    }

    /// The processors, as they were at the last stop; before the first stop, as they would be at one.
    #[must_use]
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// What people call its Windows: `Windows 7 SP1 x64`.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.kernel.layouts.release.title
    }

    /// What it answers to GetVersion.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// What verified drivers hold at this moment, by address: the simulation's own account, which is nowhere in the machine's
    /// memory. Advanced pool tracking is not in it.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Outstanding> {
        self.kernel.ledger.blocks()
    }

    /// What every tag holds of the pool at this moment: the simulation's own account, as [`outstanding`](Self::outstanding) is.
    #[must_use]
    pub const fn pool_use(&self) -> &BTreeMap<[u8; 4], TagUse> {
        self.kernel.pool.tags()
    }

    /// Small blocks of the pool that the simulation knows one by one.
    #[must_use]
    pub fn pool_blocks(&self) -> &[PoolBlock] {
        self.kernel.pool.blocks()
    }

    /// The same when `VfPoolTracesIndex` was this; nothing if that is longer ago than the simulation remembers.
    #[must_use]
    pub fn outstanding_at(&self, event: u32) -> Option<Vec<Outstanding>> {
        self.kernel.ledger.blocks_at(event)
    }

    /// Bytes of RAM that somebody wrote to, which is what the simulation keeps.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kernel.memory.physical.kept_bytes()
    }

    /// Stops and restarts so far: bytes that were read while this was the same belong together.
    #[must_use]
    pub const fn stops(&self) -> u64 {
        self.stops
    }

    /// How long it has been running since it started.
    #[must_use]
    pub const fn running(&self) -> Duration {
        self.running
    }

    fn start(
        layouts: Arc<Layouts>,
        scenario: Scenario,
        seed: u64,
        leak_every: Option<Duration>,
        growth: Growth,
    ) -> Self {
        let mut kernel = Kernel::new(layouts, RAM, growth);
        modules::load(&mut kernel, scenario);
        code::carry_tags(&mut kernel, scenario);
        globals::initialize(&mut kernel);
        processors::create(&mut kernel);
        trackers::start(&mut kernel);
        big::start(&mut kernel);
        heap::start(&mut kernel);
        scenario.furnish(&mut kernel);
        counters::start(&mut kernel);
        // Last, because each process gets a copy of the top page table with all of the kernel in it.
        processes::create(&mut kernel);
        let version = debugger_data::version(&kernel);
        debugger_data::publish(&mut kernel, &version);
        let place = stops::break_in_place(&kernel, scenario);
        let processors = processors::stop_at(&mut kernel, 0, &place);
        kernel.furnished = true;
        scenario.damage(&mut kernel, seed);
        Self {
            kernel,
            scenario,
            seed,
            processors,
            version,
            leak_every,
            running: Duration::ZERO,
            first_stop: None,
            blocks: if scenario.leaks() { leak::BLOCKS_AT_FIRST_STOP } else { 0 },
            breathing: Breathing::new(fastrand::Rng::with_seed(seed)),
            hits: Hits::default(),
            debug_registers: DebugRegisters::default(),
            next_leak: None,
            stops: 0,
        }
    }

    /// True if a driver takes blocks and gives them back.
    fn works(&self) -> bool {
        let is_there = self.scenario.leaks() && self.scenario.tracking_of_the_leak() == Tracking::List;
        is_there && self.kernel.growth.busy > 0
    }

    /// How often the driver leaks, if it is there to do so.
    fn leak_interval(&self) -> Option<Duration> {
        self.leak_every.filter(|_| self.scenario.leaks())
    }

    /// What a driver that is loaded prints every second.
    fn beat(&self) -> String {
        let seconds = self.running.as_secs();
        if self.scenario.leaks() {
            format!("myfault: up {seconds} s, {} blocks\n", self.blocks)
        } else {
            format!("netfilt: up {seconds} s\n")
        }
    }

    fn leak_block(&mut self) -> String {
        let tracking = self.scenario.tracking_of_the_leak();
        match leak::leak(&mut self.kernel, self.blocks, tracking) {
            Some(address) => {
                let used = || leak::usage(&self.kernel, self.blocks, address, tracking);
                self.hits.note(&self.kernel, &mut self.debug_registers, used, *b"Leak");
                self.blocks += 1;
                format!("myfault: leaked {:#x} bytes at {}\n", leak::REQUEST, address.wide())
            }
            None => "myfault: out of nonpaged pool\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;

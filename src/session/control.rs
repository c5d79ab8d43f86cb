//! A live session as a source, and as the control over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{ApiNumber, DebugIo, StateChange};
use kd_protocol::link::{LinkCounters, Peer, RequestError, RunState};
use kd_protocol::{MachineType, VirtAddr};

use super::live_memory::LiveMemory;
use super::order::Order;
use super::{Place, Session};
use crate::memory::StopId;
use crate::source::{
    Armed, BootId, BreakInError, BreakpointError, Control, DebugRegister, Halt, KernelVersion, PlantError,
    Planted, Resumed, Source, SourceMemory, Step, Wait,
};

impl Source for Session {
    fn place(&self) -> String {
        match (self.peer(), &self.place) {
            (Some(Peer::Kdnet(peer)), _) => peer.address.to_string(),
            (_, Place::Socket(address)) => format!("UDP port {}", address.port()),
            (_, Place::Line(port)) => port.to_string(),
        }
    }

    fn boot(&self) -> BootId {
        self.monitor.get(|state| state.boot)
    }

    fn version(&self) -> Result<KernelVersion, RequestError> {
        let version = self.get_version()?;
        Ok(KernelVersion {
            major: version.major_version,
            build: version.minor_version,
            flags: version.flags.bits(),
            machine: MachineType(version.machine_type),
            base: version.kern_base,
            module_list: version.ps_loaded_module_list,
            debugger_data_list: version.debugger_data_list,
        })
    }

    fn memory(&self) -> Arc<dyn SourceMemory> {
        Arc::new(LiveMemory::new(Arc::clone(&self.monitor), self.orders.clone()))
    }

    fn run_state(&self) -> RunState {
        self.monitor.get(|state| state.run_state)
    }

    fn stop(&self) -> StopId {
        self.monitor.get(|state| state.stop)
    }

    fn stopped(&self) -> Option<Box<StateChange>> {
        self.monitor.get(|state| state.stopped.clone())
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn counters(&self) -> LinkCounters {
        self.monitor.get(|state| state.counters)
    }

    fn stopped_for(&self) -> Duration {
        self.monitor.stopped_for()
    }

    fn frozen(&self) -> Duration {
        self.monitor.frozen()
    }
}

impl Control for Session {
    fn request_break_in(&self) {
        self.begin(Step::BreakIn);
        self.order(Order::BreakIn);
    }

    fn cancel_break_in(&self) {
        self.give_up_break_in();
    }

    fn stopped_by_itself(&self) {
        self.monitor.note(|state| state.is_break_in = false);
    }

    fn is_break_in(&self) -> bool {
        self.monitor.get(|state| state.stopped.is_some() && state.is_break_in)
    }

    fn gave_up_break_in(&self, wait: Wait<()>, after: Duration) -> BreakInError {
        match wait {
            Wait::Ended(why) => return BreakInError::Ended(why),
            Wait::Done(()) | Wait::Interrupted | Wait::TimedOut => self.cancel_break_in(),
        }
        match wait {
            Wait::TimedOut => {
                BreakInError::NoReaction { place: self.place(), after, last_heard: self.monitor.last_heard() }
            }
            _ => BreakInError::Interrupted,
        }
    }

    fn wait_for_halt(&self, boot: Option<BootId>, deadline: Option<Instant>) -> Wait<Halt> {
        self.monitor.wait(deadline, |state| {
            if boot.is_some_and(|boot| boot != state.boot) {
                return Some(Halt::Restarted);
            }
            let prompt = state.prompt.clone().map(Halt::Prompt);
            prompt.or_else(|| state.stopped.clone().map(Halt::Stopped))
        })
    }

    fn deadline_after(&self, time: Duration) -> Instant {
        Instant::now() + time
    }

    fn begin(&self, step: Step) {
        self.monitor.note(|state| state.step = step);
    }

    fn step(&self) -> Step {
        self.monitor.get(|state| state.step.clone())
    }

    fn prompt(&self) -> Option<DebugIo> {
        self.monitor.get(|state| state.prompt.clone())
    }

    fn waits_at_prompt(&self) -> bool {
        self.monitor.get(|state| state.waits_at_prompt)
    }

    fn answer_prompt(&self, prompt: DebugIo, answer: Bytes) {
        // It is answered once, whoever looks before the driver has seen to it.
        self.monitor.note(|state| state.prompt = None);
        self.order(Order::AnswerPrompt(prompt, answer));
    }

    fn go(&self) -> Resumed {
        self.leave_stop()
    }

    fn leave(&self) -> Resumed {
        self.leave_for_good()
    }

    fn leave_stopped(&self) {
        self.monitor.note(|state| state.has_left = true);
    }

    fn plant(&self, planted: Planted) -> Result<(), PlantError> {
        self.plant_in_target(planted)
    }

    fn adopt(&self, planted: Planted) -> Result<(), PlantError> {
        self.adopt_in_target(planted);
        Ok(())
    }

    fn take_back(&self) -> Result<(), PlantError> {
        self.take_back_by(|request| self.request(request))
    }

    fn planted(&self) -> Option<Planted> {
        self.in_target().map(|it| it.planted)
    }

    fn set_breakpoint(&self, address: VirtAddr) -> Result<(), BreakpointError> {
        self.arm(address)
    }

    fn clear_breakpoints(&self) -> Result<(), BreakpointError> {
        self.disarm_by(|request| self.request(request))
    }

    fn clear_every_breakpoint(&self) -> Result<usize, BreakpointError> {
        self.disarm_every()
    }

    fn watch(&self, watched: &[(VirtAddr, DebugRegister)]) -> Result<(), BreakpointError> {
        self.arm_registers(watched)
    }

    fn breakpoints(&self) -> Vec<Armed> {
        self.armed()
    }

    fn trace(&self) -> Resumed {
        self.trace_stop()
    }

    fn hurry(&self) {
        self.monitor.note(|state| state.is_hurried = true);
    }

    fn reboot(&self) -> Result<(), RequestError> {
        let step = Step::Reply(ApiNumber::REBOOT.to_string());
        let stop = self.stop();
        let order = |reply| Order::Reboot(reply, stop);
        let taken = self.monitor.carry_out_within(&self.orders, step, order, None, |deadline, find| {
            self.monitor.wait_through_interrupts(deadline, find)
        });
        taken.unwrap_or(Err(RequestError::NotConnected))
    }

    fn lost(&self) -> Option<RequestError> {
        self.monitor.get(|state| state.lost)
    }

    fn try_again(&self) {
        self.monitor.note(|state| state.lost = None);
    }

    fn last_heard(&self) -> String {
        self.monitor.last_heard()
    }

    fn line_is_gone(&self) -> Option<String> {
        self.monitor.get(|state| state.line.not_there.clone())
    }
}

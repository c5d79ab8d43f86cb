//! A serial target shown as a KDNET target: a [`HostLink`] below, a [`TargetLink`] above, packet by packet.
//!
//! ```text
//!   KDNET debugger <-- datagrams --> TargetLink | Bridge | HostLink <-- stream --> serial target
//!                                     requests  ------->
//!                                     <-------  replies, stops, prints, prompts
//! ```
//! Each side keeps its own ids, acknowledgements and timers, so that a fault on one is no fault on the other. What a KDNET
//! reply cannot carry is not asked for below: a debugger asks for the rest, as it does of every KDNET target.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::Patience;
use super::entropy::Entropy;
use super::event::{Event, RequestId};
use super::host::{HostLink, RunState};
use super::target::{TargetConfig, TargetEvent, TargetLink};
use crate::kd::{ApiNumber, Arm, DebugIo, Manipulate, NtStatus, Payload, StateChange};
use crate::kdnet::DatagramError;

/// Bytes of data that a KDNET reply carries: `KdTransportMaxPacketSize` 1152, less the header. Source: PROTOCOL.md 9.
pub const KDNET_REPLY_DATA: u32 = 1096;

/// Something that whoever runs a bridge may want to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeEvent {
    /// The serial target sent its first packet.
    TargetHeard,
    /// The serial target began anew; the KDNET target above does so too.
    TargetRestarted,
    /// The line has ended.
    LineEnded,
    /// The line is there again.
    LineBack,
    /// A debugger answered an offer.
    Debugger(SocketAddr),
    /// The debugger does not acknowledge any more.
    DebuggerAbsent,
    /// The serial target was told to run and nothing proves that it does.
    ResumeUnproven,
    /// A prompt was answered here, since no debugger is connected.
    PromptAnswered(Bytes),
}

/// See the module's page. Drive it as its two links: after every `&mut` call drain both transmits, then the events.
pub struct Bridge {
    below: HostLink,
    above: TargetLink,
    /// The request on its way, as the debugger sent it.
    request: Option<(RequestId, Manipulate)>,
    /// The present stop of the serial target.
    stop: Option<Box<StateChange>>,
    /// The prompt that the serial target waits at.
    prompt: Option<DebugIo>,
    is_debugger_absent: bool,
    /// What a prompt is answered while no debugger is connected.
    prompt_answer: Bytes,
    events: VecDeque<BridgeEvent>,
}

impl Bridge {
    /// A bridge whose KDNET side makes its first offer at `now`; its line is not there yet.
    #[must_use]
    pub fn new(
        now: Instant,
        patience: Patience,
        above: TargetConfig,
        entropy: Box<dyn Entropy>,
        prompt_answer: Bytes,
    ) -> Self {
        let mut below = HostLink::over_stream(patience);
        below.pass_module_events();
        // A stop that nobody asked for would be shown above, as if the machine had come upon something.
        below.never_probe();
        Self {
            below,
            above: TargetLink::new(now, above, entropy),
            request: None,
            stop: None,
            prompt: None,
            is_debugger_absent: true,
            prompt_answer,
            events: VecDeque::new(),
        }
    }

    /// The line is there, or there again.
    pub fn handle_stream_opened(&mut self, now: Instant) {
        self.below.handle_stream_opened(now);
        self.settle(now);
    }

    /// The line has ended.
    pub fn handle_stream_closed(&mut self, now: Instant) {
        self.below.handle_stream_closed(now);
        self.settle(now);
    }

    /// Takes bytes from the line.
    pub fn handle_stream(&mut self, now: Instant, bytes: &[u8]) {
        self.below.handle_stream(now, bytes);
        self.settle(now);
    }

    /// Takes a datagram from the network.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DatagramError> {
        let result = self.above.handle_datagram(now, from, datagram);
        self.settle(now);
        result
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.below.poll_timeout().is_some_and(|at| at <= now) {
            self.below.handle_timeout(now);
        }
        if self.above.poll_timeout().is_some_and(|at| at <= now) {
            self.above.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The next datagram to send, written into `datagram`, and where to.
    pub fn poll_transmit(&mut self, datagram: &mut BytesMut) -> Option<SocketAddr> {
        self.above.poll_transmit(datagram)
    }

    /// Appends the bytes to send into the line to `out`. False if there are none.
    pub fn poll_transmit_stream(&mut self, out: &mut BytesMut) -> bool {
        self.below.poll_transmit_stream(out)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<BridgeEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.below.poll_timeout().into_iter().chain(self.above.poll_timeout()).min()
    }

    /// True if the serial target is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.below.state() == RunState::Stopped
    }

    /// Lets the serial target run, if it is stopped: what is left to do when the bridge ends.
    pub fn resume(&mut self, now: Instant) {
        self.below.resume(now, NtStatus::DBG_CONTINUE);
        self.settle(now);
    }

    /// Carries over what either side has to say, until neither has anything.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.below.poll_event() {
                self.event_below(now, event);
            } else if let Some(event) = self.above.poll_event() {
                self.event_above(now, event);
            } else {
                return;
            }
        }
    }

    fn has_debugger(&self) -> bool {
        !self.is_debugger_absent && self.above.connected_host().is_some()
    }

    fn event_below(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected(_) => self.events.push_back(BridgeEvent::TargetHeard),
            Event::Restarted(_) => {
                self.begin_anew(now);
                self.events.push_back(BridgeEvent::TargetRestarted);
            }
            Event::Disconnected => self.events.push_back(BridgeEvent::LineEnded),
            Event::Reconnected => self.events.push_back(BridgeEvent::LineBack),
            Event::Stopped(change) => self.stopped(now, change),
            Event::Resumed => self.stop = None,
            Event::ResumeUnproven { .. } => {
                self.stop = None;
                self.events.push_back(BridgeEvent::ResumeUnproven);
            }
            Event::Replied(id, reply) => {
                if let Some((_, request)) = self.request.take_if(|(pending, _)| *pending == id) {
                    self.above.reply(now, &as_asked(&request, *reply));
                }
            }
            Event::Acknowledged(id) => {
                if let Some((_, request)) = self.request.take_if(|(pending, _)| *pending == id)
                    && !request.api_number.ends_stop()
                {
                    self.above.no_reply(now);
                }
            }
            Event::Failed(id, _) => {
                if let Some((_, request)) = self.request.take_if(|(pending, _)| *pending == id) {
                    self.refuse(now, &request);
                }
            }
            Event::DebugPrint(text) => self.above.print(now, text),
            Event::Prompt(prompt) => self.prompted(now, prompt),
            // The link below has refused it, and does not offer what it cannot answer.
            Event::FileRefused(_) => {}
            Event::PromptAnswered
            | Event::ModuleEvent(_)
            | Event::Rebooting
            | Event::SecondTarget { .. }
            | Event::ForeignOffer { .. }
            | Event::TakenOver(_) => {}
        }
    }

    fn begin_anew(&mut self, now: Instant) {
        self.request = None;
        self.stop = None;
        self.prompt = None;
        self.above.reboot(now);
    }

    fn stopped(&mut self, now: Instant, change: Box<StateChange>) {
        if change.is_load_symbols() && !self.has_debugger() {
            // Nobody wants to know, and the boot waits.
            return self.below.resume(now, NtStatus::DBG_CONTINUE);
        }
        self.above.stop(now, (*change).clone());
        self.stop = Some(change);
    }

    fn prompted(&mut self, now: Instant, prompt: DebugIo) {
        if self.has_debugger() {
            self.above.ask(now, &Payload::DebugIo(prompt.clone()));
            self.prompt = Some(prompt);
        } else {
            self.below.answer_prompt(now, &prompt, self.prompt_answer.clone());
            self.events.push_back(BridgeEvent::PromptAnswered(self.prompt_answer.clone()));
        }
    }

    fn event_above(&mut self, now: Instant, event: TargetEvent) {
        match event {
            TargetEvent::Connected(host) => {
                self.is_debugger_absent = false;
                self.events.push_back(BridgeEvent::Debugger(host));
            }
            TargetEvent::BreakIn => match self.stop.clone().filter(|_| self.is_stopped()) {
                Some(change) => self.above.stop(now, *change),
                None => self.below.break_in(now),
            },
            TargetEvent::Request(request) => self.request(now, *request),
            TargetEvent::PromptAnswer(answer) => {
                if let Some(prompt) = self.prompt.take() {
                    self.below.answer_prompt(now, &prompt, answer.text);
                }
            }
            TargetEvent::FileAnswer(_) => {}
            TargetEvent::DebuggerAbsent => {
                self.is_debugger_absent = true;
                self.events.push_back(BridgeEvent::DebuggerAbsent);
                if self.stop.as_ref().is_some_and(|stop| stop.is_load_symbols()) {
                    self.below.resume(now, NtStatus::DBG_CONTINUE);
                }
            }
        }
    }

    fn request(&mut self, now: Instant, request: Manipulate) {
        self.is_debugger_absent = false;
        if matches!(request.api_number, ApiNumber::CONTINUE | ApiNumber::CONTINUE2) {
            return self.below.resume_with(now, &request);
        }
        if request.api_number == ApiNumber::READ_PHYSICAL_MEMORY_LONG {
            // A stream of replies, which nobody has seen over a serial line.
            return self.refuse(now, &request);
        }
        let id = self.below.request(now, within_kdnet(&request));
        self.request = Some((id, request));
    }

    /// Answers a request that gets no answer below, so that the debugger above does not wait for it.
    fn refuse(&mut self, now: Instant, request: &Manipulate) {
        if request.api_number.has_reply() {
            self.above.reply(now, &request.reply(NtStatus::UNSUCCESSFUL, Bytes::new()));
        } else if !request.api_number.ends_stop() {
            self.above.no_reply(now);
        }
    }
}

/// The request, asking for no more than a KDNET reply carries.
fn within_kdnet(request: &Manipulate) -> Manipulate {
    let mut request = request.clone();
    match &mut request.arm {
        Arm::ReadMemory(arm) => arm.transfer_count = arm.transfer_count.min(KDNET_REPLY_DATA),
        Arm::ContextEx(arm) if request.api_number == ApiNumber::GET_CONTEXT_EX => {
            arm.byte_count = arm.byte_count.min(KDNET_REPLY_DATA);
        }
        _ => {}
    }
    request
}

/// The reply as if the debugger's own request had been sent: a target repeats what it was asked.
fn as_asked(request: &Manipulate, mut reply: Manipulate) -> Manipulate {
    if let (Arm::ReadMemory(asked), Arm::ReadMemory(answered)) = (&request.arm, &mut reply.arm) {
        answered.transfer_count = asked.transfer_count;
    }
    reply
}

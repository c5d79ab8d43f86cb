//! What comes from the target, and what it says of it.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::net::Opened;
use super::repeated::Repeated;
use super::run_state::RunState;
use super::{HostLink, Wire};
use crate::kd::{DebugIoApi, Manipulate, NtStatus, Packet, PacketType, Payload, StateChange, StateDetail};
use crate::kdcom::Frame;
use crate::kdnet::DatagramError;
use crate::link::content::Content;
use crate::link::event::{Event, Peer, RequestError};
use crate::link::in_flight::Purpose;
use crate::link::keying::Proof;
use crate::link::reliable::Arrival;
use crate::wire::DecodeError;

impl HostLink {
    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DatagramError> {
        let Wire::Net(net) = &mut self.wire else { return Err(DatagramError::NoSession) };
        net.set_busy(self.reliable.is_slow());
        let opened = match net.receive(now, from, datagram) {
            Err(DatagramError::SecondTarget) if net.is_new_second(from) => {
                self.tell(Event::SecondTarget { address: from });
                return Err(DatagramError::SecondTarget);
            }
            other => other?,
        };
        let datagram = match opened {
            Opened::Control => return Ok(()),
            Opened::SignOfLife { in_debugger } => {
                self.note_life();
                self.offers_say(now, in_debugger);
                return Ok(());
            }
            Opened::TakenOver(by) => {
                self.tell(Event::TakenOver(by));
                return Ok(());
            }
            Opened::ForeignOffer { version, len } => {
                self.tell(Event::ForeignOffer { address: from, version, len });
                return Ok(());
            }
            Opened::Data(datagram, proof) => {
                self.note_life();
                self.keyed(now, proof);
                datagram
            }
        };
        match Content::decode(&datagram)? {
            // The answer proves to the target that the key works, and it stops pinging. WinDbg sends the same.
            Content::Ping(_) => self.reliable.send_resend(),
            Content::Kd(packet) => self.kd_packet(now, &packet)?,
            Content::Control(_) | Content::BreakIn | Content::Runt(_) => {}
        }
        Ok(())
    }

    /// Something came that nobody can have replayed.
    pub(super) const fn note_life(&mut self) {
        if let Some(resuming) = &mut self.resuming {
            resuming.heard();
        }
    }

    pub(super) fn frame(&mut self, now: Instant, frame: &Frame) {
        match frame {
            Frame::Packet(packet) => {
                self.last_heard = Some(now);
                self.counters.datagrams_received += 1;
                if let Wire::Stream(stream) = &mut self.wire
                    && stream.hear()
                {
                    self.tell(Event::Connected(Peer::Kdcom));
                }
                if self.kd_packet(now, packet).is_err() {
                    self.counters.dropped += 1;
                }
            }
            Frame::Damaged(_) => {
                self.counters.dropped += 1;
                self.reliable.damaged(now);
            }
            Frame::BreakIn => {}
        }
    }

    pub(super) fn kd_packet(&mut self, now: Instant, packet: &Packet) -> Result<(), DecodeError> {
        if packet.is_control {
            if let Some(outcome) = self.reliable.control(now, packet) {
                self.settle(now, outcome);
            }
            return Ok(());
        }
        let withholds_ack = self.wants_silence(now, packet);
        let result = match self.reliable.accept(now, packet, withholds_ack) {
            // It is to come again, and the target waits for its ACK until then.
            Arrival::Doubtful => return Ok(()),
            Arrival::Repeat => Ok(()),
            Arrival::New => self.packet(now, packet),
            Arrival::Anew => {
                let pending = self.reliable.begin_with(now, packet);
                self.restarted(pending, Peer::Kdcom);
                self.packet(now, packet)
            }
        };
        self.reliable.packet_done(now);
        result
    }

    /// True if a wanted break-in is to have silence behind it instead of this packet's ACK: a target that waits for the ACK
    /// notices a break-in for certain then, sends its packet again, and stops once that is acknowledged.
    pub(super) fn wants_silence(&mut self, now: Instant, packet: &Packet) -> bool {
        let Wire::Stream(stream) = &mut self.wire else { return false };
        let is_print = matches!(
            Payload::decode(packet),
            Ok(Payload::DebugIo(io)) if io.api_number == DebugIoApi::PRINT_STRING
        );
        if self.attention.is_none() || self.state == RunState::Stopped || !is_print {
            return false;
        }
        stream.takes_silence(now)
    }

    pub(super) fn keyed(&mut self, now: Instant, proof: Proof) {
        let peer = self.peer();
        match (proof, peer) {
            (Proof::Current, _) | (_, None) => return,
            // What was sent under another key is dropped.
            (Proof::Rekeyed, _) => {
                self.reliable.forget_break_ins();
                if self.settling.is_some() {
                    self.resumed(now);
                }
            }
            (Proof::First, Some(peer)) => self.tell(Event::Connected(peer)),
            (Proof::Restarted, Some(peer)) => {
                let pending = self.reliable.restart();
                self.restarted(pending, peer);
            }
        }
        if let Some(attention) = &mut self.attention {
            *attention = Repeated { next_at: now, attempts: 0 };
        }
    }

    /// Nothing that was known of the target is true any more.
    pub(super) fn restarted(&mut self, pending: Vec<Purpose>, peer: Peer) {
        self.state = RunState::Unknown;
        self.fail_requests(pending, RequestError::TargetRestarted);
        self.left_stop();
        self.break_in_at = None;
        self.dr7 = Manipulate::DR7_NONE;
        self.tell(Event::Restarted(peer));
    }

    /// Takes a new data packet of the target.
    pub(super) fn packet(&mut self, now: Instant, packet: &Packet) -> Result<(), DecodeError> {
        match Payload::decode(packet)? {
            Payload::Manipulate(reply) => {
                if let Some(id) = self.reliable.replied(now, &reply) {
                    self.tell(Event::Replied(id, reply));
                } else if self.state == RunState::Unknown && matches!(self.wire, Wire::Stream(_)) {
                    // Whoever replies stands still, and announces its stop again once this is acknowledged.
                    self.reliable.send_resend();
                }
            }
            Payload::StateChange(change) => self.state_change(now, *change, &packet.payload),
            Payload::DebugIo(io) if io.api_number == DebugIoApi::GET_STRING => {
                self.awaits_answer(now);
                self.tell(Event::Prompt(io));
            }
            Payload::DebugIo(io) => {
                self.is_running(now);
                self.tell(Event::DebugPrint(io.text));
            }
            Payload::FileIo(file) => {
                self.awaits_answer(now);
                let refusal = file.refuse().encode();
                self.is_answering_prompt = false;
                self.reliable.answer(now, PacketType::FILE_IO, refusal, self.patience.request_timeout);
                self.tell(Event::FileRefused(file.path()));
            }
            // Trace records and control requests need no answer. \[uncertain\]
            Payload::Other(..) => {}
        }
        Ok(())
    }

    /// A packet arrived that only a target outside its request loop sends.
    pub(super) fn is_running(&mut self, now: Instant) {
        self.repeat_missed_break_in(now);
        // A target that is busy with what was given up may print about it.
        if self.reliable.is_continuing() && !self.has_abandoned {
            self.reliable.continued(now);
            self.obeyed(now);
        } else if self.state == RunState::Unknown {
            self.state = RunState::Running;
            if std::mem::take(&mut self.is_unproven) {
                self.tell(Event::Resumed);
            }
        }
    }

    /// An offer of the target says whether it is in its debugger. Most never say so: it proves something only where they
    /// did during this stop.
    pub(super) fn offers_say(&mut self, now: Instant, in_debugger: bool) {
        if in_debugger {
            self.was_in_debugger = self.state == RunState::Stopped;
        } else if self.was_in_debugger && self.reliable.is_continuing() {
            self.reliable.continued(now);
            self.obeyed(now);
        }
    }

    pub(super) fn repeat_missed_break_in(&mut self, now: Instant) {
        if let (Some(attention), Wire::Stream(stream)) = (&mut self.attention, &self.wire)
            && stream.has_missed_break_in(now)
        {
            attention.next_at = now;
        }
    }

    /// The target waits for an answer of this side, and takes nothing else.
    pub(super) fn awaits_answer(&mut self, now: Instant) {
        self.is_running(now);
        if self.state == RunState::Stopped {
            self.reliable.continued(now);
            self.resumed(now);
        }
    }

    pub(super) fn state_change(&mut self, now: Instant, change: StateChange, payload: &Bytes) {
        let is_same = self.stop_payload.as_ref() == Some(payload);
        let mut is_announced_again = false;
        if self.is_continuing() {
            let is_probing = self.resuming.is_some_and(|it| it.is_probing());
            // Nothing made a target say so again that has not run in between: it stands at the same place once more, as one does
            // whose breakpoint is passed again and again, and the ACK of the continue was lost. Over a stream it may be what was
            // sent last, behind a RESET.
            let is_next = is_same
                && matches!(self.wire, Wire::Net(_))
                && self.attention.is_none()
                && !is_probing
                && !self.is_break_in_on_its_way();
            if self.settling.is_none() && is_same && self.attention.is_none() && !is_probing && !is_next {
                // Announced again before the continue was obeyed.
                return;
            }
            let is_again = is_same && self.settling.is_none() && !is_next;
            if is_probing && (is_same || self.is_of_break_in(&change)) || is_again {
                // Whether it ran in between is not known, and does not matter: it is to be resumed again.
                self.reliable.take_back_continue(now);
                self.left_stop();
                is_announced_again = is_same;
            } else {
                self.reliable.continued(now);
                self.resumed(now);
            }
        } else if is_same && self.state == RunState::Stopped {
            return;
        }
        self.state = RunState::Stopped;
        self.stop_payload = Some(payload.clone());
        if change.is_load_symbols() && !self.passes_module_events {
            // Boot goes on only when each of these is answered; a wanted break-in stays wanted.
            self.repeat_missed_break_in(now);
            let request = match change.is_reboot() {
                true => Manipulate::continue2(NtStatus::DBG_CONTINUE),
                false => Manipulate::continue_with(NtStatus::DBG_CONTINUE, self.dr7),
            };
            self.send_continue(now, &request, false);
            if is_announced_again {
                return;
            }
            self.tell(if change.is_reboot() {
                Event::Rebooting
            } else {
                Event::ModuleEvent(Box::new(change))
            });
            return;
        }
        // A break-in that is wanted stays wanted while modules are announced.
        if !change.is_load_symbols() {
            if self.attention.take().is_some() && is_breakpoint(&change) {
                self.break_in_at = Some(change.program_counter);
            }
            // A target that comes upon a break-in while it is stopped says so, and remembers the break-in.
            let is_of_break_in = self.is_of_break_in(&change);
            if let Wire::Stream(stream) = &mut self.wire
                && !is_same
            {
                stream.stopped(is_of_break_in);
            }
        }
        self.tell(Event::Stopped(Box::new(change)));
    }
}

pub(super) fn is_breakpoint(change: &StateChange) -> bool {
    matches!(&change.detail, StateDetail::Exception(it) if it.exception_code == NtStatus::BREAKPOINT)
}

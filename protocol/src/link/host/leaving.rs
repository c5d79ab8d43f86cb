//! A continue, from its sending to the proof that the target runs, or to giving it up.

use std::time::Instant;

use super::attention::BREAK_IN_LIFE;
use super::resume::{Due, PROBE_PATIENCE, Resuming, Settling};
use super::run_state::RunState;
use super::{HostLink, Wire, arrivals};
use crate::kd::{Manipulate, StateChange};
use crate::link::content::Content;
use crate::link::event::{Event, RequestError};
use crate::link::in_flight::Purpose;
use crate::link::reliable::Outcome;

impl HostLink {
    pub(super) fn send_continue(&mut self, now: Instant, request: &Manipulate, may_probe: bool) {
        self.resuming = Some(Resuming::new(may_probe));
        self.reliable.request(now, Purpose::Continue, request, self.patience.resume_timeout);
    }

    /// The stop is about to end: what is asked would meet a running target.
    pub(super) fn is_leaving(&self) -> bool {
        self.reliable.ends_stop() || self.settling.is_some()
    }

    pub(super) fn settle(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Done(Purpose::Continue) => self.obeyed(now),
            Outcome::Failed(Purpose::Request(id, _), error) => {
                self.has_abandoned = true;
                self.tell(Event::Failed(id, error))
            }
            Outcome::Failed(Purpose::Continue, error) => self.unproven(now, error),
            Outcome::Done(Purpose::Request(id, request)) => {
                if request.api_number.ends_stop() {
                    self.state = RunState::Unknown;
                    self.left_stop();
                }
                self.tell(Event::Acknowledged(id));
            }
            Outcome::Done(Purpose::Answer) => {
                if std::mem::take(&mut self.is_answering_prompt) {
                    self.tell(Event::PromptAnswered);
                }
            }
            Outcome::Failed(Purpose::Answer, _) => {}
        }
    }

    /// Does what is due for a continue that is on its way, or was obeyed just now.
    pub(super) fn look_after_continue(&mut self, now: Instant) {
        if let Some(settling) = &mut self.settling {
            if settling.is_over(now) {
                self.resumed(now);
            } else if settling.overtakes(now) {
                self.reliable.overtake_break_ins();
            }
            return;
        }
        let (Some(resuming), Some((tries, is_held))) =
            (&mut self.resuming, self.reliable.continue_in_flight())
        else {
            return;
        };
        match &mut self.wire {
            Wire::Net(net) => match resuming.due(tries) {
                Due::Nothing => {}
                Due::Poke => net.poke_peer(),
                Due::BreakIn => {
                    // Two, since one may be lost; a target that stops at the first announces itself again at the other.
                    for _ in 0..2 {
                        net.send(Content::BreakIn);
                        self.reliable.break_in_sent();
                    }
                    self.reliable.hold_back(now, PROBE_PATIENCE);
                    self.break_ins_live_until = Some(now + BREAK_IN_LIFE);
                }
            },
            Wire::Stream(stream) => {
                if resuming.due_on_stream(now, is_held) == Due::BreakIn {
                    stream.break_in(now, false);
                }
            }
        }
    }

    /// A continue is on its way, or was obeyed and is not told yet.
    pub(super) fn is_continuing(&self) -> bool {
        self.reliable.is_continuing() || self.settling.is_some()
    }

    /// True for the stop that a break-in leads to.
    pub(super) fn is_of_break_in(&self, change: &StateChange) -> bool {
        arrivals::is_breakpoint(change) && self.break_in_at.is_none_or(|at| at == change.program_counter)
    }

    /// The target has obeyed the continue. A break-in of this link that is on its way yet must not undo that unseen.
    pub(super) fn obeyed(&mut self, now: Instant) {
        if self.attention.is_none() && self.is_break_in_on_its_way() {
            self.settling.get_or_insert_with(|| Settling::new(now));
            self.reliable.overtake_break_ins();
        } else {
            self.resumed(now);
        }
    }

    pub(super) fn resumed(&mut self, now: Instant) {
        self.state = RunState::Running;
        self.left_stop();
        if let Wire::Stream(stream) = &mut self.wire {
            stream.resumed();
        }
        let requests = self.reliable.give_up_requests(now);
        self.fail_requests(requests, RequestError::TargetRunning);
        self.tell(Event::Resumed);
    }

    pub(super) fn unproven(&mut self, now: Instant, error: RequestError) {
        let RequestError::NoAnswer { after, tries } = error else { return };
        self.state = RunState::Unknown;
        self.left_stop();
        self.is_unproven = true;
        let requests = self.reliable.give_up_requests(now);
        self.fail_requests(requests, RequestError::NotKnown);
        self.tell(Event::ResumeUnproven { after, tries });
    }

    /// Nothing that belongs to the stop is true any more.
    pub(super) fn left_stop(&mut self) {
        self.stop_payload = None;
        self.resuming = None;
        self.settling = None;
        self.is_unproven = false;
        self.has_abandoned = false;
        self.was_in_debugger = false;
    }
}

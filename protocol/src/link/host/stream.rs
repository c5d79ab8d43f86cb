//! KDCOM's part of the debugger's end: packets in a stream that may end and be there again.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::kd::{BREAK_IN, Packet};
use crate::kdcom;
use crate::link::stream_reader::StreamReader;

/// A running target looks for a break-in at each tick of its clock, unless it waits for an ACK.
const MISSED_AFTER: Duration = Duration::from_millis(500);

/// A break-in that went out this short a time ago has not been followed by anything.
const JUST_SENT: Duration = Duration::from_millis(20);

/// The stream, in both directions.
#[derive(Debug, Default)]
pub(super) struct StreamWire {
    pub(super) reader: StreamReader,
    is_open: bool,
    /// It was open before.
    was_open: bool,
    /// A whole packet has come, since the program began.
    is_heard: bool,
    /// Break-ins that no stop has answered yet. They stay in the stream, and the target comes upon each.
    break_ins: u32,
    /// One went to a target that was not known to run. It may have been stopped already: then it remembers the break-in, and stops
    /// once more when it is let run.
    may_remember: bool,
    /// It was let run since its last stop.
    has_run: bool,
    last_break_in: Option<Instant>,
    /// The last time that an ACK was withheld for the sake of a break-in.
    last_silence: Option<Instant>,
    outbox: BytesMut,
}

impl StreamWire {
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// True once whole packets have come.
    pub(super) const fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The stream is there. True if it was before.
    pub(super) fn opened(&mut self) -> bool {
        self.closed();
        self.is_open = true;
        std::mem::replace(&mut self.was_open, true)
    }

    /// The stream has ended.
    pub(super) fn closed(&mut self) {
        self.reader.clear();
        self.outbox.clear();
        self.break_ins = 0;
        self.may_remember = false;
        self.is_open = false;
    }

    /// True the first time.
    pub(super) fn hear(&mut self) -> bool {
        !std::mem::replace(&mut self.is_heard, true)
    }

    pub(super) fn break_in(&mut self, now: Instant, is_running: bool) {
        self.may_remember |= !is_running;
        self.outbox.extend_from_slice(&[BREAK_IN]);
        self.break_ins += 1;
        self.last_break_in = Some(now);
    }

    /// True if the next thing on the line is to be silence behind a break-in, which goes out unless one just did. Not oftener
    /// than a target that has noticed it needs to stop.
    pub(super) fn takes_silence(&mut self, now: Instant) -> bool {
        if self.last_silence.is_some_and(|at| now < at + MISSED_AFTER) {
            return false;
        }
        self.last_silence = Some(now);
        if self.last_break_in.is_none_or(|at| at + JUST_SENT <= now) {
            self.break_in(now, true);
        }
        true
    }

    /// True if a target that talks now has missed the last break-in: it takes the byte before an ACK for noise.
    pub(super) fn has_missed_break_in(&self, now: Instant) -> bool {
        self.last_break_in.is_some_and(|at| at + MISSED_AFTER <= now)
    }

    /// The target stopped, as it does for a break-in or for something else: one break-in is answered, or none.
    pub(super) fn stopped(&mut self, is_of_break_in: bool) {
        // Whoever has run since has come upon what he remembered.
        self.may_remember &= !self.has_run;
        self.has_run = false;
        if is_of_break_in {
            self.break_ins = self.break_ins.saturating_sub(1);
        }
    }

    /// True if a break-in that went out has not been answered.
    pub(super) const fn may_stop_again(&self) -> bool {
        self.break_ins > 0
    }

    /// True if the target may have come upon one while it was stopped.
    pub(super) const fn may_remember(&self) -> bool {
        self.may_remember
    }

    /// The target runs: what it came upon while it stood still counts once at the most.
    pub(super) fn resumed(&mut self) {
        self.break_ins = self.break_ins.min(1);
        self.has_run = true;
    }

    pub(super) fn send(&mut self, packet: &Packet) {
        if self.is_open {
            kdcom::encode(packet, &mut self.outbox);
        }
    }

    /// Moves what is to be sent into `out`. False if there is nothing.
    pub(super) fn poll_transmit(&mut self, out: &mut BytesMut) -> bool {
        let has_bytes = !self.outbox.is_empty();
        out.unsplit(self.outbox.split());
        has_bytes
    }
}

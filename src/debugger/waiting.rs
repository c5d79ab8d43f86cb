//! The debugger as the one who waits for uses of a tag, and who takes away what another has left.

use std::time::Duration;

use kd_protocol::kd::StateChange;

use super::error::{AskError, HitsError};
use super::hits::{self, HitObserver, Hits};
use super::{Debugger, Notice, Observer};
use crate::commands::pool::PoolTag;
use crate::commands::pool::hits::HitEnd;
use crate::memory::ReadCause;
use crate::source::{Resumed, Source};
use crate::target::Target;

impl Debugger {
    /// Makes the stopped target stop at each use of `tag` from now on, until [`stop_watching`](Self::stop_watching) or the end
    /// of the session. A tag that somebody has left there is taken away, and told to `observer`.
    ///
    /// # Errors
    /// [`HitsError`].
    pub fn watch_tag(&self, tag: PoolTag, observer: &mut dyn Observer) -> Result<(), HitsError> {
        tell_left(hits::watch_tag(self, tag)?, observer);
        Ok(())
    }

    /// Lets the target run and takes each use of the tag until something ends that; says what. The target is stopped
    /// afterwards if it stopped, and the tag may still be set.
    pub fn collect_hits(&self, hits: &mut Hits, observer: &mut dyn HitObserver) -> HitEnd {
        hits::collect(self, hits, observer)
    }

    /// Takes the tag back. A target that runs is stopped for that, and stays so; a use of the tag that comes before is still
    /// counted. What fails here is tried again when the target is let run for good. False if the target has restarted meanwhile.
    ///
    /// # Errors
    /// [`HitsError`]: the tag is still there.
    pub fn stop_watching(&self, hits: &mut Hits) -> Result<bool, HitsError> {
        hits::stop_watching(self, hits)
    }

    /// Takes away what somebody has left and nobody answers for, a tag or breakpoints, before the stopped target is let run for
    /// good: a request each to look for it.
    pub fn take_left_away(&self, observer: &mut dyn Observer) {
        tell_left(hits::take_left_away(self), observer);
        self.take_left_breakpoints_away(observer);
    }

    /// Takes away a tag that somebody has left, at a stop that came of it.
    pub(super) fn take_tag_away_at(&self, change: &StateChange, observer: &mut dyn Observer) {
        tell_left(hits::take_left_away_at(self, change), observer);
    }
}

fn tell_left(left: Option<hits::TagLeft>, observer: &mut dyn Observer) {
    if let Some(hits::TagLeft { tag, cleared }) = left {
        observer.notice(&Notice::TagLeft { tag, cleared: &cleared });
    }
}

impl hits::Waiter for Debugger {
    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn target(&self) -> Option<Target<'_>> {
        self.target()
    }

    fn why_not_stopped(&self) -> AskError {
        self.why_not_stopped()
    }

    fn go(&self) -> Resumed {
        self.go()
    }

    fn forget_memory(&self) {
        self.memory.forget();
    }

    fn take_failure(&self) -> Option<ReadCause> {
        self.memory.inner().take_failure()
    }

    fn break_in_timeout(&self) -> Duration {
        self.break_in_timeout
    }
}

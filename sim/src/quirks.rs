//! Quirks: what other kernels and machines do, switched on one by one, so that a debugger meets it here first.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kd_protocol::link::{OfferForm, TargetLink};

use super::windows::System;

macro_rules! quirks {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// Something that a target does unlike the simulated Windows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Quirk {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Quirk {
            /// Every quirk.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name: `context-echo`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it is, in a sentence.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim(),)*
                }
            }
        }
    };
}

quirks! {
    /// GetContextEx answers ByteCount as it was asked, and refuses a piece that ends behind the CONTEXT, as ReactOS does.
    ContextEcho = "context-echo",
    /// GetContextEx and SetContextEx are unknown, as in old kernels.
    NoContextEx = "no-context-ex",
    /// SearchMemory is not implemented: C0000001, behind a line that is printed in the middle of the request, as ReactOS does.
    NoSearch = "no-search",
    /// Every third request prints a line before its reply.
    PrintMidRequest = "print-mid-request",
    /// Told to go on, it stops once more at once, at an int3; over a serial line acknowledgement and stop come in one piece.
    StopsAgain = "stops-again",
    /// Images have no debug directory, so nothing says which symbols belong to them.
    NoDebugDirectory = "no-debug-directory",
    /// GetVersion is refused.
    NoVersion = "no-version",
    /// GetVersion leads to no KDDEBUGGER_DATA64, and there is none in memory.
    NoDebuggerData = "no-debugger-data",
    /// Offers have a body of 34 bytes: only what the response must quote.
    Offer34 = "offer-34",
    /// Offers have a body of 360 bytes: 16 more than Windows'.
    Offer360 = "offer-360",
    /// Offers have a body of 408 bytes: 64 more than Windows'.
    Offer408 = "offer-408",
    /// Offers come every 20 seconds.
    SlowOffers = "slow-offers",
    /// It asks what to do with a failed assertion as soon as it has started, and waits.
    PromptAtBoot = "prompt-at-boot",
    /// Stopped, it answers ten requests and then nothing more.
    SilentAfterBreak = "silent-after-break",
    /// It obeys a break-in two seconds later.
    BreaksLate = "breaks-late",
    /// A break-in on a serial line that another byte follows at once is lost while it prints, as ReactOS loses it.
    SwallowsBreak = "swallows-break",
    /// No code can be written: a breakpoint is taken, and its byte is not there, as under memory integrity.
    ProtectedCode = "protected-code",
}

/// Requests that a machine answers in a stop before it falls silent, with that quirk.
pub(super) const ANSWERED_BEFORE_SILENCE: u64 = 10;
/// How late a break-in is obeyed, with that quirk.
pub(super) const BREAK_IN_DELAY: Duration = Duration::from_secs(2);
/// How often an offer comes, with that quirk.
const SLOW_OFFER_INTERVAL: Duration = Duration::from_secs(20);
/// What is asked at boot, with that quirk.
pub(super) const PROMPT_AT_BOOT: &str = "\n*** Assertion failed: !\"the simulated machine was told to ask\"\n\n\
     Break repeatedly, break Once, Ignore, terminate Process, or terminate Thread (boipt)? ";

/// A set of quirks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks(u32);

impl Quirks {
    /// True if this one is among them.
    #[must_use]
    pub const fn has(self, quirk: Quirk) -> bool {
        self.0 & 1 << quirk as u32 != 0
    }

    /// Those among them, in the order of [`Quirk::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.iter().copied().filter(move |quirk| self.has(*quirk))
    }

    /// Changes how a target's end of the link behaves.
    pub(super) fn change_link(self, link: &mut TargetLink) {
        let mut form = OfferForm::default();
        for (quirk, body_len) in [(Quirk::Offer34, 34), (Quirk::Offer360, 360), (Quirk::Offer408, 408)] {
            if self.has(quirk) {
                form.body_len = body_len;
            }
        }
        if self.has(Quirk::SlowOffers) {
            form.interval = SLOW_OFFER_INTERVAL;
        }
        link.offer_as(form);
        if self.has(Quirk::SwallowsBreak) {
            link.swallow_break_ins();
        }
    }

    /// Changes what a machine that has just started holds.
    pub(super) fn change_machine(self, machine: &mut System) {
        if self.has(Quirk::NoDebugDirectory) {
            machine.remove_debug_directories();
        }
        if self.has(Quirk::NoDebuggerData) {
            machine.remove_debugger_data();
        }
    }
}

impl FromIterator<Quirk> for Quirks {
    fn from_iter<T: IntoIterator<Item = Quirk>>(quirks: T) -> Self {
        Self(quirks.into_iter().fold(0, |set, quirk| set | 1 << quirk as u32))
    }
}

impl<const N: usize> From<[Quirk; N]> for Quirks {
    fn from(quirks: [Quirk; N]) -> Self {
        quirks.into_iter().collect()
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Quirk::name)).finish()
    }
}

/// A name that no quirk has. Prints those that are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no quirk; there are {names}", names = names())]
pub struct NoQuirk(String);

fn names() -> String {
    Quirk::ALL.iter().map(|quirk| quirk.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Quirk {
    type Err = NoQuirk;

    fn from_str(name: &str) -> Result<Self, NoQuirk> {
        let found = Self::ALL.iter().find(|quirk| quirk.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| NoQuirk(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quirk_is_found_by_its_name_and_explained_in_a_sentence() {
        for quirk in Quirk::ALL {
            assert_eq!(quirk.name().to_uppercase().parse(), Ok(*quirk));
            assert!(quirk.explanation().ends_with('.') && !quirk.explanation().starts_with(' '));
        }
        assert!(
            "odd"
                .parse::<Quirk>()
                .unwrap_err()
                .to_string()
                .starts_with("`odd` is no quirk; there are context-echo, ")
        );
        let some = Quirks::from([Quirk::NoSearch, Quirk::Offer34]);
        assert_eq!(format!("{some:?}"), r#"{"no-search", "offer-34"}"#);
    }
}

//! Cancelled I/O requests that Driver Verifier watches until they are completed: `nt!VfWdIrpListHead`.
//!
//! ```text
//!  VfWdIrpListHead -> _VF_WATCHDOG_IRP -> ... -> back to the head
//!                       Irp, DueTickCount, TrackedStackLocation, CancelTimeoutTicks
//! ```
//! Source: verifier.md 5. No sample of this text was found; it is printed in the style of the logs.

use serde::Serialize;

use super::common::failed;
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::output::{self, Reading};
use crate::target::{Note, NoteCode, OfLink, Target, VirtAddr, WalkEnd, walk};

/// Most requests that are listed.
const MAX_REQUESTS: usize = 0x1_0000;

/// Asks for the watched requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchedQuery {
    /// Only this `_IRP`.
    pub irp: Option<VirtAddr>,
}

/// The watched requests, in the order of their list.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct WatchedRequests {
    /// The only `_IRP` that was asked for, if one was.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub irp: Option<VirtAddr>,
    /// What was found.
    pub requests: Vec<WatchedRequest>,
    /// How the walk along the list ended.
    pub end: WalkEnd,
}

/// One of them.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct WatchedRequest {
    /// Its `_VF_WATCHDOG_IRP`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub entry: VirtAddr,
    /// Its `_IRP`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub irp: VirtAddr,
    /// When it should be completed, in ticks of the clock.
    pub due_tick_count: Reading,
    /// The stack location of the driver that is waited for.
    pub tracked_stack_location: Reading,
    /// How long it is waited for, in ticks.
    pub cancel_timeout_ticks: Reading,
}

impl Query for WatchedQuery {
    type Facts = WatchedRequests;

    fn run(&self, target: &Target<'_>) -> Result<WatchedRequests, QueryError> {
        let head = target.address_of("nt!VfWdIrpListHead").map_err(failed)?;
        let layout = target.layout("nt!_VF_WATCHDOG_IRP").map_err(failed)?;
        let links = layout.offset("ListEntry").map_err(failed)?;
        let list = target.record("nt!_LIST_ENTRY", head).map_err(failed)?;
        let first = list.pointer("Flink").map_err(failed)?;
        let mut requests = Vec::new();
        // A head of zeros was never set up: nothing was ever watched.
        let end = walk::list(target.pointer_size(), head, first, MAX_REQUESTS, |at| {
            let entry = target.record_of(&layout, VirtAddr(at.0.wrapping_sub(links)))?;
            let irp = entry.pointer("Irp")?;
            if self.irp.is_none_or(|wanted| wanted == irp) {
                requests.push(WatchedRequest {
                    entry: entry.address(),
                    irp,
                    due_tick_count: Reading::of(entry.uint("DueTickCount")),
                    tracked_stack_location: Reading::of(entry.uint("TrackedStackLocation")),
                    cancel_timeout_ticks: Reading::of(entry.uint("CancelTimeoutTicks")),
                });
            }
            entry.pointer("ListEntry.Flink")
        });
        if !end.is_complete() {
            let text = format!("The list of watched requests breaks off: {end}");
            target.note(Note::partial(NoteCode::ListBreaksOff, text).broken_off_if(end.is_of_link()));
        }
        if let (true, Some(irp)) = (requests.is_empty(), self.irp) {
            target.note(Note::failed(
                NoteCode::NotFound,
                format!("No watched request is at {}.", target.shown(irp)),
            ));
        }
        Ok(WatchedRequests { irp: self.irp, requests, end })
    }
}

impl WatchedRequests {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("watched_requests");
}

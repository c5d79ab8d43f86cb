//! The memory of a stopped live target.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use kd_protocol::kd::{Arm, Manipulate, NtStatus, SEARCH_FOUND_NOTHING};
use tokio::sync::mpsc;

use super::context;
use super::monitor::Monitor;
use super::order::{Order, OrderKind, Outcome, Space, cause_of};
use crate::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr};

/// The first request of a search covers this much: a target says nothing while it searches. Source: kdnet.md 8.2.
const FIRST_SEARCH_PIECE: u64 = 16 << 20;
/// Each further one covers twice as much, up to this: a target that has answered is one that answers in time.
const LARGEST_SEARCH_PIECE: u64 = 64 << 20;

/// Reads a stopped target over its link: blocks until the bytes, a failure, or Ctrl+C.
#[derive(Clone, Debug)]
pub struct LiveMemory {
    monitor: Arc<Monitor>,
    orders: mpsc::UnboundedSender<Order>,
}

impl LiveMemory {
    pub(super) const fn new(monitor: Arc<Monitor>, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { monitor, orders }
    }

    fn read(&self, space: Space, address: Address, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if buf.is_empty() {
            return Ok(());
        }
        let wanted = buf.len();
        let outcome =
            self.monitor.carry_out(&self.orders, |ticket| OrderKind::Read(ticket, space, at, wanted));
        let (bytes, cause) = match outcome {
            Outcome::Bytes(bytes, cause) => (bytes, cause),
            Outcome::Failed(error) => (Vec::new(), Some(cause_of(error))),
            Outcome::Interrupted => (Vec::new(), Some(ReadCause::Interrupted)),
            Outcome::BudgetSpent => (Vec::new(), Some(ReadCause::FreezeBudget)),
            Outcome::Ended | Outcome::Reply(_) | Outcome::Accepted => {
                (Vec::new(), Some(ReadCause::SessionEnded))
            }
        };
        buf[..bytes.len()].copy_from_slice(&bytes);
        cause.map_or(Ok(()), |cause| Err(ReadError { address, wanted, got: bytes.len(), cause }))
    }

    fn request(&self, request: Manipulate) -> Result<Manipulate, ReadCause> {
        let order = |ticket| OrderKind::Request(ticket, Box::new(request));
        match self.monitor.carry_out(&self.orders, order) {
            Outcome::Reply(reply) => Ok(*reply),
            Outcome::Failed(error) => Err(cause_of(error)),
            Outcome::Interrupted => Err(ReadCause::Interrupted),
            Outcome::BudgetSpent => Err(ReadCause::FreezeBudget),
            Outcome::Ended | Outcome::Bytes(..) | Outcome::Accepted => Err(ReadCause::SessionEnded),
        }
    }

    fn search_piece(
        &self,
        from: VirtAddr,
        length: u64,
        pattern: &Bytes,
    ) -> Result<Option<VirtAddr>, ReadCause> {
        let reply = self.request(Manipulate::search_memory(from, length, pattern.clone()))?;
        match (reply.return_status, reply.arm) {
            (SEARCH_FOUND_NOTHING, _) => Ok(None),
            (NtStatus::SUCCESS, Arm::SearchMemory(arm)) => Ok(Some(arm.search_address)),
            (status, _) => Err(ReadCause::Status(status.0)),
        }
    }
}

impl Memory for LiveMemory {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read(Space::Virtual, Address::Virtual(address), address.0, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read(Space::Physical, Address::Physical(address), address.0, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let pattern = Bytes::copy_from_slice(pattern);
        let mut from = range.start;
        let mut piece = FIRST_SEARCH_PIECE;
        while from < range.end {
            let length = range.end.since(from).min(piece);
            piece = (piece * 2).min(LARGEST_SEARCH_PIECE);
            let found = self.search_piece(from, length, &pattern).map_err(|cause| ReadError {
                address: Address::Virtual(from),
                wanted: usize::try_from(length).unwrap_or(usize::MAX),
                got: 0,
                cause,
            })?;
            if let Some(found) = found.filter(|it| range.contains(it)) {
                return Ok(Some(found));
            }
            from = from.offset(length);
        }
        Ok(None)
    }

    fn request_len(&self) -> usize {
        self.monitor.read_len()
    }

    fn stop(&self) -> StopId {
        self.monitor.stop()
    }
}

impl StoppedCpu for LiveMemory {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        let processor = self.monitor.stopped_processor().ok_or(ReadCause::TargetRunning)?;
        let read = context::read(processor, |request| self.request(request))?;
        read.map(|(context, _)| context).ok_or(ReadCause::Unsupported("the CPU's context"))
    }
}

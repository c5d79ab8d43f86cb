//! The memory of a stopped live target.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kd_protocol::kd::{Arm, Manipulate, NtStatus, SEARCH_FOUND_NOTHING};
use kd_protocol::link::RequestError;
use kd_protocol::{KDNET_REPLY_DATA, MachineType};
use tokio::sync::mpsc;

use super::context::{self, Layout};
use super::monitor::Monitor;
use super::order::{Order, Read, Space, cause_of};
use super::version;
use crate::memory::{
    Address, Changeable, Memory, PageTables, Paging, PhysAddr, ReadCause, ReadError, SEARCHED_AT_ONCE,
    StopId, StoppedCpu, VirtAddr, WriteError,
};
use crate::source::{SourceMemory, Step};

/// The first request of a search covers this much: a target says nothing while it searches. Each further one covers twice as
/// much, up to [`SEARCHED_AT_ONCE`]: a target that has answered is one that answers in time. Source: PROTOCOL.md 9.
const FIRST_SEARCH_PIECE: u64 = 16 << 20;

/// Not pinned to a stop.
const ANY_STOP: u64 = 0;

/// Reads a stopped target over its link: blocks until the bytes, a failure, or Ctrl+C.
#[derive(Debug)]
pub struct LiveMemory {
    monitor: Arc<Monitor>,
    orders: mpsc::UnboundedSender<Order>,
    pinned: AtomicU64,
    /// Why the target could not be asked, since the last look.
    failure: Mutex<Option<ReadCause>>,
}

impl LiveMemory {
    pub(super) const fn new(monitor: Arc<Monitor>, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { monitor, orders, pinned: AtomicU64::new(ANY_STOP), failure: Mutex::new(None) }
    }

    fn failed(&self, cause: ReadCause) -> ReadCause {
        let is_of_memory =
            matches!(cause, ReadCause::NotMapped | ReadCause::Status(_) | ReadCause::Unsupported(_));
        if !is_of_memory {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| cause.clone());
        }
        cause
    }

    fn read(&self, space: Space, address: Address, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if buf.is_empty() {
            return Ok(());
        }
        let (wanted, stop) = (buf.len(), self.stop());
        let step = Step::Reply(format!("a read of {wanted:#x} bytes at {address}"));
        let order = |reply| Order::Read(reply, stop, space, at, wanted);
        let read = self.monitor.carry_out(&self.orders, step, order);
        let Read { bytes, stopped_by } =
            read.unwrap_or_else(|cut| Read { bytes: Vec::new(), stopped_by: Some(cut.into()) });
        buf[..bytes.len()].copy_from_slice(&bytes);
        let Some(cause) = stopped_by.map(|cause| self.failed(cause)) else { return Ok(()) };
        Err(ReadError { address, wanted, got: bytes.len(), cause })
    }

    fn request(&self, request: Manipulate) -> Result<Manipulate, NoReply> {
        let step = Step::Reply(request.api_number.to_string());
        let stop = self.stop();
        let order = |reply| Order::Request(reply, stop, Box::new(request));
        match self.monitor.carry_out(&self.orders, step, order) {
            Ok(Ok(reply)) => Ok(*reply),
            Ok(Err(error)) => Err(NoReply(self.failed(cause_of(error)))),
            Err(cut) => Err(NoReply(self.failed(cut.into()))),
        }
    }

    fn layout(&self) -> Result<Layout, ReadCause> {
        let known = self.monitor.get(|state| state.version);
        let version = known.map_or_else(|| version::ask(&self.monitor, |it| self.request(it)), Ok)?;
        Layout::of(MachineType(version.machine_type)).ok_or(ReadCause::Unsupported("the CPU's context"))
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
            (NtStatus::SUCCESS, Arm::SearchMemory(arm)) => Ok(Some(near(arm.search_address, from))),
            (status, _) => Err(ReadCause::Status(status.0)),
        }
    }
}

impl SourceMemory for LiveMemory {
    fn pin(&self, stop: StopId) {
        self.pinned.store(stop.0, Ordering::Release);
    }

    fn take_failure(&self) -> Option<ReadCause> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn changeable(&self) -> Option<&dyn Changeable> {
        Some(self)
    }
}

impl Changeable for LiveMemory {
    fn write_virtual(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), WriteError> {
        let mut written = 0;
        while written < bytes.len() {
            let piece = &bytes[written..bytes.len().min(written + KDNET_REPLY_DATA as usize)];
            let at = address.offset(written as u64);
            let request = Manipulate::write_virtual(at, Bytes::copy_from_slice(piece));
            let failed = |written, cause| WriteError {
                address: Address::Virtual(address),
                wanted: bytes.len(),
                written,
                cause,
            };
            let reply = self.request(request).map_err(|NoReply(cause)| failed(written, cause))?;
            let done = match reply.arm {
                Arm::WriteMemory(arm) => (arm.actual_bytes_written as usize).min(piece.len()),
                _ => 0,
            };
            written += done;
            match reply.return_status {
                NtStatus::SUCCESS if done > 0 => {}
                NtStatus::SUCCESS | NtStatus::UNSUCCESSFUL => {
                    return Err(failed(written, ReadCause::NotMapped));
                }
                status => return Err(failed(written, ReadCause::Status(status.0))),
            }
        }
        Ok(())
    }

    fn change_context(
        &self,
        processor: Option<u16>,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, ReadCause> {
        let stopped = self.monitor.get(|state| state.stopped.as_ref().map(|change| change.processor));
        let processor = processor.or(stopped).ok_or(ReadCause::TargetRunning)?;
        let layout = self.layout()?;
        let unsupported = || ReadCause::Unsupported("the CPU's context");
        // It is taken back only in the stop in which it was read.
        let read = context::read(processor, &layout, |request| self.request(request))?;
        let mut context = read.ok_or_else(unsupported)?;
        change(&mut context.bytes);
        context::write(processor, &context, |request| self.request(request))?;
        let read = context::read(processor, &layout, |request| self.request(request))?;
        read.map(|context| context.bytes).ok_or_else(unsupported)
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
            piece = (piece * 2).min(SEARCHED_AT_ONCE);
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

    /// What the processor that stopped translates with.
    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        const SPECIAL_REGISTERS: u64 = 2;
        const CONTEXT_X86: u64 = 0x2cc;
        const PAE: u64 = 1 << 5;
        const LA57: u64 = 1 << 12;
        let unsupported = ReadCause::Unsupported("the root of the page tables");
        let stopped = self.monitor.get(|state| state.stopped.as_ref().map(|change| change.processor));
        let processor = stopped.ok_or(ReadCause::TargetRunning)?;
        let known = self.monitor.get(|state| state.version);
        let version = known.map_or_else(|| version::ask(&self.monitor, |it| self.request(it)), Ok)?;
        // Where its _KSPECIAL_REGISTERS are, which begin with Cr0, Cr2, Cr3, Cr4: on x86 behind a CONTEXT.
        let (registers, width) = match MachineType(version.machine_type) {
            MachineType::AMD64 => (SPECIAL_REGISTERS, 8),
            MachineType::I386 => (CONTEXT_X86, 4),
            _ => return Err(unsupported),
        };
        let reply = self.request(Manipulate::read_control_space(processor, registers, 4 * width as u32))?;
        if reply.return_status != NtStatus::SUCCESS {
            return Err(ReadCause::Status(reply.return_status.0));
        }
        let word = |number: usize| {
            let mut value = [0; 8];
            value[..width].copy_from_slice(reply.data.get(number * width..(number + 1) * width)?);
            Some(u64::from_le_bytes(value))
        };
        let (Some(root), Some(cr4)) = (word(2), word(3)) else { return Err(unsupported) };
        let paging = match width {
            8 if cr4 & LA57 != 0 => Paging::Long5,
            8 => Paging::Long4,
            _ if cr4 & PAE != 0 => Paging::Pae,
            _ => Paging::X86,
        };
        Ok(PageTables { root, paging })
    }

    fn request_len(&self) -> usize {
        self.monitor.get(|state| state.read_len)
    }

    fn stop(&self) -> StopId {
        match self.pinned.load(Ordering::Acquire) {
            ANY_STOP => self.monitor.get(|state| state.stop),
            pinned => StopId(pinned),
        }
    }
}

impl StoppedCpu for LiveMemory {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        let stopped = self.monitor.get(|state| state.stopped.as_ref().map(|change| change.processor));
        self.context_of(stopped.ok_or(ReadCause::TargetRunning)?)
    }

    fn context_of(&self, processor: u16) -> Result<Vec<u8>, ReadCause> {
        let count = self.monitor.get(|state| state.stopped.as_ref().map(|change| change.number_processors));
        if u32::from(processor) >= count.ok_or(ReadCause::TargetRunning)?.max(1) {
            return Err(ReadCause::Unsupported("a processor of that number"));
        }
        let layout = self.layout()?;
        let read = context::read(processor, &layout, |request| self.request(request))?;
        read.map(|context| context.bytes).ok_or(ReadCause::Unsupported("the CPU's context"))
    }
}

/// The address that a search from `from` on has found, as wide as `from` is: KD sign-extends those of 32-bit targets.
const fn near(found: VirtAddr, from: VirtAddr) -> VirtAddr {
    let low = found.0 & 0xffff_ffff;
    let is_extended = found.0 == low as u32 as i32 as i64 as u64;
    if is_extended && from.0 >> 32 == 0 { VirtAddr(low) } else { found }
}

/// Why a request has no reply.
struct NoReply(ReadCause);

impl From<RequestError> for NoReply {
    fn from(error: RequestError) -> Self {
        Self(cause_of(error))
    }
}

impl From<NoReply> for ReadCause {
    fn from(NoReply(cause): NoReply) -> Self {
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_32_bit_target_finds_lies_where_it_was_looked_for() {
        let of = |found, from| near(VirtAddr(found), VirtAddr(from)).0;
        assert_eq!(of(0xffff_ffff_804d_8340, 0x804d_8000), 0x804d_8340);
        assert_eq!(of(0x10_0340, 0x10_0000), 0x10_0340);
        assert_eq!(of(0xffff_ffff_8100_0340, 0xffff_ffff_8100_0000), 0xffff_ffff_8100_0340, "of x64");
        assert_eq!(of(0xffff_f800_0000_0340, 0x1000), 0xffff_f800_0000_0340);
    }
}

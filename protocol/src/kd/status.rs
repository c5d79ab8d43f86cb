//! `NTSTATUS`: how a manipulate request ended.

use crate::wire::open_enum;

open_enum! {
    /// A Windows status code. The top bit set means failure.
    pub struct NtStatus(u32) {
        /// Done.
        SUCCESS = 0 => "SUCCESS",
        /// Not done yet: what WinDbg writes into most requests.
        PENDING = 0x103 => "PENDING",
        /// Continue: the exception was handled.
        DBG_EXCEPTION_HANDLED = 0x0001_0001 => "DBG_EXCEPTION_HANDLED",
        /// Continue.
        DBG_CONTINUE = 0x0001_0002 => "DBG_CONTINUE",
        /// Continue: the exception was not handled.
        DBG_EXCEPTION_NOT_HANDLED = 0x8001_0001 => "DBG_EXCEPTION_NOT_HANDLED",
        /// A search ended without a match.
        NO_MORE_ENTRIES = 0x8000_001a => "NO_MORE_ENTRIES",
        /// The exception of a break-in and of a breakpoint.
        BREAKPOINT = 0x8000_0003 => "BREAKPOINT",
        /// The exception after one step.
        SINGLE_STEP = 0x8000_0004 => "SINGLE_STEP",
        /// Refused, not mapped, not known.
        UNSUCCESSFUL = 0xc000_0001 => "UNSUCCESSFUL",
        /// A field of the request is out of range.
        INVALID_PARAMETER = 0xc000_000d => "INVALID_PARAMETER",
        /// No such file: what a host without file mapping answers.
        NO_SUCH_FILE = 0xc000_000f => "NO_SUCH_FILE",
    }
}

impl NtStatus {
    /// False for the error and warning codes, whose top bit is set.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >> 31 == 0
    }
}

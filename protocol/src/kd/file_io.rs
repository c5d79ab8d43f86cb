//! File I/O: the target asks the host for a file, as a boot with a driver replacement map does.

use std::fmt;

use bytes::Bytes;

use super::status::NtStatus;
use crate::wire::{DecodeError, Reader, Writer, open_enum, wire_struct};

open_enum! {
    /// `DBGKD_FILE_IO.ApiNumber`.
    pub struct FileIoApi(u32) {
        /// Open a file.
        CREATE_FILE = 0x3430 => "CreateFile",
        /// Read from it.
        READ_FILE = 0x3431 => "ReadFile",
        /// Write to it.
        WRITE_FILE = 0x3432 => "WriteFile",
        /// Close it.
        CLOSE_FILE = 0x3433 => "CloseFile",
    }
}

wire_struct! {
    /// The 56-byte union of a file I/O packet, in the shape that a create request has.
    pub struct FileRequest {
        /// `ACCESS_MASK`; in a read or write the low half of the handle.
        desired_access: u32,
        /// File attributes; in a read or write the high half of the handle.
        file_attributes: u32,
        /// Share mode.
        share_access: u32,
        /// What to do if it exists or not.
        create_disposition: u32,
        /// Options.
        create_options: u32,
        /// Not meaningful.
        padding: u32,
        /// Reply: the handle.
        handle: u64,
        /// Reply: the file's length.
        length: u64,
        /// Not meaningful.
        unused: [u64; 2],
    }
}

/// A file request of the target, or the host's answer. A host must answer: the target waits.
///
/// | offset | size | field     | meaning                           |
/// |-------:|-----:|-----------|-----------------------------------|
/// |      0 |    4 | ApiNumber |                                   |
/// |      4 |    4 | Status    | in the answer                     |
/// |      8 |   56 | u         | [`FileRequest`]                   |
/// |     64 |      | data      | create: UTF-16 path with NUL      |
///
/// Source: PROTOCOL.md 11; 33 captured exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIo {
    /// Which request.
    pub api_number: FileIoApi,
    /// How it ended.
    pub status: NtStatus,
    /// Its fields.
    pub request: FileRequest,
    /// A path, or bytes read or to write.
    pub data: Bytes,
}

impl FileIo {
    /// Bytes before the data.
    pub const HEADER_LEN: usize = 64;

    /// The answer of a host that has no file for it.
    #[must_use]
    pub fn refuse(&self) -> Self {
        Self { status: NtStatus::NO_SUCH_FILE, data: Bytes::new(), ..self.clone() }
    }

    /// The path that a create request names.
    #[must_use]
    pub fn path(&self) -> String {
        let units = self.data.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        char::decode_utf16(units.take_while(|unit| *unit != 0))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] below 64 bytes.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("file I/O", payload);
        Ok(Self {
            api_number: FileIoApi(reader.u32()?),
            status: NtStatus(reader.u32()?),
            request: FileRequest::decode(&mut reader)?,
            data: payload.slice(Self::HEADER_LEN..),
        })
    }

    /// The payload to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + self.data.len());
        let mut writer = Writer::new(&mut out);
        writer.u32(self.api_number.0).u32(self.status.0);
        self.request.encode(&mut writer);
        writer.bytes(&self.data);
        out.into()
    }
}

impl fmt::Display for FileIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.api_number)?;
        if self.api_number == FileIoApi::CREATE_FILE && !self.data.is_empty() {
            write!(f, " {:?}", self.path())?;
        }
        write!(f, " status {}", self.status)
    }
}

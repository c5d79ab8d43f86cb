//! Debug I/O: lines that the target prints, and prompts that it wants answered.

use std::fmt;

use bytes::Bytes;

use crate::wire::{DecodeError, Reader, Writer, open_enum};

open_enum! {
    /// `DBGKD_DEBUG_IO.ApiNumber`.
    pub struct DebugIoApi(u32) {
        /// A line; only acknowledged.
        PRINT_STRING = 0x3230 => "PrintString",
        /// A prompt; the target waits until it is answered.
        GET_STRING = 0x3231 => "GetString",
    }
}

/// A print, a prompt, or the host's answer to a prompt.
///
/// | offset | size | field          | meaning                                                |
/// |-------:|-----:|----------------|--------------------------------------------------------|
/// |      0 |    4 | ApiNumber      |                                                        |
/// |      4 |    2 | ProcessorLevel |                                                        |
/// |      6 |    2 | Processor      |                                                        |
/// |      8 |    4 | LengthOfString | of the text or prompt; 0 in an answer                  |
/// |     12 |    4 | second length  | prompt: room for the answer; answer: its length        |
/// |     16 |      | text           | not NUL-terminated                                     |
///
/// Source: PROTOCOL.md 10; seen in `tests/vectors` (A.print_string).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugIo {
    /// Print or prompt.
    pub api_number: DebugIoApi,
    /// Of the CPU.
    pub processor_level: u16,
    /// Which CPU.
    pub processor: u16,
    /// `LengthOfString`, as it stands on the wire.
    pub length_of_string: u32,
    /// `LengthOfStringRead`: not meaningful in a print.
    pub length_of_string_read: u32,
    /// Everything behind the header.
    pub text: Bytes,
}

impl DebugIo {
    /// Bytes before the text.
    pub const HEADER_LEN: usize = 16;

    /// A line that the target prints.
    #[must_use]
    pub fn print(text: Bytes) -> Self {
        Self {
            api_number: DebugIoApi::PRINT_STRING,
            processor_level: 0,
            processor: 0,
            length_of_string: u32::try_from(text.len()).expect("a line fits one packet"),
            length_of_string_read: 0,
            text,
        }
    }

    /// The host's answer to this prompt, cut to the room that the target has.
    #[must_use]
    pub fn answer(&self, mut text: Bytes) -> Self {
        text.truncate(self.length_of_string_read as usize);
        Self {
            length_of_string: 0,
            length_of_string_read: u32::try_from(text.len()).expect("cut to a 32-bit length"),
            text,
            ..self.clone()
        }
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] below 16 bytes.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("debug I/O", payload);
        Ok(Self {
            api_number: DebugIoApi(reader.u32()?),
            processor_level: reader.u16()?,
            processor: reader.u16()?,
            length_of_string: reader.u32()?,
            length_of_string_read: reader.u32()?,
            text: payload.slice(Self::HEADER_LEN..),
        })
    }

    /// The payload to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + self.text.len());
        Writer::new(&mut out)
            .u32(self.api_number.0)
            .u16(self.processor_level)
            .u16(self.processor)
            .u32(self.length_of_string)
            .u32(self.length_of_string_read)
            .bytes(&self.text);
        out.into()
    }
}

impl fmt::Display for DebugIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.api_number, String::from_utf8_lossy(&self.text))
    }
}

//! A serial line as bytes, for whoever wants to hear what is on it before there is a session.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::ComPort;
use super::line::{self, Stream};

/// Opening takes no longer.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes taken at a time.
const PIECE: usize = 4096;

/// An open serial line. Nothing is sent by itself.
pub struct RawLine {
    runtime: tokio::runtime::Runtime,
    stream: Stream,
}

impl RawLine {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(port: &ComPort) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async { tokio::time::timeout(OPEN_PATIENCE, line::open(port)).await });
        let stream = stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
        Ok(Self { runtime, stream })
    }

    /// The bytes that come within `timeout`: the first of them, as soon as they are there. None if none came.
    ///
    /// # Errors
    /// The line has ended: [`io::ErrorKind::UnexpectedEof`], or what the system says.
    pub fn read(&mut self, timeout: Duration) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let read = self
            .runtime
            .block_on(async { tokio::time::timeout(timeout, self.stream.read(&mut piece)).await });
        match read {
            Err(_) => Ok(None),
            Ok(Ok(0)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed it")),
            Ok(Ok(len)) => Ok(Some(Bytes::copy_from_slice(&piece[..len]))),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Sends `bytes`, for at most `timeout`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::TimedOut`] if the other end does not take them.
    pub fn write(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let written = self.runtime.block_on(async {
            tokio::time::timeout(timeout, async {
                self.stream.write_all(bytes).await?;
                self.stream.flush().await
            })
            .await
        });
        written.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the other end takes no bytes"))?
    }
}

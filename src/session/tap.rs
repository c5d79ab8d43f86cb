//! A listener to everything that crosses a link. What it does with that is its own affair: the session knows no file.

use std::fmt;
use std::net::SocketAddr;

use kd_protocol::kdnet::Key;

use super::error::OpenError;

/// Is told of everything that crosses a link, by the thread that drives it: must not block.
pub trait Tap: Send {
    /// These bytes were given to the network, for `to`; or to the line.
    fn sent(&mut self, to: Option<SocketAddr>, bytes: &[u8]);

    /// These bytes came from the network, from `from`; or from the line.
    fn received(&mut self, from: Option<SocketAddr>, bytes: &[u8]);
}

/// Opens the tap of a session that begins.
pub trait OpenTap: fmt::Debug + Send + Sync {
    /// A tap for a session whose datagrams `key` opens, and which listens at `listens_at`; over a serial line there is
    /// neither.
    ///
    /// # Errors
    /// [`OpenError`], with which the session does not begin.
    fn open(&self, key: Option<&Key>, listens_at: Option<SocketAddr>) -> Result<Box<dyn Tap>, OpenError>;
}

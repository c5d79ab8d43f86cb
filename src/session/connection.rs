//! WinDbg's connection strings: `net:port=50000,key=1.2.3.4`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use kd_protocol::kdnet::{Key, KeyError};

/// What `-k` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where to listen for the target.
    pub listen: SocketAddr,
    /// The key that the target was given too.
    pub key: Key,
}

/// What is wrong with a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Not `net:`.
    #[error("-k {0}: only KDNET is known; write -k net:port=50000,key=1.2.3.4")]
    Transport(String),
    /// No such option.
    #[error("-k: unknown option {0:?}; net: takes port, key and hostip, like net:port=50000,key=1.2.3.4")]
    Option(String),
    /// An option that must be there is not.
    #[error("-k: {0} is missing; write -k net:port=50000,key=1.2.3.4")]
    Missing(&'static str),
    /// Not a port.
    #[error("-k: {0:?} is not a UDP port; the target's `bcdedit /dbgsettings` shows it, usually 50000")]
    Port(String),
    /// Not an address.
    #[error("-k: {0:?} is not an IP address of this machine")]
    HostIp(String),
    /// Not a key.
    #[error("-k: {0}")]
    Key(#[from] KeyError),
}

impl FromStr for Connection {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, ConnectionError> {
        let Some(options) = text.strip_prefix("net:") else {
            return Err(ConnectionError::Transport(text.into()));
        };
        let (mut port, mut key, mut host_ip) = (None, None, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        for option in options.split(',').filter(|it| !it.is_empty()) {
            match option.split_once('=') {
                Some(("port", value)) => {
                    port = Some(value.parse().map_err(|_| ConnectionError::Port(value.into()))?);
                }
                Some(("key", value)) => key = Some(value.parse()?),
                Some(("hostip", value)) => {
                    host_ip = value.parse().map_err(|_| ConnectionError::HostIp(value.into()))?;
                }
                _ => return Err(ConnectionError::Option(option.into())),
            }
        }
        Ok(Self {
            listen: SocketAddr::new(host_ip, port.ok_or(ConnectionError::Missing("port"))?),
            key: key.ok_or(ConnectionError::Missing("key"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Connection>().unwrap_err().to_string()
    }

    #[test]
    fn windbgs_string_is_understood() {
        let connection: Connection = "net:port=50000,key=1.2.3.4".parse().unwrap();
        assert_eq!(connection.listen, "0.0.0.0:50000".parse().unwrap());
        let connection: Connection = "net:key=1.2.3.4,hostip=127.0.0.1,port=1".parse().unwrap();
        assert_eq!(connection.listen, "127.0.0.1:1".parse().unwrap());
    }

    #[test]
    fn a_wrong_string_says_what_to_write() {
        assert!(error("com:port=1").contains("net:port=50000,key=1.2.3.4"));
        assert!(error("net:port=50000").contains("key is missing"));
        assert!(error("net:key=1.2.3.4").contains("port is missing"));
        assert!(error("net:port=70000,key=1.2.3.4").contains("not a UDP port"));
        assert!(error("net:port=1,key=1.2.3").contains("this one has 3"));
        assert!(error("net:port=1,key=1.2.3.4,baud=9600").contains("baud=9600"));
    }
}

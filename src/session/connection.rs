//! WinDbg's connection strings: `net:port=50000,key=1.2.3.4`, `com:pipe,port=vm.sock,reconnect`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use kd_protocol::kdnet::{Key, KeyError};

/// What the target's `bcdedit /dbgsettings serial` says unless told otherwise.
const DEFAULT_BAUD: u32 = 115_200;

/// What `-k` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A target that comes to this machine over the network.
    Net {
        /// Where to listen for it.
        listen: SocketAddr,
        /// The key that it was given too.
        key: Key,
    },
    /// A target at the other end of a serial line.
    Com(ComLine),
}

/// A serial line, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComLine {
    /// Where it is.
    pub port: ComPort,
    /// When it ends, wait until it is there again; otherwise the session ends.
    pub reconnect: bool,
}

/// Where a serial line is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ComPort {
    /// A virtual machine's: a named pipe on Windows; elsewhere a socket, or the FIFOs `PATH.in` and `PATH.out`.
    Pipe(String),
    /// A TCP port behind which a serial line is.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A device of this machine.
    Device {
        /// Its name.
        path: String,
        /// Bits a second.
        baud: u32,
    },
}

impl fmt::Display for ComPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(path) => write!(f, "{path}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "TCP [{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "TCP {host}:{port}"),
            Self::Device { path, baud } => write!(f, "{path} ({baud} baud)"),
        }
    }
}

/// What is wrong with a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Neither `net:` nor `com:`.
    #[error(
        "-k {0}: write net:port=50000,key=1.2.3.4 for KDNET, com:pipe,port=PATH or com:port=DEVICE,baud=115200 for a \
         serial line"
    )]
    Transport(String),
    /// No such option.
    #[error("-k: unknown option {0:?}; net: takes port, key and hostip, like net:port=50000,key=1.2.3.4")]
    NetOption(String),
    /// No such option.
    #[error(
        "-k: unknown option {0:?}; com: takes pipe, port, ipport, baud, resets and reconnect, like com:pipe,port=PATH"
    )]
    ComOption(String),
    /// An option that must be there is not.
    #[error("-k: {0} is missing; write -k {1}")]
    Missing(&'static str, &'static str),
    /// Not a port.
    #[error("-k: {0:?} is not a UDP port; the target's `bcdedit /dbgsettings` shows it, usually 50000")]
    Port(String),
    /// Not a port.
    #[error("-k: {0:?} is not a TCP port; it is the one at which the virtual machine's serial line listens")]
    IpPort(String),
    /// Not a speed.
    #[error("-k: {0:?} is not a speed in baud; the target's `bcdedit /dbgsettings` shows it, usually 115200")]
    Baud(String),
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
        let (transport, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|it| !it.is_empty());
        match transport {
            "net" => net(options),
            "com" => com(options).map(Self::Com),
            _ => Err(ConnectionError::Transport(text.into())),
        }
    }
}

fn net<'a>(options: impl Iterator<Item = &'a str>) -> Result<Connection, ConnectionError> {
    const EXAMPLE: &str = "net:port=50000,key=1.2.3.4";
    let (mut port, mut key, mut host_ip) = (None, None, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for option in options {
        match option.split_once('=') {
            Some(("port", value)) => {
                port = Some(value.parse().map_err(|_| ConnectionError::Port(value.into()))?);
            }
            Some(("key", value)) => key = Some(value.parse()?),
            Some(("hostip", value)) => {
                host_ip = value.parse().map_err(|_| ConnectionError::HostIp(value.into()))?;
            }
            _ => return Err(ConnectionError::NetOption(option.into())),
        }
    }
    Ok(Connection::Net {
        listen: SocketAddr::new(host_ip, port.ok_or(ConnectionError::Missing("port", EXAMPLE))?),
        key: key.ok_or(ConnectionError::Missing("key", EXAMPLE))?,
    })
}

fn com<'a>(options: impl Iterator<Item = &'a str>) -> Result<ComLine, ConnectionError> {
    let (mut is_pipe, mut reconnect) = (false, false);
    let (mut port, mut ip_port, mut baud) = (None, None, DEFAULT_BAUD);
    for option in options {
        match option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))) {
            ("pipe", None) => is_pipe = true,
            ("reconnect", None) => reconnect = true,
            ("port", Some(value)) => port = Some(value.to_owned()),
            ("ipport", Some(value)) => {
                ip_port = Some(value.parse().map_err(|_| ConnectionError::IpPort(value.into()))?);
            }
            ("baud", Some(value)) => {
                baud = value.parse().map_err(|_| ConnectionError::Baud(value.into()))?;
            }
            // How many RESETs WinDbg sends at the most; here it is never more than needed.
            ("resets", Some(_)) => {}
            _ => return Err(ConnectionError::ComOption(option.into())),
        }
    }
    let port = match (is_pipe, ip_port, port) {
        (_, Some(ip_port), host) => {
            let host = host.ok_or(ConnectionError::Missing("port", "com:ipport=5003,port=127.0.0.1"))?;
            ComPort::Tcp { host, port: ip_port }
        }
        (true, None, path) => {
            ComPort::Pipe(path.ok_or(ConnectionError::Missing("port", "com:pipe,port=/path/to/vm.sock"))?)
        }
        (false, None, path) => ComPort::Device {
            path: path.ok_or(ConnectionError::Missing("port", "com:port=/dev/ttyS0,baud=115200"))?,
            baud,
        },
    };
    Ok(ComLine { port, reconnect })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Connection>().unwrap_err().to_string()
    }

    fn com_of(text: &str) -> ComLine {
        match text.parse() {
            Ok(Connection::Com(line)) => line,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn windbgs_network_string_is_understood() {
        let listens_at = |text: &str| match text.parse() {
            Ok(Connection::Net { listen, .. }) => listen.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(listens_at("net:port=50000,key=1.2.3.4"), "0.0.0.0:50000");
        assert_eq!(listens_at("net:key=1.2.3.4,hostip=127.0.0.1,port=1"), "127.0.0.1:1");
    }

    #[test]
    fn windbgs_serial_strings_are_understood() {
        let pipe = ComPort::Pipe("/tmp/vm.sock".into());
        assert_eq!(com_of("com:pipe,port=/tmp/vm.sock"), ComLine { port: pipe.clone(), reconnect: false });
        assert_eq!(
            com_of("com:pipe,port=/tmp/vm.sock,resets=0,baud=115200,reconnect"),
            ComLine { port: pipe, reconnect: true }
        );
        assert_eq!(com_of(r"com:port=\\.\pipe\vm,pipe").port, ComPort::Pipe(r"\\.\pipe\vm".into()));
        let tcp = ComPort::Tcp { host: "127.0.0.1".into(), port: 5003 };
        assert_eq!(com_of("com:ipport=5003,port=127.0.0.1").port, tcp);
        let device = ComPort::Device { path: "/dev/ttyS0".into(), baud: 57_600 };
        assert_eq!(com_of("com:port=/dev/ttyS0,baud=57600").port, device);
        assert_eq!(com_of("com:port=com1").port, ComPort::Device { path: "com1".into(), baud: 115_200 });
    }

    #[test]
    fn a_wrong_string_says_what_to_write() {
        assert!(error("usb:port=1").contains("net:port=50000,key=1.2.3.4"));
        assert!(error("net:port=50000").contains("key is missing"));
        assert!(error("net:port=70000,key=1.2.3.4").contains("not a UDP port"));
        assert!(error("net:port=1,key=1.2.3").contains("this one has 3"));
        assert!(error("net:port=1,key=1.2.3.4,baud=9600").contains("baud=9600"));
        assert!(error("net:key=1.2.3.4").contains("port is missing"));
        assert!(error("com:pipe").contains("com:pipe,port=/path/to/vm.sock"));
        assert!(error("com:ipport=5003").contains("com:ipport=5003,port=127.0.0.1"));
        assert!(error("com:ipport=x,port=a").contains("not a TCP port"));
        assert!(error("com:port=/dev/ttyS0,baud=fast").contains("not a speed"));
        assert!(error("com:port=/dev/ttyS0,key=1.2.3.4").contains("key=1.2.3.4"));
    }
}

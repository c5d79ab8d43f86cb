//! From text to a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use super::error::ConnectionError;
use super::{ComLine, ComPort, Connection, TargetPlace};
use crate::key::{self, KeyOrigin, KeyText};

/// What the target's `bcdedit /dbgsettings serial` says unless told otherwise.
const DEFAULT_BAUD: u32 = 115_200;

const NET_EXAMPLE: &str = "net:port=50000,key=1.2.3.4";
const TCP_EXAMPLE: &str = "com:ipport=5003,port=127.0.0.1";
const PIPE_EXAMPLE: &str = "com:pipe,port=/path/to/vm.sock";
const DEVICE_EXAMPLE: &str =
    if cfg!(windows) { "com:port=COM1,baud=115200" } else { "com:port=/dev/ttyS0,baud=115200" };

/// WinDbg's other transports: name as it is typed, as it is spelled, what it is.
const UNSUPPORTED: [(&str, &str, &str); 7] = [
    ("usb", "usb:", "debugging over USB"),
    ("usb2", "usb2:", "debugging over USB"),
    ("usb3", "usb3:", "debugging over USB"),
    ("1394", "1394:", "debugging over IEEE 1394"),
    ("exdi", "exdi:", "debugging over EXDI, a probe or a hypervisor's stub,"),
    ("local", "local", "debugging the machine that verikd runs on"),
    ("dump", "dump", "opening a crash dump as a connection"),
];

/// What belongs to the target's boot settings: option, and how it is written there.
const OF_BCDEDIT: [(&str, &str); 8] = [
    ("dhcp", "net hostip:192.0.2.10 port:50000 key:1.2.3.4 dhcp"),
    ("nodhcp", "net hostip:192.0.2.10 port:50000 key:1.2.3.4 nodhcp"),
    ("ipversion", "net hostip:192.0.2.10 port:50000 key:1.2.3.4"),
    ("busparams", "net hostip:192.0.2.10 port:50000 key:1.2.3.4 busparams:1.0.0"),
    ("newkey", "net hostip:192.0.2.10 port:50000 newkey"),
    ("debugport", "serial debugport:1 baudrate:115200"),
    ("baudrate", "serial debugport:1 baudrate:115200"),
    ("channel", "1394 channel:1"),
];

impl Connection {
    /// Reads a connection string, and for `net:` says where its key was found: in the string, in the file that it names
    /// by `key=@FILE`, or else in the environment. A name in `target=` is looked up.
    ///
    /// # Errors
    /// [`ConnectionError`], which never quotes what could be a key.
    pub fn parse(text: &str) -> Result<(Self, Option<KeyOrigin>), ConnectionError> {
        connection(text)
    }
}

impl FromStr for Connection {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, ConnectionError> {
        Self::parse(text).map(|(connection, _)| connection)
    }
}

fn connection(text: &str) -> Result<(Connection, Option<KeyOrigin>), ConnectionError> {
    let text = text.trim();
    let (transport, options) = text.split_once(':').unwrap_or((text, ""));
    let transport = transport.trim().to_ascii_lowercase();
    if let Some((_, name, what)) = UNSUPPORTED.iter().find(|(it, ..)| *it == transport) {
        return Err(ConnectionError::Unsupported { name, what });
    }
    let options = options.split(',').map(str::trim).filter(|it| !it.is_empty()).map(TypedOption::new);
    match transport.as_str() {
        "net" => net(options).map(|(connection, origin)| (connection, Some(origin))),
        "com" => com(options).map(|line| (Connection::Com(line), None)),
        _ => Err(ConnectionError::Transport),
    }
}

/// `NAME` or `NAME=VALUE`.
struct TypedOption<'a> {
    name: String,
    value: Option<&'a str>,
}

/// An option's value, once it was given.
#[derive(Default)]
struct Once<'a>(Option<&'a str>);

impl<'a> TypedOption<'a> {
    fn new(text: &'a str) -> Self {
        let (name, value) =
            text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.trim())));
        Self { name: name.trim().to_ascii_lowercase(), value }
    }

    /// Its name, if it is a word: a key whose `key=` was forgotten is none.
    fn word(&self) -> Option<String> {
        let is_word = self.name.len() <= 16 && self.name.bytes().all(|it| it.is_ascii_lowercase());
        (is_word && !self.name.is_empty()).then(|| self.name.clone())
    }

    /// The same option of the target's boot settings.
    fn is_of_bcdedit(&self) -> Option<ConnectionError> {
        let (name, example) = OF_BCDEDIT.iter().find(|(name, _)| *name == self.name)?;
        Some(ConnectionError::Bcdedit { name, example })
    }
}

impl<'a> Once<'a> {
    fn set(
        &mut self,
        name: &'static str,
        value: Option<&'a str>,
        example: &'static str,
    ) -> Result<(), ConnectionError> {
        let value = value.filter(|it| !it.is_empty()).ok_or(ConnectionError::Empty(name, example))?;
        match self.0.replace(value) {
            Some(_) => Err(ConnectionError::Twice(name)),
            None => Ok(()),
        }
    }
}

fn net<'a>(
    options: impl Iterator<Item = TypedOption<'a>>,
) -> Result<(Connection, KeyOrigin), ConnectionError> {
    let [mut port, mut key, mut host_ip, mut target] = [(); 4].map(|()| Once::default());
    let mut host_ip_name = "hostip";
    for option in options {
        match option.name.as_str() {
            "port" => port.set("port", option.value, NET_EXAMPLE)?,
            "key" => key.set("key", option.value, NET_EXAMPLE)?,
            "target" => target.set("target", option.value, NET_EXAMPLE)?,
            name @ ("hostip" | "bind") => {
                host_ip_name = if name == "bind" { "bind" } else { "hostip" };
                host_ip.set(host_ip_name, option.value, NET_EXAMPLE)?;
            }
            _ => {
                let unknown = || ConnectionError::NetOption(option.word());
                return Err(option.is_of_bcdedit().unwrap_or_else(unknown));
            }
        }
    }
    let port = port_of(port.0.ok_or(ConnectionError::Missing("port", NET_EXAMPLE))?);
    let port = port.ok_or(ConnectionError::Port)?;
    let host_ip: Option<IpAddr> = match host_ip.0.map(unbracketed) {
        Some(text) => Some(text.parse().map_err(|_| ConnectionError::HostIp(host_ip_name))?),
        None => None,
    };
    let target = target.0.map(|text| target_of(text, host_ip)).transpose()?;
    if let (Some(host_ip), Some(target)) = (host_ip, target)
        && host_ip.is_ipv4() != target.ip.is_ipv4()
    {
        return Err(ConnectionError::Family);
    }
    let any_address = || match target {
        Some(TargetPlace { ip: IpAddr::V6(_), .. }) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let listen = SocketAddr::new(host_ip.unwrap_or_else(any_address), port);
    let (key, origin) = key::find(key.0.map(KeyText::new).as_ref())?;
    Ok((Connection::Net { listen, key, target }, origin))
}

fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text)
}

/// An address or a name, with a port or without.
fn target_of(text: &str, host_ip: Option<IpAddr>) -> Result<TargetPlace, ConnectionError> {
    if let Ok(ip) = unbracketed(text).parse() {
        return Ok(TargetPlace { ip, port: None });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let port = Some(address.port()).filter(|port| *port != 0).ok_or(ConnectionError::Target)?;
        return Ok(TargetPlace { ip: address.ip(), port: Some(port) });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port_of(port).ok_or(ConnectionError::Target)?)),
        None => (text, None),
    };
    let found = (name, 0).to_socket_addrs().map_err(|_| ConnectionError::Target)?;
    let addresses: Vec<IpAddr> = found.map(|it| it.ip()).collect();
    // KDNET targets speak IPv4 unless their boot settings say otherwise.
    let is_wanted = |ip: &&IpAddr| ip.is_ipv4() == host_ip.is_none_or(|it| it.is_ipv4());
    let ip = addresses.iter().find(is_wanted).or_else(|| addresses.first());
    Ok(TargetPlace { ip: *ip.ok_or(ConnectionError::Target)?, port })
}

fn com<'a>(options: impl Iterator<Item = TypedOption<'a>>) -> Result<ComLine, ConnectionError> {
    let (mut is_pipe, mut reconnect) = (false, false);
    let [mut port, mut ip_port, mut baud, mut resets] = [(); 4].map(|()| Once::default());
    for option in options {
        match (option.name.as_str(), option.value) {
            ("pipe", None) => is_pipe = true,
            ("reconnect", None) => reconnect = true,
            ("port", value) => port.set("port", value, PIPE_EXAMPLE)?,
            ("ipport", value) => ip_port.set("ipport", value, TCP_EXAMPLE)?,
            ("baud", value) => baud.set("baud", value, DEVICE_EXAMPLE)?,
            // How many RESETs WinDbg sends at the most; here it is never more than needed.
            ("resets", value) => resets.set("resets", value, "com:pipe,port=PATH,resets=0")?,
            _ => {
                let unknown = || ConnectionError::ComOption(option.word());
                return Err(option.is_of_bcdedit().unwrap_or_else(unknown));
            }
        }
    }
    let baud = match baud.0 {
        Some(text) => text.parse().ok().filter(|baud| *baud != 0).ok_or(ConnectionError::Baud)?,
        None => DEFAULT_BAUD,
    };
    let ip_port = ip_port.0.map(|text| port_of(text).ok_or(ConnectionError::IpPort)).transpose()?;
    let port = match (is_pipe, ip_port, port.0) {
        (_, Some(ip_port), host) => {
            let host = unbracketed(host.ok_or(ConnectionError::Missing("port", TCP_EXAMPLE))?);
            ComPort::Tcp { host: host.to_owned(), port: ip_port }
        }
        (true, None, path) => {
            let path = path.ok_or(ConnectionError::Missing("port", PIPE_EXAMPLE))?;
            is_pipe_of_this_system(path, cfg!(windows))?;
            ComPort::Pipe(path.to_owned())
        }
        (false, None, path) => {
            let path = path.ok_or(ConnectionError::Missing("port", DEVICE_EXAMPLE))?;
            is_device_of_this_system(path, cfg!(windows))?;
            ComPort::Device { path: path.to_owned(), baud }
        }
    };
    match port.is_of_other_kind() {
        Some(advice) => Err(ConnectionError::OtherKind(advice)),
        None => Ok(ComLine { port, reconnect }),
    }
}

pub(super) fn is_pipe_of_this_system(path: &str, on_windows: bool) -> Result<(), ConnectionError> {
    match is_windows_pipe(path) && !on_windows {
        true => Err(ConnectionError::WindowsPipe(path.into())),
        false => Ok(()),
    }
}

pub(super) fn is_device_of_this_system(path: &str, on_windows: bool) -> Result<(), ConnectionError> {
    if on_windows {
        return match path.starts_with("/dev/") {
            true => Err(ConnectionError::UnixDevice(path.into())),
            false => Ok(()),
        };
    }
    let name = path.strip_prefix(r"\\.\").unwrap_or(path);
    let number = name.get(..3).filter(|it| it.eq_ignore_ascii_case("com")).map(|_| &name[3..]);
    if number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(ConnectionError::WindowsDevice(path.into()));
    }
    is_pipe_of_this_system(path, on_windows)
}

pub(super) fn is_windows_pipe(path: &str) -> bool {
    path.starts_with(r"\\") && path.to_ascii_lowercase().contains(r"\pipe\")
}

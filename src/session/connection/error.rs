//! What is wrong with a connection string. What stood in it is quoted only as far as it cannot be a key: names of options,
//! and values that a serial line has.

use std::fmt;

use crate::key::KeySourceError;

/// What is wrong with a connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum ConnectionError {
    /// Neither `net:` nor `com:`.
    #[error(
        "a connection begins with net: or com:; write net:port=50000,key=1.2.3.4 for KDNET, com:pipe,port=PATH or \
         com:port=DEVICE,baud=115200 for a serial line"
    )]
    Transport,
    /// One that WinDbg has and verikd has not.
    #[error(
        "{name}: {what} is not supported. Use KDNET (net:port=50000,key=1.2.3.4) or a serial line (com:pipe,port=PATH, \
         com:port=DEVICE), which the target's `bcdedit /dbgsettings` switches to"
    )]
    Unsupported {
        /// As WinDbg spells it.
        name: &'static str,
        what: &'static str,
    },
    /// No such option.
    #[error(
        "{} is no option of net:, which takes port, key, hostip (or bind) and target, like net:port=50000,key=1.2.3.4",
        option(.0.as_deref())
    )]
    NetOption(Option<String>),
    /// No such option.
    #[error(
        "{} is no option of com:, which takes pipe, port, ipport, baud, resets and reconnect, like com:pipe,port=PATH",
        option(.0.as_deref())
    )]
    ComOption(Option<String>),
    /// An option of the target's boot settings.
    #[error("{name} belongs to bcdedit on the target, not here: `bcdedit /dbgsettings {example}`")]
    Bcdedit {
        name: &'static str,
        /// How it is written there.
        example: &'static str,
    },
    /// An option that must be there is not.
    #[error("{0} is missing; write -k {1}")]
    Missing(&'static str, &'static str),
    /// An option with nothing in it, or without `=`.
    #[error("{0}= has no value; write -k {1}")]
    Empty(&'static str, &'static str),
    /// An option that is there twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Not a port.
    #[error(
        "port= is not a UDP port, 1 to 65535; the target's `bcdedit /dbgsettings` shows it, usually 50000"
    )]
    Port,
    /// Not a port.
    #[error(
        "ipport= is not a TCP port, 1 to 65535; it is the one at which the virtual machine's serial line listens"
    )]
    IpPort,
    /// Not a speed.
    #[error("baud= is not a speed in baud; the target's `bcdedit /dbgsettings` shows it, usually 115200")]
    Baud,
    /// Not an address.
    #[error("{0}= is not an IP address; it takes one of this machine's, to listen at that one only")]
    HostIp(&'static str),
    /// Not a machine.
    #[error(
        "target= is neither an address, like 192.0.2.7 or 192.0.2.7:50000, nor a name that is known here"
    )]
    Target,
    /// A target that the host cannot hear at its address.
    #[error("target= and hostip= are not of the same family: one is IPv4, the other IPv6")]
    Family,
    /// A device of another system.
    #[error("{0} is a name of Windows; here serial ports are devices like /dev/ttyS0 or /dev/ttyUSB0")]
    WindowsDevice(String),
    /// A pipe of another system.
    #[error(
        "{0} is a pipe of Windows; here a virtual machine's serial line is a socket: \
         com:pipe,port=/path/to/vm.sock, with QEMU -serial unix:/path/to/vm.sock,server,nowait"
    )]
    WindowsPipe(String),
    /// A socket where a device should be, or the other way round; what to write.
    #[error("{0}")]
    OtherKind(String),
    /// A device of another system.
    #[error("{0} is a name of Unix; on Windows serial ports are called COM1, COM2, ...")]
    UnixDevice(String),
    /// No key.
    #[error("{0}")]
    Key(#[from] KeySourceError),
}

impl ConnectionError {
    /// The error as one of the option that the string was given to: `-k: port= is not ..`.
    pub fn of_option(&self, option: &str) -> impl fmt::Display {
        match self {
            Self::Unsupported { .. } => format!("{option} {self}"),
            _ => format!("{option}: {self}"),
        }
    }
}

fn option(name: Option<&str>) -> &str {
    name.unwrap_or("something that was written")
}

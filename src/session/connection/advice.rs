//! What to try when a serial line is not there: for this kind of port, this system, and what is at that place.

use super::ComPort;
use super::parse::is_windows_pipe;

/// What is found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has these in its file system"))]
pub(super) enum Found {
    Nothing,
    Socket,
    Fifo,
    Device,
    Folder,
    File,
}

impl ComPort {
    /// What to write instead, if what is at its place is of the other kind: a socket without `pipe`, a device with it.
    pub(super) fn is_of_other_kind(&self) -> Option<String> {
        match self {
            Self::Pipe(path) if found(path) == Found::Device => Some(advice_of_socket(path, Found::Device)),
            Self::Device { path, .. } if found(path) == Found::Socket => {
                Some(advice_of_device(path, Found::Socket))
            }
            _ => None,
        }
    }

    /// What to try when it is not there. Looks at what is at its place now.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Pipe(path) if cfg!(windows) => advice_of_windows_pipe(path),
            Self::Pipe(path) => advice_of_socket(path, found(path)),
            Self::Tcp { host, port } => advice_of_tcp(host, *port),
            Self::Device { path, .. } if cfg!(windows) => advice_of_windows_device(path),
            Self::Device { path, .. } => advice_of_device(path, found(path)),
        }
    }
}

pub(super) fn advice_of_tcp(host: &str, port: u16) -> String {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if is_here {
        return format!(
            "Start the virtual machine, with QEMU for example by -serial tcp:{address},server,nowait"
        );
    }
    format!(
        "Start what gives the serial line at {address}: a virtual machine, with QEMU for example by -serial \
         tcp::{port},server,nowait, or a device server in raw mode; then check firewalls for TCP {port}"
    )
}

pub(super) fn advice_of_socket(path: &str, found: Found) -> String {
    match found {
        Found::Device => format!("{path} is a device, and no pipe: write com:port={path},baud=115200"),
        Found::Folder | Found::File => {
            format!("{path} is a {}, and no socket: name the virtual machine's socket", found.noun())
        }
        Found::Fifo => format!(
            "{path} is a FIFO; a line takes two, {path}.in and {path}.out, as QEMU's -serial pipe:{path} does"
        ),
        Found::Socket => format!(
            "{path} is a socket at which nobody answers: start the virtual machine, with QEMU for example by -serial \
             unix:{path},server,nowait; if it runs, look who else is connected, and at the rights to {path}"
        ),
        Found::Nothing => {
            format!("Start the virtual machine, with QEMU for example by -serial unix:{path},server,nowait")
        }
    }
}

pub(super) fn advice_of_device(path: &str, found: Found) -> String {
    match found {
        Found::Socket => format!("{path} is a socket, and no device: add pipe, com:pipe,port={path}"),
        Found::Fifo | Found::Folder | Found::File => {
            format!(
                "{path} is a {}, and no device: serial ports are called /dev/ttyS0 or /dev/ttyUSB0",
                found.noun()
            )
        }
        Found::Device => format!(
            "{path} is a device: look who else has it open (`fuser {path}`), and at the rights to it (`ls -l {path}`); \
             on most systems the group dialout may open it"
        ),
        Found::Nothing => format!(
            "There is no {path}: `ls /dev/ttyS* /dev/ttyUSB* /dev/ttyACM*` shows the serial ports. \
             A virtual machine's line is a socket: com:pipe,port=PATH"
        ),
    }
}

pub(super) fn advice_of_windows_pipe(path: &str) -> String {
    match is_windows_pipe(path) {
        true => format!("Start the virtual machine whose serial port is the pipe {path}"),
        false => format!(r"A pipe is called \\.\pipe\NAME; {path} is none"),
    }
}

pub(super) fn advice_of_windows_device(path: &str) -> String {
    match is_windows_pipe(path) {
        true => format!("{path} is a pipe: add pipe, com:pipe,port={path}"),
        false => format!("Look in the device manager for the name of the port, and who else has {path} open"),
    }
}

impl Found {
    const fn noun(self) -> &'static str {
        match self {
            Self::Nothing => "name of nothing",
            Self::Socket => "socket",
            Self::Fifo => "FIFO",
            Self::Device => "device",
            Self::Folder => "folder",
            Self::File => "file",
        }
    }
}

#[cfg(unix)]
fn found(path: &str) -> Found {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(path).map(|it| it.file_type()) {
        Err(_) => Found::Nothing,
        Ok(kind) if kind.is_socket() => Found::Socket,
        Ok(kind) if kind.is_fifo() => Found::Fifo,
        Ok(kind) if kind.is_char_device() || kind.is_block_device() => Found::Device,
        Ok(kind) if kind.is_dir() => Found::Folder,
        Ok(_) => Found::File,
    }
}

#[cfg(not(unix))]
fn found(_path: &str) -> Found {
    Found::Nothing
}

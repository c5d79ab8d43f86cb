//! Where a virtual machine's monitor is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::VmError;

/// Where a monitor listens, as QEMU's `-qmp` writes it: `unix:PATH`, `tcp:HOST:PORT`; `qmp:` may stand before either, and
/// before a path alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmPlace {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port: host, port.
    Tcp(String, u16),
}

impl FromStr for VmPlace {
    type Err = VmError;

    fn from_str(text: &str) -> Result<Self, VmError> {
        let is_qmp = text.starts_with("qmp:");
        let rest = text.strip_prefix("qmp:").unwrap_or(text);
        let bad = || VmError::Place(text.to_owned());
        // What QEMU's own option has behind a comma (server=on, wait=off) is of the other end.
        let rest = rest.split_once(",server").map_or(rest, |(place, _)| place);
        match rest.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", place)) => {
                let (host, port) = place.rsplit_once(':').ok_or_else(bad)?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let host = if host.is_empty() { "localhost" } else { host };
                Ok(Self::Tcp(host.to_owned(), port.parse().map_err(|_| bad())?))
            }
            _ if is_qmp && !rest.is_empty() => Ok(Self::Unix(rest.into())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for VmPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "qmp:{}", path.display()),
            Self::Tcp(host, port) => write!(f, "qmp:tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_qemu_writes_it() {
        let of = |text: &str| text.parse::<VmPlace>().map(|it| it.to_string()).ok();
        assert_eq!(of("qmp:/run/win.qmp").as_deref(), Some("qmp:/run/win.qmp"));
        assert_eq!(of("unix:/run/win.qmp,server=on,wait=off").as_deref(), Some("qmp:/run/win.qmp"));
        assert_eq!(of("tcp:localhost:4444").as_deref(), Some("qmp:tcp:localhost:4444"));
        assert_eq!(of("qmp:tcp::4444").as_deref(), Some("qmp:tcp:localhost:4444"));
        assert_eq!(of("qmp:tcp:[::1]:4444").as_deref(), Some("qmp:tcp:::1:4444"));
        for bad in ["", "qmp:", "/run/win.qmp", "tcp:host", "tcp:host:port", "unix:"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}

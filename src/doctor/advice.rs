//! Lines to copy: the target's boot settings for this machine's addresses, this machine's firewall, a virtual machine's
//! options. Nothing here holds the key.

use std::net::{IpAddr, SocketAddr};

use super::finding::Finding;
use crate::session::{ComPort, Connection};

/// More addresses than this are a router's, and its owner knows which to take.
const MAX_ADDRESSES: usize = 8;

/// What may help with `finding`.
pub(super) fn lines(connection: &Connection, finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    match connection {
        Connection::Net { listen, .. } => {
            if matches!(
                finding,
                Finding::NoDatagram { .. } | Finding::OtherKey { .. } | Finding::NotKdnet { .. }
            ) {
                lines.extend(boot_settings(*listen, &addresses()));
            }
            if matches!(finding, Finding::NoDatagram { .. } | Finding::NoReaction { .. }) {
                lines.extend(firewall(listen.port()));
            }
            if matches!(finding, Finding::NoDatagram { .. } | Finding::NoBreakIn { .. }) {
                lines.push(virtual_machine());
            }
        }
        Connection::Com(line) => match finding {
            Finding::NoLine { .. } => lines.push(line.port.advice()),
            Finding::SilentLine { .. } | Finding::Console { .. } | Finding::NotKd { .. } => {
                let baud = match line.port {
                    ComPort::Device { baud, .. } => baud,
                    _ => 115_200,
                };
                lines.push("On the target, as administrator:".into());
                lines.push("  bcdedit /debug on".into());
                lines.push(format!("  bcdedit /dbgsettings serial debugport:1 baudrate:{baud}"));
                lines.push("  shutdown /r /t 0".into());
            }
            _ => {}
        },
    }
    lines
}

/// Names and addresses of this machine's interfaces that another machine can reach: IPv4 first.
pub(super) fn addresses() -> Vec<(String, IpAddr)> {
    let mut addresses: Vec<(String, IpAddr)> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|it| (it.name.clone(), it.ip()))
        .collect();
    addresses.sort_by_key(|(name, ip)| (ip.is_loopback(), ip.is_ipv6(), name.clone()));
    addresses
}

fn boot_settings(listen: SocketAddr, addresses: &[(String, IpAddr)]) -> Vec<String> {
    let mut lines = vec!["On the target, as administrator:".into(), "  bcdedit /debug on".into()];
    let settings = |ip: IpAddr, name: &str| {
        let key = "key:W.X.Y.Z";
        format!("  bcdedit /dbgsettings net hostip:{ip} port:{} {key}{name}", listen.port())
    };
    if !listen.ip().is_unspecified() {
        lines.push(settings(listen.ip(), ""));
    } else {
        let is_reachable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(_) => false,
        };
        let reachable: Vec<_> =
            addresses.iter().filter(|(_, ip)| is_reachable(ip)).take(MAX_ADDRESSES).collect();
        match &reachable[..] {
            [] => lines.push(format!(
                "  bcdedit /dbgsettings net hostip:THIS.MACHINE'S.ADDRESS port:{} key:W.X.Y.Z",
                listen.port()
            )),
            [(_, ip)] => lines.push(settings(*ip, "")),
            several => {
                lines.extend(
                    several.iter().map(|(name, ip)| settings(*ip, &format!("        (by way of {name})"))),
                );
                lines.push("  with the one of these that the target can reach".into());
            }
        }
    }
    lines.push("  shutdown /r /t 0".into());
    lines.push("where W.X.Y.Z is the key that verikd was given".into());
    lines
}

fn firewall(port: u16) -> Vec<String> {
    let head = "If a firewall runs on this machine, let the port in:";
    let commands = match std::env::consts::OS {
        "linux" => vec![
            format!("  sudo ufw allow {port}/udp"),
            format!("  sudo firewall-cmd --add-port={port}/udp"),
            format!("  sudo nft list ruleset | grep {port}        (shows what is let in)"),
        ],
        "windows" => vec![format!(
            "  netsh advfirewall firewall add rule name=verikd dir=in action=allow protocol=UDP localport={port}"
        )],
        _ => vec![format!("  UDP port {port}, incoming")],
    };
    std::iter::once(head.to_owned()).chain(commands).collect()
}

/// Reported by users of another KDNET client; not tried by the project.
fn virtual_machine() -> String {
    "A target in QEMU/KVM with Hyper-V enlightenments may take the debugger for Hyper-V's and send nothing over the network: \
     -cpu host,hv-vendor-id=KVMKVMKVM was reported to help"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_boot_settings_name_each_address_that_a_target_can_reach() {
        let addresses = [
            ("eth0".to_owned(), ip("192.0.2.10")),
            ("virbr0".to_owned(), ip("192.168.122.1")),
            ("lo".to_owned(), ip("127.0.0.1")),
            ("eth0".to_owned(), ip("169.254.1.1")),
            ("eth0".to_owned(), ip("fe80::1")),
        ];
        let lines = boot_settings("0.0.0.0:50000".parse().unwrap(), &addresses).join("\n");
        assert!(
            lines.contains("bcdedit /dbgsettings net hostip:192.0.2.10 port:50000 key:W.X.Y.Z"),
            "{lines}"
        );
        assert!(
            lines.contains("hostip:192.168.122.1 port:50000 key:W.X.Y.Z        (by way of virbr0)"),
            "{lines}"
        );
        assert!(
            !lines.contains("127.0.0.1") && !lines.contains("169.254") && !lines.contains("fe80"),
            "{lines}"
        );
        let one = boot_settings("192.0.2.10:50001".parse().unwrap(), &addresses).join("\n");
        assert!(one.contains("hostip:192.0.2.10 port:50001") && !one.contains("virbr0"), "{one}");
        let none = boot_settings("0.0.0.0:50000".parse().unwrap(), &[]).join("\n");
        assert!(none.contains("hostip:THIS.MACHINE'S.ADDRESS port:50000"), "{none}");
    }
}

//! Which program has a UDP port, where `/proc` tells.

use std::fs;
use std::path::Path;

/// Its name and number, or several of them; nothing if this user may not see it, or the system has no `/proc`.
pub(super) fn of_udp_port(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_at(&table, port))
        .collect();
    let mut owners = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let is_owner = fs::read_dir(path.join("fd")).is_ok_and(|files| {
            files.flatten().filter_map(|it| fs::read_link(it.path()).ok()).any(|it| is_socket(&it, &inodes))
        });
        if is_owner {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            owners.push(format!("{name} (process {})", process.file_name().to_string_lossy()));
        }
    }
    (!owners.is_empty()).then(|| owners.join(", "))
}

/// The inodes of the sockets at `port` in a table as `/proc/net/udp` is: second column `ADDRESS:PORT` in hexadecimal, tenth
/// the inode.
fn inodes_at(table: &str, port: u16) -> Vec<String> {
    let wanted = format!("{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|columns| columns.get(1).and_then(|it| it.rsplit(':').next()) == Some(&wanted))
        .filter_map(|columns| columns.get(9).map(|it| (*it).to_owned()))
        .collect()
}

fn is_socket(link: &Path, inodes: &[String]) -> bool {
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']'));
    inode.is_some_and(|inode| inodes.iter().any(|it| it == inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_port_of_this_process_is_its_own() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let owner = of_udp_port(socket.local_addr().unwrap().port()).unwrap();
        assert!(owner.contains(&format!("(process {})", std::process::id())), "{owner}");
    }

    #[test]
    fn the_row_of_a_port_is_found_by_its_number_alone() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     1: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n\
                     2: 0100007F:1C35 00000000:C350 07 00000000:00000000 00:00000000 00000000 0 0 4712 2 0 0\n";
        assert_eq!(inodes_at(table, 50_000), ["4711"]);
        assert_eq!(inodes_at("", 50_000), [""; 0]);
    }
}

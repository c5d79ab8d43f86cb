//! The whole program against a live target: what it fetches while the machine runs, and while it stands still.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use kd_protocol::kdnet::Key;
use verikd_sim::{Simulator, SimulatorConfig};

use super::server::{Reply, Server};
use super::{Folder, every_pdb, every_pdb_served};
use crate::support::text::assert_same_text;

/// Where a simulated machine and the program meet.
pub(crate) struct Meeting {
    port: u16,
}

impl Meeting {
    pub(crate) fn new() -> Self {
        Self { port: UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port() }
    }

    /// A machine that has just booted; it is gone when dropped.
    pub(crate) fn boot(&self) -> Simulator {
        let key = "1.2.3.4".parse::<Key>().unwrap();
        let connect = SocketAddr::from(([127, 0, 0, 1], self.port));
        Simulator::start(SimulatorConfig::new(connect, key)).unwrap()
    }

    /// The program, whose symbols come from `url` and are kept in `store`.
    pub(crate) fn program(&self, store: &Path, url: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_verikd"));
        let (connection, path) =
            (format!("net:port={},key=1.2.3.4", self.port), format!("srv*{}*{url}", store.display()));
        program.args(["-b", "-k", &connection, "-y", &path]).env_remove("_NT_SYMBOL_PATH");
        program
    }

    fn debug(&self, store: &Folder, url: &str, arguments: &[&str]) -> (Output, String) {
        let output = self.program(store.path(), url).args(arguments).output().unwrap();
        let status = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, status)
    }
}

#[test]
fn a_live_target_runs_while_symbols_of_its_kernel_and_verified_drivers_are_fetched() {
    let server = every_pdb_served();
    let (store, meeting) = (Folder::new(), Meeting::new());
    // The first stop, in which it is found that symbols are missing, is the one after which the driver leaks on.
    let target = meeting.boot();
    let (_, status) = meeting.debug(&store, &server.url, &["-c", "lm; ln hal!HalMakeBeep"]);
    let steps = [
        "Fetching the kernel's symbols; the target runs meanwhile",
        "Fetching symbols of verified drivers; the target runs meanwhile",
        "Fetching hal.pdb; the target stands still meanwhile, Ctrl+C ends it",
    ];
    let told: Vec<_> = status.lines().filter(|line| line.starts_with("Fetching")).collect();
    assert_eq!(told, steps, "{status}");
    let asked: Vec<_> = server.requests().iter().map(|request| request.path.clone()).collect();
    let files: Vec<_> = asked.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(files, ["ntkrnlmp.pdb", "myfault.pdb", "hal.pdb"], "each once, nobody else's");
    drop(target);

    let _target = meeting.boot();
    let commands = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000";
    let (output, status) = meeting.debug(&store, &server.url, &["-c", commands]);
    assert!(!status.contains("Fetching"), "{status}");
    let golden =
        [include_str!("../../golden/verifier-3-myfault.txt"), include_str!("../../golden/verifier-80.txt")];
    assert_same_text(&String::from_utf8_lossy(&output.stdout), &golden.concat());
    assert_eq!(server.requests().len(), asked.len(), "the second run downloads nothing");
}

/// A transfer that nobody foresaw ends with the budget of the stop, however silent the server is.
#[test]
fn a_freeze_budget_ends_a_transfer_that_a_stopped_target_waits_for() {
    let files = every_pdb();
    let server = Server::start(move |request, _| match files.get(&request.path) {
        Some(bytes) if request.path.starts_with("/hal.pdb") => {
            Reply::Stalls { bytes: bytes.clone(), after: 100 }
        }
        Some(bytes) => Reply::File { bytes: bytes.clone(), tag: None },
        None => Reply::Status(404),
    });
    let (store, meeting) = (Folder::new(), Meeting::new());
    let _target = meeting.boot();
    let arguments = ["--freeze-budget", "2s", "-c", "ln hal!HalMakeBeep; lm"];
    let (output, status) = meeting.debug(&store, &server.url, &arguments);
    assert!(status.contains("interrupted"), "{status}");
    assert!(status.contains("The freeze budget is spent; the target runs on"), "{status}");
    assert!(status.contains("not run: the freeze budget is spent"), "{status}");
    let stalled = server.requests().iter().filter(|request| request.path.starts_with("/hal.pdb")).count();
    assert_eq!((output.status.code(), stalled), (Some(1), 1), "asked once, and left");
}

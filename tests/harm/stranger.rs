//! A stranger's debugger sets, meets and clears a breakpoint on the simulated machine: what it takes for granted of a kernel is
//! what the machine does. ntoseye is asked where it is installed (`pip install ntoseye`), and else there is a word.

use std::process::{Command, Stdio};
use std::time::Duration;

use verikd_sim::windows::WINDOWS_7_SP1;
use verikd_sim::{Simulator, SimulatorConfig, export_symbols};

use crate::field::{free_port, key, runs};

#[test]
fn a_strangers_debugger_meets_its_breakpoint_twice_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    export_symbols(&WINDOWS_7_SP1, folder.path()).unwrap();
    let port = free_port();
    let commands = ["bp nt!ExAllocatePoolWithTag", "g", "k", "g", "k", "bc *", "bl"];
    let ntoseye = Command::new("ntoseye")
        .env("HOME", folder.path())
        .args(["--backend", "kdnet", "--kdnet-key", "1.2.3.4", "--connect", &format!("127.0.0.1:{port}")])
        .args(["--memory-source", "kd", "--kd-handshake-timeout", "60", "--batch", "--sympath-append"])
        .arg(folder.path())
        .args(commands.iter().flat_map(|command| ["-c", command]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(ntoseye) = ntoseye else {
        println!("skipped: there is no ntoseye here (pip install ntoseye)");
        return;
    };
    let machine = Simulator::start(SimulatorConfig {
        leak_every: Some(Duration::from_millis(200)),
        ..SimulatorConfig::new(([127, 0, 0, 1], port).into(), key())
    })
    .unwrap();
    let output = ntoseye.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.matches("BREAK ").count(), 2, "{out}{err}");
    // Each stop shows some frames, and `k` all of them.
    assert_eq!(out.matches("nt!KiSystemServiceCopyEnd+0x13").count(), 2, "{out}{err}");
    assert!(
        out.contains("myfault!MyfaultDeviceControl+0x358") && out.contains("no breakpoints set"),
        "{out}{err}"
    );
    assert!(runs(&machine), "{out}{err}");
    assert_eq!(machine.breakpoints(), 0);
}

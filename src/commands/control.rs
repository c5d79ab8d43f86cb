//! Commands that change the session: values, which whoever has the session carries out.

use super::spec::{CommandSpec, ControlCommand, Run};

pub(super) static GO: CommandSpec = CommandSpec {
    names: &["g"],
    usage: "g",
    summary: "let the target run",
    run: Run::Control(ControlCommand::Go),
};

pub(super) static REBOOT: CommandSpec = CommandSpec {
    names: &[".reboot"],
    usage: ".reboot",
    summary: "restart the target machine",
    run: Run::Control(ControlCommand::Reboot),
};

pub(super) static STATISTICS: CommandSpec = CommandSpec {
    names: &[".kdstats"],
    usage: ".kdstats",
    summary: "show what each command cost: requests, datagrams, time the target stood still",
    run: Run::Control(ControlCommand::Statistics),
};

pub(super) static QUIT: CommandSpec = CommandSpec {
    names: &["q", "quit", "exit", "qq"],
    usage: "q",
    summary: "let the target run and end the session",
    run: Run::Control(ControlCommand::Quit),
};

pub(super) static QUIT_DETACH: CommandSpec = CommandSpec {
    names: &["qd", ".detach"],
    usage: "qd",
    summary: "let the target run and end the session",
    run: Run::Control(ControlCommand::QuitDetach),
};

//! Commands that change the session: values, which whoever has the session carries out, and what they are answered with.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

pub(super) static GO: CommandSpec = CommandSpec {
    names: &["g", "gc"],
    usage: "g [ADDRESS]",
    summary: "let the target run",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Target,
    details: &[("ADDRESS", "until it comes by that instruction, or stops for something else")],
    answers: &[LetGo::SCHEMA],
    run: Run::Control(ControlCommand::Go),
};

pub(super) static REBOOT: CommandSpec = CommandSpec {
    names: &[".reboot"],
    usage: ".reboot",
    summary: "restart the target machine",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[Restarting::SCHEMA],
    run: Run::Control(ControlCommand::Reboot),
};

pub(super) static RESTART: CommandSpec = CommandSpec {
    names: &[".restart"],
    usage: ".restart",
    summary: "restart the target machine, wait until it is back and stop it",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[Restarting::SCHEMA],
    run: Run::Control(ControlCommand::Restart),
};

pub(super) static STATISTICS: CommandSpec = CommandSpec {
    names: &[".kdstats"],
    usage: ".kdstats",
    summary: "show what each command cost: requests, and the least that would do, datagrams, time the target stood still",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[],
    run: Run::Control(ControlCommand::Statistics),
};

pub(super) static QUIT: CommandSpec = CommandSpec {
    names: &["q", "quit", "exit", "qq"],
    usage: "q",
    summary: "let the target run and end the session",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[SessionEnds::SCHEMA],
    run: Run::Control(ControlCommand::Quit),
};

pub(super) static QUIT_DETACH: CommandSpec = CommandSpec {
    names: &["qd", ".detach"],
    usage: "qd",
    summary: "let the target run and end the session",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[SessionEnds::SCHEMA],
    run: Run::Control(ControlCommand::QuitDetach),
};

/// `g`: whether the target runs.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum LetGo {
    /// It said so, or was running.
    Running,
    /// It was told to, and does not answer.
    MayBeStopped {
        /// What it is taken from.
        why: String,
    },
}

/// `.reboot`: the target was told to restart.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct Restarting {
    /// What was asked of it: `"restart"`.
    told: &'static str,
}

impl Restarting {
    /// It acknowledged.
    pub const ACKNOWLEDGED: Self = Self { told: "restart" };
}

/// `q`: the session ends, and lets the target run.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct SessionEnds {
    /// What becomes of it: `"ends"`.
    session: &'static str,
}

impl SessionEnds {
    /// It ends after this command.
    pub const NOW: Self = Self { session: "ends" };
}

// What these do is told when it happens, as everything is that comes from the target.
impl LetGo {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("let_go");
}

impl Facts for LetGo {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

impl Restarting {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("restarting");
}

impl Facts for Restarting {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

impl SessionEnds {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("session_ends");
}

impl Facts for SessionEnds {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

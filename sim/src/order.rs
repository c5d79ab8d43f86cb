//! What a simulated machine's owner can do to it while it runs.

use std::sync::mpsc;

use super::network::Faults;
use super::windows::{Build, Outstanding, Stop};

/// What a machine does as soon as it has started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AtBoot {
    /// It runs.
    #[default]
    Runs,
    /// It stops by itself at once.
    Stops(Stop),
    /// It asks this, and waits for the answer.
    Asks(String),
}

/// Something to be done to the machine or its network.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Start anew; as another Windows if there is one, at a place that the seed chooses.
    Reboot(AtBoot, Option<(&'static Build, u64)>),
    PowerOff,
    PowerOn,
    Suspend,
    Wake,
    /// Something that happens as soon as the machine runs.
    Happen(Happening),
    /// Print this many lines a second while it runs.
    Flood(u32),
    /// Say what was outstanding when the pool log's index was this.
    Account(u32, mpsc::Sender<Option<Vec<Outstanding>>>),
    SetFaults {
        to_host: Faults,
        to_target: Faults,
    },
}

/// Something that happens on a running machine.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Print(String),
    Ask(String),
    Stop(Stop),
}

/// An order, and who is told when it is carried out: its end of the channel is dropped.
pub(super) type Ordered = (Order, mpsc::Sender<()>);

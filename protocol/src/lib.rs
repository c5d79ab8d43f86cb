//! KDNET, KDCOM and KD, the wire protocols of the Windows kernel debugger: no I/O, no clock, no runtime, no randomness inside.

pub mod address;
pub mod kd;
pub mod kdcom;
pub mod kdnet;
pub mod link;
pub mod machine;
pub mod wire;

pub use address::{PhysAddr, VirtAddr};
pub use link::KDNET_REPLY_DATA;
pub use machine::MachineType;

#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol_reference {}

//! Where a target's bytes come from: a live session, or a memory image. Nothing above knows which.
//!
//! ```text
//!   Source: who it is (a boot, a version), its memory, where it is stopped, what it has cost
//!      `--> Control, if it can be made to run: break in, wait, go, leave, restart; what is planted in it and taken back
//! ```
//! A source knows memory only: names and types are its readers' business.

mod boot;
mod breakpoint;
mod control;
mod image;
mod planted;
mod seam;

pub use boot::{BootId, KernelVersion};
pub use breakpoint::{
    Armed, ArmedBy, BREAKPOINT_SLOTS, BreakpointError, DEBUG_REGISTERS, DebugRegister, breakpoints_stay,
    debug_control,
};
pub use control::{BreakInError, Control, Halt, IGNORE, Resumed, Step, Wait};
pub use image::ImageSource;
pub use planted::{PlantError, Planted};
pub use seam::{Source, SourceMemory};

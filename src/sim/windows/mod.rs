//! Simulated Windows: kernel images with genuine PDBs, made from layout files.
//!
//! ```text
//!  7sp1/types.toml ----.
//!  7sp1/nt.toml, ...  --+--> package `verikd-images` --> 7sp1/images/ntoskrnl.exe + ntkrnlmp.pdb, ...
//! ```
//! Each Windows build is one directory of layout files. The images made from them are committed beside them and are part
//! of the program, so nothing has to be built or fetched to run the simulation.

mod images;
pub mod layout;

pub use images::{Build, Image, WINDOWS_7_SP1};

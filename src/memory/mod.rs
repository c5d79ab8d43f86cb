//! Reading a target's bytes: what a query needs of a target, whatever the target is.
//!
//! A live target, a dump and a test's image implement [`Memory`]; no query can tell them apart. Knows no network.

mod access;
mod amounts;
mod cached;
mod counting;
mod error;
mod frames;
mod image;
mod need;
mod physical;
mod shared_data;
mod standing;
mod translate;
mod translated;
mod writing;

pub use access::Access;
pub use amounts::{PIECE, SEARCHED_AT_ONCE, reply_len, requests, searches};
pub use cached::CachedMemory;
pub use counting::CountingMemory;
pub use error::{Address, ReadCause, ReadError};
pub use frames::Frames;
pub use image::ImageMemory;
pub use kd_protocol::{PhysAddr, VirtAddr};
pub use need::Need;
pub use physical::PhysicalMemory;
pub(crate) use shared_data::SharedData;
pub use standing::{Memory, Noted, StopId, StoppedCpu};
pub use translate::{PageTables, Paging, Translation, Translator};
pub use translated::TranslatedMemory;
pub use writing::{Changeable, WriteError};

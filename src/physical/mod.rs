//! A machine's physical memory in files, and the kernel in it: what dumps and virtual machines have in common.
//!
//! ```text
//!  a file, where its pages are --> FilePages --.
//!                                               >-- page tables, a kernel that is found and checked
//!  processors, as a virtual machine has them --'
//! ```
//! Says nothing of which file it is: see [`crate::dump`], [`crate::vm`].

mod file;
mod kept;
mod kernel;
mod pages;
mod processor;
mod stop;

pub(crate) use file::PositionedFile;
pub(crate) use kept::KeptPages;
pub(crate) use kernel::{Found, NoKernel, any_kernel, find, is_image, shared_build, with_root};
pub(crate) use pages::{BadRun, FilePages, PageMap, Run};
pub(crate) use processor::Processor;
pub(crate) use stop::{exception, stood_somewhere};

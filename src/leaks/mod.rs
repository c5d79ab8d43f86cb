//! What drivers held at a moment, as a file; what has become of it between two of them; pictures of it. A leaf: it knows no
//! target, so that a file from any source is told like one from any other.
//!
//! ```text
//!  !leaks --> Snapshot --> FILE, FILE.gz, FILE.zst --> Snapshot --+--> diff: per call path what came, went and stayed
//!                 `-----------------------------------------------'--> pictures
//! ```

mod boot;
#[cfg(feature = "pictures")]
mod caption;
mod carry;
mod diff;
mod file;
mod folded;
mod home;
#[cfg(feature = "pictures")]
mod html;
mod look;
mod picture;
#[cfg(test)]
mod sample;
mod snapshot;
mod stack;
#[cfg(feature = "pictures")]
mod svg;
mod text;
mod tree;
mod verdict;

pub use boot::SameBoot;
pub use carry::carry;
pub use diff::{Comparison, Difference, GroupDiff, NotComparable, compare};
pub use file::{SnapshotError, read, write};
pub use folded::write_folded;
#[cfg(feature = "pictures")]
pub use html::{PageError, write_html};
pub use look::{Look, StoodStill};
pub use picture::{FileKind, write_as, write_page};
pub use snapshot::{
    Blocks, BootIdentity, Held, HexNumber, LogState, SavedBlock, SavedDriver, SavedFrame, SavedGroup,
    Snapshot, Subject,
};
pub use stack::Weight;
#[cfg(feature = "pictures")]
pub use svg::write_svg;
pub use text::{Room, write_comparison, write_verdict, write_watched};
pub use tree::{NARROWEST_TREE, write_tree};
pub use verdict::{Growing, LEAST, Verdict, judge};

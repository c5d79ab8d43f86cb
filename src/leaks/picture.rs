//! The files that a snapshot can become.

use std::path::Path;

use super::file::{SnapshotError, whole, write};
use super::folded::write_folded;
use super::snapshot::Snapshot;
use super::stack::Weight;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The snapshot itself.
    Snapshot,
    /// One line a stack, as flame graph tools read them.
    Folded,
    /// A flame graph.
    Svg,
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// [`SnapshotError`]: the file cannot be written, or there is nothing to draw.
pub fn write_as(
    kind: FileKind,
    snapshot: &Snapshot,
    weight: Weight,
    path: &Path,
) -> Result<(), SnapshotError> {
    match kind {
        FileKind::Snapshot => write(snapshot, path),
        FileKind::Folded => Ok(whole(path, |out| write_folded(snapshot, weight, out))?),
        #[cfg(feature = "pictures")]
        FileKind::Svg => Ok(whole(path, |out| super::svg::write_svg(snapshot, weight, out))?),
        #[cfg(not(feature = "pictures"))]
        FileKind::Svg => {
            Err(std::io::Error::other("this program was built without the feature `pictures`").into())
        }
    }
}

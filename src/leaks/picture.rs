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
    /// A page with everything, which needs no network.
    Html,
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
        #[cfg(feature = "pictures")]
        FileKind::Html => Ok(write_page(std::slice::from_ref(snapshot), path)?),
        #[cfg(not(feature = "pictures"))]
        FileKind::Svg | FileKind::Html => {
            Err(std::io::Error::other("this program was built without the feature `pictures`").into())
        }
    }
}

/// Writes a page about several snapshots, the oldest first, whole or not at all.
///
/// # Errors
/// The file cannot be written, or the snapshots cannot be compared.
#[cfg(feature = "pictures")]
pub fn write_page(snapshots: &[Snapshot], path: &Path) -> std::io::Result<()> {
    whole(path, |out| super::html::write_html(snapshots, out).map_err(std::io::Error::other))
}

//! The files that a snapshot can become.

use std::io;
use std::path::Path;

use super::file::{SnapshotError, write};
use super::folded::write_folded;
use super::snapshot::Snapshot;
use super::stack::Weight;
use crate::output::whole_file;

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
        FileKind::Folded => Ok(whole_file(path, |out| write_folded(snapshot, weight, out))?),
        #[cfg(feature = "pictures")]
        FileKind::Svg => Ok(whole_file(path, |out| super::svg::write_svg(snapshot, weight, out))?),
        #[cfg(not(feature = "pictures"))]
        FileKind::Svg => Err(without_pictures().into()),
        FileKind::Html => Ok(write_page(std::slice::from_ref(snapshot), path)?),
    }
}

/// Writes a page about several snapshots, the oldest first, whole or not at all.
///
/// # Errors
/// The file cannot be written, or the snapshots cannot be compared.
pub fn write_page(snapshots: &[Snapshot], path: &Path) -> io::Result<()> {
    #[cfg(feature = "pictures")]
    return whole_file(path, |out| super::html::write_html(snapshots, out).map_err(io::Error::other));
    #[cfg(not(feature = "pictures"))]
    {
        let _ = (snapshots, path);
        Err(without_pictures())
    }
}

#[cfg(not(feature = "pictures"))]
fn without_pictures() -> io::Error {
    io::Error::other("this program was built without the feature `pictures`")
}

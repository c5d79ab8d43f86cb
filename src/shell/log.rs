//! Log files: what is shown, kept.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::output;

/// Opens a log file, which only its owner may read: it holds memory of the target.
pub(super) fn open(file: &Path, appends: bool) -> io::Result<File> {
    output::may_write(file)?;
    let mut options = OpenOptions::new();
    options.create(true).append(appends).write(true).truncate(!appends);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

/// `leak.log` as `leak_2026-11-26_08-00-00.log`: UTC, of milliseconds since 1970.
pub(super) fn dated(name: &str, unix_ms: u64) -> PathBuf {
    let time = output::iso_time(i64::try_from(unix_ms / 1000).unwrap_or_default());
    let time = time.trim_end_matches('Z').replace('T', "_").replace(':', "-");
    let path = Path::new(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|it| format!(".{}", it.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}_{time}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_name_keeps_its_folder_and_extension() {
        let at = 1_371_542_400_000;
        assert_eq!(dated("/tmp/leak.log", at), Path::new("/tmp/leak_2013-06-18_08-00-00.log"));
        assert_eq!(dated("leak", at), Path::new("leak_2013-06-18_08-00-00"));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let mode = open(&file, false).unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

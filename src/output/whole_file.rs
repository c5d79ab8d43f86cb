//! Files that have their name only once they are whole, and never that of one that is being read.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files that this program reads. They are the program's, whoever of it writes.
static READ: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on nothing is written in the place of `path`, which is being read: a dump that somebody has sent is there once.
pub fn reads_file(path: &Path) {
    if let Ok(path) = path.canonicalize() {
        READ.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }
}

/// Tells before work begins whether its file can be written.
///
/// # Errors
/// There is no such folder; or it is a file that is being read.
pub fn may_write(path: &Path) -> io::Result<()> {
    let is_read = |path: &PathBuf| READ.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
    if path.canonicalize().is_ok_and(|path| is_read(&path)) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is being read, and is not written over", path.display()),
        ));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        let why = format!("there is no folder {}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{} is a folder", path.display())));
    }
    Ok(())
}

/// Writes `path`: a file of that name is the old one or the new one, and never half of it. A link stays a link, and what it
/// leads to is written; what is no ordinary file (`/dev/null`, `/dev/stdout`, a pipe) is written to as it is.
///
/// # Errors
/// The system's, and `fill`'s; a file that was there is unchanged then.
pub fn whole_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let there = path.metadata().ok();
    let is_open_elsewhere =
        ["/dev/fd", "/dev/stdout", "/dev/stderr", "/proc"].iter().any(|it| path.starts_with(it));
    if is_open_elsewhere || there.as_ref().is_some_and(|it| !it.is_file()) {
        // What would be put in its place is no device.
        let mut out = BufWriter::new(OpenOptions::new().append(true).open(path)?);
        fill(&mut out)?;
        return out.flush();
    }
    // A link to nothing leads nowhere that could be found: its own error says so.
    let of_link = if path.is_symlink() { Some(path.canonicalize()?) } else { None };
    let path = of_link.as_deref().unwrap_or(path);
    may_write(path)?;
    let mut file = tempfile::Builder::new().prefix(".verikd-").tempfile_in(folder_of(path))?;
    {
        let mut buffered = BufWriter::new(file.as_file_mut());
        fill(&mut buffered)?;
        buffered.flush()?;
    }
    // One that is new is its owner's alone: it tells what is in a kernel's memory.
    if let Some(there) = there {
        file.as_file().set_permissions(there.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path, text: &str) -> io::Result<()> {
        whole_file(path, |out| out.write_all(text.as_bytes()))
    }

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_fails_leaves_what_was_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "old").unwrap();
        let failed =
            whole_file(&path, |out| out.write_all(b"half").and_then(|()| Err(io::Error::other("no more"))));
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        text(&path, "new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.json"]);
        let nowhere = text(&folder.path().join("none").join("a"), "").unwrap_err().to_string();
        assert!(nowhere.starts_with("there is no folder ") && nowhere.ends_with("none"), "{nowhere}");
        reads_file(&path);
        let read = text(&folder.path().join(".").join("a.json"), "").unwrap_err().to_string();
        assert!(read.ends_with("a.json is being read, and is not written over"), "{read}");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(may_write(folder.path()).is_err() && may_write(&folder.path().join("b")).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_its_file_keeps_its_rights() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (folder.path().join("link"), other.path().join("file"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        text(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(text(&link, "newer").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((names(folder.path()).len(), names(other.path()).len()), (1, 0));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_a_device_is_written_to_and_stays_what_it_is() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::process::Command::new("cat")
            .arg(&pipe)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        text(&pipe, "through").unwrap();
        assert_eq!(reader.wait_with_output().unwrap().stdout, b"through");
        assert!(pipe.metadata().unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["pipe"]);
        // By a link: whoever runs this as root has the real one still if it goes wrong.
        let null = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        text(&null, "gone").unwrap();
        assert!(null.is_symlink() && null.metadata().unwrap().file_type().is_char_device());
    }
}

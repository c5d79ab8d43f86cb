//! Lines kept from session to session: each is added when it was typed, so that sessions side by side keep each other's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::output::whole_file;

/// Lines that a session begins with.
pub(super) const KEPT: usize = 1000;
/// What the editor's files begin with.
const HEADER: &str = "#V2\n";

/// Where they are kept, if there is a place for such files.
pub(super) fn file() -> Option<PathBuf> {
    Some(directories::ProjectDirs::from("", "", "verikd")?.data_local_dir().join("history"))
}

/// Adds a line. What may be a secret is not kept: keys, passwords in the addresses of servers.
pub(super) fn add(file: &Path, line: &str) -> io::Result<()> {
    if line.trim().is_empty() || may_be_secret(line) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Who is first writes the header; of two at once, one.
    match private(OpenOptions::new().create_new(true), file) {
        Ok(mut new) => new.write_all(HEADER.as_bytes())?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let text = line.replace('\\', "\\\\").replace('\n', "\\n") + "\n";
    // One write: lines of two sessions don't mix.
    private(&mut OpenOptions::new(), file)?.write_all(text.as_bytes())
}

/// Leaves out the oldest lines of a file that has grown to twice what is kept.
pub(super) fn shorten(file: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().skip(1).collect();
    if lines.len() <= 2 * KEPT {
        return Ok(());
    }
    let shorter = HEADER.to_owned() + &lines[lines.len() - KEPT..].join("\n") + "\n";
    whole_file(file, |out| out.write_all(shorter.as_bytes()))
}

/// Opens a file to be added to, which nobody else can read, whatever it was before.
fn private(options: &mut OpenOptions, file: &Path) -> io::Result<File> {
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let open = options.open(file)?;
    #[cfg(unix)]
    open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(open)
}

/// True for lines with a key, or with a name and a password in a URL.
fn may_be_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    let has_user = line.match_indices("://").any(|(at, _)| {
        let authority = line[at + 3..].split(['/', '*', ' ', ';', '"']).next().unwrap_or_default();
        authority.contains('@')
    });
    has_user || line.contains("key=") || line.contains("password") || line.contains("token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        for line in [
            ".sympath srv*/tmp*https://user:secret@symbols.example/x",
            ".sympath+ https://token@symbols.example",
            "x key=1.2.3.4",
        ] {
            assert!(may_be_secret(line), "{line}");
        }
        for line in ["!verifier 3 myfault.sys", ".sympath srv*/a@b*https://symbols.example/@x", "lm"] {
            assert!(!may_be_secret(line), "{line}");
        }
    }

    #[test]
    fn sessions_side_by_side_keep_each_other_s_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new").join("history");
        for line in ["lm", "x key=1.2.3.4", "dt a\nb\\c", "  ", "g"] {
            add(&file, line).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "#V2\nlm\ndt a\\nb\\\\c\ng\n");
    }

    #[test]
    fn a_file_that_has_grown_loses_its_oldest_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history");
        let lines: String = (0..=2 * KEPT).map(|number| format!("? {number}\n")).collect();
        std::fs::write(&file, HEADER.to_owned() + &lines).unwrap();
        shorten(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(HEADER) && text.ends_with(&format!("? {}\n", 2 * KEPT)), "{text}");
        assert_eq!(text.lines().count(), KEPT + 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_the_history() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history");
        std::fs::write(&file, HEADER).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        add(&file, "lm").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

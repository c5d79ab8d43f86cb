//! PDBs of real kernels, rebuilt from their symbol tables in `../shared/data/isf`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One kernel in a debug build, all of them in a release build or with `VERIKD_ALL_KERNELS`.
pub fn kernels_to_read() -> usize {
    if cfg!(debug_assertions) && std::env::var_os("VERIKD_ALL_KERNELS").is_none() { 1 } else { usize::MAX }
}

pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("VERIKD_SHARED").map_or_else(beside, PathBuf::from);
    if shared.join("data/isf").is_dir() {
        return Some(shared);
    }
    println!("skipped: there is no {} with data of real kernels", shared.display());
    None
}

/// Symbol tables of real kernels, the oldest Windows first.
pub fn isf_files() -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let entries = std::fs::read_dir(shared.join("data/isf")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|file| !file.to_string_lossy().contains("-6."));
    files
}

/// Makes a PDB of a symbol table with the project's script and the toolchain's own linker.
pub fn rebuild(isf: &Path) -> Option<PathBuf> {
    let shared = shared()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{}-{}",
        env!("CARGO_CRATE_NAME"),
        line_of_test()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let linker = folder.join("lld-link");
    if !linker.exists() {
        let Some(lld) = toolchain_linker() else {
            println!("skipped: this toolchain has no rust-lld");
            return None;
        };
        std::os::unix::fs::symlink(lld, &linker).unwrap();
    }
    let prefix = folder.join(isf.file_name().unwrap().to_string_lossy().split('-').nth(1).unwrap());
    let script = Command::new("python3")
        .arg(shared.join("tools/isf2pdb.py"))
        .arg(isf)
        .arg(&prefix)
        .arg(&linker)
        .output();
    match script {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("isf2pdb.py: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: python3: {error}");
            return None;
        }
    }
    Some(PathBuf::from(format!("{}.pdb", prefix.display())))
}

/// Tests run beside each other, so each has its own folder.
fn line_of_test() -> String {
    std::thread::current().name().unwrap_or("main").replace("::", "-")
}

fn toolchain_linker() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir"]).output().ok()?;
    let lld = Path::new(String::from_utf8(output.stdout).ok()?.trim()).parent()?.join("bin/rust-lld");
    lld.exists().then_some(lld)
}

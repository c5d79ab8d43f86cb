//! The linker: `rust-lld`, which comes with the Rust toolchain, in its `lld-link` role.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use verikd_sim::windows::layout::ImageLayout;

/// The Rust toolchain's own linker.
#[derive(Clone, Debug)]
pub struct Linker {
    path: PathBuf,
    /// What it calls itself: `LLD 22.1.2 (..)`. The bytes it writes depend on it.
    pub version: String,
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    X64,
    X86,
}

/// Why a program that images are linked with did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The toolchain has no `rust-lld` at this path.
    #[error("{0} is not there: this Rust toolchain brings no linker")]
    NoLinker(PathBuf),
    /// A program could not be run, or a file it needs or made could not be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The program or file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program reported an error.
    #[error("{program}: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it wrote.
        message: String,
    },
}

impl Linker {
    /// Finds the linker of the toolchain that `rustc`, or the program named in `RUSTC`, belongs to.
    ///
    /// # Errors
    /// [`LinkError::NoLinker`] where the toolchain comes without one; otherwise what running `rustc` or it met.
    pub fn find() -> Result<Self, LinkError> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = run("rustc", Command::new(&rustc).args(["--print", "sysroot"]))?;
        let verbose = run("rustc", Command::new(&rustc).arg("-vV"))?;
        let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let mut path = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
        path.set_extension(env::consts::EXE_EXTENSION);
        if !path.is_file() {
            return Err(LinkError::NoLinker(path));
        }
        let version = run("rust-lld", Command::new(&path).args(["-flavor", "link", "--version"]))?;
        Ok(Self { path, version: version.trim().to_owned() })
    }

    /// Links an object file into an image and its PDB.
    ///
    /// It runs in a folder of its own and under a fixed name, so that no path gets into what it writes.
    pub(crate) fn link(
        &self,
        image: &ImageLayout,
        object: &[u8],
        machine: Machine,
    ) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
        let folder = tempfile::tempdir().map_err(|source| LinkError::Io { path: env::temp_dir(), source })?;
        let file = |name: &str| folder.path().join(name);
        let object_name = format!("{}.obj", image.module);
        fs::write(file(&object_name), object).map_err(at(&file(&object_name)))?;

        let mut command = Command::new(&self.path);
        fixed_name(&mut command);
        // The linker writes what it was called with into the PDB, so the order is part of the image.
        command.current_dir(folder.path()).args(["-flavor", "link", "/nologo"]);
        command.args(match machine {
            Machine::X64 => &["/machine:x64"][..],
            // The object has no table of exception handlers, which any compiler's has.
            Machine::X86 => &["/machine:x86", "/safeseh:no"],
        });
        command.args([
            "/subsystem:native",
            "/driver",
            "/nodefaultlib",
            "/fixed",
            "/debug:full",
            "/pdbsourcepath:.",
            "/opt:noref",
            "/opt:noicf",
        ]);
        command.arg(format!("/entry:{}", image.entry));
        command.arg(format!("/base:{:#x}", image.preferred_base));
        command.arg(format!("/timestamp:{}", image.timestamp));
        command.arg(format!("/pdb:{}", image.pdb)).arg(format!("/pdbaltpath:{}", image.pdb));
        command.arg(format!("/out:{}", image.file)).arg(&object_name);
        run("rust-lld", &mut command)?;

        let read = |name: &str| fs::read(file(name)).map_err(at(&file(name)));
        Ok((read(&image.file)?, read(&image.pdb)?))
    }
}

/// The linker writes the name it was called by into the PDB.
#[cfg(unix)]
fn fixed_name(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.arg0("rust-lld");
}

#[cfg(not(unix))]
fn fixed_name(_: &mut Command) {}

fn run(program: &'static str, command: &mut Command) -> Result<String, LinkError> {
    let output = command.output().map_err(at(Path::new(OsStr::new(command.get_program()))))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(LinkError::Failed { program, message: text(&[output.stdout, output.stderr].concat()) })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LinkError {
    let path = path.to_owned();
    |source| LinkError::Io { path, source }
}

//! Writes the images of Windows builds: `cargo run -p verikd-images -- sim/src/windows/7sp1 ..`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use verikd_images::{LINKER_RECORD, Linker, build_directory};

fn main() -> ExitCode {
    let directories: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if directories.is_empty() {
        eprintln!(
            "usage: verikd-images DIRECTORY ..   (each with nt.toml, types.toml, ..; writes DIRECTORY/images)"
        );
        return ExitCode::FAILURE;
    }
    for directory in directories {
        if let Err(error) = write_images(&directory) {
            eprintln!("{}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write_images(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let linker = Linker::find()?;
    let images = directory.join("images");
    fs::create_dir_all(&images)?;
    for built in build_directory(&linker, directory)? {
        for (name, bytes) in [(&built.layout.file, &built.image), (&built.layout.pdb, &built.pdb)] {
            fs::write(images.join(name), bytes)?;
            println!("{:8} {}", bytes.len(), images.join(name).display());
        }
    }
    fs::write(images.join(LINKER_RECORD), format!("{}\n", linker.version))?;
    Ok(())
}

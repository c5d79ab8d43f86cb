//! The simulated machine, stopped, and its PDBs in a folder.

use std::path::{Path, PathBuf};

use verikd::sim::windows::{Machine, WINDOWS_7_SP1};
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, KernelVersion};

/// The machine at its first stop, and its kernel as a debugger knows it after GetVersion.
pub fn stopped(name: &str) -> (Machine, Kernel) {
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    let path = SymbolPath::parse(&store(name).display().to_string());
    let kernel = Kernel::new(version_of(&machine), path);
    (machine, kernel)
}

/// A folder with the machine's PDBs.
pub fn store(name: &str) -> PathBuf {
    let folder = folder(name);
    for image in WINDOWS_7_SP1.images {
        std::fs::write(folder.join(image.pdb_file), image.pdb).unwrap();
    }
    folder
}

pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What the machine answers to GetVersion, as a debugger keeps it.
pub fn version_of(machine: &Machine) -> KernelVersion {
    let version = machine.version();
    KernelVersion {
        major: version.major,
        build: version.minor,
        flags: version.flags,
        machine: version.machine_type,
        base: version.kern_base,
        module_list: version.ps_loaded_module_list,
        debugger_data_list: version.debugger_data_list,
    }
}

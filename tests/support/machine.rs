//! The simulated machine, stopped, and its PDBs in a folder.

use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};

use kd_protocol::MachineType;
use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, KernelVersion};
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

/// A simulated machine that stands still, read without a wire in between: what queries are tried on.
#[derive(Clone, Debug)]
pub struct Still(pub Machine);

/// The machine at its first stop, and its kernel as a debugger knows it after GetVersion.
pub fn stopped(name: &str) -> (Still, Kernel) {
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    let path = SymbolPath::parse(&store(name).display().to_string());
    let kernel = Kernel::new(version_of(&machine), path);
    (Still(machine), kernel)
}

/// A folder with the machine's PDBs.
pub fn store(name: &str) -> PathBuf {
    let folder = folder(name);
    for image in WINDOWS_7_SP1.images {
        let path = folder.join(image.pdb_file);
        if std::fs::read(&path).ok().as_deref() != Some(image.pdb) {
            // Tests run side by side: whoever opens the file must find it whole.
            let whole = tempfile::NamedTempFile::new_in(&folder).unwrap();
            std::fs::write(whole.path(), image.pdb).unwrap();
            whole.persist(path).unwrap();
        }
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
        machine: MachineType(version.machine_type),
        base: version.kern_base,
        module_list: version.ps_loaded_module_list,
        debugger_data_list: version.debugger_data_list,
    }
}

impl Deref for Still {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl DerefMut for Still {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.0
    }
}

impl Memory for Still {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let got = self.0.read_virtual(address, buf);
        whole(Address::Virtual(address), buf.len(), got)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let got = self.0.read_physical(address, buf);
        whole(Address::Physical(address), buf.len(), got)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        Ok(self.0.search_virtual(range.start, range.end.0.saturating_sub(range.start.0), pattern))
    }

    fn stop(&self) -> StopId {
        StopId(self.0.stops())
    }
}

/// The processor that a break-in stops on.
impl StoppedCpu for Still {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        Ok(self.0.processors()[0].context.clone())
    }

    fn context_of(&self, processor: u16) -> Result<Vec<u8>, ReadCause> {
        let cpu = self.0.processors().get(usize::from(processor));
        cpu.map(|cpu| cpu.context.clone()).ok_or(ReadCause::Unsupported("a processor of that number"))
    }
}

fn whole(address: Address, wanted: usize, got: usize) -> Result<(), ReadError> {
    if got == wanted { Ok(()) } else { Err(ReadError { address, wanted, got, cause: ReadCause::NotMapped }) }
}

//! A stranger's reader on the same files: it finds the pages, the tables and the modules that we say are there.

use kdmp_parser::{Gva, Gxa, KernelDumpParser};
use verikd::memory::{Memory, VirtAddr};
use verikd::source::Source;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::folder;

#[test]
fn a_stranger_reads_the_same_bytes() {
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.break_in();
    for kind in [DumpKind::Active, DumpKind::Kernel, DumpKind::Ranges] {
        let path = folder("witness").join(kind.name());
        write_dump(&machine, kind, &path).unwrap();
        let stranger = KernelDumpParser::new(&path).unwrap();
        let opened = verikd::dump::open(&path, None).unwrap();
        assert_eq!(stranger.physmem().len(), machine.pages_in_use().len(), "{}", kind.name());
        let modules: Vec<u64> = stranger.kernel_modules().map(|(range, _)| range.start.u64()).collect();
        assert!(modules.contains(&machine.version().kern_base.0) && modules.len() == 4, "{modules:x?}");
        let memory = opened.source.memory();
        for base in modules {
            let (mut ours, mut theirs) = (vec![0; 0x1000], vec![0; 0x1000]);
            memory.read_virtual(VirtAddr(base), &mut ours).unwrap();
            stranger.virt_read_exact(Gva::from(base), &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{base:#x} as {}", kind.name());
        }
    }
}

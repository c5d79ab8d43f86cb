//! A kernel that was not booted for debugging encodes its debugger data block: what it leads to is found all the same, and
//! dumps that are written of it have it plain.

use std::path::Path;

use support::text::text;
use verikd::memory::VirtAddr;
use verikd::target::Target;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::{answers, debugger, folder, support, symbols};

/// The block's tag, as it lies in the target's memory, and the byte that says that it is encoded.
fn in_memory(target: &Target<'_>) -> ([u8; 4], u8) {
    let (mut tag, mut flag) = ([0; 4], [0]);
    let block = target.address_of("nt!KdDebuggerDataBlock").unwrap();
    target.memory().read_virtual(block.offset(0x10), &mut tag).unwrap();
    target.memory().read_virtual(target.address_of("nt!KdpDataBlockEncoded").unwrap(), &mut flag).unwrap();
    (tag, flag[0])
}

fn assert_leads_to_the_variables(target: &Target<'_>) {
    let data = target.debugger_data().unwrap();
    let of = |name: &str| target.address_of(name).ok();
    assert_eq!(data.ki_bugcheck_data(), of("nt!KiBugCheckData"));
    assert_eq!(data.ki_processor_block(), of("nt!KiProcessorBlock"));
    assert_eq!(data.ps_active_process_head(), of("nt!PsActiveProcessHead"));
    assert_eq!(data.mm_verifier_data(), of("nt!MmVerifierData"));
}

#[test]
fn an_encoded_block_is_decoded_and_written_plain() {
    let symbols = symbols(&WINDOWS_7_SP1);
    let folder = folder("encoded");
    let write = |machine: &Machine, kind: DumpKind, path: &Path| write_dump(machine, kind, path).unwrap();
    for (kind, seed) in [(DumpKind::Kernel, 1), (DumpKind::Elf, 2), (DumpKind::Lime, 3)] {
        let mut machine = Machine::new(&WINDOWS_7_SP1);
        machine.stop_for_dump();
        let path = folder.join(kind.name());
        write(&machine, kind, &path);
        let plain = answers(&debugger(&path, &symbols).target().unwrap());
        machine.encode_debugger_data(seed);
        write(&machine, kind, &path);
        let opened = debugger(&path, &symbols);
        let target = opened.target().unwrap();
        let (tag, flag) = in_memory(&target);
        assert!(&tag != b"KDBG" && flag == 1, "{}", kind.name());
        assert_leads_to_the_variables(&target);
        assert_eq!(answers(&target), plain, "{}", kind.name());
        let again = folder.join("again.dmp");
        let said = text(&target, &format!(".dump /o /ka {}", again.display()));
        assert!(said.contains("Dump successfully written"), "{said}");
        let opened = debugger(&again, &symbols);
        let target = opened.target().unwrap();
        assert_eq!(in_memory(&target), (*b"KDBG", 0), "{}", kind.name());
        assert_leads_to_the_variables(&target);
        assert_ne!(target.kernel().version().debugger_data_list, VirtAddr(0), "its links are plain too");
    }
}

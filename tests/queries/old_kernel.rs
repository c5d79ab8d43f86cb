//! A kernel as old as NT 5.2, whose images name no PDB and which has no Driver Verifier data: debugged as far as its facts
//! go, each missing thing named.

use crate::support::machine::{Still, stopped, version_of};
use crate::support::text::{notes, run, text};
use verikd::memory::VirtAddr;
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, KernelVersion, Target};

/// Bytes of the debugger data block of NT 5.2; what Windows has added since is behind it. Source: kd-serial.md, "Requests".
const NT_5_2_BLOCK: u32 = 0x318;
/// In `KDDEBUGGER_DATA64`.
const SIZE: u64 = 0x14;
const MM_VERIFIER_DATA: u64 = 0x248;
/// From a PE's signature to its directory of debug records.
const DEBUG_DIRECTORY: u64 = 24 + 112 + 6 * 8;

/// The simulated machine, made older: what it would not have is taken away.
fn old_machine() -> (Still, Kernel) {
    let (mut machine, _) = stopped("old_kernel");
    let version = version_of(&machine);
    let mut link = [0; 8];
    assert_eq!(machine.read_virtual(version.debugger_data_list, &mut link), 8);
    let block = VirtAddr(u64::from_le_bytes(link));
    machine.write_virtual(block.offset(SIZE), &NT_5_2_BLOCK.to_le_bytes());
    machine.write_virtual(block.offset(MM_VERIFIER_DATA), &[0; 8]);
    let mut signature_at = [0; 4];
    assert_eq!(machine.read_virtual(version.base.offset(0x3c), &mut signature_at), 4);
    let signature = version.base.offset(u32::from_le_bytes(signature_at).into());
    machine.write_virtual(signature.offset(DEBUG_DIRECTORY), &[0; 8]);
    let kernel = Kernel::new(KernelVersion { build: 3790, flags: 6, ..version }, SymbolPath::parse(""));
    (machine, kernel)
}

#[test]
fn what_needs_no_symbols_works() {
    let (machine, kernel) = old_machine();
    let target = Target::new(&machine, &kernel).with_cpu(&machine);
    assert!(text(&target, "vertarget").starts_with("Windows Kernel Version 3790 UP Free x64\n"));
    let modules = text(&target, "lm");
    for module in ["nt", "hal", "ndis", "myfault"] {
        assert!(modules.contains(&format!("   {module} ")), "{modules}");
    }
    assert!(text(&target, "db nt L2").contains("4d 5a"));
    assert_eq!(text(&target, "r rip"), "rip=fffff800014846a0\n");
    assert_eq!(text(&target, ".bugcheck"), "No bug check has happened\n");
    assert!(text(&target, "x nt!KeBugCheckE*").ends_with("nt!KeBugCheckEx\n"), "exports are names");
}

#[test]
fn what_is_missing_is_named() {
    let (machine, kernel) = old_machine();
    let target = Target::new(&machine, &kernel).with_cpu(&machine);
    // The exports are read when a name is needed.
    text(&target, "ln nt!KeBugCheckEx");
    let shown = text(&target, "lmv m nt");
    assert!(shown.contains("nt         (export symbols)"), "{shown}");
    let notes = notes(&target, "lmv m nt");
    assert!(notes.iter().any(|note| note.text.contains("it has no debug directory")), "{notes:?}");
    for command in ["!verifier", "!verifier 3", "!verifier 3 myfault.sys"] {
        let Err(error) = run(&target, command) else { panic!("{command} has nothing to read") };
        let error = error.to_string();
        assert!(error.contains("nt has no symbols: its image does not say which PDB is its own"), "{error}");
        assert!(error.contains("names no MmVerifierData"), "{error}");
    }
    let Err(error) = run(&target, "!verifier 80") else { panic!("there is no log without symbols") };
    assert!(error.to_string().contains("it has no debug directory"), "{error}");
}

//! The smaller logs, and the list of watched requests.

use serde_json::json;
use verikd::commands::NoteKind;
use verikd::memory::VirtAddr;

use super::{notes, run, text};
use crate::support::text::WithNotes as _;
use crate::support::verifier::*;

#[test]
fn the_log_of_irqls_prints_as_published() {
    let mut world = leak(Build::Windows7);
    let at = RING;
    add_ring(&mut world, RINGS[1].0, at, 0x100, 2);
    for slot in 1..3 {
        let at = at.offset(slot * world.size("_VI_TRACK_IRQL"));
        for (field, value) in
            [("Thread", 0xffff_f800_02bf_8c40), ("OldIrql", 2), ("NewIrql", slot), ("TickCount", 0x495e)]
        {
            world.put("_VI_TRACK_IRQL", at, field, value);
        }
        world.put("_VI_TRACK_IRQL", at, "StackTrace", CALLER);
    }
    let booted = world.boot();
    let entry = |new: u64| {
        format!(
            "\nThread:             fffff80002bf8c40\nOld irql:           0000000000000002\n\
             New irql:           {new:016x}\nProcessor:          0000000000000000\n\
             Time stamp:         000000000000495e\n\n    fffff8800447d634 myfault!MyfaultDeviceControl+0x358\n"
        )
    };
    let head = "\n----------------------------------------------- \n\
                Track irql trace log                            \n\
                ----------------------------------------------- \n\n\
                Displaying most recent 0x0000000000000004 entries from the IRQL transition log.\n\
                There are up to 0x100 entries in the log.\n";
    assert_eq!(text(&booted, "!verifier 8"), format!("{head}{}{}", entry(2), entry(1)));
    assert!(text(&booted, "!verifier 8 1").ends_with(&format!("in the log.\n{}", entry(2))));
    let both = text(&booted, "!verifier f");
    assert!(both.starts_with(&text(&booted, "!verifier 3")), "{both}");
    assert!(
        both.contains("Driver Verifier didn't inject any faults.\n\n---") && both.ends_with(&entry(1)),
        "{both}"
    );
    let log = run(&booted, "!verifier 8").unwrap().with_notes();
    assert_eq!((&log["log"], &log["depth"]), (&json!("irql"), &json!(5)));
    let record = &log["records"][0];
    assert_eq!((&record["thread"], &record["new_irql"]), (&json!("0xfffff80002bf8c40"), &json!(2)));
}

#[test]
fn injected_faults_print_as_published() {
    let mut world = leak(Build::Windows7);
    assert!(text(&world.boot(), "!verifier 4").ends_with("Driver Verifier didn't inject any faults.\n"));
    add_ring(&mut world, RINGS[0].0, RING, 0x80, 0x75);
    let at = RING.offset(0x75 * world.size("_VI_FAULT_TRACE"));
    world.put("_VI_FAULT_TRACE", at, "Thread", 0xffff_fa80_044c_eb60);
    world.put("_VI_FAULT_TRACE", at, "StackTrace", CALLER);
    let shown = text(&world.boot(), "!verifier 4");
    assert!(
        shown.ends_with(
            "Resource fault injection history:\n\
             Tracker @ FFFFFA8006000000 (# entries: 75, size: 80, depth: 8)\n\n\
             Entry @ FFFFFA80060020E8 (index 75)\n\n    Thread: FFFFFA80044CEB60\n\n    \
             FFFFF8800447D634 myfault!MyfaultDeviceControl+0x358\n"
        ),
        "{shown}"
    );
}

#[test]
fn a_log_is_searched_for_a_thread_or_a_request() {
    let mut world = leak(Build::Windows7);
    let at = RING;
    add_ring(&mut world, RINGS[2].0, at, 0x100, 0x22);
    for slot in 0..0x20 {
        let at = at.offset((slot + 3) * world.size("_IOV_FORCED_PENDING_TRACE"));
        world.put("_IOV_FORCED_PENDING_TRACE", at, "Irp", 0xffff_fa80_0700_0000 + slot % 2 * 0x200);
        world.put("_IOV_FORCED_PENDING_TRACE", at, "Thread", 0xffff_fa80_0800_0000 + slot * 0x1000);
    }
    let booted = world.boot();
    let slots = |line: &str| {
        let log = run(&booted, line).unwrap().with_notes();
        let records = log["records"].as_array().unwrap().clone();
        (records.len(), records[0]["slot"].as_u64().unwrap())
    };
    assert_eq!(slots("!verifier 40"), (4, 0x22));
    assert_eq!(slots("!verifier 40 10"), (0x10, 0x22));
    assert_eq!(slots("!verifier 40 fffffa8007000000"), (0x10, 0x21));
    assert_eq!(slots("!verifier 40 fffffa80`08005000"), (1, 8));
    assert_eq!(notes(&booted, "!verifier 40 fffffa8009000000")[0].kind, NoteKind::Failed);
    let error = run(&booted, "!verifier 200").err().unwrap().to_string();
    assert!(error.contains("no such log (nt!VfKeCriticalRegionTraces is 0)"), "{error}");
    let error = run(&booted, "!verifier 100").err().unwrap().to_string();
    assert!(error.contains("type nt!_IOV_IRP_TRACE not found"), "{error}");
    let noted = notes(&booted, "!verifier 203");
    assert!(noted.iter().any(|note| note.kind == NoteKind::Partial && note.text.contains("nt!VfKeCritical")));
}

#[test]
fn watched_requests_are_listed() {
    let mut world = leak(Build::Windows7);
    let head = world.global("VfWdIrpListHead");
    world.write(head, &head.0.to_le_bytes());
    assert!(text(&world.boot(), "!verifier 400").ends_with("watches no cancelled request.\n"));
    let entry = VirtAddr(0xffff_fa80_0a00_0000);
    world.write(head, &entry.0.to_le_bytes());
    world.put("_VF_WATCHDOG_IRP", entry, "Irp", 0xffff_fa80_0700_0000);
    world.put("_VF_WATCHDOG_IRP", entry, "DueTickCount", 0x1234);
    world.write(entry, &head.0.to_le_bytes());
    let booted = world.boot();
    assert!(text(&booted, "!verifier 400").contains("Irp:                fffffa8007000000\n"));
    assert_eq!(notes(&booted, "!verifier 400"), []);
    assert_eq!(notes(&booted, "!verifier 400 fffffa8007000200")[0].kind, NoteKind::Failed);
    world.write(entry, &entry.0.to_le_bytes());
    assert!(notes(&world.boot(), "!verifier 400")[0].text.contains("it comes back to"));
}

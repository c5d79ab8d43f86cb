//! The tree of verified drivers, and those that are not in it.

use verikd::commands::{Note, NoteKind};

use super::{DRIVER, json, notes, run, text};
use crate::support::World;
use crate::support::text::WithNotes as _;
use crate::support::verifier::*;

#[test]
fn a_driver_that_is_not_verified_is_explained() {
    let mut world = leak(Build::Windows7);
    add_suspect(&mut world, SUSPECT.offset(0x400), "later.sys", 0, 0);
    add_suspect(&mut world, SUSPECT.offset(0x500), "gone.sys", 2, 2);
    let booted = world.boot();
    let failed = |line: &str| match &notes(&booted, line)[..] {
        [Note { kind: NoteKind::Failed, text, .. }] => text.clone(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(failed("!verifier 3 tcpip.sys"), "tcpip.sys is not verified. Verified drivers: myfault.sys.");
    assert_eq!(
        failed("!verifier 3 later"),
        "later.sys is chosen for verification but has not been loaded yet. Verified drivers: myfault.sys."
    );
    assert!(
        failed("!verifier 3 GONE.SYS")
            .starts_with("gone.sys is chosen for verification and was unloaded (loaded 2")
    );
    assert!(text(&booted, "!verifier 3 tcpip.sys").ends_with("PagedPool   Module\n"), "a header and no row");
}

#[test]
fn verifier_off_and_tracking_off_are_told_apart() {
    let booted = kernel(Build::Windows7).boot();
    let [note] = &notes(&booted, "!verifier 3 myfault.sys")[..] else { panic!("one note") };
    assert!(note.text.starts_with("Driver Verifier is off (Level 0)") && note.kind == NoteKind::Failed);
    assert_eq!(notes(&booted, "!verifier")[0].kind, NoteKind::Remark);
    let error = run(&booted, "!verifier 80").err().unwrap();
    assert!(
        error.to_string().starts_with(
            "!verifier: this kernel keeps no such log (nt!VfPoolTraces is 0): Driver Verifier is off."
        ),
        "{error}"
    );

    let mut world = leak(Build::Windows7);
    let settings = world.global("MmVerifierData");
    world.put("_MM_DRIVER_VERIFIER_DATA", settings, "Level", 0x10);
    assert!(notes(&world.boot(), "!verifier 3 myfault")[0].text.starts_with("Pool tracking is off"));
}

#[test]
fn nothing_is_listed_before_the_tree_is_set_up() {
    let mut world = leak(Build::Windows7);
    let initialized = world.global("ViTargetInitialized");
    world.write(initialized, &[0; 4]);
    assert!(notes(&world.boot(), "!verifier 1")[0].text.contains("none of those chosen was loaded yet"));

    let mut world = leak(Build::Windows7);
    let tree = world.global("ViTargetDriversAvl");
    world.put("_VF_AVL_TREE", tree, "TablesNo", 0);
    assert!(notes(&world.boot(), "!verifier 1")[0].text.contains("none of those chosen was loaded yet"));
    world.put("_VF_AVL_TREE", tree, "TablesNo", 0xffff_ffff);
    let error = run(&world.boot(), "!verifier 1").err().unwrap().to_string();
    assert!(error.contains("0xffffffff tables, more than any kernel makes"), "{error}");
}

#[test]
fn every_bucket_of_the_tree_is_walked_and_thunk_nodes_are_skipped() {
    for tables in [1, 16, 32, 64] {
        let mut world = leak(Build::Windows11);
        let tree = world.global("ViTargetDriversAvl");
        world.put("_VF_AVL_TREE", tree, "TablesNo", tables);
        let stride = world.size("_VF_AVL_TABLE");
        world.map(TABLES, tables * stride);
        let (node, data, suspect) = (NODE.offset(0x1000), DATA.offset(0x1000), SUSPECT.offset(0x1000));
        add_driver(&mut world, node, data, suspect, "other.sys");
        let thunks = NODE.offset(0x2000);
        world.put("_VF_TARGET_DRIVER", entry_of(thunks), "VerifiedData", 0);
        world.put("_RTL_BALANCED_LINKS", node, "LeftChild", thunks.0);
        // In the last of them; in the only one behind what is there.
        match tables {
            1 => world.put("_RTL_BALANCED_LINKS", NODE, "RightChild", node.0),
            _ => {
                let last = TABLES.offset((tables - 1) * stride);
                world.put("_VF_AVL_TABLE", last, "RtlTable.BalancedRoot.RightChild", node.0);
            }
        }
        let booted = world.boot();
        booted.memory.reset();
        let report = run(&booted, "!verifier 1").unwrap().with_notes();
        let names: Vec<_> =
            report["drivers"].as_array().unwrap().iter().map(|driver| &driver["name"]).collect();
        assert_eq!(names, [&json!("myfault.sys"), &json!("other.sys")], "{tables} tables");
        assert_eq!(report["notes"], json!([]));
        // Settings 2, tree 2, all tables 1, drivers 3 each, the node of thunks 1.
        assert_eq!(booted.memory.reads(), 2 + 2 + 1 + 2 * 3 + 1, "{tables} tables");
    }
}

#[test]
fn what_cannot_be_read_of_a_driver_spoils_only_itself() {
    let spoilt = |spoil: &dyn Fn(&mut World)| {
        let mut world = leak(Build::Windows7);
        spoil(&mut world);
        let booted = world.boot();
        (text(&booted, "!verifier 3"), notes(&booted, "!verifier 3"))
    };
    let (shown, notes) =
        spoilt(&|world| world.put(DRIVER, DATA, "SuspectDriverEntry", 0xffff_dead_0000_0000));
    assert!(
        shown.contains("fffffa80031b5830 Unknown          009ce000       00000000    (name unreadable)"),
        "{shown}"
    );
    assert!(shown.contains("     Leak      ") && notes[0].text.contains("cannot be read"), "{notes:?}");

    let (shown, notes) = spoilt(&|world| world.put(DRIVER, DATA, "Signature", 1));
    assert!(shown.contains("     Leak      ") && notes[0].text.contains("signature 0x1"), "{notes:?}");

    let (shown, notes) = spoilt(&|world| world.unmap(DATA));
    assert!(
        !shown.contains("myfault") && notes[0].text.contains("fffffa80`031b5830 cannot be read"),
        "{notes:?}"
    );

    // A name that is torn: absurd length, then nonsense.
    let name = SUSPECT.offset(0x18);
    let (shown, notes) = spoilt(&|world| world.write(name, &0xffff_u16.to_le_bytes()));
    assert!(shown.contains("009ce000       00000000    myfault.sys\n"), "{shown}");
    assert!(notes[0].text.contains("its length is 0xffff bytes, more than any file's"), "{notes:?}");
    let (shown, _) = spoilt(&|world| world.write(SUSPECT.offset(0x28), &[0x1b, 0, 0, 0xd8, b'x', 0]));
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn the_tree_in_knots_still_gives_the_drivers_it_has() {
    let mut world = leak(Build::Windows7);
    world.put("_RTL_BALANCED_LINKS", NODE, "LeftChild", NODE.0);
    world.put("_RTL_BALANCED_LINKS", NODE, "RightChild", 0x1234_5678);
    let booted = world.boot();
    assert!(text(&booted, "!verifier 1").contains("myfault.sys"));
    assert!(notes(&booted, "!verifier 1")[0].text.contains("it comes back to fffffa80`031b5810"));
}

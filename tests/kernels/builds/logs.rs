//! The scenarios in which Driver Verifier keeps its account elsewhere than in drivers' lists: in the trees of advanced pool
//! tracking, and in the smaller logs.

use std::time::Duration;

use serde_json::json;
use verikd::memory::VirtAddr;
use verikd::target::Target;
use verikd_sim::windows::{BUILDS, Machine, Scenario};

use super::scenarios::{blocks_of, json, on_every_build};
use super::stopped;
use crate::support::text::WithNotes as _;
use crate::support::text::{notes, run, text};

#[test]
fn advanced_tracking_gives_each_driver_its_blocks_out_of_one_tree() {
    on_every_build(Scenario::AdvancedTracking, |target| {
        let report = json(target, "!verifier 3");
        let drivers = report["drivers"].as_array().unwrap();
        let blocks: Vec<_> = drivers
            .iter()
            .map(|driver| (driver["name"].as_str().unwrap(), blocks_of(driver).len()))
            .collect();
        assert_eq!(blocks, [("netfilt.sys", 24), ("myfault.sys", 10)]);
        let leaked = &blocks_of(&drivers[1])[9];
        assert_eq!((&leaked["address"], &leaked["size"]), (&json!("0xfffffa8005400000"), &json!(0xf_a000)));
        assert_eq!((&leaked["tag"], &leaked["caller"]), (&json!("Leak"), &json!("0xfffff8800447d634")));
        assert_eq!(leaked["stack"].as_array().unwrap().len(), 8, "the whole stack");
        assert!(
            drivers.iter().all(|driver| driver["allocations"]["pages"] == 0),
            "their own lists are empty"
        );
        let [note] = report["notes"].as_array().unwrap().as_slice() else { panic!("{}", report["notes"]) };
        assert!(
            note["kind"] == "remark" && note["text"].as_str().unwrap().contains("advanced pool tracking")
        );
        let [note] = &notes(target, "!verifier 1")[..] else { panic!("one note") };
        assert!(note.text.contains("what drivers hold is not in their counters"), "{}", note.text);
        let logged = json(target, "!verifier 80 fffffa8005400000");
        assert_eq!(logged["entries"][0]["stack"][2], leaked["stack"][2]);
    });
}

#[test]
fn a_block_leaked_later_is_in_the_tree_too() {
    let build = BUILDS.iter().find(|build| build.name == "11-24h2").unwrap();
    let mut machine = Machine::with_scenario(build, Scenario::AdvancedTracking, 0);
    machine.break_in();
    machine.run_for(Duration::from_secs(11));
    let (machine, kernel) = stopped(build, machine);
    let report = json(&Target::new(&machine, &kernel), "!verifier 3 myfault");
    let blocks = blocks_of(&report["drivers"][0]);
    assert_eq!((blocks.len(), &blocks[14]["address"]), (15, &json!("0xfffffa80058fb000")));
}

#[test]
fn only_builds_that_have_the_structures_can_be_in_a_scenario_of_theirs() {
    let can = |build: &&&verikd_sim::windows::Build| Scenario::AdvancedTracking.check(build).is_ok();
    let names: Vec<_> = BUILDS.iter().filter(can).map(|build| build.name).collect();
    assert_eq!(names, ["2022", "11-21h2", "11-23h2", "11-24h2", "11-25h2"]);
    let can = |build: &&&verikd_sim::windows::Build| Scenario::PoolHeap.check(build).is_ok();
    let without: Vec<_> = BUILDS.iter().filter(|build| !can(build)).map(|build| build.name).collect();
    assert_eq!(without, ["7sp1", "8.1", "10-1607"], "their small pool is made of pages");
    let some = [Scenario::AdvancedTracking, Scenario::PoolHeap];
    for scenario in Scenario::ALL.into_iter().filter(|scenario| !some.contains(scenario)) {
        assert!(BUILDS.iter().all(|build| scenario.check(build).is_ok()), "{scenario}");
    }
}

#[test]
fn every_log_is_filled_newest_first() {
    on_every_build(Scenario::Logs, |target| {
        // Flag, how many there are to be shown, and the slot of the newest.
        for (flag, records, newest) in
            [("4", 0x75, 0x75), ("8", 0x100, 0xd3), ("40", 0x100, 0xc2), ("200", 0x100, 0x11)]
        {
            let log = json(target, &format!("!verifier {flag} 1000"));
            let found = log["records"].as_array().unwrap();
            assert_eq!((found.len(), &found[0]["slot"]), (records, &json!(newest)), "{flag}");
            assert_eq!(log["notes"], json!([]), "{flag}");
            let named = |record: &serde_json::Value| record["stack"][0]["symbol"].is_string();
            assert!(found.iter().all(named), "{flag}");
        }
        assert_eq!(json(target, "!verifier 400")["requests"].as_array().unwrap().len(), 2);
        match run(target, "!verifier 100 3") {
            Ok(log) => {
                let log = log.with_notes();
                assert_eq!((log["records"].as_array().unwrap().len(), &log["index"]), (3, &json!(0x8e0)));
                assert_eq!(
                    (&log["records"][1]["irql"], &log["records"][1]["kernel_apc_disable"]),
                    (&json!(1), &json!(0xffff))
                );
            }
            Err(error) => assert!(error.to_string().contains("type nt!_IOV_IRP_TRACE not found"), "{error}"),
        }
    });
}

#[test]
fn a_log_is_searched_for_a_request_or_a_thread() {
    on_every_build(Scenario::Logs, |target| {
        let records = |line: &str| json(target, line)["records"].as_array().unwrap().len();
        assert_eq!(records("!verifier 40 fffffa8002f00210"), 43, "every sixth of 0x100 requests");
        assert_eq!(records("!verifier 200 fffffa80044ceb60"), 86, "every third of 0x100 regions");
        assert_eq!(json(target, "!verifier 400 fffffa8002f00810")["requests"].as_array().unwrap().len(), 1);
        let [note] = &notes(target, "!verifier 40 fffffa8002f00a20")[..] else { panic!("one note") };
        assert_eq!(note.text, "No record of the forced pending log is about fffffa80`02f00a20.");
    });
}

/// Server 2022 has a second array beside the log, of which nothing but its name is known.
#[test]
fn a_full_stack_may_go_on_in_server_2022_s_second_array() {
    for build in BUILDS {
        let mut machine = Machine::new(build);
        machine.break_in();
        let kernel = build.images[0].layout().unwrap();
        let symbol = |name: &str| VirtAddr(kernel.base + u64::from(kernel.symbol(name).unwrap()));
        let word = |machine: &Machine, at: VirtAddr| {
            let mut word = [0; 8];
            machine.read_virtual(at, &mut word);
            u64::from_le_bytes(word)
        };
        if let Some(second) = kernel.symbol("VfPoolTracesEx") {
            // Wherever it leads, it is not followed.
            machine.write_virtual(VirtAddr(kernel.base + u64::from(second)), &[0x41; 8]);
        }
        let types = build.types().unwrap();
        let (size, stack) = (
            types.aggregate("_VF_POOL_TRACE").unwrap().size,
            types.locate("_VF_POOL_TRACE", "StackTrace").unwrap().0,
        );
        let slot = word(&machine, symbol("VfPoolTracesIndex")) as u32
            & (word(&machine, symbol("VfPoolTracesLength")) as u32 - 1);
        let newest = VirtAddr(word(&machine, symbol("VfPoolTraces"))).offset((slot * size).into());
        let frame = symbol("ExFreePoolWithTag").offset(0x22c).0.to_le_bytes();
        let frames = (size - stack) / 8;
        machine.write_virtual(newest.offset(stack.into()), &frame.repeat(frames as usize));
        let (machine, kernel) = stopped(build, machine);
        let target = Target::new(&machine, &kernel);
        let log = json(&target, "!verifier 80 1");
        assert_eq!(log["entries"][0]["stack"].as_array().unwrap().len() as u32, frames, "{}", build.name);
        let noted = log["notes"].to_string();
        assert_eq!(
            noted.contains("Stacks of 13 frames may go on"),
            build.name == "2022",
            "{}: {noted}",
            build.name
        );
    }
}

/// Samples S3 and S4 of Windows 7 and Vista have these lines and columns; the numbers are this machine's.
#[test]
fn faults_and_irqls_print_in_the_columns_of_the_published_samples() {
    on_every_build(Scenario::Logs, |target| {
        let shown = text(target, "!verifier 8 4");
        let rule = "----------------------------------------------- \n";
        let head = format!(
            "\n{rule}Track irql trace log                            \n{rule}\n\
             Displaying most recent 0x0000000000000004 entries from the IRQL transition log.\n\
             There are up to 0x100 entries in the log.\n\n\
             Thread:             fffffa80044ceb60\n\
             Old irql:           0000000000000002\n\
             New irql:           0000000000000000\n\
             Processor:          0000000000000000\n\
             Time stamp:         000000000000495e\n\n    \
             fffff8800447d4a0 myfault!MyfaultDeviceControl+0x1c4\n"
        );
        assert!(shown.starts_with(&head), "{shown}");
        assert_eq!(shown.matches("\nThread: ").count(), 4);
        let shown = text(target, "!verifier 4");
        let head = format!(
            "\n{rule}Fault injection trace log                       \n{rule}\n\
             Resource fault injection history:\n\
             Tracker @ FFFFFA8002D00000 (# entries: 75, size: 80, depth: 8)\n\n\
             Entry @ FFFFFA8002D020E8 (index 75)\n\n    Thread: FFFFFA80044CEB60\n\n    \
             FFFFF80001927D3D nt!VerifierExAllocatePoolEx+0x1d\n"
        );
        assert!(shown.starts_with(&head), "{shown}");
        // Flags together: level and counters first, then each log.
        let together = text(target, "!verifier c");
        assert!(together.contains(&head) && together.contains("Failed Deliberately   0x75\n"), "{together}");
    });
}

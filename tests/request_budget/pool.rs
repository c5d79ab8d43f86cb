//! What questions about pool by tag cost a live target.

use verikd_sim::windows::{BUILDS, Build, Growth, Scenario};

use super::REPLY;
use super::live::Live;

/// Entries of the simulated kernel's tables.
const ENTRIES: u64 = 0x801;

fn cost(build: &'static Build, processors: u8, command: &str) -> (u64, String) {
    let growth = Growth { processors, ..Growth::default() };
    let cost = Live::grown(build, Scenario::Myfault, growth).cost_of(command);
    println!("{} {processors} {command}: {}", build.name, cost.0);
    cost
}

#[test]
fn one_tag_costs_a_request_for_each_processor_and_a_few() {
    for build in BUILDS {
        let processors = 4;
        let (requests, shown) = cost(build, processors, "!poolused 0 Leak");
        assert!(shown.contains("10280960"), "{shown}");
        assert!(requests <= 3 + u64::from(processors) + 2, "{}: {requests} requests", build.name);
    }
    let (requests, _) = cost(BUILDS[0], 64, "!poolused 0 Leak");
    assert!(requests <= 3 + 64 + 2, "{requests} requests");
}

#[test]
fn every_tag_costs_what_the_tables_take() {
    for (build, entry) in [("7sp1", 0x28), ("10-22h2", 0x38), ("11-25h2", 0x50)] {
        let build = Build::find(build).unwrap();
        let (requests, shown) = cost(build, 4, "!poolused 2");
        assert!(shown.contains(" Leak"), "{shown}");
        let model = 3 + 4 * (ENTRIES * entry).div_ceil(REPLY);
        assert!(requests * 100 <= model * 102, "{}: {requests} requests, the model is {model}", build.name);
    }
}

#[test]
fn ten_large_blocks_of_a_tag_cost_two_requests_each_and_a_few() {
    for build in BUILDS {
        let (requests, shown) = cost(build, 2, "!poolfind Leak");
        assert_eq!(shown.matches("tag Leak, size   0xfb000, Nonpaged pool").count(), 10, "{shown}");
        assert!(requests <= 24, "{}: {requests} requests", build.name);
    }
}

#[test]
fn the_stacks_of_ten_blocks_cost_three_requests_each_and_a_few() {
    // A search through the largest logs takes its time here.
    for build in ["7sp1", "8.1", "10-22h2"].map(|name| Build::find(name).unwrap()) {
        let (requests, shown) = cost(build, 2, "!poolfind -k Leak");
        assert_eq!(shown.matches("myfault!MyfaultDeviceControl+0x358\n").count(), 10, "{shown}");
        assert!(requests <= 24 + 3 * 10 + 10, "{}: {requests} requests", build.name);
        let (requests, shown) = cost(build, 2, "!pool -k fffffa8005400000");
        assert!(shown.contains("\t\t  fffff8800447d634 myfault!MyfaultDeviceControl+0x358\n"), "{shown}");
        assert!(requests <= 10 + 3 + 4, "{}: {requests} requests", build.name);
    }
}

#[test]
fn an_address_costs_ten_requests() {
    for build in BUILDS {
        let (requests, shown) = cost(build, 2, "!pool fffffa8005400000");
        assert!(shown.contains("large page allocation, tag is Leak, size is 0xfb000 bytes"), "{shown}");
        assert!(requests <= 10, "{}: {requests} requests", build.name);
    }
}

#[test]
fn the_machines_pool_costs_a_few_requests() {
    for build in BUILDS {
        let (requests, _) = cost(build, 2, "!vm 1");
        assert!(requests <= 7 + 2, "{}: {requests} requests", build.name);
    }
}

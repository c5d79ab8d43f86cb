//! What the leak report costs beside `!verifier 3`, which lists the blocks and knows no stack.

use verikd_sim::windows::{BUILDS, Build, Growth, Scenario};

use super::live::Live;

/// Requests of each command, each in a stop of its own, on a machine of its own; and what the last one printed.
fn costs(build: &str, scenario: Scenario, growth: Growth, commands: &[&str]) -> (Vec<u64>, String) {
    let build: &'static Build = BUILDS.iter().find(|it| it.name == build).unwrap();
    let ran = commands.iter().map(|command| Live::grown(build, scenario, growth).cost_of(command));
    let (costs, mut texts): (Vec<_>, Vec<_>) = ran.unzip();
    println!("{} {scenario}: {commands:?} {costs:?}", build.name);
    (costs, texts.pop().unwrap())
}

#[test]
fn stacks_of_twenty_thousand_blocks_cost_little_more_than_the_list() {
    for build in ["7sp1", "11-23h2"] {
        let (costs, text) = costs(build, Scenario::Many, Growth::default(), &["!verifier 3", "!leaks"]);
        assert!(costs[1] <= costs[0] + 200, "{build}: {costs:?}");
        assert!(text.contains(" of 6,664 blocks") && text.contains("netfilt!FlowCreate+0x5c"), "{text}");
    }
}

#[test]
fn all_stacks_cost_the_log_at_the_most() {
    let (costs, text) = costs("7sp1", Scenario::Many, Growth::default(), &["!verifier 3", "!leaks -all"]);
    let log = 0x80_0000_u64.div_ceil(super::REPLY);
    assert!(costs[1] * 100 <= (costs[0] + log) * 102, "{costs:?}, the log takes {log}");
    assert!(!text.contains("not looked up"), "{text}");
}

#[test]
fn few_blocks_are_searched_for_whatever_their_addresses_have_seen() {
    let worn = Growth { modules: 200, drivers: 100, reuse: 1000, busy: 0, processors: 0, callers: 0 };
    for (build, scenario, growth) in [
        ("7sp1", Scenario::Myfault, Growth::default()),
        ("7sp1", Scenario::Myfault, worn),
        ("11-25h2", Scenario::BigLog, Growth { reuse: 50, ..worn }),
    ] {
        let commands = ["!verifier 3 myfault.sys", "!leaks myfault.sys"];
        let (costs, text) = costs(build, scenario, growth, &commands);
        assert!(costs[1] <= costs[0] + 150, "{build} {scenario}: {costs:?}");
        assert!(text.contains("1. 10 blocks, 0x9ce000 bytes") && !text.contains("stack of"), "{text}");
    }
}

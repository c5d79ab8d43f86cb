//! What a use of a watched tag costs the machine that stands still for it.

use std::time::Duration;

use verikd::source::Source;
use verikd_sim::windows::Growth;

use super::live::Live;

#[test]
fn a_hit_by_a_path_that_is_known_costs_twelve_requests_at_most() {
    let growth = Growth { processors: 4, callers: 3, ..Growth::default() };
    let live = Live::leaking(growth, Duration::from_millis(40));
    let (mut shell, out) = live.shell();
    shell.break_in().unwrap();
    let mut cost = |line: &str| {
        let before = live.session.counters().requests;
        shell.run(line);
        live.session.counters().requests - before
    };
    let first = cost("!poolhit Leak -n 6");
    // Setting the tag, the first going and taking the tag back are in both.
    let (few, many) = (cost("!poolhit Leak -n 3"), cost("!poolhit Leak -n 23"));
    let counted = cost("!poolhit Leak -n 23 -every 23");
    let (some, followed) = (cost("!poolhit Leak -n 3 -free"), cost("!poolhit Leak -n 23 -free"));
    let printed = out();
    assert_eq!(printed.matches("nt!PoolHitTag is cleared.").count(), 6, "{printed}");
    let a_followed_one = (followed - some).div_ceil(20);
    println!("a hit that is followed to its block {a_followed_one}");
    assert!(a_followed_one <= 18, "{a_followed_one} requests a hit that is followed");
    let a_hit = (many - few).div_ceil(20);
    println!("six hits at first {first}, a later one {a_hit}; {counted} with one stack of 23");
    assert!(a_hit <= 12, "{a_hit} requests a hit");
    assert!(few <= 3 * 12 + 10, "{few} requests for three hits, setting the tag and taking it back");
    assert!(first <= 6 * 12 + 100, "{first} requests for the first six");
}

//! What a snapshot says of limits.
//!
//! ```text
//!  without a baseline   what each driver holds
//!  with one             what it holds more than there, function by function of the driver: what was freed elsewhere does not count
//! ```
//! A baseline is compared by the functions that called the allocator. Of every block the caller is known, its whole path only of
//! those that the log still has; and a driver that is built anew has its functions at other addresses, and other displacements.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::limits::Limits;
use crate::leaks::{Held, SavedGroup, Snapshot};

/// How a driver, or all of them, came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds no more than it may.
    Passed,
    /// Something was not read, so that it may hold more than was seen.
    Unknown,
    /// It holds more than it may.
    Over,
}

/// What was checked, and how it came out.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Gate {
    /// Over if one driver is; else not known if one driver is not.
    pub verdict: Verdict,
    /// What each driver may hold.
    pub limits: Limits,
    /// The tag that blocks had to have, if any.
    pub tag: Option<String>,
    /// When the baseline was made, if there is one: milliseconds since 1970.
    pub baseline_unix_ms: Option<u64>,
    /// When the drivers were counted.
    pub unix_ms: u64,
    /// Each driver.
    pub drivers: Vec<DriverGate>,
    /// What was not read, or does not add up.
    pub missing: Vec<String>,
}

/// How one driver came through.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DriverGate {
    /// Its file name, or what was asked for.
    pub driver: String,
    /// How it came through.
    pub verdict: Verdict,
    /// What it holds; nothing if it was not found.
    pub held: Option<Held>,
    /// How much more than in the baseline, if there is one.
    pub grown: Option<Held>,
    /// Who holds what is too much, the most first; empty unless it is over.
    pub offenders: Vec<Offender>,
}

/// A call path that holds pool of a driver that is over.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Offender {
    /// What it holds.
    pub held: Held,
    /// How much more than in the baseline its function holds, if there is one.
    pub function_grown: Option<Held>,
    /// The tags of its blocks.
    pub tags: Vec<String>,
    /// The call path, from the caller on, by name; the caller alone where the stack is not known.
    pub path: Vec<String>,
    /// Of how many blocks the stack was read.
    pub stacks_known: u64,
}

impl Gate {
    /// Judges what drivers held in `now`. `asked` are the drivers that were named, if some were; `missing` is what takes from
    /// their counts.
    #[must_use]
    pub fn of(
        now: &Snapshot,
        asked: &[String],
        limits: Limits,
        baseline: Option<&Snapshot>,
        mut missing: Vec<String>,
    ) -> Self {
        // What a baseline lacks would count as grown.
        let of_baseline = baseline.iter().flat_map(|baseline| &baseline.notes);
        missing.extend(of_baseline.map(|note| format!("the baseline: {note}")));
        let is_whole = missing.is_empty();
        let mut names: Vec<&str> = now.drivers.iter().map(|driver| driver.name.as_str()).collect();
        // A driver that was loaded anew may be there twice; its groups are of one name.
        let mut known = BTreeSet::new();
        names.retain(|name| known.insert(*name));
        let mut drivers: Vec<_> =
            names.into_iter().map(|name| judged(name, now, limits, baseline, is_whole)).collect();
        let is_found = |name: &&String| now.drivers.iter().any(|driver| is_called(&driver.name, name));
        drivers.extend(asked.iter().filter(|name| !is_found(name)).map(|name| DriverGate {
            driver: name.clone(),
            verdict: Verdict::Unknown,
            held: None,
            grown: None,
            offenders: Vec::new(),
        }));
        let worst = drivers.iter().map(|driver| driver.verdict).max();
        // Nobody was looked at: that is no pass.
        let verdict =
            worst.unwrap_or(Verdict::Unknown).max(if is_whole { Verdict::Passed } else { Verdict::Unknown });
        Self {
            verdict,
            limits,
            tag: now.tag.clone(),
            baseline_unix_ms: baseline.map(|it| it.unix_ms),
            unix_ms: now.unix_ms,
            drivers,
            missing,
        }
    }
}

fn judged(
    driver: &str,
    now: &Snapshot,
    limits: Limits,
    baseline: Option<&Snapshot>,
    is_whole: bool,
) -> DriverGate {
    let groups: Vec<_> = now.groups.iter().filter(|group| group.driver == driver).collect();
    let held = groups.iter().fold(Held::default(), |sum, group| plus(sum, group.held));
    let is_in_it = |baseline: &Snapshot| baseline.drivers.iter().any(|it| is_called(&it.name, driver));
    if baseline.is_some_and(|baseline| !is_in_it(baseline)) {
        let (driver, verdict) = (driver.to_owned(), Verdict::Unknown);
        return DriverGate { driver, verdict, held: Some(held), grown: None, offenders: Vec::new() };
    }
    let growth = baseline.map(|baseline| growth(driver, &groups, baseline));
    let grown = growth.as_ref().map(|growth| growth.values().copied().fold(Held::default(), plus));
    let verdict = match (limits.allow(grown.unwrap_or(held)), is_whole) {
        // What is held cannot be less than was seen; what has grown can.
        (false, whole) if whole || growth.is_none() => Verdict::Over,
        (false, _) => Verdict::Unknown,
        (true, true) => Verdict::Passed,
        (true, false) => Verdict::Unknown,
    };
    let mut offenders = Vec::new();
    if verdict == Verdict::Over {
        let of_group = |group: &&SavedGroup| {
            let function_grown = growth.as_ref().map(|growth| growth[&function(group)]);
            // What is as it was is not what is too much.
            (function_grown != Some(Held::default())).then(|| offender(group, function_grown))
        };
        offenders = groups.iter().filter_map(of_group).collect();
        offenders.sort_by_key(|it| {
            let counted = it.function_grown.unwrap_or(it.held);
            std::cmp::Reverse((counted.bytes, counted.blocks, it.held))
        });
    }
    DriverGate { driver: driver.to_owned(), verdict, held: Some(held), grown, offenders }
}

/// By function of the driver, how much more it holds than in the baseline.
fn growth(driver: &str, groups: &[&SavedGroup], baseline: &Snapshot) -> BTreeMap<String, Held> {
    let mut sums: BTreeMap<String, Held> = BTreeMap::new();
    for group in groups {
        let sum = sums.entry(function(group)).or_default();
        *sum = plus(*sum, group.held);
    }
    for group in baseline.groups.iter().filter(|group| is_called(&group.driver, driver)) {
        if let Some(sum) = sums.get_mut(&function(group)) {
            sum.blocks = sum.blocks.saturating_sub(group.held.blocks);
            sum.bytes = sum.bytes.saturating_sub(group.held.bytes);
        }
    }
    sums
}

fn offender(group: &SavedGroup, function_grown: Option<Held>) -> Offender {
    Offender {
        held: group.held,
        function_grown,
        tags: group.tags.clone(),
        path: group.path.iter().map(|frame| frame.name().into_owned()).collect(),
        stacks_known: group.stacks_known,
    }
}

/// The function that called the allocator: a name without its displacement, or an address.
fn function(group: &SavedGroup) -> String {
    let Some(caller) = group.path.first() else { return String::new() };
    let name = caller.name();
    let is_displacement = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.rsplit_once("+0x") {
        Some((function, displacement)) if is_displacement(displacement) => function.to_owned(),
        _ => name.into_owned(),
    }
}

/// True if `name` is what a user may call the driver: with its extension or without, in any case.
fn is_called(driver: &str, name: &str) -> bool {
    let stem = |text: &str| {
        let lower = text.to_lowercase();
        lower.strip_suffix(".sys").unwrap_or(&lower).to_owned()
    };
    stem(driver) == stem(name)
}

const fn plus(one: Held, other: Held) -> Held {
    Held { blocks: one.blocks.saturating_add(other.blocks), bytes: one.bytes.saturating_add(other.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaks::{HexNumber, SavedDriver, SavedFrame};

    fn group(driver: &str, caller: &str, blocks: u64) -> SavedGroup {
        let frame = |name: &str| SavedFrame { address: HexNumber(1), symbol: Some(name.into()) };
        SavedGroup {
            driver: driver.into(),
            held: Held { blocks, bytes: blocks * 0x10 },
            smallest: 0x10,
            largest: 0x10,
            tags: vec!["Leak".into()],
            newest_age: None,
            oldest_age: None,
            stacks_known: blocks,
            not_in_log: 0,
            allocator: Vec::new(),
            path: vec![frame(caller), frame("nt!IofCallDriver+0x50")],
            list: Vec::new(),
        }
    }

    fn snapshot(drivers: &[&str], groups: Vec<SavedGroup>) -> Snapshot {
        let saved = |name: &&str| SavedDriver { name: (*name).into(), held: Held::default() };
        Snapshot { drivers: drivers.iter().map(saved).collect(), groups, ..Snapshot::empty() }
    }

    fn limits(blocks: u64, bytes: u64) -> Limits {
        Limits { outstanding: Some(blocks), bytes: Some(bytes) }
    }

    #[test]
    fn each_limit_holds_for_each_driver() {
        let now = snapshot(&["a.sys", "b.sys"], vec![group("a.sys", "a!F+0x1", 2), group("b.sys", "b!F", 3)]);
        for (limits, verdict, over) in [
            (limits(3, 0x30), Verdict::Passed, &[][..]),
            (limits(2, 0x30), Verdict::Over, &["b.sys"]),
            (limits(3, 0x1f), Verdict::Over, &["b.sys", "a.sys"]),
            (Limits { outstanding: None, bytes: Some(0x30) }, Verdict::Passed, &[]),
        ] {
            let gate = Gate::of(&now, &[], limits, None, Vec::new());
            assert_eq!(gate.verdict, verdict, "{limits}");
            let is_over = |it: &&DriverGate| it.verdict == Verdict::Over;
            assert_eq!(gate.drivers.iter().filter(is_over).count(), over.len(), "{gate:?}");
            assert!(gate.drivers.iter().filter(is_over).all(|it| over.contains(&it.driver.as_str())));
        }
    }

    #[test]
    fn what_was_not_read_never_passes_and_what_is_over_is_over_all_the_same() {
        let missing = || vec!["a page is not there".to_owned()];
        let now = snapshot(&["a.sys"], vec![group("a.sys", "a!F", 2)]);
        assert_eq!(Gate::of(&now, &[], limits(2, 0x20), None, missing()).verdict, Verdict::Unknown);
        assert_eq!(Gate::of(&now, &[], limits(1, 0x20), None, missing()).verdict, Verdict::Over);
        let asked = ["A".to_owned(), "other.sys".to_owned()];
        let gate = Gate::of(&now, &asked, limits(2, 0x20), None, Vec::new());
        assert_eq!((gate.verdict, gate.drivers.len()), (Verdict::Unknown, 2));
        assert_eq!((gate.drivers[0].verdict, gate.drivers[1].held), (Verdict::Passed, None));
        let nobody = Gate::of(&snapshot(&[], Vec::new()), &[], limits(0, 0), None, Vec::new());
        assert_eq!(nobody.verdict, Verdict::Unknown, "nobody was looked at");
    }

    #[test]
    fn a_baseline_counts_by_function_whatever_else_was_freed_and_wherever_a_new_build_has_it() {
        let baseline = snapshot(&["a.sys"], vec![group("a.sys", "a!F+0x10", 5), group("a.sys", "a!Gone", 9)]);
        let now = snapshot(&["a.sys"], vec![group("a.sys", "a!F+0x3c", 6), group("a.sys", "a!F+0x99", 1)]);
        let gate = |limits| Gate::of(&now, &[], limits, Some(&baseline), Vec::new());
        let over = gate(limits(1, 0x20));
        assert_eq!(over.verdict, Verdict::Over);
        assert_eq!(over.drivers[0].grown, Some(Held { blocks: 2, bytes: 0x20 }));
        assert_eq!(over.drivers[0].offenders[0].path[0], "a!F+0x3c");
        assert_eq!(gate(limits(2, 0x20)).verdict, Verdict::Passed);
        let same = Gate::of(&baseline, &[], limits(0, 0), Some(&baseline), Vec::new());
        assert_eq!(same.verdict, Verdict::Passed);
        let other = snapshot(&["a.sys"], vec![group("a.sys", "a!F", 5), group("a.sys", "a!New", 1)]);
        let gate = Gate::of(&other, &[], limits(0, 0), Some(&baseline), Vec::new());
        assert_eq!(gate.drivers[0].offenders.len(), 1, "a!F holds what it held");
        let torn = Snapshot { notes: vec!["a page was away".to_owned()], ..baseline.clone() };
        let gate = Gate::of(&other, &[], limits(0, 0), Some(&torn), Vec::new());
        assert_eq!((gate.verdict, &*gate.missing[0]), (Verdict::Unknown, "the baseline: a page was away"));
        let without = snapshot(&["b.sys"], Vec::new());
        let gate = Gate::of(&other, &[], limits(0, 0), Some(&without), Vec::new());
        assert_eq!((gate.verdict, gate.drivers[0].grown), (Verdict::Unknown, None), "nothing says what grew");
    }
}

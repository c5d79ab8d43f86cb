//! What is counted, and how it is written.
//!
//! Prometheus keeps a series for each set of labels for weeks, so that labels that a target can invent are bounded: the groups
//! that hold the most have series of their own, and all others are summed in `other`. Sums over the labels stay right.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crc32fast::Hasher;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder,
    NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::leaks::{Held, Look, SavedGroup, Snapshot, StoodStill};
use crate::output::Escaped;

/// Groups with series of their own, unless told otherwise.
pub const MOST_GROUPS: usize = 20;
/// Drivers with series of their own, whatever their groups.
const MOST_DRIVERS: usize = 50;
/// Tags of one group with series of their own.
const MOST_TAGS: usize = 5;
/// What the rest is summed in.
const OTHER: &str = "other";
/// Most characters of a driver, a tag or a frame in a label.
const LONGEST_NAME: usize = 120;
/// Most characters of a whole call path in a label.
const LONGEST_PATH: usize = 2000;

/// Figures of one target, from look to look.
#[derive(Clone, Debug)]
pub struct Figures {
    target: String,
    most_groups: usize,
    taken: u64,
    failed: u64,
    broken_off: u64,
    stood_still: StoodStill,
    is_up: bool,
    last: Option<Last>,
}

/// What the last look that was taken has found.
#[derive(Clone, Debug)]
struct Last {
    unix_ms: u64,
    build: String,
    series: BTreeMap<Labels, Held>,
    /// The whole path of each driver's groups that have series of their own.
    paths: BTreeMap<(String, String), String>,
    /// Groups that have not.
    others: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    driver: String,
    tag: String,
    group: String,
}

impl Figures {
    /// Figures of nothing yet. `target` is what every series calls it; `most_groups` have series of their own.
    #[must_use]
    pub fn new(target: &str, most_groups: usize) -> Self {
        Self {
            target: shown(target),
            most_groups,
            taken: 0,
            failed: 0,
            broken_off: 0,
            stood_still: StoodStill::default(),
            is_up: false,
            last: None,
        }
    }

    /// Counts a look, for which the target stood still this long. What one that was not taken would have found stays as the last
    /// one has it.
    pub fn look(&mut self, look: Look<'_>, stood_still: StoodStill) {
        self.stood_still = self.stood_still.and(stood_still);
        match look {
            Look::Taken(snapshot) => {
                self.taken += 1;
                self.last = Some(Last::of(snapshot, self.most_groups));
            }
            Look::Failed => self.failed += 1,
            Look::BrokenOff => self.broken_off += 1,
        }
        self.is_up = matches!(look, Look::Taken(_));
    }

    /// All of them in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let target = ("target".into(), self.target.clone().into());
        let mut registry = Registry::with_labels(std::iter::once(target));
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a String takes any text");
        text
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, kind, samples } in self.metrics() {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, number) in samples {
                let mut sample = metric.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => sample.encode_counter::<NoLabelSet, _, f64>(&number, None)?,
                    _ => sample.encode_gauge(&number)?,
                }
            }
        }
        Ok(())
    }
}

/// A name, and a number for each set of labels.
struct Metric<'a> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Vec<(&'static str, &'a str)>, Number)>,
}

/// A count, which stays exact, or a measure.
#[derive(Clone, Copy)]
enum Number {
    Count(u64),
    Measure(f64),
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => EncodeGaugeValue::encode(count, encoder),
            Self::Measure(measure) => EncodeGaugeValue::encode(measure, encoder),
        }
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => EncodeCounterValue::encode(count, encoder),
            Self::Measure(measure) => EncodeCounterValue::encode(measure, encoder),
        }
    }
}

impl Figures {
    /// The writer adds `_total` to a counter's name, and `_info` to an info's.
    fn metrics(&self) -> Vec<Metric<'_>> {
        use MetricType::{Counter, Gauge, Info};
        use Number::{Count, Measure};
        let looks = [("taken", self.taken), ("failed", self.failed), ("broken_off", self.broken_off)];
        let mut metrics = vec![
            Metric {
                name: "verikd_up",
                help: "1 if the last look was taken, 0 if it failed or none has been taken yet.",
                kind: Gauge,
                samples: alone(Count(self.is_up.into())),
            },
            Metric {
                name: "verikd_looks",
                help: "Stops at which the target was to be asked, by how that went.",
                kind: Counter,
                samples: looks.map(|(result, count)| (vec![("result", result)], Count(count))).into(),
            },
            Metric {
                name: "verikd_frozen_seconds",
                help: "Time that the target stood still for all looks, whatever became of them.",
                kind: Counter,
                samples: alone(Measure(self.stood_still.total.as_secs_f64())),
            },
            Metric {
                name: "verikd_longest_frozen_seconds",
                help: "The longest stop of the target for a look.",
                kind: Gauge,
                samples: alone(Measure(self.stood_still.longest.as_secs_f64())),
            },
        ];
        let Some(last) = &self.last else { return metrics };
        let held = |number: fn(&Held) -> u64| {
            last.series.iter().map(|(labels, held)| (labels.pairs(), Count(number(held)))).collect()
        };
        let paths = last.paths.iter().map(|((driver, group), path)| {
            (vec![("driver", &**driver), ("group", &**group), ("path", &**path)], Count(1))
        });
        metrics.extend([
            Metric {
                name: "verikd_last_look_timestamp_seconds",
                help: "When the look was taken that the figures of the pool are of.",
                kind: Gauge,
                samples: alone(Measure(last.unix_ms as f64 / 1000.0)),
            },
            Metric {
                name: "verikd_target",
                help: "The Windows build that the target said it is.",
                kind: Info,
                samples: vec![(vec![("build", &last.build)], Count(1))],
            },
            Metric {
                name: "verikd_pool_blocks",
                help: "Outstanding pool blocks of verified drivers, by tag and by the call path that allocated them.",
                kind: Gauge,
                samples: held(|held| held.blocks),
            },
            Metric {
                name: "verikd_pool_bytes",
                help: "Bytes of the same blocks.",
                kind: Gauge,
                samples: held(|held| held.bytes),
            },
            Metric {
                name: "verikd_group",
                help: "The call path of a group, from its caller on.",
                kind: Info,
                samples: paths.collect(),
            },
            Metric {
                name: "verikd_other_groups",
                help: "Groups without a series of their own, since others hold more: they are summed as group other.",
                kind: Gauge,
                samples: alone(Count(last.others)),
            },
        ]);
        metrics
    }
}

/// A number without labels of its own.
fn alone<'a>(number: Number) -> Vec<(Vec<(&'static str, &'a str)>, Number)> {
    vec![(Vec::new(), number)]
}

impl Labels {
    fn new(driver: &str, tag: &str, group: &str) -> Self {
        Self { driver: driver.to_owned(), tag: tag.to_owned(), group: group.to_owned() }
    }

    fn pairs(&self) -> Vec<(&'static str, &str)> {
        vec![("driver", &self.driver), ("tag", &self.tag), ("group", &self.group)]
    }
}

impl Last {
    fn of(snapshot: &Snapshot, most_groups: usize) -> Self {
        let mut groups: Vec<_> = snapshot.groups.iter().map(|group| (name_of(group), group)).collect();
        let order = |(name, group): &(String, &SavedGroup)| {
            (Reverse((group.held.bytes, group.held.blocks)), group.driver.clone(), name.clone())
        };
        groups.sort_by_cached_key(order);
        let drivers = largest(snapshot.groups.iter().map(|group| (&*group.driver, group.held)), MOST_DRIVERS);
        let (mut series, mut paths, mut others) = (BTreeMap::new(), BTreeMap::new(), 0);
        let mut add = |labels: Labels, held: Held| {
            let sum: &mut Held = series.entry(labels).or_default();
            *sum = sum.plus(held);
        };
        for (number, (name, group)) in groups.iter().enumerate() {
            let is_known = drivers.contains(&*group.driver);
            let driver = if is_known { shown(&group.driver) } else { OTHER.to_owned() };
            if !is_known || number >= most_groups {
                add(Labels::new(&driver, OTHER, OTHER), group.held);
                others += 1;
                continue;
            }
            let tags = by_tag(group);
            let own = largest(tags.iter().map(|(tag, held)| (&**tag, *held)), MOST_TAGS);
            for (tag, held) in &tags {
                let tag = if own.contains(&**tag) { shown(tag) } else { OTHER.to_owned() };
                add(Labels::new(&driver, &tag, name), *held);
            }
            paths.insert((driver, name.clone()), path_of(group));
        }
        Self { unix_ms: snapshot.unix_ms, build: snapshot.boot.build.to_string(), series, paths, others }
    }
}

/// The `most` of these that hold the most.
fn largest<'a>(named: impl Iterator<Item = (&'a str, Held)>, most: usize) -> BTreeSet<&'a str> {
    let mut sums: HashMap<&str, Held> = HashMap::new();
    for (name, held) in named {
        let sum = sums.entry(name).or_default();
        *sum = sum.plus(held);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(name, held)| (Reverse((held.bytes, held.blocks)), *name));
    sums.into_iter().take(most).map(|(name, _)| name).collect()
}

/// What a group's blocks hold by tag. Where not each block is listed, all that is known of the rest is that it has one of the
/// group's tags.
fn by_tag(group: &SavedGroup) -> BTreeMap<String, Held> {
    if let [only] = &group.tags[..] {
        return [(only.clone(), group.held)].into();
    }
    let mut sums: BTreeMap<String, Held> = BTreeMap::new();
    let mut listed = Held::default();
    for block in &group.list {
        let held = Held { blocks: 1, bytes: block.size };
        let sum = sums.entry(block.tag.clone()).or_default();
        (*sum, listed) = (sum.plus(held), listed.plus(held));
    }
    if listed != group.held {
        return [(group.tags.join(" "), group.held)].into();
    }
    sums
}

/// What a group is called in every boot: the place that allocated, and a sum of its whole path, since several paths may lead
/// there.
fn name_of(group: &SavedGroup) -> String {
    let mut sum = Hasher::new();
    for frame in &group.path {
        sum.update(frame.name().as_bytes());
        sum.update(b"\n");
    }
    let caller =
        group.path.first().map_or_else(|| "several callers".to_owned(), |frame| shown(&frame.name()));
    if group.stacks_known == 0 && !group.path.is_empty() {
        return format!("{caller} (stack not known)");
    }
    format!("{caller} #{:08x}", sum.finalize())
}

fn path_of(group: &SavedGroup) -> String {
    let frames: Vec<_> = group.path.iter().map(|frame| shown(&frame.name())).collect();
    cut(&frames.join(" < "), LONGEST_PATH)
}

/// A name of the target's as a label has it: on one line, and not longer than a name is. What quotes and backslashes need, the
/// writer sees to.
fn shown(name: &str) -> String {
    if name.is_empty() {
        return "(none)".to_owned();
    }
    cut(&Escaped(name).to_string(), LONGEST_NAME)
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::leaks::{HexNumber, SavedBlock, SavedFrame};

    fn group(driver: &str, path: &[&str], blocks: &[(&str, u64)]) -> SavedGroup {
        let frame = |name: &&str| SavedFrame { address: HexNumber(0x1000), symbol: Some((*name).to_owned()) };
        let block = |(tag, size): &(&str, u64)| SavedBlock {
            address: HexNumber(0x10),
            size: *size,
            tag: (*tag).to_owned(),
            event: None,
            thread: None,
        };
        let mut tags: Vec<String> = blocks.iter().map(|(tag, _)| (*tag).to_owned()).collect();
        tags.sort();
        tags.dedup();
        SavedGroup {
            driver: driver.into(),
            held: Held { blocks: blocks.len() as u64, bytes: blocks.iter().map(|(_, size)| size).sum() },
            smallest: 0,
            largest: 0,
            tags,
            newest_age: None,
            oldest_age: None,
            stacks_known: blocks.len() as u64,
            not_in_log: 0,
            allocator: Vec::new(),
            path: path.iter().map(frame).collect(),
            list: blocks.iter().map(block).collect(),
        }
    }

    fn snapshot(groups: Vec<SavedGroup>) -> Snapshot {
        Snapshot { unix_ms: 1_764_115_200_500, groups, ..Snapshot::empty() }
    }

    fn after(groups: Vec<SavedGroup>, most_groups: usize) -> String {
        let mut figures = Figures::new("lab-7", most_groups);
        figures.look(Look::Taken(&snapshot(groups)), still(250));
        figures.text()
    }

    /// One stop.
    fn still(milliseconds: u64) -> StoodStill {
        let stop = Duration::from_millis(milliseconds);
        StoodStill { stops: 1, total: stop, longest: stop }
    }

    /// The sum of a metric over all its series.
    fn sum(text: &str, metric: &str) -> u64 {
        let numbers = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        numbers.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn figures_are_those_of_the_last_look() {
        let path = ["myfault!MyfaultDeviceControl+0x358", "nt!NtDeviceIoControlFile+0x56"];
        let text =
            after(vec![group("myfault.sys", &path, &[("Leak", 0x100), ("Leak", 0x100), ("Temp", 1)])], 20);
        for line in [
            "verikd_up{target=\"lab-7\"} 1",
            "verikd_looks_total{target=\"lab-7\",result=\"taken\"} 1",
            "verikd_frozen_seconds_total{target=\"lab-7\"} 0.25",
            "verikd_last_look_timestamp_seconds{target=\"lab-7\"} 1764115200.5",
            "# TYPE verikd_pool_bytes gauge",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        let line =
            text.lines().find(|it| it.starts_with("verikd_pool_bytes{") && it.contains("Leak")).unwrap();
        let labels = "target=\"lab-7\",driver=\"myfault.sys\",tag=\"Leak\",group=\"myfault!MyfaultDeviceControl+0x358 #";
        assert!(line.contains(labels) && line.ends_with(" 512"), "{line}");
        assert!(text.contains("path=\"myfault!MyfaultDeviceControl+0x358 < nt!NtDeviceIoControlFile+0x56\""));
    }

    #[test]
    fn a_look_that_failed_leaves_the_last_figures_and_counts() {
        let mut figures = Figures::new("lab-7", 20);
        assert!(figures.text().contains("verikd_up{target=\"lab-7\"} 0\n"), "nothing was seen yet");
        assert!(!figures.text().contains("verikd_last_look_timestamp_seconds"), "and no time is made up");
        figures.look(Look::Taken(&snapshot(vec![group("a.sys", &["a!F"], &[("Tag1", 7)])])), still(1000));
        figures.look(Look::Failed, still(2000));
        let cut =
            StoodStill { stops: 5, total: Duration::from_millis(500), longest: Duration::from_millis(120) };
        figures.look(Look::BrokenOff, cut);
        let text = figures.text();
        for line in [
            "verikd_up{target=\"lab-7\"} 0",
            "verikd_looks_total{target=\"lab-7\",result=\"failed\"} 1",
            "verikd_looks_total{target=\"lab-7\",result=\"broken_off\"} 1",
            "verikd_frozen_seconds_total{target=\"lab-7\"} 3.5",
            "verikd_longest_frozen_seconds{target=\"lab-7\"} 2.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert_eq!(sum(&text, "verikd_pool_bytes"), 7);
    }

    #[test]
    fn what_a_target_can_invent_is_bounded_and_sums_stay_right() {
        let names: Vec<_> = (0..300).map(|it| format!("d{}!F{it}", it % 99)).collect();
        let tags: Vec<_> = (0..40).map(|it| format!("T{it:03}")).collect();
        let groups = (0..300_u64).map(|it| {
            let blocks: Vec<_> = tags.iter().map(|tag| (&**tag, it + 1)).collect();
            group(&format!("d{}.sys", it % 99), &[&names[it as usize]], &blocks)
        });
        let groups: Vec<_> = groups.collect();
        let held = snapshot(groups.clone()).held();
        let text = after(groups, 10);
        let series = text.lines().filter(|line| line.starts_with("verikd_pool_bytes{")).count();
        assert_eq!(series, 10 * (MOST_TAGS + 1) + MOST_DRIVERS + 1, "{text}");
        assert_eq!(
            (sum(&text, "verikd_pool_blocks"), sum(&text, "verikd_pool_bytes")),
            (held.blocks, held.bytes)
        );
        assert!(text.contains("verikd_other_groups{target=\"lab-7\"} 290\n"));
        assert_eq!(text.matches("\nverikd_group_info{").count(), 10);
    }

    #[test]
    fn no_name_breaks_out_of_its_label() {
        let hostile = "a\"} 1\nverikd_up 0 \\ \u{1b}[2J\u{202e}";
        let text = after(
            vec![
                group(hostile, &[hostile, ""], &[(hostile, 5)]),
                group("", &[&"x".repeat(9000)], &[("", 1)]),
            ],
            20,
        );
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("verikd_")), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("verikd_up")).count(), 1);
        // The exposition's own escapes, around ours.
        assert!(text.contains(r#"driver="a\"} 1\\nverikd_up 0 \\ \\x1b[2J\\u{202e}""#), "{text}");
        assert!(text.lines().all(|line| line.len() < 3000));
        assert_eq!(sum(&text, "verikd_pool_bytes"), 6);
    }

    #[test]
    fn paths_by_one_caller_are_told_apart_and_a_boot_changes_no_name() {
        let one = group("a.sys", &["a!F", "nt!A"], &[("T", 1)]);
        let mut moved = one.clone();
        moved.path[0].address = HexNumber(0x7777);
        let other = group("a.sys", &["a!F", "nt!B"], &[("T", 1)]);
        let unknown = SavedGroup { stacks_known: 0, ..group("a.sys", &["a!F"], &[("T", 1)]) };
        assert_eq!(name_of(&one), name_of(&moved));
        assert_ne!(name_of(&one), name_of(&other));
        assert_eq!(name_of(&unknown), "a!F (stack not known)");
    }
}

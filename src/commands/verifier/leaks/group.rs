//! Blocks with their stacks become groups.
//!
//! ```text
//!  stack, innermost first:   nt!VeAllocatePool..   nt!VerifierExAllocatePoolEx   myfault!MyfaultDeviceControl   nt!IovCallDriver ..
//!                            '----- allocator: up to the tracker's caller -----' '------------- call path --------------'
//! ```
//! A block that was not looked up goes with its class, if all that was found of the class is one stack; else it goes by its
//! caller, as one whose allocation is not in the log does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::frames::Frame;
use super::options::{By, LeakQuery};
use super::report::{DriverTotal, Group, LeakReport, LeakedBlock, LeftOut, Stacks, sum};
use super::stacks::{Held, Lookup, Trace};
use crate::commands::pattern::Pattern;
use crate::leaks::BootIdentity;
use crate::target::VirtAddr;

/// What blocks of a group have in common, beside the driver.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Path(Vec<VirtAddr>),
    Caller(VirtAddr),
    Tag(u32),
    Size(u64),
    Thread(Option<VirtAddr>),
}

pub(super) fn report(
    query: &LeakQuery,
    boot: BootIdentity,
    drivers: Vec<DriverTotal>,
    held: &[Held],
    lookup: Lookup,
) -> LeakReport {
    let grouping = Grouping {
        query,
        held,
        lookup: &lookup,
        skip: query.skip.iter().map(|name| Pattern::new(name)).collect(),
        of_class: of_classes(held, &lookup),
    };
    let mut groups = grouping.groups();
    let bytes = sum(held.iter().map(|it| it.block.size));
    for group in &mut groups {
        group.share = if bytes == 0 { 0.0 } else { group.bytes as f64 / bytes as f64 };
    }
    groups.sort_by_key(|group| std::cmp::Reverse((group.bytes, group.blocks)));
    let mut left_out = LeftOut::default();
    let (mut shown, mut hidden) = (Vec::new(), Vec::new());
    for group in groups {
        if group.bytes < query.min || query.top.is_some_and(|top| shown.len() >= top) {
            left_out.groups += 1;
            left_out.blocks += group.blocks;
            left_out.bytes = left_out.bytes.saturating_add(group.bytes);
            hidden.push(group);
        } else {
            shown.push(group);
        }
    }
    LeakReport {
        by: query.by,
        drivers,
        tag: query.tag.clone(),
        blocks: held.len() as u64,
        bytes,
        is_cut: false,
        moment: None,
        log: lookup.log,
        groups: shown,
        left_out,
        hidden,
        is_verbose: query.verbose,
        is_tree: query.tree,
        files: query.files.clone(),
        weight: query.weight,
        skip: query.skip.clone(),
        boot,
        kept_unix_ms: None,
    }
}

/// The only stack that was found of each block's class, for those that have one.
fn of_classes(held: &[Held], lookup: &Lookup) -> HashMap<usize, usize> {
    let mut of_class = HashMap::new();
    for class in &lookup.classes {
        // A class of which every block was looked up needs no sample.
        if class.iter().all(|at| lookup.traces[*at] != Trace::NotLookedUp) {
            continue;
        }
        let found: BTreeSet<_> = class.iter().filter_map(|at| stack_of(lookup.traces[*at])).collect();
        if let [only] = found.iter().collect::<Vec<_>>()[..] {
            let by_caller =
                lookup.stacks[*only].iter().any(|frame| frame.address == held[class[0]].block.caller);
            if by_caller {
                of_class.extend(class.iter().map(|at| (*at, *only)));
            }
        }
    }
    of_class
}

const fn stack_of(trace: Trace) -> Option<usize> {
    match trace {
        Trace::InTracker { stack } => Some(stack),
        Trace::Logged(entry) => Some(entry.stack),
        _ => None,
    }
}

struct Grouping<'a> {
    query: &'a LeakQuery,
    held: &'a [Held],
    lookup: &'a Lookup,
    skip: Vec<Pattern>,
    of_class: HashMap<usize, usize>,
}

impl Grouping<'_> {
    fn groups(&self) -> Vec<Group> {
        let mut members: HashMap<(Arc<str>, Key), Vec<usize>> = HashMap::new();
        let mut order = Vec::new();
        for (at, held) in self.held.iter().enumerate() {
            let key = (Arc::clone(&held.driver), self.key(at));
            members
                .entry(key.clone())
                .or_insert_with(|| {
                    order.push(key);
                    Vec::new()
                })
                .push(at);
        }
        order.into_iter().map(|key| self.group(&key, &members[&key])).collect()
    }

    /// The stack that a block is told to have: its own, or its class's.
    fn stack(&self, at: usize) -> Option<usize> {
        stack_of(self.lookup.traces[at]).or_else(|| self.of_class.get(&at).copied())
    }

    fn key(&self, at: usize) -> Key {
        let block = &self.held[at].block;
        let path = self.stack(at).map(|stack| self.path(stack, block.caller));
        match self.query.by {
            By::Path => match path {
                Some(path) => Key::Path(path.iter().map(|frame| frame.address).collect()),
                None => Key::Caller(block.caller),
            },
            By::Caller => {
                Key::Caller(path.and_then(<[Frame]>::first).map_or(block.caller, |frame| frame.address))
            }
            By::Tag => Key::Tag(block.tag_number),
            By::Size => Key::Size(block.size),
            By::Thread => Key::Thread(match self.lookup.traces[at] {
                Trace::Logged(entry) => Some(entry.thread),
                _ => None,
            }),
        }
    }

    /// How many frames of a stack are the allocator's: those before the caller that the tracker names, and those behind it
    /// that are to be skipped.
    fn allocator_depth(&self, stack: usize, caller: VirtAddr) -> usize {
        let frames = &self.lookup.stacks[stack];
        let own = frames.iter().position(|frame| frame.address == caller).unwrap_or(0);
        let is_skipped = |frame: &&Frame| {
            frame.symbol.as_ref().is_some_and(|symbol| {
                let name = symbol.start().to_string();
                self.skip.iter().any(|pattern| pattern.matches(&name))
            })
        };
        let skipped = frames[own..].iter().take_while(is_skipped).count();
        // A path of nothing would be nobody's.
        if own + skipped < frames.len() { own + skipped } else { own }
    }

    fn path(&self, stack: usize, caller: VirtAddr) -> &[Frame] {
        let path = &self.lookup.stacks[stack][self.allocator_depth(stack, caller)..];
        &path[..path.len().min(self.query.depth.unwrap_or(usize::MAX))]
    }

    fn group(&self, (driver, key): &(Arc<str>, Key), members: &[usize]) -> Group {
        let blocks = || members.iter().map(|at| &self.held[*at].block);
        let ages = || {
            members.iter().filter_map(|at| match self.lookup.traces[*at] {
                Trace::Logged(entry) => Some(entry.age),
                _ => None,
            })
        };
        let tags: BTreeSet<_> = blocks().map(|block| block.tag.clone()).collect();
        let mut stacks = Stacks::default();
        for at in members {
            *match self.lookup.traces[*at] {
                Trace::InTracker { .. } => &mut stacks.in_tracker,
                Trace::Logged(_) => &mut stacks.found,
                Trace::NotInLog => &mut stacks.not_in_log,
                Trace::OtherEvent => &mut stacks.other_event,
                Trace::Unreadable => &mut stacks.unreadable,
                Trace::NotLookedUp => &mut stacks.not_looked_up,
            } += 1;
        }
        let path = self.only_path(members);
        let (allocator, allocators) =
            if path.is_empty() { (Vec::new(), 0) } else { self.allocators(members) };
        Group {
            driver: driver.to_string(),
            blocks: members.len() as u64,
            bytes: sum(blocks().map(|block| block.size)),
            share: 0.0,
            smallest: blocks().map(|block| block.size).min().unwrap_or(0),
            largest: blocks().map(|block| block.size).max().unwrap_or(0),
            tags: tags.into_iter().collect(),
            newest_age: ages().min(),
            oldest_age: ages().max(),
            stacks,
            caller: self.only_caller(members),
            thread: if let Key::Thread(thread) = key { *thread } else { None },
            allocator,
            allocators,
            path,
            list: self.query.keeps_blocks().then(|| members.iter().map(|at| self.listed(*at)).collect()),
        }
    }

    /// The path, if all blocks whose stack is told have the same.
    fn only_path(&self, members: &[usize]) -> Vec<Frame> {
        let caller = |at: usize| self.held[at].block.caller;
        let mut told = members.iter().filter_map(|at| Some((self.stack(*at)?, caller(*at))));
        let Some((stack, of)) = told.next() else { return Vec::new() };
        let path = self.path(stack, of);
        let same = |(other, of): (usize, VirtAddr)| {
            other == stack || addresses(self.path(other, of)).eq(addresses(path))
        };
        if told.all(same) { path.to_vec() } else { Vec::new() }
    }

    /// The allocator's frames that all their stacks have before the path, and how many different ones there are.
    fn allocators(&self, members: &[usize]) -> (Vec<Frame>, u64) {
        let of = |at: &usize| Some((self.stack(*at)?, self.held[*at].block.caller));
        let different: BTreeSet<Vec<VirtAddr>> = members
            .iter()
            .filter_map(of)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|(stack, caller)| {
                addresses(&self.lookup.stacks[stack][..self.allocator_depth(stack, caller)]).collect()
            })
            .collect();
        let Some((stack, caller)) = members.iter().find_map(of) else { return Default::default() };
        let first = &self.lookup.stacks[stack][..self.allocator_depth(stack, caller)];
        let is_common = |(behind, frame): (usize, &Frame)| {
            different.iter().all(|it| it.iter().rev().nth(behind) == Some(&frame.address))
        };
        let common = first.iter().rev().enumerate().take_while(|it| is_common(*it)).count();
        (first[first.len() - common..].to_vec(), different.len() as u64)
    }

    fn only_caller(&self, members: &[usize]) -> Option<Frame> {
        let caller = |at: &usize| self.path(self.stack(*at)?, self.held[*at].block.caller).first().cloned();
        let own = |at: &usize| {
            let block = &self.held[*at].block;
            Frame { address: block.caller, symbol: block.caller_symbol.clone() }
        };
        let mut callers = members.iter().map(|at| caller(at).unwrap_or_else(|| own(at)));
        let first = callers.next()?;
        callers.all(|other| other.address == first.address).then_some(first)
    }

    fn listed(&self, at: usize) -> LeakedBlock {
        let block = &self.held[at].block;
        let entry = match self.lookup.traces[at] {
            Trace::Logged(entry) => Some(entry),
            _ => None,
        };
        LeakedBlock {
            address: block.address,
            size: block.size,
            tag: block.tag.clone(),
            age: entry.map(|entry| entry.age),
            event: entry.map(|entry| entry.event),
            thread: entry.map(|entry| entry.thread),
            stack_is_known: stack_of(self.lookup.traces[at]).is_some(),
        }
    }
}

fn addresses(frames: &[Frame]) -> impl Iterator<Item = VirtAddr> {
    frames.iter().map(|frame| frame.address)
}

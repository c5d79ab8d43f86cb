//! Several small reads as few large ones.

use crate::memory::{Memory, ReadError, VirtAddr, reply_len};

/// Reads every `(address, length)`, neighbours together; the answers are in the order of the questions.
///
/// Ranges that fit in one reply become one read. If that read meets a hole, each of its ranges is read alone, so
/// that a hole between two variables spoils neither.
pub(super) fn read_ranges(
    memory: &dyn Memory,
    ranges: &[(VirtAddr, usize)],
) -> Vec<Result<Vec<u8>, ReadError>> {
    let one_reply = reply_len(memory);
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|index| ranges[*index].0);
    let mut answers: Vec<Option<Result<Vec<u8>, ReadError>>> = vec![None; ranges.len()];
    let mut rest = &order[..];
    while let Some(first) = rest.first() {
        let start = ranges[*first].0;
        let fits = |index: &&usize| {
            let (at, len) = ranges[**index];
            at.since(start).checked_add(len as u64).is_some_and(|end| end <= one_reply)
        };
        let group = &rest[..rest.iter().take_while(fits).count().max(1)];
        rest = &rest[group.len()..];
        for (index, answer) in group.iter().zip(read_group(memory, ranges, group)) {
            answers[*index] = Some(answer);
        }
    }
    answers.into_iter().map(|answer| answer.expect("every range is in one group")).collect()
}

fn read_group(
    memory: &dyn Memory,
    ranges: &[(VirtAddr, usize)],
    group: &[usize],
) -> Vec<Result<Vec<u8>, ReadError>> {
    let start = ranges[group[0]].0;
    let end_of = |index: &usize| ranges[*index].0.since(start) as usize + ranges[*index].1;
    let mut bytes = vec![0; group.iter().map(end_of).max().unwrap_or(0)];
    let whole = memory.read_virtual(start, &mut bytes);
    let alone = |index: &usize| {
        let (at, len) = ranges[*index];
        let mut bytes = vec![0; len];
        memory.read_virtual(at, &mut bytes).map(|()| bytes)
    };
    match whole {
        Err(error) if group.len() == 1 => vec![Err(error)],
        Err(_) => group.iter().map(alone).collect(),
        Ok(()) => {
            let cut = |index: &usize| {
                let (at, len) = ranges[*index];
                Ok(bytes[at.since(start) as usize..][..len].to_vec())
            };
            group.iter().map(cut).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{CountingMemory, ImageMemory};

    #[test]
    fn neighbours_share_a_read_and_answers_keep_the_order_of_the_questions() {
        let mut memory = ImageMemory::new();
        memory.map(VirtAddr(0x1000), (0..=255).collect());
        memory.map(VirtAddr(0x9000), vec![9; 8]);
        let memory = CountingMemory::new(memory);
        let asked = [(VirtAddr(0x10f0), 4), (VirtAddr(0x9000), 8), (VirtAddr(0x1010), 2)];
        let answers = read_ranges(&memory, &asked);
        assert_eq!(answers[0].as_deref(), Ok([0xf0, 0xf1, 0xf2, 0xf3].as_slice()));
        assert_eq!(answers[1].as_deref(), Ok([9; 8].as_slice()));
        assert_eq!(answers[2].as_deref(), Ok([0x10, 0x11].as_slice()));
        assert_eq!(memory.reads(), 2);
    }

    #[test]
    fn a_hole_spoils_only_what_lies_in_it() {
        let mut memory = ImageMemory::new();
        memory.map(VirtAddr(0x1000), vec![1; 0x10]);
        memory.map(VirtAddr(0x1200), vec![2; 0x10]);
        let answers =
            read_ranges(&memory, &[(VirtAddr(0x1000), 4), (VirtAddr(0x1100), 4), (VirtAddr(0x1200), 4)]);
        assert_eq!(answers[0].as_deref(), Ok([1; 4].as_slice()));
        assert!(answers[1].is_err());
        assert_eq!(answers[2].as_deref(), Ok([2; 4].as_slice()));
    }
}

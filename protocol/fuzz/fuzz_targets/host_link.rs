//! A hostile target with the right key, an owner who asks at bad moments, and a virtual clock around a host link.
//!
//! The first byte says how far the session has come; then steps follow, each a length and that many bytes.

#![no_main]

#[path = "../../tests/common/hostile_target.rs"]
mod hostile_target;

use hostile_target::{Start, Step, play};
use libfuzzer_sys::fuzz_target;

/// Steps of one run: more would only make it slow.
const STEPS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let Some((start, mut rest)) = input.split_first() else { return };
    let start = match start % 4 {
        0 => Start::Unknown,
        1 => Start::Connected,
        _ => Start::Stopped,
    };
    let mut steps = Vec::new();
    while let Some((len, tail)) = rest.split_first().filter(|_| steps.len() < STEPS) {
        let (step, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        steps.push(Step::from_bytes(step));
        rest = tail;
    }
    play(start, &steps);
});

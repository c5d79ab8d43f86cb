//! A stream on which anything can come, an owner who asks at bad moments, and a virtual clock around a host link.
//!
//! Steps follow one another, each a length and that many bytes.

#![no_main]

#[path = "../../tests/common/hostile_stream.rs"]
mod hostile_stream;

use hostile_stream::{Step, play};
use libfuzzer_sys::fuzz_target;

/// Steps of one run: more would only make it slow.
const STEPS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let mut steps = Vec::new();
    let mut rest = input;
    while let Some((len, tail)) = rest.split_first().filter(|_| steps.len() < STEPS) {
        let (step, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        steps.push(Step::from_bytes(step));
        rest = tail;
    }
    play(&steps);
});

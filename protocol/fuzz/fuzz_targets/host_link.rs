//! A hostile target with the right key, an owner who asks at bad moments, and a virtual clock around a host link.
//!
//! The first byte says how far the session has come; then steps follow, each a length and that many bytes.

#![no_main]

#[path = "../../tests/common/hostile_target.rs"]
mod hostile_target;

use hostile_target::{play, steps_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (start, steps) = steps_of(input);
    play(start, &steps);
});

//! A stream on which anything can come, an owner who asks at bad moments, and a virtual clock around a host link.
//!
//! Steps follow one another, each a length and that many bytes.

#![no_main]

#[path = "../../tests/common/hostile_stream.rs"]
mod hostile_stream;

use hostile_stream::{play, steps_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| play(&steps_of(input)));

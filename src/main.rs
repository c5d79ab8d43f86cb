//! The `verikd` program.

fn main() {}

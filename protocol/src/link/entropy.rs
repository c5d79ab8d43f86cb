//! Randomness, which comes from outside.

/// Where random bytes come from. Inject a real source in a program and a seeded one in a test.
pub trait Entropy: Send {
    /// Fills `buf` with bytes that nobody can predict.
    fn fill(&mut self, buf: &mut [u8]);
}

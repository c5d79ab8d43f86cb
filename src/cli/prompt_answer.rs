//! How `--prompt-answer` is written.

/// What a script answers the target's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PromptAnswer {
    /// Ignore what is asked about.
    #[default]
    I,
    /// Break into the debugger.
    B,
}

impl PromptAnswer {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::I => "i",
            Self::B => "b",
        }
    }
}

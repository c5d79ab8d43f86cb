//! Commands: what a user types, what is asked of the target for it, and what is answered.
//!
//! ```text
//!  "!verifier 3 myfault.sys" --find--> CommandSpec --run--> Query --Target--> facts (plain data), notes
//!                                                                               |-> text, as WinDbg prints it
//!                                                                               `-> JSON, with the same facts and more
//! ```
//! A query reads and formats nothing; facts are formatted and read nothing. No query has a session, so none can let the
//! target run: commands that can are [`ControlCommand`]s, which the shell carries out. Nor can one write to the target: those
//! that do are a [kind](Run::Change) of their own, and are refused until somebody allows it.

mod allow_write;
mod answer;
mod arguments;
mod breakpoint;
mod bugcheck;
mod change_registers;
mod clock;
mod complete;
mod context;
mod control;
mod dt;
mod dump;
mod echo;
mod edit;
mod error;
mod evaluate;
mod examine;
mod expression;
mod help;
mod known;
mod last_event;
pub mod line;
mod log;
mod memory;
mod modules;
mod more;
mod pattern;
pub mod pool;
mod processor;
mod registers;
mod registry;
mod reload;
mod running;
mod schema;
mod script;
mod short_stops;
mod spec;
mod stack;
mod stepping;
mod symbol_path;
mod time;
mod unassemble;
pub mod verifier;
mod version;
mod write_file;

pub use allow_write::WritesAllowed;
pub use answer::{Answer, AnswerFile, Facts, Found, Moment, Query, WriteFile, ask, told, write_text};
pub use arguments::number;
pub use breakpoint::{
    Breakpoint, BreakpointOrder, Breakpoints, Place, Watched, Which, address_of_go, condition_holds, resolve,
};
pub use bugcheck::{BugCheck, BugCheckQuery};
pub use complete::{Completions, completions, completions_of_target, hint};
pub use context::{Context, Style, VerifierFormat};
pub use control::{LetGo, Restarting, SessionEnds};
pub use error::QueryError;
pub use expression::{Expression, ExpressionCause, ExpressionError};
pub use help::{Help, transcripts};
pub use last_event::{EventCause, LastEvent};
pub use log::{LogFile, LogState};
pub use modules::{ModuleTable, Modules};
pub use more::More;
pub use registry::{COMMANDS, effect_of, find, goes_on};
pub use reload::Reloaded;
pub use schema::Schema;
pub use script::{FileRead, NamedFile, named_file, text_of};
pub use short_stops::{MaxStop, StopsInForce};
pub use spec::{Category, CommandSpec, ControlCommand, Effect, Glued, Run, SymbolCommand, Takes};
pub use stepping::steps;
pub use symbol_path::{Noise, SearchPath};
pub use time::OwnTime;
pub use unassemble::{InstructionLine, end_of_call, instruction_at};
pub use version::{TargetVersion, Version};

pub use crate::target::{Note, NoteCode, NoteKind};

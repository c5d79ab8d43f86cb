//! Every command, and which one a line of the prompt names.

use super::error::QueryError;
use super::spec::{CommandSpec, ControlCommand, Effect, Run, Takes};
use super::{
    allow_write, breakpoint, bugcheck, change_registers, control, dt, dump, echo, edit, evaluate, examine,
    help, known, last_event, log, memory, modules, more, pool, processor, registers, reload, running, script,
    short_stops, stack, stepping, symbol_path, time, unassemble, verifier, version, write_file,
};

/// Every command, in the order in which `.help` lists them.
pub static COMMANDS: &[&CommandSpec] = &[
    &verifier::COMMAND,
    &verifier::leaks::COMMAND,
    &verifier::format::COMMAND,
    &pool::used::COMMAND,
    &pool::find::COMMAND,
    &pool::block::COMMAND,
    &pool::owner::COMMAND,
    &pool::vm::COMMAND,
    &pool::hits::COMMAND,
    &modules::COMMAND,
    &examine::EXAMINE,
    &examine::LIST_NEAREST,
    &dt::COMMAND,
    &memory::D,
    &memory::DA,
    &memory::DB,
    &memory::DC,
    &memory::DD,
    &memory::DDA,
    &memory::DDP,
    &memory::DDS,
    &memory::DDU,
    &memory::DL,
    &memory::DLB,
    &memory::DP,
    &memory::DPA,
    &memory::DPP,
    &memory::DPS,
    &memory::DPU,
    &memory::DQ,
    &memory::DQA,
    &memory::DQP,
    &memory::DQS,
    &memory::DQU,
    &memory::DS_ANSI,
    &memory::DS_UNICODE,
    &memory::DU,
    &memory::DW,
    &memory::S,
    &edit::EA,
    &edit::EB,
    &edit::ED,
    &edit::EP,
    &edit::EQ,
    &edit::EU,
    &edit::EW,
    &edit::EZA,
    &edit::EZU,
    &write_file::COMMAND,
    &registers::COMMAND,
    &processor::COMMAND,
    &stack::K,
    &stack::KB,
    &stack::KC,
    &stack::KF,
    &stack::KN,
    &stack::KV,
    &unassemble::U,
    &unassemble::UB,
    &unassemble::UF,
    &evaluate::EVALUATE,
    &evaluate::FORMATS,
    &echo::COMMAND,
    &time::ECHOTIME,
    &version::COMMAND,
    &version::VERSION,
    &time::TIME,
    &last_event::COMMAND,
    &bugcheck::COMMAND,
    &running::COMMAND,
    &dump::COMMAND,
    &symbol_path::SYMFIX,
    &symbol_path::SYMPATH,
    &symbol_path::SYMPATH_APPEND,
    &reload::COMMAND,
    &symbol_path::SYM,
    &help::COMMAND,
    &more::COMMAND,
    &script::COMMAND,
    &log::LOGOPEN,
    &log::LOGAPPEND,
    &log::LOGCLOSE,
    &log::LOGFILE,
    &control::STATISTICS,
    &control::GO,
    &stepping::TRACE,
    &stepping::STEP,
    &stepping::OUT,
    &breakpoint::SET,
    &breakpoint::SET_ON_ACCESS,
    &breakpoint::LIST,
    &breakpoint::CLEAR,
    &breakpoint::DISABLE,
    &breakpoint::ENABLE,
    &control::REBOOT,
    &control::RESTART,
    &short_stops::COMMAND,
    &allow_write::COMMAND,
    &control::QUIT,
    &control::QUIT_DETACH,
];

/// The extensions whose commands are built in: `!kdexts.verifier`.
const EXTENSIONS: [&str; 4] = ["!kdexts.", "!kext.", "!ext.", "!ntsdexts."];

/// The command that a line of the prompt names, and its arguments.
///
/// # Errors
/// [`QueryError::Unknown`] or [`QueryError::NotHere`]; [`QueryError::Usage`] if something follows a command that takes
/// nothing. An empty line names no command: the caller leaves those out.
pub fn find(line: &str) -> Result<(&'static CommandSpec, &str), QueryError> {
    let line = line.trim();
    if let Some(file) = script::named_file(line) {
        return Ok((&script::COMMAND, file.name));
    }
    let (name, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // `?` alone asks for help, with an expression for its value.
    let name = if line == "?" { help::COMMAND.names[0] } else { name };
    let extension = EXTENSIONS.iter().find(|extension| {
        name.get(..extension.len()).is_some_and(|start| start.eq_ignore_ascii_case(extension))
    });
    let own;
    let name = match extension {
        Some(extension) => {
            own = format!("!{}", &name[extension.len()..]);
            own.as_str()
        }
        None => name,
    };
    // `ds` and `dS` are two commands, `dd` and WinDbg's `dD` too; elsewhere case says nothing.
    let exact = |spec: &&&CommandSpec| spec.names.contains(&name);
    let named = |spec: &&&CommandSpec| spec.names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if known::is_exact(name) {
        return Err(known::unknown(name, COMMANDS));
    }
    if let Some(spec) = COMMANDS.iter().find(exact).or_else(|| COMMANDS.iter().find(named)) {
        return checked(spec, arguments.trim());
    }
    // WinDbg's users type `?1+2`, `lmvm nt` and `.reload/f`.
    let glued = |spec: &&&CommandSpec| {
        let rest = name.strip_prefix(spec.names[0]).filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| spec.takes.glues(rest))
    };
    match COMMANDS
        .iter()
        .find(glued)
        .filter(|_| extension.is_none())
        .filter(|_| known::sentence(name).is_none())
    {
        Some(spec) => checked(spec, line[spec.names[0].len()..].trim()),
        None => Err(known::unknown(name, COMMANDS)),
    }
}

/// The command, if it takes what was typed behind its name.
fn checked<'a>(
    spec: &'static CommandSpec,
    arguments: &'a str,
) -> Result<(&'static CommandSpec, &'a str), QueryError> {
    if std::ptr::eq(spec, &registers::COMMAND) && arguments.contains('=') {
        return Ok((&change_registers::COMMAND, arguments));
    }
    if arguments.is_empty() || spec.takes != Takes::Nothing {
        return Ok((spec, arguments));
    }
    let problem = format!("it takes nothing, so `{arguments}` is too much");
    Err(QueryError::Usage { command: spec.names[0], problem, usage: spec.usage })
}

/// What a command does as it is typed; nothing if there is no such command.
#[must_use]
pub fn effect_of(command: &str) -> Effect {
    find(command).map_or(Effect::Nothing, |(spec, _)| spec.effect())
}

/// True for a command that is typed several times in a row as a rule: a step, the next rows of a long answer.
#[must_use]
pub fn goes_on(command: &str) -> bool {
    use ControlCommand::{More, StepOut, StepOver, Trace};
    let control = find(command).ok().map(|(spec, _)| spec.run);
    matches!(control, Some(Run::Control(Trace | StepOver | StepOut | More)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_command_and_arguments() {
        let (spec, arguments) = find("  !Verifier \t 3  myfault.sys ").unwrap();
        assert_eq!((spec.names[0], arguments), ("!verifier", "3  myfault.sys"));
        assert_eq!(find("g").unwrap().1, "");
        for (line, name, rest) in
            [("?1+2", "?", "1+2"), ("lmvm nt", "lm", "vm nt"), ("lm vm nt", "lm", "vm nt")]
        {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest));
        }
        for (line, name, rest) in [
            ("!kdexts.verifier 3 x", "!verifier", "3 x"),
            ("s-d nt L4 1", "s", "-d nt L4 1"),
            ("!verifier/?", "!verifier", "/?"),
            ("dS nt", "dS", "nt"),
            ("kb5", "kb", "5"),
            ("KVL 5", "kv", "5"),
            ("k b", "k", "b"),
            ("k=1 2", "k", "=1 2"),
            ("ds nt", "ds", "nt"),
            ("DD nt", "dd", "nt"),
        ] {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest), "{line}");
        }
        assert!(find("dD nt").is_err() && find("!kdexts.process").is_err());
        for (line, name, rest) in
            [("?", ".help", ""), (".reload/f", ".reload", "/f"), ("help lm", ".help", "lm")]
        {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest));
        }
        let error = |line| find(line).unwrap_err().to_string();
        assert_eq!(error("!verfy"), "unknown command !verfy; .help lists the commands");
        assert_eq!(
            error("!verifer 3"),
            "unknown command !verifer (is !verifier meant?); .help lists the commands"
        );
        assert!(error("?? 1").starts_with("??: C++ expressions"));
        assert!(error("kd").contains("`k` shows the stack; `dps @$csp L40`"));
    }

    #[test]
    fn what_follows_a_command_that_takes_nothing_is_an_error_of_usage() {
        for line in [".reboot now please", "bl x", "q q", "qd x", "vertarget x", ".bugcheck 1", ".kdstats x"]
        {
            let error = find(line).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("usage: "), "{line}: {error}");
            assert_eq!(effect_of(line), Effect::Nothing, "{line}");
        }
        for (line, effect) in [
            ("g", Effect::Runs),
            (".reboot", Effect::Reboots),
            ("exit", Effect::Ends),
            (".detach", Effect::Ends),
            ("lm", Effect::Reads),
            (".sympath /x", Effect::Symbols),
        ] {
            assert_eq!(effect_of(line), effect, "{line}");
        }
        let changing: Vec<_> = COMMANDS
            .iter()
            .filter(|spec| spec.effect().changes_machine())
            .map(|spec| spec.names[0])
            .collect();
        assert_eq!(
            changing,
            [
                "!poolhit", "ea", "eb", "ed", "ep", "eq", "eu", "ew", "eza", "ezu", "g", "t", "p", "gu",
                ".reboot", ".restart", "q", "qd"
            ]
        );
        assert_eq!((effect_of("r rax=1"), effect_of("r rax")), (Effect::Writes, Effect::Reads));
    }

    #[test]
    fn no_two_commands_share_a_name_and_each_usage_begins_with_its_own() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|spec| spec.names).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for spec in COMMANDS {
            assert!(spec.usage.starts_with(spec.names[0]), "{spec:?}");
            assert_eq!(spec.takes == Takes::Nothing, spec.usage == spec.names[0], "{spec:?}");
        }
    }
}

//! Commands of WinDbg's that are not here: what each would need, what comes nearest; and what an unknown name may have
//! meant.

use super::error::QueryError;
use super::spec::CommandSpec;

/// Names, and what is said of them. A name that ends in `*` stands for all that begin so.
const KNOWN: &[(&[&str], &str)] = &[
    (&["kd"], "`k` shows the stack; `dps @$csp L40` its words and what they point to"),
    (
        &["!stacks", "!findstack"],
        "the stacks of other threads are not looked at; `k` shows that of the processor that stopped",
    ),
    (&["up", "ur", "uu", "ux"], "`u ADDRESS` shows instructions at a virtual address, `uf` a whole function"),
    (
        &["bm", "br", "bs", "bsc"],
        "`bp ADDRESS` sets a breakpoint in code, `ba w 4 ADDRESS` one on data; those of a pattern, and changing one, are not here",
    ),
    (
        &["gh", "gn"],
        "`g` lets the target run; how the exception it stopped for is answered is not chosen here: a break-in, an `int 3`, a \
         step and an assertion that failed count as handled, every other exception does not",
    ),
    (
        &["ta", "tb", "tc", "tct", "th", "tr", "tt", "wt", "pa", "pc", "pct", "ph", "pr", "pt"],
        "`t`, `p` and `gu` step, `g ADDRESS` runs to an address; other ways to step are not here",
    ),
    (
        &["e", "f", "fp", "m", "!ed", "!eb", "!eq"],
        "memory is written by `eb`, `ew`, `ed`, `eq`, `ea` and `eu` here, value by value",
    ),
    (&["|", "||"], "there is one system here; `~1s` chooses a processor of it"),
    (
        &["!poolval", "!lookaside"],
        "of pool, `!pool ADDRESS` shows the blocks of a page, `!poolused` what each tag holds, `!poolfind TAG` where its blocks are",
    ),
    (&[".opendump"], "a dump is opened by starting verikd with -z FILE"),
    (&[".dumpcab"], "no cabinets are made; .dump writes a dump, which cabinet programs pack"),
    (&[".crash"], "the target is not crashed from here; `.reboot` restarts it"),
    (
        &[".kill", ".attach", ".create", ".childdbg", ".abandon"],
        "that is for programs; `.reboot` restarts the machine",
    ),
    (
        &["!ready", "!cpuinfo", "!cpuid", "!smt"],
        "processors are not looked through here; `vertarget` shows the kernel, `~1s` chooses a processor, `r` shows its registers",
    ),
    (&["!analyze"], "nothing is analyzed here; `.bugcheck` shows the bug check's code and parameters"),
    (
        &[
            "!process",
            "!thread",
            "!threads",
            "!sprocess",
            "!token",
            "!job",
            "!session",
            "!apc",
            "!dml_proc",
            ".process",
            ".thread",
            ".tlist",
        ],
        "processes and threads are not listed here; `dt nt!_EPROCESS poi(nt!PsInitialSystemProcess)` shows the first one",
    ),
    (
        &[
            "!irp",
            "!irpfind",
            "!drvobj",
            "!devobj",
            "!devstack",
            "!devnode",
            "!object",
            "!fileobj",
            "!handle",
            "!locks",
            "!qlocks",
            "!deadlock",
            "!dpcs",
            "!timer",
            "!ioctldecode",
            "!wdfkd*",
            "!ndiskd*",
        ],
        "there is no such extension here; `dt nt!_TYPE ADDRESS` shows a structure, `!verifier 100` the log of I/O requests",
    ),
    (
        &[
            "!pcr",
            "!prcb",
            "!idt",
            "!gdt",
            "!pte",
            "!vtop",
            "!ptov",
            "!address",
            "!pfn",
            "!memusage",
            "!sysptes",
            "!vad",
            "!dd",
            "!db",
            "!dq",
            "!du",
            "!dc",
            "!dp",
            "rdmsr",
            "wrmsr",
            "ib",
            "iw",
            "id",
            "ob",
            "ow",
            "od",
            ".effmach",
            ".cache",
            ".pagein",
        ],
        "that part of the machine is not shown here; `dt nt!_KPRCB poi(nt!KiProcessorBlock)` shows a processor, `db` memory",
    ),
    (&["dx", "dv", "!dtdbg"], "there is no such evaluator here; `dt` shows structures, `?` expressions"),
    (&["??"], "C++ expressions are not evaluated here; `?` evaluates WinDbg's own, `dt` shows structures"),
    (
        &["!list", "!dblink", "!dflink"],
        "commands are not run for each entry of a list here; `dl ADDRESS` shows the entries",
    ),
    (
        &["dg", "dD", "df", "dyb", "dyd"],
        "memory is not shown so here; `dps` shows pointers and their symbols, `da` and `du` the text at one, `.help` the other `d` commands",
    ),
    (
        &[
            "!chksym",
            "!itoldyouso",
            "ld",
            ".symopt",
            ".lines",
            "lsa",
            "ls",
            "lsf",
            "l+",
            "l-",
            ".srcpath",
            ".lsrcpath",
        ],
        "sources and symbol options are not used here; `lmv m NAME` shows which symbols a module has, `.reload /f NAME` looks for them",
    ),
    (
        &[".exepath", ".exepath+", ".imgscan", ".fnent", ".dvalloc", ".readmem"],
        "images are read from the target's memory alone; `lmv m NAME` shows what their headers say",
    ),
    (
        &[".load", ".unload", ".chain", ".loadby", ".extmatch", ".extpath", ".scriptload", ".scriptrun"],
        "debugger extensions cannot be loaded here; `.help` lists what is built in",
    ),
    (
        &[".cxr", ".ecxr", ".exr", ".trap", ".frame", ".tss", ".kframes", ".bpcmds"],
        "contexts and frames cannot be chosen here yet; `r` shows the registers of the CPU that stopped",
    ),
    (
        &["sx", "sxd", "sxe", "sxi", "sxn", "sxr", ".breakin", ".kdfiles", ".outmask", ".ocommand", ".pcmd"],
        "which events stop the target cannot be chosen here",
    ),
    (
        &[
            ".cls",
            ".beep",
            ".wtitle",
            ".prefer_dml",
            ".dml_start",
            ".hideinjectedcode",
            ".echotimestamps",
            ".asm",
            ".enable_unicode",
            ".enable_long_status",
            ".force_radix_output",
            "n",
            "so",
            "sq",
            "ss",
            "l",
        ],
        "that setting of the debugger's window or output does nothing here",
    ),
    (&["!lmi"], "`lmv m NAME` shows what the headers of a module say"),
    (&[".printf"], "formats are not printed here; `.echo TEXT` prints a text, `? EXPRESSION` a value"),
    (
        &[".remote", ".server", ".clients", ".endsrv", ".servers", ".noshell", ".sleep", ".wake"],
        "sessions cannot be shared here",
    ),
    (&["!dbgprint", "!dbgprintex", ".ofilter"], "what the target prints is shown as it comes"),
    (
        &["!error", "!gle", "!ext", "!kdexts.help"],
        "there is no such extension here; `.help` lists what is built in",
    ),
    (&["ad", "al", "aS", ".aliascmds", "!aliases"], "there are no aliases here"),
    (
        &[".context", ".fiber", "!teb", "!peb", "!heap", "!gflag", "!gflags", "!avrf", "!runaway", "!uptime"],
        "user mode is not looked at here",
    ),
];

/// True for names that differ from a command's in case only, and mean another command of WinDbg's: `dD` is no `dd`.
pub(super) fn is_exact(name: &str) -> bool {
    name == "dD"
}

/// What is said of a command that WinDbg has and this program lacks.
pub(super) fn sentence(name: &str) -> Option<&'static str> {
    let fits = |known: &&str| match known.strip_suffix('*') {
        Some(start) if !start.is_empty() => {
            name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        }
        _ => known.eq_ignore_ascii_case(name),
    };
    KNOWN.iter().find(|(names, _)| names.iter().any(fits)).map(|(_, sentence)| *sentence)
}

/// The error for a name that none of `commands` has.
pub(super) fn unknown(name: &str, commands: &[&'static CommandSpec]) -> QueryError {
    // `1k`: of processor 1.
    let behind_number = name.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_command = commands.iter().any(|spec| spec.names.contains(&behind_number));
    let of_processor = (behind_number.len() < name.len() && is_command)
        .then_some("`~1s` chooses processor 1, and what is typed behind it is asked of that: ~1s; k");
    match of_processor.or_else(|| sentence(name)) {
        Some(sentence) => QueryError::NotHere { name: name.to_owned(), sentence },
        None => QueryError::Unknown { name: name.to_owned(), nearest: nearest(name, commands) },
    }
}

/// The commands whose names are nearest to an unknown one, the nearest first; none if none is near.
fn nearest(name: &str, commands: &[&'static CommandSpec]) -> Vec<&'static str> {
    /// More would be no help.
    const MOST: usize = 3;
    /// Longer names are no slips of a finger.
    const LONGEST: usize = 32;
    let lower = name.to_ascii_lowercase();
    if lower.len() > LONGEST {
        return Vec::new();
    }
    // One slip in a short name, two in a longer one.
    let slips = if lower.len() < 5 { 1 } else { 2 };
    let letters = |text: &str| text.trim_start_matches(['!', '.']).to_owned();
    let distance = |known: &&'static str| {
        let whole = strsim::damerau_levenshtein(&lower, known);
        // `verifier` and `.verifier` are `!verifier`; `!verifier3` lacks its space.
        let is_same = letters(&lower) == letters(known);
        let is_glued = known.len() > 3 && lower.starts_with(known);
        let distance = if is_same {
            0
        } else if is_glued {
            1
        } else {
            whole
        };
        (distance <= slips && known.len() > 1).then_some((distance, *known))
    };
    let mut near: Vec<_> = commands.iter().flat_map(|spec| spec.names).filter_map(distance).collect();
    near.sort_unstable();
    near.into_iter().map(|(_, known)| known).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::super::registry::COMMANDS;
    use super::*;

    #[test]
    fn a_slip_is_named_by_what_was_meant() {
        for (typed, meant) in [
            ("!verifer", "!verifier"),
            ("!verifier3", "!verifier"),
            ("verifier", "!verifier"),
            ("!bugcheck", ".bugcheck"),
            (".bugchek", ".bugcheck"),
            (".relaod", ".reload"),
            ("vertraget", "vertarget"),
        ] {
            assert_eq!(nearest(typed, COMMANDS).first(), Some(&meant), "{typed}");
        }
        for far in ["", "frobnicate", "!zz", &"x".repeat(100)] {
            assert!(nearest(far, COMMANDS).is_empty(), "{far}");
        }
    }

    #[test]
    fn no_known_name_is_a_command_that_is_here() {
        let here = |name: &&&str| {
            COMMANDS
                .iter()
                .any(|spec| spec.names.iter().any(|it| it.eq_ignore_ascii_case(name) && !is_exact(name)))
        };
        let both: Vec<_> = KNOWN.iter().flat_map(|(names, _)| *names).filter(here).collect();
        assert!(both.is_empty(), "{both:?}");
        assert!(sentence("||").is_some() && sentence("!wdfkd.wdfdevice").is_some());
        assert!(sentence("!frobnicate").is_none());
    }
}

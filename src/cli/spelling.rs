//! The command line as people type it for kd and WinDbg: what verikd has under another name is translated, what makes no
//! difference here is named and left out, and what would make one is refused with what to use instead.
//!
//! Source: Microsoft's pages "KD Command-Line Options" and "WinDbg Command-Line Options".

use std::ffi::OsString;

/// What becomes of an option.
enum Fate {
    /// It is this one here.
    Is(&'static str),
    /// It makes no difference, for this reason.
    Ignored(&'static str),
    /// It would make one: this is what to do.
    Refused(&'static str),
}

use Fate::{Ignored, Is, Refused};

const USER_MODE: &str = "verikd debugs kernels, not programs";
const NO_WORKSPACE: &str = "there is no workspace that could be saved";
const NO_SOURCES: &str = "verikd shows no source lines";
const SYMBOLS_AS_NEEDED: &str = "symbols are loaded when they are needed, and must fit their image";
const NO_LOG: &str = "use 2>&1 | tee FILE for what is printed, --trace FILE for what crosses the link";
const NO_REMOTE: &str =
    "a session is not shared; verikd bridge shows a serial target to debuggers on the network";
const NO_LOCAL: &str = "debugging the machine that verikd runs on is not supported";

/// Options of kd and WinDbg that are not verikd's own: name, arguments that follow it, what becomes of it.
const OPTIONS: &[(&str, usize, Fate)] = &[
    ("-cf", 0, Is("--command-file")),
    ("-cfr", 0, Is("--command-file")),
    ("-?", 0, Is("--help")),
    ("-version", 0, Is("--version")),
    ("-v", 0, Ignored("!sym noisy says what symbols are looked for; verikd --version tells the version")),
    ("-n", 0, Ignored("!sym noisy says what symbols are looked for")),
    ("-Q", 0, Ignored(NO_WORKSPACE)),
    ("-QY", 0, Ignored(NO_WORKSPACE)),
    ("-QS", 0, Ignored(NO_WORKSPACE)),
    ("-QSY", 0, Ignored(NO_WORKSPACE)),
    ("-W", 1, Ignored(NO_WORKSPACE)),
    ("-WF", 1, Ignored(NO_WORKSPACE)),
    ("-WX", 0, Ignored(NO_WORKSPACE)),
    ("-lines", 0, Ignored(NO_SOURCES)),
    ("-srcpath", 1, Ignored(NO_SOURCES)),
    ("-lsrcpath", 1, Ignored(NO_SOURCES)),
    ("-i", 1, Ignored("what an image has to say is read from the target, or from the symbol path")),
    ("-s", 0, Ignored(SYMBOLS_AS_NEEDED)),
    ("-ses", 0, Ignored(SYMBOLS_AS_NEEDED)),
    ("-sicv", 0, Ignored(SYMBOLS_AS_NEEDED)),
    ("-snc", 0, Ignored("C++ names are shown as their symbols have them")),
    ("-snul", 0, Ignored("a name without a module is looked for in nt")),
    ("-sup", 0, Ignored(SYMBOLS_AS_NEEDED)),
    ("-sdce", 0, Ignored("a transfer that fails is told in text")),
    ("-sflags", 1, Ignored(SYMBOLS_AS_NEEDED)),
    ("-sins", 0, Refused("give the path by -y; then _NT_SYMBOL_PATH is not looked at")),
    ("-noshell", 0, Ignored("there is no .shell")),
    ("-noio", 0, Ignored("a script ends by itself")),
    ("-secure", 0, Ignored("no command of the target's or of a script's starts a program")),
    ("-myob", 0, Ignored("there is one version of everything")),
    ("-m", 0, Ignored("a serial line is taken as it is")),
    ("-t", 1, Ignored("errors are shown")),
    ("-r", 1, Ignored("r shows registers")),
    ("-clines", 1, Ignored("a session's output is the terminal's to keep")),
    ("-ee", 1, Ignored("expressions are MASM's")),
    ("-bonc", 0, Ignored("it is for programs; -b breaks in at once")),
    (EXTENSION, 0, Ignored("there are no extension libraries; !verifier is built in")),
    ("-zp", 1, Refused("page files are not read; what is paged out is said where it is missed")),
    (
        "-d",
        0,
        Refused(
            "verikd does not break where the first module is loaded after a restart; -b breaks in at once",
        ),
    ),
    ("-x", 0, Refused("how exceptions are handled cannot be chosen; -b breaks in at once")),
    ("-logo", 1, Refused(NO_LOG)),
    ("-loga", 1, Refused(NO_LOG)),
    ("-logou", 1, Refused(NO_LOG)),
    ("-logau", 1, Refused(NO_LOG)),
    ("-kl", 0, Refused(NO_LOCAL)),
    ("-kx", 1, Refused("EXDI is not supported; KDNET (-k net:...) and serial lines (-k com:...) are")),
    ("-kqm", 0, Refused("-c runs commands without a prompt")),
    ("-p", 1, Refused(USER_MODE)),
    ("-pn", 1, Refused(USER_MODE)),
    ("-pv", 0, Refused(USER_MODE)),
    ("-pe", 0, Refused(USER_MODE)),
    ("-psn", 1, Refused(USER_MODE)),
    ("-o", 0, Refused(USER_MODE)),
    ("-g", 0, Refused("a target runs unless -b stops it; programs are not debugged")),
    ("-G", 0, Refused(USER_MODE)),
    ("-hd", 0, Refused(USER_MODE)),
    ("-server", 1, Refused(NO_REMOTE)),
    ("-remote", 1, Refused(NO_REMOTE)),
    ("-premote", 1, Refused(NO_REMOTE)),
    ("-ries", 0, Refused(NO_REMOTE)),
    ("-iae", 0, Refused("there is no debugger after a crash; verikd is started by hand")),
    ("-iaec", 1, Refused("there is no debugger after a crash; verikd is started by hand")),
    ("-iu", 0, Refused("verikd opens no addresses of a browser")),
];

/// The only option whose argument follows without a space.
const EXTENSION: &str = "-a";

/// Options of verikd's own whose next argument is theirs, whatever it looks like.
const WITH_ARGUMENT: &[&str] = &["-k", "-z", "-y", "-c"];

/// A command line that verikd's parser understands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spelled {
    pub(super) arguments: Vec<OsString>,
    /// What was left out, in sentences.
    pub(super) notes: Vec<String>,
}

/// Translates a command line, the program's name included.
///
/// # Errors
/// A sentence about what verikd does not do.
pub(super) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Result<Spelled, String> {
    let mut arguments = arguments.into_iter().peekable();
    let mut spelled = Spelled::default();
    spelled.arguments.extend(arguments.next());
    // Subcommands are verikd's own, and so are their options.
    if !arguments.peek().is_some_and(|it| it.to_string_lossy().starts_with(['-', '/'])) {
        spelled.arguments.extend(arguments);
        return Ok(spelled);
    }
    while let Some(argument) = arguments.next() {
        let dashed = with_dash(&argument);
        if WITH_ARGUMENT.contains(&dashed.as_str()) {
            spelled.arguments.push(dashed.into());
            spelled.arguments.extend(arguments.next());
            continue;
        }
        let is_it = |name: &str| name == dashed || name == EXTENSION && dashed.starts_with(EXTENSION);
        match OPTIONS.iter().find(|(name, ..)| is_it(name)) {
            None => spelled.arguments.push(argument),
            Some((_, _, Is(name))) => {
                spelled.arguments.push((*name).into());
                if *name == "--command-file" {
                    spelled.arguments.extend(arguments.next());
                }
            }
            Some((name, following, Ignored(why))) => {
                spelled.notes.push(format!("{name} is ignored: {why}"));
                for _ in 0..*following {
                    arguments.next();
                }
            }
            Some((name, _, Refused(instead))) => return Err(format!("{name}: {instead}")),
        }
    }
    Ok(spelled)
}

/// `/k` as `-k`: both are WinDbg's. What else begins with a slash is a path.
fn with_dash(argument: &OsString) -> String {
    let text = argument.to_string_lossy();
    let Some(name) = text.strip_prefix('/') else { return text.into_owned() };
    let dashed = format!("-{name}");
    let is_option = OPTIONS.iter().any(|(it, ..)| *it == dashed) || WITH_ARGUMENT.contains(&dashed.as_str());
    if is_option { dashed } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(Into::into).collect()
    }

    fn translated(text: &str) -> (String, Vec<String>) {
        let Spelled { arguments, notes } = translate(words(text)).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|it| it.to_string_lossy().into_owned()).collect();
        (arguments.join(" "), notes)
    }

    #[test]
    fn what_has_another_name_here_is_translated() {
        assert_eq!(translated("verikd -k x -cf f.txt").0, "verikd -k x --command-file f.txt");
        assert_eq!(translated("verikd /k x /y z -b").0, "verikd -k x -y z -b");
        assert_eq!(translated("verikd -?").0, "verikd --help");
        assert_eq!(translated("verikd").0, "verikd");
    }

    #[test]
    fn what_makes_no_difference_is_left_out_with_its_argument_and_named() {
        let (arguments, notes) = translated("verikd -Q -n -v -W space -akdexts -k x -c q");
        assert_eq!(arguments, "verikd -k x -c q");
        assert_eq!(notes.len(), 5, "{notes:?}");
        assert!(notes[0].starts_with("-Q is ignored: there is no workspace"), "{notes:?}");
    }

    #[test]
    fn what_would_make_a_difference_is_refused_with_what_to_use() {
        for (line, wanted) in [
            ("verikd -zp pagefile.sys", "page files are not read"),
            ("verikd -k x -logo log.txt", "tee"),
            ("verikd -d -k x", "-b breaks in at once"),
            ("verikd -p 4711", "kernels"),
            ("verikd -kl", "not supported"),
            ("verikd -remote tcp:port=1", "bridge"),
        ] {
            let error = translate(words(line)).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn an_argument_of_an_option_and_a_subcommand_s_options_are_left_as_they_are() {
        assert_eq!(translated("verikd -c -v -k -z").0, "verikd -c -v -k -z");
        assert_eq!(translated("verikd capture -z /k").0, "verikd capture -z /k");
        assert_eq!(translated("verikd --trace /tmp/t -k x").0, "verikd --trace /tmp/t -k x");
    }

    #[test]
    fn no_option_is_listed_twice() {
        let mut names: Vec<&str> = OPTIONS.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

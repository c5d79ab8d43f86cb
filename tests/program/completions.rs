//! What shells and man(1) are told of the command line.

#[cfg(unix)]
use std::process::Command;

use crate::program::verikd;

#[test]
fn every_shell_gets_a_script_that_knows_the_subcommands_and_their_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = verikd(&["completions", shell]);
        assert_eq!(script.code, 0, "{shell}: {}", script.err);
        for known in ["check", "max-outstanding", "total-freeze-budget", "export-symbols"] {
            assert!(script.out.contains(known), "{shell}: {known}");
        }
    }
    assert_eq!(verikd(&["completions", "csh"]).code, 2);
}

/// As bash does it when Tab is pressed behind `verikd che` and `verikd check --max-o`.
#[cfg(unix)]
#[test]
fn bash_completes_a_subcommand_and_its_option() {
    let script = verikd(&["completions", "bash"]).out;
    for (typed, wanted) in [("verikd che", "check"), ("verikd check --max-o", "--max-outstanding")] {
        let words: Vec<_> = typed.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let ask = format!(
            "{script}\nCOMP_WORDS=({typed}); COMP_CWORD={}; _verikd verikd '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\"",
            words.len() - 1
        );
        let Ok(bash) = Command::new("bash").args(["--norc", "-c", &ask]).output() else {
            eprintln!("skipped: there is no bash");
            return;
        };
        let reply = String::from_utf8_lossy(&bash.stdout);
        assert!(reply.split_whitespace().any(|it| it == wanted), "{typed}: {reply}");
    }
}

#[test]
fn the_manual_has_every_subcommand_its_options_and_the_exit_codes() {
    let page = verikd(&["man"]);
    assert_eq!(page.code, 0, "{}", page.err);
    assert!(page.out.contains(".TH verikd 1"), "{}", &page.out[..200]);
    let text = page.out.replace('\\', "");
    for known in [
        "VERIKD CHECK",
        "--max-outstanding",
        "VERIKD RUN",
        "--total-freeze-budget",
        "no target connected in time",
    ] {
        assert!(text.contains(known), "{known}");
    }
}

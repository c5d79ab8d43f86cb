//! `verikd completions SHELL`, `verikd man`: what shells and man(1) want to know of the command line.

use std::io::{self, Write};

use clap_complete::Shell;

use super::exit::fail;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Whose form: bash, elvish, fish, powershell or zsh
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints what makes a shell complete verikd's arguments.
pub(super) fn completions(options: &Options, mut command: clap::Command) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "verikd", &mut script);
    print(&script)
}

/// Prints the manual, all subcommands in one page.
pub(super) fn man(mut command: clap::Command) -> u8 {
    command.build();
    let mut page = Vec::new();
    match pages(&command, &mut page) {
        Ok(()) => print(&page),
        Err(error) => fail(&error),
    }
}

/// The page of verikd, then what its subcommands have of their own.
fn pages(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        writeln!(page, ".SH \"VERIKD {}\"", sub.get_name().to_uppercase())?;
        let mut own = Vec::new();
        man.render_synopsis_section(&mut own)?;
        man.render_description_section(&mut own)?;
        man.render_options_section(&mut own)?;
        // Sections of a page of its own are parts of this one's.
        page.extend(String::from_utf8_lossy(&own).replace(".SH ", ".SS ").into_bytes());
    }
    Ok(())
}

fn print(text: &[u8]) -> u8 {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
        _ => 0,
    }
}

//! What is for reading: completions of shells, the pages of the manual, and pages of help.
//!
//! Pages come from the definitions of the arguments. The headings of a command's closing words become sections, and
//! what no definition has is in `docs/man`.

use super::args::{Cli, book};
use super::completing;
use super::exit::Exit;
use super::report::{self, Error};
use book::BookCommand;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io::{self, Write};
use std::path::Path;

/// The date of the pages: of the last change of a command.
const DATE: &str = "2026-11-23";
/// Sections of all pages.
const SECTIONS: [&str; 3] = [
    include_str!("../../docs/man/environment.roff"),
    include_str!("../../docs/man/files.roff"),
    include_str!("../../docs/man/security.roff"),
];
/// Headings of closing words, and the sections that they become.
const HEADINGS: [(&str, &str); 3] =
    [("Examples:", "EXAMPLES"), ("Exit codes:", "EXIT STATUS"), ("Quick start:", "EXAMPLES")];

/// Runs a command of the book.
#[must_use]
pub fn run(command: BookCommand) -> Exit {
    let done = match command {
        BookCommand::Completions { shell } => completing::script(shell).and_then(|script| print(&script)),
        BookCommand::ExitCodes => print(format!("{}\n", book::EXIT_CODES).as_bytes()),
        BookCommand::Rates => print(format!("{}\n", book::RATES).as_bytes()),
        BookCommand::Manual { dir } => write(&dir),
    };
    match done {
        Ok(()) => Exit::Complete,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|e| Error::Environment(format!("cannot write to standard output: {e}; check where it goes")))
}

/// Writes the pages of all commands that are shown.
fn write(dir: &Path) -> Result<(), Error> {
    let mut root = without_help(Cli::command());
    root.build();
    let mut pages = vec![("mcp".to_owned(), root)];
    while let Some((name, command)) = pages.pop() {
        let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
        pages.extend(shown.map(|c| (format!("{name}-{}", c.get_name()), c.clone())));
        let path = dir.join(format!("{name}.1"));
        page(&name, command).and_then(|page| std::fs::write(&path, page)).map_err(|e| {
            Error::Environment(format!("cannot write {}: {e}; check the directory", path.display()))
        })?;
    }
    Ok(())
}

/// Leaves out what explains other commands.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// The page of a command.
fn page(name: &str, command: Command) -> io::Result<Vec<u8>> {
    let closing = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let subcommands: Vec<String> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(|c| format!("{name}-{}", c.get_name()))
        .collect();
    let mut out = Vec::new();
    let man = Man::new(command);
    writeln!(out, ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '")?;
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, ".TH \"{}\" \"1\" \"{DATE}\" \"mcp {version}\" \"mcp\"", name.to_uppercase())?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // A break beside a blank line is one too many for mandoc.
    let options = String::from_utf8_lossy(&options).replace(".br\n\n.br\n", ".sp\n");
    out.write_all(options.as_bytes())?;
    if !subcommands.is_empty() {
        man.render_subcommands_section(&mut out)?;
    }
    for (title, lines) in sections(&closing) {
        writeln!(out, ".SH \"{title}\"\n.nf")?;
        for line in lines {
            writeln!(out, "{}", escaped(line))?;
        }
        writeln!(out, ".fi")?;
    }
    for section in SECTIONS {
        out.write_all(section.as_bytes())?;
    }
    let (parent, _) = name.rsplit_once('-').unwrap_or(("mcp-doctor", ""));
    writeln!(out, ".SH \"SEE ALSO\"")?;
    let also: Vec<String> = std::iter::once(parent.to_owned())
        .chain(subcommands)
        .map(|page| format!(".BR {} (1)", escaped(&page)))
        .collect();
    writeln!(out, "{}", also.join(" ,\n"))?;
    Ok(out)
}

/// Cuts closing words at their headings. Words without a heading are notes. No blank lines are left at either end.
fn sections(closing: &str) -> Vec<(&'static str, Vec<&str>)> {
    let mut sections: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for line in closing.lines() {
        match HEADINGS.iter().find(|(heading, _)| *heading == line) {
            Some((_, title)) => sections.push((title, Vec::new())),
            None => {
                if sections.is_empty() {
                    sections.push(("NOTES", Vec::new()));
                }
                if let Some((_, lines)) = sections.last_mut()
                    && !(lines.is_empty() && line.is_empty())
                {
                    lines.push(line);
                }
            }
        }
    }
    for (_, lines) in &mut sections {
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
    }
    sections.retain(|(_, lines)| !lines.is_empty());
    sections
}

/// A line as roff takes it.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_words_become_sections() {
        let found = sections("A note.\n\nExamples:\n  mcp send -x\n\nExit codes:\n  0    done\n");
        let wanted = vec![
            ("NOTES", vec!["A note."]),
            ("EXAMPLES", vec!["  mcp send -x"]),
            ("EXIT STATUS", vec!["  0    done"]),
        ];
        assert_eq!(found, wanted);
        assert!(sections("").is_empty());
    }

    #[test]
    fn lines_that_roff_would_take_for_its_own() {
        assert_eq!(escaped(".x 'a' -b \\"), "\\&.x \\(aqa\\(aq \\-b \\e");
        assert_eq!(escaped("'mcp'"), "\\(aqmcp\\(aq");
    }
}

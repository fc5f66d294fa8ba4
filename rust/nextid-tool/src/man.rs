// SPDX-License-Identifier: GPL-2.0

//! The man pages, which come from the command line.

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{Cli, EXIT_STATUSES_OF_PROGRAMS};
use crate::failure::STATUSES;

/// The page of a command, or the one of all.
pub fn page(command: Option<&str>) -> Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    all = all.mut_subcommand("help", |help| help.hide(true));
    let Some(name) = command else { return render(all.after_long_help(None::<&str>), true) };
    match all.find_subcommand(name) {
        Some(found) => render(found.clone().display_name(format!("nextid-{name}")), false),
        None => all.error(ErrorKind::InvalidValue, format!("no command {name}")).exit(),
    }
}

fn render(command: Command, is_main: bool) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let page = Man::new(command).manual("User Commands");
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    let mut end = Roff::new();
    if is_main {
        page.render_subcommands_section(&mut text)?;
        exit_status(&mut end);
        end.control("SH", ["SEE ALSO"]);
        end.text([bold("proc_pid_next_id"), roman("(5), "), bold("criu"), roman("(8)")]);
    } else {
        end.control("SH", ["SEE ALSO"]);
        end.text([bold("nextid"), roman("(1), "), bold("proc_pid_next_id"), roman("(5)")]);
    }
    end.to_writer(&mut text)?;
    Ok(text)
}

fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (status, text) in STATUSES {
        page.control("TP", ["4"]).text([roman(status.to_string())]);
        page.text([roman(text.replace('\n', " "))]);
    }
    page.control("PP", []).text([roman(EXIT_STATUSES_OF_PROGRAMS)]);
}

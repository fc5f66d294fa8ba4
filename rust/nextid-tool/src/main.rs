// SPDX-License-Identifier: GPL-2.0

//! `nextid`: create processes and System V IPC objects with chosen ids.

mod cli;
mod create;
mod failure;
mod probe;
mod program;
mod report;
mod reserve;
mod restore;
mod show;
mod who;

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use nextid::{Error, Method, NextId};
use nix::sys::signal::{SigHandler, Signal, signal};

use cli::{Cli, Command};
use probe::Probe;
use who::Holders;

const BAD: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Yellow.on_default();

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            report::tell(format_args!("{BAD}nextid:{BAD:#} {}", failure::text(&error)));
            failure::status(&error).into()
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let open = || open(cli.fallback);
    match &cli.command {
        Command::Probe(output) => return probe(output.json),
        Command::Run(run) => return create::run(cli.fallback, run),
        Command::Msg(queue) => {
            create::queue(open()?, queue)?.report(queue.output.json)?;
        }
        Command::Sem(set) => {
            create::semaphores(open()?, set)?.report(set.object.output.json)?;
        }
        Command::Shm(segment) => {
            create::segment(open()?, segment)?.report(segment.object.output.json)?;
        }
        Command::Show(process) => report::print(&show::show(process.pid)?, process.output.json)?,
        Command::Who(who) => {
            let holders = Holders::of(&who.ids);
            report::print(&holders, who.output.json)?;
            return Ok(holders.exit_code());
        }
        Command::Reserve(options) => return reserve::reserve(options),
        Command::Restore(options) => return restore::restore(cli.fallback, options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "nextid", &mut script);
            io::stdout().write_all(&script)?;
        }
        Command::Man { command } => io::stdout().write_all(&man(command.as_deref())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn probe(json: bool) -> Result<ExitCode> {
    let probe = Probe::new()?;
    report::print(&probe, json)?;
    Ok(probe.exit_code())
}

/// The man page of a command, or the one of all.
fn man(command: Option<&str>) -> Result<Vec<u8>> {
    let mut page = Cli::command();
    page.build();
    if let Some(name) = command {
        let Some(found) = page.find_subcommand(name) else {
            page.error(ErrorKind::InvalidValue, format!("no command {name}")).exit();
        };
        page = found.clone().display_name(format!("nextid-{name}"));
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(text)
}

/// Opens the file of this thread, or goes without, and says what is lost where something is.
fn open(fallback: bool) -> Result<NextId> {
    let next = match NextId::open() {
        Err(Error::NotSupported(_)) if fallback => NextId::open_or_fallback()?,
        next @ Err(Error::NotSupported(_)) => {
            next.context("without --fallback, this takes next_id")?
        }
        next => next?,
    };
    let kernel = match next.method() {
        Method::NextId => return Ok(next),
        Method::Fallback => "this kernel has no next_id",
        _ => "the next_id of this kernel is an older one",
    };
    report::tell(format_args!("{NOTE}nextid:{NOTE:#} {kernel}; using {}", next.method()));
    Ok(next)
}

/// Lets this process wait for children, and returns what it inherited: who ignores SIGCHLD, as a
/// program may from its start, cannot.
fn heed_children() -> nix::Result<SigHandler> {
    // SAFETY: No handler is set.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
}

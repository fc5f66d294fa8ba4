// SPDX-License-Identifier: GPL-2.0

//! `nextid`: create processes and System V IPC objects with chosen ids.

mod cli;
mod create;
mod failure;
mod man;
mod method;
mod probe;
mod program;
mod report;
mod reserve;
mod restore;
#[cfg(test)]
mod sample;
mod show;
mod who;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use probe::Probe;
use who::Holders;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            failure::tell(&error);
            failure::status(&error).into()
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let open = || method::open(cli.fallback);
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
        Command::Man { command } => io::stdout().write_all(&man::page(command.as_deref())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn probe(json: bool) -> Result<ExitCode> {
    let probe = Probe::new()?;
    report::print(&probe, json)?;
    Ok(probe.exit_code())
}

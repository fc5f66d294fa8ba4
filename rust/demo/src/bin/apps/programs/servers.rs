// SPDX-License-Identifier: GPL-2.0

//! Programs that answer at a socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use demo::restore::call;
use nix::unistd::{Pid, User};

use super::start::{in_namespaces, in_session, path};
use crate::program::{Answer, Program};

/// A program that listens at the socket `socket` of its folder.
pub struct Server {
    name: &'static str,
    start: fn(&Path) -> Result<Pid>,
    /// What is asked for its count.
    request: &'static str,
    /// Takes the answer out of what comes back.
    answer: fn(&str) -> Option<&str>,
}

pub const REDIS: Server = Server {
    name: "redis",
    start: |folder| {
        let socket = path(folder, "socket");
        let options = ["--port", "0", "--save", "", "--unixsocket", &socket];
        in_session(folder, &[&["redis-server"], options.as_slice()].concat())
    },
    request: "INCR n\r\nQUIT\r\n",
    answer: |text| text.strip_prefix(':'),
};

pub const NGINX: Server = Server {
    name: "nginx",
    start: |folder| {
        let folder_name = folder.to_string_lossy();
        let config = include_str!("nginx.conf").replace("FOLDER", &folder_name);
        fs::write(folder.join("nginx.conf"), config)?;
        remove_socket(folder)?;
        let [config, log] = ["nginx.conf", "error.log"].map(|name| path(folder, name));
        in_session(folder, &["nginx", "-e", &log, "-p", &folder_name, "-c", &config])
    },
    request: "GET / HTTP/1.0\r\n\r\n",
    answer: |text| Some(text.split_once("\r\n\r\n")?.1),
};

pub const PYTHON: Server = Server {
    name: "python",
    start: |folder| {
        fs::write(folder.join("pool.py"), include_str!("pool.py"))?;
        remove_socket(folder)?;
        in_session(folder, &["/usr/bin/python3", "pool.py", &path(folder, "socket")])
    },
    request: "",
    answer: |text| Some(text),
};

pub const PERL: Server = Server {
    name: "perl",
    start: |folder| {
        fs::write(folder.join("ipc.pl"), include_str!("ipc.pl"))?;
        remove_socket(folder)?;
        in_namespaces(folder, &["perl", "ipc.pl", &path(folder, "socket")])
    },
    request: "",
    answer: |text| Some(text),
};

impl Program for Server {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        (self.start)(folder)
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        let mut stream = UnixStream::connect(folder.join("socket"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(self.request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Answer::new((self.answer)(&text).with_context(|| format!("no answer: {text:?}"))?)
    }
}

/// Removes the socket of an instance that was killed.
fn remove_socket(folder: &Path) -> Result<()> {
    let socket = folder.join("socket");
    if socket.exists() {
        fs::remove_file(socket)?;
    }
    Ok(())
}

/// `PostgreSQL`, whose shared memory is System V's.
pub struct Postgresql;

pub const POSTGRESQL: Postgresql = Postgresql;

/// Runs a command as the user that the package made.
const AS_POSTGRES: [&str; 4] =
    ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];

impl Postgresql {
    /// A program of the newest version that is installed.
    fn program(name: &str) -> Result<String> {
        let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL is not installed")?
            .flatten()
            .map(|entry| entry.path().join("bin").join(name))
            .filter(|program| program.exists())
            .collect();
        versions.sort();
        let program = versions.pop().context("PostgreSQL is not installed")?;
        Ok(program.to_string_lossy().into_owned())
    }

    fn call(folder: &Path, command: &[&str]) -> Result<String> {
        call(Command::new(AS_POSTGRES[0]).args(&AS_POSTGRES[1..]).args(command).current_dir(folder))
    }
}

impl Program for Postgresql {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        let data = path(folder, "data");
        if !Path::new(&data).exists() {
            let user = User::from_name("postgres")?.context("there is no user postgres")?;
            chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            fs::set_permissions(folder, PermissionsExt::from_mode(0o700))?;
            Self::call(
                folder,
                &[&Self::program("initdb")?, "--no-sync", "-A", "trust", "-D", &data],
            )?;
            let config =
                include_str!("postgresql.conf").replace("FOLDER", &folder.to_string_lossy());
            fs::write(folder.join("data/postgresql.conf"), config)?;
        }
        let server = Self::program("postgres")?;
        // CRIU takes the /proc of the first process, which has to be one with privilege.
        let init = ["bash", "-c", "\"$@\" & wait", "-"];
        in_namespaces(folder, &[&init, AS_POSTGRES.as_slice(), &[&server, "-D", &data]].concat())
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        let host = folder.to_string_lossy();
        let query = "create sequence if not exists n; select nextval('n')";
        let psql = ["psql", "-h", &host, "-qAt", "-c", query, "postgres"];
        Answer::new(&Self::call(folder, &psql)?)
    }
}

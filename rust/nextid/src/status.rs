// SPDX-License-Identifier: GPL-2.0

//! `/proc/<pid>/status`.

use std::path::Path;
use std::{fs, io};

/// What the `status` file of a process or thread tells.
///
/// ```
/// use nextid::Status;
///
/// let own = Status::read("/proc/thread-self")?;
/// assert!(!own.name().is_empty());
/// // From the pid namespace of /proc inwards.
/// assert_eq!(own.ids("NSpid").last(), own.ids("NSpid").iter().last());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Status(String);

impl Status {
    /// Reads that of the task whose folder in `/proc` is `folder`. Its name need not be UTF-8,
    /// since the kernel cuts it off after 15 bytes: U+FFFD stands for what is not.
    ///
    /// # Errors
    ///
    /// Where it cannot be read: there is no such task.
    pub fn read(folder: impl AsRef<Path>) -> io::Result<Self> {
        let status = fs::read(folder.as_ref().join("status"))?;
        Ok(Self(String::from_utf8_lossy(&status).into_owned()))
    }

    /// What follows `name:`, nothing where this kernel has no such line.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    }

    /// The name of the task.
    #[must_use]
    pub fn name(&self) -> &str {
        self.field("Name")
    }

    /// The ids in a line, such as `NSpid`, from the pid namespace of `/proc` inwards.
    #[must_use]
    pub fn ids(&self, name: &str) -> Vec<i64> {
        // A kernel without CONFIG_PID_NS has one namespace, and no such line.
        let line = match (name, self.field(name)) {
            ("NSpid", "") => self.field("Pid"),
            (_, line) => line,
        };
        line.split_whitespace().map_while(|id| id.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_pid_namespaces_has_one_id() {
        assert_eq!(Status("Name:\tsh\nPid:\t7\n".into()).ids("NSpid"), [7]);
        assert_eq!(Status("Pid:\t7\nNSpid:\t7\t1\n".into()).ids("NSpid"), [7, 1]);
    }
}

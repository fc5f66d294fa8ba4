// SPDX-License-Identifier: GPL-2.0

//! Whether two builds made the same code of a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionFlags};

/// The files that the series changes and every kernel has, as kbuild names them.
pub const FILES: [&str; 6] =
    ["kernel/fork.o", "kernel/pid.o", "kernel/exit.o", "ipc/util.o", "fs/exec.o", "fs/proc/base.o"];

/// All that gets into memory of an object file: each section with its bytes, and what is to be
/// written over them: where, how, and the address of what.
type Contents = BTreeMap<String, (Vec<u8>, Vec<String>)>;

/// Returns the names of the sections in which `file` differs between the builds in `one` and
/// `other`.
pub fn differences(one: &Path, other: &Path, file: &str) -> Result<Vec<String>> {
    let (one, other) = (read(&one.join(file))?, read(&other.join(file))?);
    let names = one.keys().chain(other.keys().filter(|&name| !one.contains_key(name)));
    Ok(names.filter(|&name| one.get(name) != other.get(name)).cloned().collect())
}

fn read(path: &Path) -> Result<Contents> {
    let data = fs::read(path).with_context(|| path.display().to_string())?;
    contents(&data).with_context(|| path.display().to_string())
}

fn contents(data: &[u8]) -> Result<Contents> {
    let file = object::File::parse(data)?;
    let mut contents = Contents::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 {
            continue;
        }
        let mut relocations = Vec::new();
        for (offset, relocation) in section.relocations() {
            let target = match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index)?;
                    let name = match symbol.section_index() {
                        // A section is known by its name: symbols of it may have none.
                        Some(index) if symbol.name()?.is_empty() => {
                            file.section_by_index(index)?.name()?
                        }
                        _ => symbol.name()?,
                    };
                    name.to_owned()
                }
                other => format!("{other:?}"),
            };
            let (flags, addend) = (relocation.flags(), relocation.addend());
            relocations.push(format!("{offset:#x} {flags:?} {target} {addend:+#x}"));
        }
        // Sections of the same name follow each other, as with functions in sections of their own.
        let entry = contents.entry(section.name()?.to_owned()).or_default();
        entry.0.extend_from_slice(section.data()?);
        entry.1.extend(relocations);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_equals_itself_only() {
        let data = fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut one = contents(&data).unwrap();
        assert!(one.contains_key(".text"));
        let other = one.clone();
        assert_eq!(one, other);
        one.get_mut(".text").unwrap().0[0] ^= 1;
        assert_ne!(one, other);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Takes the pure core out of the kernel series, which is its only home.
//!
//! `NEXTID_TREE` names a patched kernel tree to take it from instead, to test an edit before it is
//! refreshed into the series.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

const FILES: [&str; 3] =
    ["kernel/nextid/list.rs", "kernel/nextid/map.rs", "kernel/nextid/parser.rs"];

/// The options of the kernel configuration that are on.
const OPTIONS: [&str; 2] = ["CONFIG_SYSVIPC", "CONFIG_UNIX98_PTYS"];

fn main() {
    println!("cargo::rerun-if-env-changed=NEXTID_TREE");
    println!("cargo::rustc-check-cfg=cfg(CONFIG_NEXT_ID_KUNIT_TEST)");
    for option in OPTIONS {
        println!("cargo::rustc-check-cfg=cfg({option})");
        println!("cargo::rustc-cfg={option}");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let tree = match env::var_os("NEXTID_TREE") {
        Some(tree) => PathBuf::from(tree),
        None => apply_series(&out.join("tree")),
    };

    let modules = FILES.map(|file| {
        let path = tree.join(file);
        assert!(path.is_file(), "{} is missing", path.display());
        println!("cargo::rerun-if-changed={}", path.display());
        let name = Path::new(file).file_stem().and_then(OsStr::to_str).expect("each has a name");
        format!("#[path = r\"{}\"]\n#[allow(dead_code)]\nmod {name};\n", path.display())
    });
    fs::write(out.join("modules.rs"), modules.concat()).expect("OUT_DIR can be written");
}

/// Applies what the series has of [`FILES`] to the empty folder `tree`.
fn apply_series(tree: &Path) -> PathBuf {
    // Asked for at run time: another checkout may share the target folder, and with it this
    // program.
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let patches = Path::new(&folder).join("../../patches");
    println!("cargo::rerun-if-changed={}", patches.display());

    let series = fs::read_to_string(patches.join("series"))
        .unwrap_or_else(|error| panic!("cannot read {}/series: {error}", patches.display()));
    let _ = fs::remove_dir_all(tree);
    fs::create_dir_all(tree).expect("OUT_DIR can be written");

    for name in
        series.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let patch = fs::read_to_string(patches.join(name))
            .unwrap_or_else(|error| panic!("cannot read patches/{name}: {error}"));
        let core = core_of(&patch);
        if !core.is_empty() {
            apply(tree, name, &core);
        }
    }
    tree.to_owned()
}

/// The parts of `patch` that are about [`FILES`].
fn core_of(patch: &str) -> String {
    let lines: Vec<&str> = patch.lines().collect();
    let mut core = String::new();
    let mut inside = false;
    for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
        if line.starts_with("--- ") && next.starts_with("+++ ") {
            let file = next["+++ ".len()..].split_once('/').map(|(_, file)| file.trim_end());
            inside = file.is_some_and(|file| FILES.contains(&file));
        }
        // What is no line of a hunk is about the next file.
        inside &= line.starts_with(['-', '+', '@', ' ', '\\']);
        if inside {
            core += line;
            core.push('\n');
        }
    }
    core
}

fn apply(tree: &Path, name: &str, patch: &str) {
    let mut child = Command::new("patch")
        .args(["-p1", "--quiet", "--force", "--fuzz=0"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run patch: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(patch.as_bytes()).expect("patch reads its input");
    drop(stdin);
    assert!(child.wait().is_ok_and(|status| status.success()), "patches/{name} does not apply");
}

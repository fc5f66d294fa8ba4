// SPDX-License-Identifier: GPL-2.0

//! Generates the messages of CRIU's images from its own definitions.
//!
//! `proto/` holds files of `images/` of CRIU 4.2.1, as they are. A newer CRIU's go in their place.

const MESSAGES: [&str; 7] = [
    "core.proto",
    "inventory.proto",
    "ipc-msg.proto",
    "ipc-sem.proto",
    "ipc-shm.proto",
    "pagemap.proto",
    "pstree.proto",
];

fn main() {
    println!("cargo::rerun-if-changed=proto");
    let definitions = protox::compile(MESSAGES, ["proto"]).expect("the definitions are valid");
    prost_build::Config::new().compile_fds(definitions).expect("the messages can be generated");
}

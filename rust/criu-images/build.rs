// SPDX-License-Identifier: GPL-2.0

//! Generates the messages of CRIU's images from its own definitions.
//!
//! `proto/` holds files of `images/` of CRIU 4.2.1, with the fields that 4.3 has in addition where
//! a comment says so. A newer CRIU's go in their place.

use protox::prost_reflect::prost_types::FileDescriptorSet;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;

const MESSAGES: [&str; 9] = [
    "core.proto",
    "inventory.proto",
    "ipc-msg.proto",
    "ipc-sem.proto",
    "ipc-shm.proto",
    "ipc-var.proto",
    "mm.proto",
    "pagemap.proto",
    "pstree.proto",
];

fn main() {
    println!("cargo::rerun-if-changed=proto");
    let mut definitions = protox::compile(MESSAGES, ["proto"]).expect("the definitions are valid");
    let_strings_be_bytes(&mut definitions);
    // The comments are CRIU's, and no Markdown.
    prost_build::Config::new()
        .disable_comments(["."])
        .compile_fds(definitions)
        .expect("the messages can be generated");
}

/// CRIU takes strings as they come, and the kernel cuts the name of a task in the middle of a
/// character. Where a string has to be UTF-8, such a name makes the image unreadable. On the wire
/// strings and bytes are the same.
fn let_strings_be_bytes(definitions: &mut FileDescriptorSet) {
    let mut messages: Vec<_> =
        definitions.file.iter_mut().flat_map(|file| &mut file.message_type).collect();
    while let Some(message) = messages.pop() {
        for field in message.field.iter_mut().filter(|field| field.r#type() == Type::String) {
            field.set_type(Type::Bytes);
        }
        messages.extend(&mut message.nested_type);
    }
}

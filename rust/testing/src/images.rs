// SPDX-License-Identifier: GPL-2.0

//! Writes images of CRIU, for tests of what reads them.

use std::fs;
use std::io;
use std::path::Path;

/// A process to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// That of its parent, or 0.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// How it ended, as `wait(2)` tells it, if it did.
    pub ended: Option<i32>,
    /// Whether it is a subreaper.
    pub is_subreaper: bool,
    /// The id of another thread, or 0.
    pub thread: i32,
}

/// Writes the images of a tree: each process after its parent, in a pid namespace of its own if the
/// first is 1. Each is called `task`.
///
/// # Errors
///
/// Where a file cannot be written.
pub fn write_tree(folder: &Path, processes: &[Process]) -> io::Result<()> {
    const INVENTORY: u32 = 0x5831_3116;
    const TREE: u32 = 0x5027_3030;
    const CORE: u32 = 0x5505_3847;
    const IDS: u32 = 0x5443_2030;
    const NAME: Value = Value::Bytes(b"task");

    let number = |number: i32| Value::Number(u64::try_from(number).unwrap_or_default());
    let namespaces = |pid: u64| -> Vec<u8> {
        let fields = (1..=10).map(|field| (field, Value::Number(if field == 5 { pid } else { 1 })));
        message(&fields.collect::<Vec<_>>())
    };
    let own = if processes.first().is_some_and(|first| first.pid == 1) { 2 } else { 1 };
    let write = |name: String, image: Vec<u8>| fs::write(folder.join(name), image);
    let outside = namespaces(1);
    let inventory = [(1, Value::Number(2)), (2, Value::Number(1)), (3, Value::Bytes(&outside))];
    // It has no magic number in front of its own.
    write("inventory.img".to_owned(), image(INVENTORY, &[message(&inventory)]).split_off(4))?;
    let mut tree = Vec::new();
    for process in processes {
        let ids = [process.pid, process.parent, process.group, process.session, process.pid];
        let threads = (process.thread != 0).then_some((5, number(process.thread)));
        let ids = ids.iter().zip(1..).map(|(&id, field)| (field, number(id))).chain(threads);
        tree.push(message(&ids.collect::<Vec<_>>()));
        let thread = message(&[(1, Value::Number(0)), (2, Value::Number(0)), (13, NAME)]);
        let state = if process.ended.is_some() { 6 } else { 1 };
        let task = message(&[
            (1, number(state)),
            (2, number(process.ended.unwrap_or_default())),
            (3, Value::Number(0)),
            (4, Value::Number(0)),
            (5, Value::Number(0)),
            (6, NAME),
            (18, Value::Number(process.is_subreaper.into())),
        ]);
        let core = [(1, Value::Number(1)), (3, Value::Bytes(&task)), (5, Value::Bytes(&thread))];
        write(format!("core-{}.img", process.pid), image(CORE, &[message(&core)]))?;
        if process.thread != 0 {
            let core = message(&[(1, Value::Number(1)), (5, Value::Bytes(&thread))]);
            write(format!("core-{}.img", process.thread), image(CORE, &[core]))?;
        }
        write(format!("ids-{}.img", process.pid), image(IDS, &[namespaces(own)]))?;
    }
    write("pstree.img".to_owned(), image(TREE, &tree))
}

/// A value in a message.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number of any size.
    Number(u64),
    /// Bytes, or a message in the message.
    Bytes(&'a [u8]),
}

/// The magic number of all images but the inventory.
const COMMON: u32 = 0x5456_4319;

/// The magic number of the images that tell where pages are.
pub const PAGEMAP: u32 = 0x5608_4025;

/// The magic number of the images of memory.
pub const MM: u32 = 0x5749_2820;

/// The magic number of the images of shared memory segments.
pub const SHM: u32 = 0x4628_3044;

/// A message with these fields, each with its number.
#[must_use]
pub fn message(fields: &[(u8, Value)]) -> Vec<u8> {
    let mut message = Vec::new();
    for &(number, value) in fields {
        match value {
            Value::Number(value) => {
                message.extend(varint(u64::from(number) << 3));
                message.extend(varint(value));
            }
            Value::Bytes(bytes) => {
                message.extend(varint(u64::from(number) << 3 | 2));
                message.extend(varint(bytes.len() as u64));
                message.extend(bytes);
            }
        }
    }
    message
}

/// A number as messages have it.
#[must_use]
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
    bytes
}

/// An image of the kind with this magic number, with these messages.
///
/// # Panics
///
/// Where a message has 4 GiB or more.
#[must_use]
pub fn image(magic: u32, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut image = [COMMON.to_le_bytes(), magic.to_le_bytes()].concat();
    for message in messages {
        image.extend(u32::try_from(message.len()).expect("it is short").to_le_bytes());
        image.extend(message);
    }
    image
}

// SPDX-License-Identifier: GPL-2.0

//! Writes images of CRIU, for tests of what reads them.

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
                message.push(number << 3);
                message.extend(varint(value));
            }
            Value::Bytes(bytes) => {
                message.push(number << 3 | 2);
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

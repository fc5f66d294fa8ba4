// SPDX-License-Identifier: GPL-2.0

//! What the files of a dump are called.

/// The image that each dump has.
pub const INVENTORY: &str = "inventory.img";

/// Where the engines of containers put the images, in what they export.
pub const CHECKPOINT: &str = "checkpoint";

/// The link to the dump that this one builds on.
pub const PARENT: &str = "parent";

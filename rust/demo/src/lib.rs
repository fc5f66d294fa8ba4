// SPDX-License-Identifier: GPL-2.0

//! What the demonstrations share: what `/proc` tells of a tree, the programs that dump and restore
//! one, and tables on the terminal, aligned, and coloured where the terminal wants it.

pub mod observe;
pub mod restore;

use anstream::{print, println};
use anstyle::{AnsiColor, Style};

/// The style of what is as it must be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// The style of what is not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();
const HEADER: Style = Style::new().dimmed();

/// A line of a table.
pub struct Row<const N: usize> {
    /// Whether it is as it must be.
    pub good: bool,
    /// The text of each column.
    pub cells: [String; N],
}

/// Prints a title.
pub fn print_title(title: &str) {
    println!("\n{TITLE}{title}{TITLE:#}");
}

/// Prints a table. Its columns from `judged` on are coloured by whether the row is good.
pub fn print_table<const N: usize>(headers: [&str; N], judged: usize, rows: &[Row<N>]) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count());
        cells.chain([headers[column].chars().count()]).max().unwrap_or_default()
    });

    println!();
    print_line("  ", [HEADER; 2], judged, &widths, headers);
    for row in rows {
        let (mark, style) = if row.good { ("✓ ", GOOD) } else { ("✗ ", BAD) };
        let cells = std::array::from_fn(|column| row.cells[column].as_str());
        print_line(mark, [Style::new(), style], judged, &widths, cells);
    }
}

/// Prints a line, in one style up to column `judged` and in another from there on.
fn print_line<const N: usize>(
    mark: &str,
    [left, right]: [Style; 2],
    judged: usize,
    widths: &[usize; N],
    cells: [&str; N],
) {
    print!("  {right}{mark}{right:#}");
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let style = if column < judged { left } else { right };
        // The last column needs no padding after it.
        let width = if column + 1 < N { width + 3 } else { 0 };
        print!("{style}{cell:width$}{style:#}");
    }
    println!();
}

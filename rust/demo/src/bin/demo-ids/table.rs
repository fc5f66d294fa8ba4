// SPDX-License-Identifier: GPL-2.0

//! Tables on the terminal: aligned, coloured where the terminal wants it.

use anstream::{print, println};
use anstyle::{AnsiColor, Style};
use nextid::Id;

/// The style of what is as asked.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// The style of what is not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();
const HEADER: Style = Style::new().dimmed();

/// A line of a table.
pub struct Row<const N: usize> {
    /// Whether it is as asked.
    pub good: bool,
    /// The text of each column.
    pub cells: [String; N],
}

/// Prints a table. Its last columns are coloured by whether the row is good; `asked` columns before
/// them are not.
pub fn print<const N: usize>(title: &str, headers: [&str; N], asked: usize, rows: &[Row<N>]) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count());
        cells.chain([headers[column].chars().count()]).max().unwrap_or_default()
    });

    println!("\n{TITLE}{title}{TITLE:#}\n");
    print_line("  ", HEADER, HEADER, asked, &widths, &headers);
    for row in rows {
        let (mark, style) = if row.good { ("✓ ", GOOD) } else { ("✗ ", BAD) };
        let cells = std::array::from_fn(|column| row.cells[column].as_str());
        print_line(mark, Style::new(), style, asked, &widths, &cells);
    }
}

fn print_line<const N: usize>(
    mark: &str,
    left: Style,
    right: Style,
    asked: usize,
    widths: &[usize; N],
    cells: &[&str; N],
) {
    print!("  {right}{mark}{right:#}");
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let style = if column < asked { left } else { right };
        // The last column needs no padding after it.
        let width = if column + 1 < N { width + 3 } else { 0 };
        print!("{style}{cell:width$}{style:#}");
    }
    println!();
}

/// Ids as they are written, long lists shortened.
pub fn ids(ids: &[Id]) -> String {
    let text = |ids: &[Id]| ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" ");
    match ids {
        [first @ .., last] if first.len() > 5 => format!("{} … {last}", text(&first[..3])),
        _ => text(ids),
    }
}

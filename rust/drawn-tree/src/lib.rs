// SPDX-License-Identifier: GPL-2.0

//! Draws trees in lines of text.

/// How deep a tree is drawn. Below that a number tells how deep a node is: else a line would be as
/// long as the tree is deep.
const MAX_INDENT: usize = 40;

/// Draws a tree that is told by the parent of each node. Returns the nodes from top to bottom, each
/// with what stands in its line before it. Children come in the order of `parents`.
///
/// ```
/// let names = ["init", "server", "worker", "cron"];
/// let parents = [None, Some(0), Some(1), Some(0)];
/// let lines = drawn_tree::draw(&parents);
/// let line = |(node, branch): &(usize, String)| format!("{branch}{}", names[*node]);
/// let lines: Vec<_> = lines.iter().map(line).collect();
/// assert_eq!(lines, ["init", "├─ server", "│  └─ worker", "└─ cron"]);
/// ```
///
/// # Panics
///
/// Where a parent is no node.
#[must_use]
pub fn draw(parents: &[Option<usize>]) -> Vec<(usize, String)> {
    let mut children = vec![Vec::new(); parents.len()];
    let mut roots = Vec::new();
    for (node, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(node),
            None => roots.push(node),
        }
    }

    // A stack in place of recursion: a tree may be as deep as it likes.
    let mut lines = Vec::with_capacity(parents.len());
    let mut stack: Vec<_> =
        roots.into_iter().rev().map(|root| (root, 0, String::new(), String::new())).collect();
    while let Some((node, depth, branch, indent)) = stack.pop() {
        lines.push((node, branch));
        let depth = depth + 1;
        for (from_last, &child) in children[node].iter().rev().enumerate() {
            let (branch, more) =
                if from_last == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            stack.push(if depth > MAX_INDENT {
                (child, depth, format!("{indent}{branch}({depth}) "), indent.clone())
            } else {
                (child, depth, format!("{indent}{branch}"), format!("{indent}{more}"))
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_not_as_long_as_the_tree_is_deep() {
        let parents: Vec<_> = (0..1000_usize).map(|node| node.checked_sub(1)).collect();
        let lines = draw(&parents);
        let longest = lines.iter().map(|(_, branch)| branch.chars().count()).max();
        assert!(longest < Some(150), "{longest:?}");
        for (node, end) in [(40, "└─ "), (41, "└─ (41) "), (999, "└─ (999) ")] {
            assert!(lines[node].0 == node && lines[node].1.ends_with(end), "{:?}", lines[node]);
        }
    }
}

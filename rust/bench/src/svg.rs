// SPDX-License-Identifier: GPL-2.0

//! Charts as SVG, readable on light and on dark ground.

use std::fmt::{self, Display, Write};

use crate::number::thousands;

/// What belongs together in a chart of bars.
pub struct BarGroup {
    /// Stands beside the bars.
    pub name: String,
    /// A name and a value for each.
    pub bars: Vec<(String, f64)>,
}

/// One curve.
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Its points, from left to right; neither coordinate is zero or less.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const FONT: &str = "font: 13px system-ui, sans-serif";

/// As many colours as there are competitors at most, that can be told apart on both grounds and by
/// the colour-blind (Okabe and Ito).
const COLOURS: [&str; 6] = ["#888888", "#009e73", "#0072b2", "#e69f00", "#d55e00", "#cc79a7"];

/// A drawing of `height`.
fn drawing(title: &str, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{title}\">\n\
         <style>\n\
         text {{ {FONT}; fill: #222 }} .title {{ font-weight: 600 }} .end {{ text-anchor: end }}\n\
         .middle {{ text-anchor: middle }} .grid {{ stroke: #8885; stroke-width: 1 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}\n\
         </style>\n\
         <text class=\"title\" x=\"8\" y=\"20\">{title}</text>\n{body}</svg>\n"
    )
}

/// Bars from the left, in groups: a colour for each name.
pub fn bars(title: &str, groups: &[BarGroup]) -> String {
    const LEFT: f64 = 250.0;
    const ROW: f64 = 20.0;

    let names = names(groups.iter().flat_map(|group| group.bars.iter().map(|(name, _)| name)));
    let values = groups.iter().flat_map(|group| group.bars.iter().map(|&(_, value)| value));
    let scale = (WIDTH - LEFT - 90.0) / values.fold(1.0, f64::max);
    let mut body = String::new();
    let mut y = 44.0;
    for group in groups {
        if !group.name.is_empty() {
            element(&mut body, "title", 8.0, y, &group.name);
        }
        for (name, value) in &group.bars {
            let (length, top) = (value * scale, y - 13.0);
            let colour = colour(&names, name);
            element(&mut body, "end", LEFT - 8.0, y, name);
            put(
                &mut body,
                format_args!(
                    "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"16\" rx=\"2\" \
                     fill=\"{colour}\"/>\n"
                ),
            );
            element(&mut body, "", LEFT + length + 6.0, y, thousands(*value));
            y += ROW;
        }
        y += ROW / 2.0;
    }
    drawing(title, y, &body)
}

/// Curves over a logarithmic axis. The other axis begins at zero.
pub fn curves(title: &str, x_axis: &str, curves: &[Curve]) -> String {
    const LEFT: f64 = 90.0;
    const RIGHT: f64 = WIDTH - 30.0;
    const TOP: f64 = 70.0;
    const BOTTOM: f64 = 330.0;

    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (least, most) =
        points().fold((f64::MAX, 1.0_f64), |(least, most), &(x, _)| (least.min(x), most.max(x)));
    let highest = points().fold(1.0, |most: f64, &(_, y)| most.max(y));
    let step = round_step(highest / 5.0);
    let top = step * (highest / step).ceil();
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / least).ln() / (most / least).ln();
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;

    let mut body = String::new();
    for value in (0..=5).map(|line| step * f64::from(line)).filter(|&value| value <= top) {
        let height = y(value);
        put(
            &mut body,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{RIGHT}\" \
                 y2=\"{height:.1}\"/>\n"
            ),
        );
        element(&mut body, "end", LEFT - 8.0, height + 4.0, thousands(value));
    }
    let mut ticks: Vec<f64> = points().map(|&(x, _)| x).collect();
    ticks.sort_by(f64::total_cmp);
    let mut right_end = 0.0;
    for tick in ticks {
        // Labels that would run into each other are left out.
        if x(tick) > right_end {
            element(&mut body, "middle", x(tick), BOTTOM + 20.0, thousands(tick));
            right_end = x(tick) + 60.0;
        }
    }
    element(&mut body, "middle", f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0, x_axis);
    let names = names(curves.iter().map(|curve| &curve.name));
    let mut legend = LEFT;
    for curve in curves {
        let colour = colour(&names, &curve.name);
        let path: Vec<String> =
            curve.points.iter().map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py))).collect();
        put(
            &mut body,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n",
                path.join(" ")
            ),
        );
        for &(px, py) in &curve.points {
            put(
                &mut body,
                format_args!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>\n",
                    x(px),
                    y(py)
                ),
            );
        }
        put(
            &mut body,
            format_args!(
                "<rect x=\"{legend}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n"
            ),
        );
        element(&mut body, "", legend + 18.0, 47.0, &curve.name);
        legend += 170.0;
    }
    drawing(title, BOTTOM + 56.0, &body)
}

/// The least of 1, 2 or 5 times a power of ten that is not below `value`.
fn round_step(value: f64) -> f64 {
    let power = 10.0_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].map(|n| n * power).into_iter().find(|&n| n >= value).unwrap_or(10.0 * power)
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut names = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn colour(names: &[&String], name: &String) -> &'static str {
    let index = names.iter().position(|&other| other == name).unwrap_or_default();
    COLOURS[index % COLOURS.len()]
}

fn element(body: &mut String, class: &str, x: f64, y: f64, text: impl Display) {
    put(body, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>\n"));
}

fn put(body: &mut String, text: fmt::Arguments<'_>) {
    body.write_fmt(text).expect("a String takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (value, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (30.0, 50.0), (51.0, 100.0)] {
            assert!((round_step(value) - step).abs() < 1e-9, "{value}");
        }
    }
}

//! Plots as SVG, made here: no script, nothing from elsewhere.

use std::fmt::Write as _;

use super::html::escaped;
use super::model::{Kind, Series};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 250.0;
/// Around the plot: for the axis at the left, the labels below.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;
/// Most labels below the axis.
const MOST_LABELS: usize = 9;

#[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
const fn float(count: usize) -> f64 {
    count as f64
}

/// A round number not below the highest, and how many steps to it.
fn scale(highest: f64) -> (f64, u32) {
    if highest <= 0.0 {
        return (1.0, 1);
    }
    // Nothing is half of a call.
    if highest.fract() == 0.0
        && let Some(few) = (1..=5).find(|few| f64::from(*few) >= highest)
    {
        return (f64::from(few), few);
    }
    let power = 10_f64.powf(highest.log10().floor());
    let round = [(1.0, 4), (2.0, 4), (4.0, 4), (5.0, 5), (8.0, 4), (10.0, 5)];
    let found = round.into_iter().map(|(times, steps)| (times * power, steps)).find(|(top, _)| *top >= highest);
    found.unwrap_or((10.0 * power, 5))
}

/// A value as short as it can be read.
fn short(value: f64) -> String {
    let text = match value {
        value if value >= 1e9 => format!("{:.1} G", value / 1e9),
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value.fract() == 0.0 => format!("{value:.0}"),
        value if value < 0.1 => format!("{value:.3}"),
        value => format!("{value:.2}"),
    };
    text.replace(".0 ", " ")
}

fn highest(series: &Series) -> f64 {
    let at = |n: usize| series.bands.iter().filter_map(move |band| band.values.get(n)).copied();
    let of = |n: usize| match series.kind {
        Kind::Stacked => at(n).sum::<f64>(),
        Kind::Grouped => at(n).fold(0.0, f64::max),
    };
    (0..series.labels.len()).map(of).fold(0.0, f64::max)
}

/// The plot of a series.
pub(super) fn svg(series: &Series) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, series);
    out
}

fn draw(out: &mut String, series: &Series) -> std::fmt::Result {
    let (top, steps) = scale(highest(series));
    let (inner, tall) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let y = |value: f64| TOP + tall - value / top * tall;
    let id = escaped(&series.id);
    writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"t-{id}\"><title id=\"t-{id}\">{}, {}; the figures are in the table below</title>",
        escaped(&series.title),
        escaped(&series.unit)
    )?;
    for step in 0..=steps {
        let value = top * f64::from(step) / f64::from(steps);
        let at = y(value);
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            WIDTH - RIGHT
        )?;
        writeln!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            short(value)
        )?;
    }
    let slot = inner / float(series.labels.len().max(1));
    let gap = if series.labels.len() > 20 { slot * 0.12 } else { slot * 0.22 };
    for (n, label) in series.labels.iter().enumerate() {
        let x = LEFT + slot * float(n);
        let mut below = 0.0;
        let wide = match series.kind {
            Kind::Stacked => slot - gap,
            Kind::Grouped => (slot - gap) / float(series.bands.len().max(1)),
        };
        for (place, band) in series.bands.iter().enumerate() {
            let value = band.values.get(n).copied().unwrap_or_default();
            if value <= 0.0 {
                continue;
            }
            let (left, base) = match series.kind {
                Kind::Stacked => (x + gap / 2.0, below),
                Kind::Grouped => (x + gap / 2.0 + wide * float(place), 0.0),
            };
            let (from, to) = (y(base), y(base + value));
            writeln!(
                out,
                "<rect class=\"b{}\" x=\"{left:.2}\" y=\"{to:.2}\" width=\"{:.2}\" height=\"{:.2}\"><title>{}: {} {}</title></rect>",
                place % 8,
                wide.max(0.5),
                (from - to).max(0.75),
                escaped(label),
                short(value),
                escaped(&band.name)
            )?;
            below += value;
        }
    }
    let every = series.labels.len().div_ceil(MOST_LABELS).max(1);
    for (n, label) in series.labels.iter().enumerate().step_by(every) {
        let x = LEFT + slot * (float(n) + 0.5);
        let label: String =
            if label.chars().count() > 24 { label.chars().take(23).chain(['…']).collect() } else { label.clone() };
        writeln!(
            out,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 10.0,
            escaped(&label)
        )?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

/// A value in a table.
pub(super) fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_the_highest() {
        for highest in [0.0, 0.003, 0.7, 1.0, 3.0, 7.0, 10.0, 11.0, 99.0, 100.0, 4_711.0, 1e9] {
            let (top, steps) = scale(highest);
            assert!(top >= highest && top > 0.0 && (1..=5).contains(&steps), "{highest}: {top} in {steps}");
            assert!(highest == 0.0 || top <= highest * 2.1, "{highest}: {top}");
        }
        assert_eq!([0.0, 7.0, 0.25, 12_500.0, 3e6].map(short), ["0", "7", "0.25", "12.5 k", "3 M"]);
    }
}

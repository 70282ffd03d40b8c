//! A scorecard for a terminal.

use std::fmt::Write as _;

use super::model::{Scorecard, Verdict};

/// Escapes that a terminal draws colors by.
const fn color(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "\x1b[32m",
        Verdict::Attention => "\x1b[33m",
        Verdict::Bad => "\x1b[1;31m",
        Verdict::NotMeasured => "\x1b[2m",
    }
}

/// What a terminal would take for a command is not written to it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn width(of: impl Iterator<Item = usize>, least: usize, most: usize) -> usize {
    of.max().unwrap_or(least).clamp(least, most)
}

/// The lines as a table, with their parts below; `colors` for a terminal.
pub fn table(card: &Scorecard, colors: bool) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, card, colors);
    out
}

fn write(out: &mut String, card: &Scorecard, colors: bool) -> std::fmt::Result {
    let chars = |text: &str| text.chars().count();
    let names = width(card.lines.iter().map(|line| chars(&line.name)), 10, 60);
    let values = width(card.lines.iter().map(|line| chars(&line.value)), 5, 30);
    let limits = width(card.lines.iter().map(|line| chars(&line.limit)), 5, 30);
    writeln!(out, "Scorecard of {}, {} to {} (without that day), UTC", plain(&card.instance), card.from, card.until)?;
    writeln!(out, "made {} from the audit log {}", card.made, plain(&card.log))?;
    let counts = [Verdict::Bad, Verdict::Attention, Verdict::Ok, Verdict::NotMeasured]
        .map(|verdict| format!("{} {}", card.count(verdict), verdict.name()));
    writeln!(out, "{}", counts.join(", "))?;
    let mut group = "";
    for line in &card.lines {
        if line.group != group {
            group = &line.group;
            writeln!(out, "\n{}", plain(group))?;
        }
        let verdict = format!("{:<12}", line.verdict.name());
        let verdict = if colors { format!("{}{verdict}\x1b[0m", color(line.verdict)) } else { verdict };
        let (name, value, limit) = (plain(&line.name), plain(&line.value), plain(&line.limit));
        let row = format!("  {verdict} {name:<names$}  {value:<values$}  {limit:<limits$}  {}", plain(&line.how));
        writeln!(out, "{}", row.trim_end())?;
        for part in &line.details {
            writeln!(out, "  {:<12}   {}: {}", "", plain(&part.name), plain(&part.value))?;
        }
    }
    Ok(())
}

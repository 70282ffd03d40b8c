//! A scorecard as one page that refers to nothing outside of it.

use std::fmt::{self, Write as _};

use super::model::{Line, Scorecard, Series, Verdict};
use super::plot;

/// Text in HTML, whatever it is: also in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing that turns the direction of what follows, or that cannot be seen.
            c if c.is_control()
                || ('\u{200b}'..='\u{200f}').contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                out.push('\u{fffd}')
            }
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = include_str!("page.css");

const fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Attention => "attention",
        Verdict::Bad => "bad",
        Verdict::NotMeasured => "none",
    }
}

/// The page.
pub fn html(card: &Scorecard) -> String {
    let mut out = String::with_capacity(64 * 1024);
    // Writing to a string does not fail.
    let _ = page(&mut out, card);
    out
}

fn page(out: &mut String, card: &Scorecard) -> fmt::Result {
    let (instance, log) = (escaped(&card.instance), escaped(&card.log));
    let (from, until, made) = (escaped(&card.from), escaped(&card.until), escaped(&card.made));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>Scorecard of {instance}, {from} to {until}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<p class=\"kicker\">Blindvault scorecard</p>\n<h1>{instance}</h1>\n<p class=\"sub\">{from} to {until}, the last day excluded, UTC. Made {made} from the audit log <code>{log}</code>.</p>\n</header>\n<main>"
    )?;
    out.push_str("<section class=\"counts\" aria-label=\"How many lines have which verdict\">\n");
    for verdict in [Verdict::Bad, Verdict::Attention, Verdict::Ok, Verdict::NotMeasured] {
        let (class, name) = (class(verdict), verdict.name().to_lowercase());
        let count = card.count(verdict);
        let quiet = if count == 0 { " quiet" } else { "" };
        writeln!(out, "<div class=\"count {class}{quiet}\"><b>{count}</b><span>{name}</span></div>")?;
    }
    out.push_str("</section>\n");
    for series in &card.series {
        figure(out, series)?;
    }
    let mut from = 0;
    while let Some(first) = card.lines.get(from) {
        let len = card.lines.iter().skip(from).take_while(|line| line.group == first.group).count();
        group(out, card.lines.get(from..from + len).unwrap_or_default())?;
        from += len.max(1);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn group(out: &mut String, lines: &[Line]) -> fmt::Result {
    let Some(first) = lines.first() else { return Ok(()) };
    writeln!(out, "<section>\n<h2>{}</h2>\n<table class=\"lines\">", escaped(&first.group))?;
    out.push_str("<thead><tr><th scope=\"col\">Verdict</th><th scope=\"col\">Line</th><th scope=\"col\">Value</th><th scope=\"col\">Should be</th></tr></thead>\n<tbody>\n");
    for line in lines {
        let (class, verdict) = (class(line.verdict), line.verdict.name().to_lowercase());
        write!(
            out,
            "<tr><td><span class=\"pill {class}\">{verdict}</span></td><th scope=\"row\">{}<small>{}</small>",
            escaped(&line.name),
            escaped(&line.how)
        )?;
        if !line.details.is_empty() {
            let open = if line.verdict > Verdict::Ok && line.verdict < Verdict::NotMeasured { " open" } else { "" };
            write!(out, "<details{open}><summary>{} parts</summary><dl>", line.details.len())?;
            for part in &line.details {
                write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(&part.name), escaped(&part.value))?;
            }
            out.push_str("</dl></details>");
        }
        writeln!(out, "</th><td class=\"value\">{}</td><td>{}</td></tr>", escaped(&line.value), escaped(&line.limit))?;
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
    Ok(())
}

fn figure(out: &mut String, series: &Series) -> fmt::Result {
    writeln!(
        out,
        "<figure>\n<figcaption><h2>{}</h2><span>{}</span></figcaption>",
        escaped(&series.title),
        escaped(&series.unit)
    )?;
    if series.bands.is_empty() || series.labels.is_empty() {
        out.push_str("<p class=\"empty\">nothing in this period</p>\n</figure>\n");
        return Ok(());
    }
    out.push_str("<ul class=\"legend\">");
    for (place, band) in series.bands.iter().enumerate() {
        write!(out, "<li><i class=\"k{}\"></i>{}</li>", place % 8, escaped(&band.name))?;
    }
    out.push_str("</ul>\n");
    out.push_str(&plot::svg(series));
    out.push_str("<details class=\"data\"><summary>the figures as a table</summary>\n<div class=\"scroll\"><table>\n<thead><tr><td></td>");
    for band in &series.bands {
        write!(out, "<th scope=\"col\">{}</th>", escaped(&band.name))?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (n, label) in series.labels.iter().enumerate() {
        let values: Vec<f64> =
            series.bands.iter().map(|band| band.values.get(n).copied().unwrap_or_default()).collect();
        // Days without anything are told by their absence.
        if series.labels.len() > 20 && values.iter().all(|value| *value == 0.0) {
            continue;
        }
        write!(out, "<tr><th scope=\"row\">{}</th>", escaped(label))?;
        values.iter().try_for_each(|value| write!(out, "<td>{}</td>", plot::figure(*value)))?;
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div></details>\n</figure>\n");
    Ok(())
}

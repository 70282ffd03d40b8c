//! The one place that writes to stdout.

/// Writes a line.
#[expect(clippy::print_stdout, reason = "what a step says goes to stdout; this is the place")]
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Writes a heading.
pub(crate) fn heading(text: impl std::fmt::Display) {
    line(format_args!("\n== {text}"));
}

//! The one place that writes to stdout.

/// Writes a line.
#[expect(clippy::print_stdout, reason = "what a command answers goes to stdout; log lines go to stderr")]
#[expect(clippy::disallowed_macros, reason = "this module is the one place")]
pub(super) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

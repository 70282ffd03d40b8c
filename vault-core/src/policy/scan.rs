//! Bounds on policy and schema texts, checked before the parser sees them, and where each policy starts.
//!
//! The parser and the trees it builds recurse: a text of thousands of nested brackets would use up the stack. This
//! reads just enough of the syntax, strings and comments, to refuse such a text with its line.

/// Longest file, in bytes.
pub(super) const MAX_FILE: usize = 256 * 1024;
/// Longest single policy, in bytes.
pub(super) const MAX_POLICY: usize = 8 * 1024;
/// Deepest nesting of brackets and `if` in one policy or in the schema.
pub(super) const MAX_NESTING: usize = 16;
/// Most `&&`, `||`, `+`, `-`, `*`, chained calls and `when`/`unless` in one policy: each may stand one level deeper than
/// the one before. The engine gives up within 100 KiB of the stack's end, so the bound is one that an unoptimized build
/// evaluates on a thread of 2 MiB; what needs more is better written as several policies.
pub(super) const MAX_OPERATORS: usize = 24;

/// Which of the two languages of Cedar a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Policy,
    Schema,
}

/// Why a text was refused, at a byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) why: &'static str,
}

/// The line of a byte offset; the first is 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// Checks the bounds; answers the offset of each policy's first byte, in order (for a schema: none).
pub(super) fn check(text: &str, language: Language) -> Result<Vec<usize>, Fault> {
    if text.len() > MAX_FILE {
        return Err(Fault { offset: 0, why: "the file is longer than 256 KiB" });
    }
    let mut scan = Scan { language, starts: Vec::new(), start: None, depth: 0, ifs: 0, operators: 0 };
    let mut bytes = text.bytes().enumerate().peekable();
    let (mut word_before, mut before) = (false, 0);
    while let Some((at, byte)) = bytes.next() {
        if byte == b'/' && bytes.peek().is_some_and(|&(_, next)| next == b'/') {
            // A comment ends at either line terminator, as in Cedar's lexer.
            while bytes.next_if(|&(_, b)| b != b'\n' && b != b'\r').is_some() {}
            word_before = false;
            continue;
        }
        if byte == b'"' {
            scan.see(at, byte)?;
            while let Some((_, b)) = bytes.next() {
                match b {
                    b'\\' => drop(bytes.next()),
                    b'"' => break,
                    _ => {}
                }
            }
            word_before = false;
            continue;
        }
        let is_if = !word_before
            && text.get(at..at + 2) == Some("if")
            && !text.as_bytes().get(at + 2).copied().is_some_and(is_word);
        scan.ifs += usize::from(is_if);
        let chained = byte == b'.' && before == b')';
        let second = byte == before && matches!(byte, b'&' | b'|');
        let clause = byte == b'{' && scan.depth == 0;
        scan.operators += usize::from(chained || second || clause || matches!(byte, b'+' | b'-' | b'*'));
        scan.see(at, byte)?;
        word_before = is_word(byte);
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    Ok(scan.starts)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

struct Scan {
    language: Language,
    starts: Vec<usize>,
    start: Option<usize>,
    depth: usize,
    ifs: usize,
    operators: usize,
}

impl Scan {
    /// One byte outside of comments, or the one that opens a string.
    fn see(&mut self, at: usize, byte: u8) -> Result<(), Fault> {
        let fault = |why| Err(Fault { offset: at, why });
        let policy = self.language == Language::Policy;
        if policy && self.start.is_none() && !byte.is_ascii_whitespace() {
            self.start = Some(at);
            self.starts.push(at);
        }
        match byte {
            b'(' | b'[' | b'{' => self.depth += 1,
            b'<' if !policy => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b'>' if !policy => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth + self.ifs > MAX_NESTING {
            return fault("nested too deeply: at most 16 brackets and ifs");
        }
        if !policy {
            return Ok(());
        }
        if self.operators > MAX_OPERATORS {
            return fault("the policy is too complex: at most 24 operators; write several policies");
        }
        if self.start.is_some_and(|start| at - start >= MAX_POLICY) {
            return fault("the policy is longer than 8 KiB");
        }
        if byte == b';' {
            (self.start, self.depth, self.ifs, self.operators) = (None, 0, 0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_policies_start() {
        let text =
            "// a; (\n@id(\"x; // \\\" y\")\npermit(principal, action, resource);\n\n  forbid (a); // end\r permit";
        let starts = check(text, Language::Policy).unwrap();
        let found: Vec<_> = starts.iter().map(|&at| (line(text, at), &text[at..at + 3])).collect();
        assert_eq!(found, [(2, "@id"), (5, "for"), (5, "per")]);
    }

    #[test]
    fn refuses_what_is_too_deep_or_too_long() {
        let why = |text: String, language| check(&text, language).unwrap_err().why;
        assert!(why("(".repeat(17), Language::Policy).contains("deeply"));
        assert!(why("if ".repeat(17), Language::Policy).contains("deeply"));
        assert!(why("Set<".repeat(17), Language::Schema).contains("deeply"));
        assert!(why("a() . b && ".repeat(13), Language::Policy).contains("complex"));
        assert!(why("a ".repeat(5000), Language::Policy).contains("8 KiB"));
        assert!(why(" ".repeat(MAX_FILE + 1), Language::Schema).contains("256 KiB"));
        assert_eq!(check(&"(".repeat(16), Language::Policy).unwrap(), [0]);
        // Brackets inside strings and comments nest nothing, and `ifs` is no `if`.
        assert!(check(&format!("\"{0}\" // {0}", "(".repeat(99)), Language::Policy).is_ok());
        assert!(check(&"ifs xif if_ ".repeat(99), Language::Policy).is_ok());
    }
}

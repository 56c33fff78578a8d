//! What a handler prints: its beginning and its end are kept, made fit for people.

use crate::limits::{OUTPUT_HEAD, OUTPUT_TAIL};
use mcp_transfer::text::escape;
use std::collections::VecDeque;

/// Captured output. Takes any amount, keeps a bounded part.
#[derive(Debug, Default)]
pub(super) struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Bytes that were neither.
    omitted: u64,
}

impl Output {
    /// Takes more of it.
    pub fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(OUTPUT_HEAD - self.head.len()));
        self.head.extend_from_slice(head);
        let kept = &rest[rest.len().saturating_sub(OUTPUT_TAIL)..];
        let gone = (self.tail.len() + kept.len()).saturating_sub(OUTPUT_TAIL);
        self.tail.drain(..gone);
        self.tail.extend(kept);
        self.omitted += (gone + rest.len() - kept.len()) as u64;
    }

    /// The text: lines, without anything that a terminal obeys.
    pub fn printable(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.omitted == 0 {
            let all = [&self.head[..], &tail].concat();
            return printable(&all);
        }
        format!("{}\n[{} bytes left out]\n{}", printable(&self.head), self.omitted, printable(&tail))
    }
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text.lines().map(|line| escape(&line.replace('\t', "    "))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_kept_whole_and_much_in_part() {
        let mut output = Output::default();
        output.push(b"one\ttwo\r\nthr\xffee \x1b[31mred\n\xe2\x80\xaeback");
        assert_eq!(output.printable(), "one    two\nthr\u{fffd}ee \\u{1b}[31mred\n\\u{202e}back");
        for chunk in [1, 7, 100_000] {
            let mut output = Output::default();
            let all: Vec<u8> = (0..300_000).map(|n| b'a' + (n % 26) as u8).collect();
            all.chunks(chunk).for_each(|part| output.push(part));
            let omitted = all.len() - OUTPUT_HEAD - OUTPUT_TAIL;
            let (head, tail) = (&all[..OUTPUT_HEAD], &all[all.len() - OUTPUT_TAIL..]);
            let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
            assert_eq!(output.printable(), format!("{head}\n[{omitted} bytes left out]\n{tail}"));
        }
    }
}

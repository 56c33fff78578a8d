//! The sender's final output: the task status table, one line for each device, and a summary.

use super::memory::SenderMemory;
use super::{SenderIntro, one_way, text};
use console::{Style, pad_str};
use mcp_transfer::protocol::event::SenderSnapshot;
use mcp_transfer::protocol::statistics::{Cause, DeviceRow};
use mcp_transfer::task::State;
use mcp_transfer::time::Time;

/// Most devices in the table; the others are only counted, and of more the complete ones are not shown.
const MOST_ROWS: usize = 50;
const HEADINGS: [&str; 6] = ["DEVICE", "ADDRESS", "STATUS", "TIME", "LOSS", "REASON"];
const GAP: usize = 2;

/// Formats the table, cut to `columns` (0: no limit), with incomplete devices first. Empty if there are
/// no devices. `colour` marks the statuses.
#[must_use]
pub fn table(memory: &SenderMemory, snapshot: &SenderSnapshot, columns: usize, colour: bool) -> String {
    let mut rows: Vec<&DeviceRow> = snapshot.devices.iter().collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| {
        rank(a).cmp(&rank(b)).then_with(|| natural(&a.assignment.label).cmp(&natural(&b.assignment.label)))
    });
    let all = rows.len();
    if all > MOST_ROWS {
        // Of so many, only those matter with which something is amiss.
        rows.retain(|row| !row.assignment.is_complete() || row.transfer.cause.is_some());
    }
    let rest_is_complete = rows.len() <= MOST_ROWS;
    rows.truncate(MOST_ROWS);
    let more = all - rows.len();
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<[String; 6]> = rows.iter().map(|row| cells(memory, snapshot, row)).collect();
    let widths = widths(&cells, columns);
    let mut out = line(&HEADINGS.map(str::to_owned), &widths, columns, &Style::new());
    for (row, cells) in rows.iter().zip(&cells) {
        let style = match row.assignment.state() {
            _ if !colour => Style::new(),
            State::Pending if row.is_missing() => Style::new().red().force_styling(true),
            State::Complete => Style::new().green().force_styling(true),
            State::Failed(_) | State::Lost => Style::new().red().force_styling(true),
            _ => Style::new().magenta().force_styling(true),
        };
        out.push_str(&line(cells, &widths, columns, &style));
    }
    if more > 0 {
        out.push_str(&format!(
            "and {more} more{}\n",
            if rest_is_complete { ", which are complete" } else { "" }
        ));
    }
    out
}

/// The lines of the summary.
#[must_use]
pub fn summary(memory: &SenderMemory, snapshot: &SenderSnapshot, now: Time) -> Vec<String> {
    let snapshot = &snapshot.overview;
    let complete = snapshot.devices.complete;
    let time = memory.transfer_time(now);
    let wanted = snapshot.wanted();
    let mut lines = Vec::from_iter(one_way::summary(snapshot, memory.outcome.as_ref()));
    if wanted > 0 {
        let took = if time.is_zero() { String::new() } else { format!(" in {}", text::duration(time)) };
        lines.push(format!("{complete} of {wanted} devices complete{took}"));
    }
    if complete > 0 && snapshot.object_size > 0 {
        lines.push(format!(
            "{}, {} goodput, {:.3} bytes on the wire per byte",
            text::bytes(snapshot.object_size),
            text::rate(text::bits_per_second(snapshot.object_size, time)),
            snapshot.wire_bytes as f64 / snapshot.object_size as f64,
        ));
    }
    if snapshot.skipped > 0 {
        lines.push(format!("{} were not sent: every device had them", text::bytes(snapshot.skipped)));
    }
    lines
}

/// The line of the object's hash, if it is a file.
#[must_use]
pub fn sum(memory: &SenderMemory, intro: &SenderIntro) -> Option<String> {
    let root = memory.root.filter(|_| intro.entries.is_none())?;
    Some(text::b3sum_line(&root, std::path::Path::new(&text::escape(&intro.name))))
}

/// Sorts devices that need attention first.
fn rank(row: &DeviceRow) -> u8 {
    match row.assignment.state() {
        State::Failed(_) => 0,
        State::Lost => 1,
        State::Pending if row.is_missing() => 1,
        State::Complete => 3,
        _ => 2,
    }
}

/// A sort key that puts `lab-2` before `lab-10`: alternating text and numbers.
fn natural(label: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = label;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        // A number too large for `u64` sorts last; the order among such numbers does not matter.
        key.push((word.to_owned(), if number.is_empty() { 0 } else { number.parse().unwrap_or(u64::MAX) }));
        rest = tail;
    }
    key
}

fn cells(memory: &SenderMemory, snapshot: &SenderSnapshot, row: &DeviceRow) -> [String; 6] {
    let (overview, transfer) = (&snapshot.overview, &row.transfer);
    let label = text::device_name(&row.assignment.label, row.assignment.device);
    let sent = overview.source_symbols + overview.repair_symbols;
    let mut reason = match row.assignment.state() {
        State::Failed(reason) => text::escape(reason),
        State::Pending if row.is_missing() => "never joined".to_owned(),
        State::Complete => transfer.cause.map_or_else(String::new, |c| format!("slow by its {}", c.word())),
        _ => {
            let verified = format!("{} of {} blocks", transfer.verified_blocks, overview.blocks);
            let hold = memory.hold_but_loss(row);
            if hold.is_empty() { verified } else { format!("{verified}, {hold}") }
        }
    };
    if let Some(check) = check(row) {
        reason.push_str(&format!(" (mcp doctor: {check})"));
    }
    [
        label,
        transfer.address.map_or_else(String::new, |address| address.to_string()),
        row.word().to_owned(),
        if row.is_missing() { String::new() } else { text::duration(transfer.elapsed) },
        if row.is_missing() { String::new() } else { text::share(transfer.lost_datagrams, sent) },
        reason,
    ]
}

/// The check of `mcp doctor` that would tell more.
fn check(row: &DeviceRow) -> Option<&'static str> {
    match (row.assignment.state(), row.transfer.cause) {
        (State::Failed(_), _) => None,
        (State::Pending, _) if row.is_missing() => Some("multicast"),
        (_, Some(Cause::Network)) => Some("loss"),
        (_, Some(Cause::Cpu)) => Some("buffers"),
        (_, Some(Cause::Disk)) => Some("disk"),
        (_, Some(Cause::Feedback)) => Some("unicast"),
        (State::Lost, _) => Some("unicast"),
        _ => None,
    }
}

/// Column widths; 0 for a hidden column. On a narrow terminal the address is hidden first, then the time
/// and the loss. A label keeps at least 12 columns, and the reason gets the rest.
fn widths(cells: &[[String; 6]], columns: usize) -> [usize; 6] {
    let mut widths = [0; 6];
    for (i, width) in widths.iter_mut().enumerate() {
        let widest = cells.iter().map(|row| text::width(&row[i])).max().unwrap_or(0);
        // An empty column is hidden.
        *width = if widest == 0 { 0 } else { widest.max(HEADINGS[i].len()) };
    }
    if columns == 0 {
        return widths;
    }
    let total = |w: &[usize; 6], reason: usize| {
        let used = w[..5].iter().filter(|n| **n > 0).map(|n| n + GAP).sum::<usize>();
        used + w[5].min(reason)
    };
    // A reason of 40 columns is usually long enough.
    for drop in [1, 3, 4] {
        if total(&widths, 40) > columns {
            widths[drop] = 0;
        }
    }
    let over = total(&widths, 20).saturating_sub(columns);
    widths[0] = widths[0].saturating_sub(over).max(12.min(widths[0]));
    widths
}

fn line(cells: &[String; 6], widths: &[usize; 6], columns: usize, status: &Style) -> String {
    let mut out = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|(_, (_, w))| **w > 0) {
        let cell = text::cut(cell, *width);
        // Numbers are aligned to the right.
        let side = if i == 3 || i == 4 { console::Alignment::Right } else { console::Alignment::Left };
        let cell = pad_str(&cell, *width, side, None).into_owned();
        out.push_str(&if i == 2 { status.apply_to(cell).to_string() } else { cell });
        out.push_str("  ");
    }
    let line = out.trim_end();
    format!("{}\n", if columns == 0 { line.to_owned() } else { text::cut(line, columns) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{row, sender_intro, snapshot};
    use mcp_transfer::units::DeviceId;
    use mcp_transfer::wire::Phase;
    use std::time::Duration;

    fn example() -> SenderSnapshot {
        let mut s = snapshot(Phase::Repairing);
        s.overview.expected = Some(5);
        s.overview.position = 100;
        s.overview.streamed = s.overview.object_size;
        let mut lossy = row("lab-10", State::Complete);
        lossy.transfer.lost_datagrams = 1_900;
        s.with_devices(vec![
            lossy,
            row("lab-2", State::Complete),
            row("a-label-that-is-rather-long-for-a-table", State::Lost),
            row("evil\x1b[2J", State::Failed("disk full: 3 GiB are missing on /srv/images".into())),
        ])
    }

    #[test]
    fn fits_every_width() {
        for columns in [20, 60, 80, 120] {
            let text = table(&SenderMemory::default(), &example(), columns, false);
            assert_eq!(text.lines().count(), 5);
            for line in text.lines() {
                assert!(text::width(line) <= columns, "{columns}: {line}");
                assert!(!line.contains('\x1b'));
            }
        }
    }

    #[test]
    fn looks_like_this() {
        let at = |columns| table(&SenderMemory::default(), &example(), columns, false);
        assert_eq!(
            at(120),
            "\
DEVICE                                   ADDRESS         STATUS    TIME   LOSS  REASON
evil\\u{1b}[2J                            10.0.0.7:40000  failed     12s    0 %  disk full: 3 GiB are missing on /srv/im…
a-label-that-is-rather-long-for-a-table  10.0.0.7:40000  lost       12s    0 %  0 of 100 blocks, silent (mcp doctor: un…
lab-2                                    10.0.0.7:40000  complete   12s    0 %
lab-10                                   10.0.0.7:40000  complete   12s  5.0 %
"
        );
        assert_eq!(
            at(60),
            "\
DEVICE                        STATUS    REASON
evil\\u{1b}[2J                 failed    disk full: 3 GiB ar…
a-label-that-is-rather-long…  lost      0 of 100 blocks, si…
lab-2                         complete
lab-10                        complete
"
        );
    }

    #[test]
    fn names_the_missing() {
        let missing =
            mcp_transfer::task::Assignment::new(Default::default(), DeviceId([9; 16]), "lab-3".into());
        let rows = vec![row("lab-1", State::Complete), DeviceRow::of_absent(missing)];
        let s = snapshot(Phase::Repairing).with_devices(rows);
        assert_eq!((s.overview.missing, s.overview.present(), s.overview.wanted()), (1, 0, 2));
        let text = table(&SenderMemory::default(), &s, 100, false);
        let line = text.lines().nth(1).unwrap();
        assert!(
            line.starts_with("lab-3 ")
                && line.contains("missing")
                && line.ends_with("never joined (mcp doctor: multicast)"),
            "{text}"
        );
    }

    #[test]
    fn colours_only_when_asked() {
        let text = table(&SenderMemory::default(), &example(), 80, true);
        assert!(text.contains("\x1b[32mcomplete\x1b[0m"));
        assert!(text.lines().all(|l| text::width(l) <= 80));
    }

    #[test]
    fn counts_what_it_does_not_show() {
        let mut s = example();
        s.devices = (0..60).map(|n| row(&format!("lab-{n}"), State::Complete)).collect();
        s.devices.push(row("z", State::Lost));
        let text = table(&SenderMemory::default(), &s, 80, false);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().nth(1).unwrap().starts_with("z "));
        assert!(text.ends_with("and 60 more, which are complete\n"));
        s.devices.iter_mut().take(58).for_each(|row| *row = self::row("lost", State::Lost));
        let text = table(&SenderMemory::default(), &s, 80, false);
        assert_eq!(text.lines().count(), 52);
        assert!(text.ends_with("and 11 more\n"));
        s.devices.clear();
        assert_eq!(table(&SenderMemory::default(), &s, 80, false), "");
    }

    #[test]
    fn sums_up() {
        let mut memory = SenderMemory::default();
        let event = mcp_transfer::protocol::event::SenderEvent::Phase(Phase::Streaming);
        memory.event(Time::ZERO, &event);
        memory.root = Some(mcp_transfer::units::Digest([0xab; 32]));
        let mut s = example();
        s.overview.wire_bytes = 112 << 20;
        let lines = summary(&memory, &s, Time::ZERO + Duration::from_secs(2));
        assert_eq!(lines[0], "2 of 5 devices complete in 2.0s");
        assert_eq!(lines[1], "100.00 MiB, 419 Mbit/s goodput, 1.120 bytes on the wire per byte");
        assert_eq!(sum(&memory, &sender_intro()), Some(format!("{}  image.iso", "ab".repeat(32))));
        let mut idle = snapshot(Phase::Gathering);
        (idle.overview.streamed, idle.overview.wire_bytes) = (0, 0);
        let lines = summary(&SenderMemory::default(), &idle, Time::ZERO);
        assert_eq!(lines, [""; 0]);
        idle.overview.expected = Some(3);
        let lines = summary(&SenderMemory::default(), &idle, Time::ZERO);
        assert_eq!(lines, ["0 of 3 devices complete"]);
    }
}

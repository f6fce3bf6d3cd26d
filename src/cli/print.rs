//! How commands print: a table for people, one line of JSON for programs.

use std::io::Write;

use serde_json::Value;

/// Widest a column may be, in characters; longer cells are kept whole, only not aligned to.
const COLUMN_CHARS_MAX: usize = 60;

/// One line on standard output. A reader that has gone (`| head`) is no error.
pub fn line(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A list of objects as JSON, or as a table with the given columns (title, path into the object).
pub fn list(json: bool, items: &Value, columns: &[(&str, &str)]) {
    if json {
        return line(items);
    }
    let titles = columns
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = items.iter().map(|item| {
        let cells = columns.iter().map(|(_, path)| cell(item.pointer(path)));
        cells.collect()
    });
    line(table(std::iter::once(titles).chain(rows).collect()));
}

/// One object as JSON, or as lines of `title  value`.
pub fn record(json: bool, item: &Value, fields: &[(&str, &str)]) {
    if json {
        return line(item);
    }
    let rows = fields
        .iter()
        .filter(|(_, path)| item.pointer(path).is_some_and(|value| !value.is_null()))
        .map(|(title, path)| vec![(*title).to_owned(), cell(item.pointer(path))]);
    line(table(rows.collect()));
}

/// A value as one cell.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace(['\n', '\r', '\t'], " "),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// What user code wrote, without control characters that a terminal would obey.
pub fn harmless(text: &str) -> String {
    let harmless = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(harmless).collect()
}

/// A text of a reply.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A moment in microseconds since the Unix epoch, in UTC to the millisecond.
pub fn moment(us: Option<i64>) -> String {
    us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok())
        .map_or_else(|| "-".to_owned(), |at| format!("{at:.3}"))
}

/// Rows with aligned columns.
pub fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells.map(|cell| cell.chars().count());
        widths.filter(|width| *width <= COLUMN_CHARS_MAX).max()
    };
    let widths: Vec<_> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_long_cell_spoils_only_its_row() {
        let rows = [["a", "b"], ["longer", "c"], [&"x".repeat(99), "d"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        let text = table(rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(&lines[..2], ["a       b", "longer  c"]);
        assert!(lines[2].ends_with("x  d"));
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(Some(1_500)), "1970-01-01T00:00:00.001Z");
        assert_eq!(moment(None), "-");
    }
}

//! Tables and numbers for people.

use comfy_table::{Table, presets};

/// A table with a head; plain, so that it also reads well in a file.
pub(crate) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// A number with three significant digits or so, and its thousands apart.
pub(crate) fn number(n: f64) -> String {
    let digits = match n.abs() {
        n if n >= 100.0 || n.fract() == 0.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{n:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        let is_after_digit = out.ends_with(|c: char| c.is_ascii_digit());
        if is_after_digit && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + rest
}

/// A time in microseconds, in a unit that suits it.
pub(crate) fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", number(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", number(us / 1e3)),
        us => format!("{} µs", number(us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(-123.0), "-123");
        assert_eq!(number(-1_234.0), "-1,234");
        assert_eq!(number(0.5), "0.50");
        assert_eq!(micros(1_500.0), "1.50 ms");
    }
}

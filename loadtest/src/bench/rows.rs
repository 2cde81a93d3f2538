//! Figures of several runs, and what is wanted of them.

use serde::{Deserialize, Serialize};

use crate::report::Part;
use crate::table::number;

/// A figure that was measured several times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    values: Vec<f64>,
}

impl Spread {
    /// Of every run.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { values }
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.values.len() / 2;
        let at = |i: usize| self.values.get(i).copied().unwrap_or(0.0);
        if self.values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        }
    }

    /// How many runs.
    pub(crate) fn runs(&self) -> usize {
        self.values.len()
    }

    /// The median, and the smallest and the largest where there are several.
    pub(crate) fn show(&self, unit: &str, show: impl Fn(f64) -> String) -> String {
        let median = format!("{}{unit}", show(self.median()));
        match (self.values.first(), self.values.last()) {
            (Some(first), Some(last)) if self.values.len() > 1 => {
                format!("{median} ({}–{})", show(*first), show(*last))
            }
            _ => median,
        }
    }
}

/// Something that is wanted, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) what: String,
    /// What is wanted of it.
    pub(crate) wanted: String,
    /// What was measured: median, smallest and largest.
    pub(crate) figure: String,
    /// The figure over what it is measured by.
    pub(crate) ratio: Option<f64>,
    /// How many runs.
    pub(crate) runs: usize,
    /// Whether it is as wanted.
    pub(crate) is_met: bool,
}

impl Row {
    /// A row without a ratio.
    pub(crate) fn new(what: &str, wanted: &str, figure: String, runs: usize, is_met: bool) -> Self {
        Self {
            what: what.to_owned(),
            wanted: wanted.to_owned(),
            figure,
            ratio: None,
            runs,
            is_met,
        }
    }

    /// The same with a ratio.
    pub(crate) fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }
}

/// All rows as a table.
pub(crate) fn part(rows: &[Row]) -> Part {
    let rows = rows.iter().map(|row| {
        vec![
            row.what.clone(),
            row.wanted.clone(),
            row.figure.clone(),
            row.ratio.map(number).unwrap_or_default(),
            row.runs.to_string(),
            if row.is_met { "met" } else { "MISSED" }.to_owned(),
        ]
    });
    let head = ["measured", "wanted", "figure", "ratio", "runs", "verdict"];
    Part::table(
        "Targets: median (smallest–largest) of the runs",
        &head,
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((Spread::of([9.0, 1.0, 5.0]).median() - 5.0).abs() < 1e-9);
        assert!((Spread::of([4.0, 2.0]).median() - 3.0).abs() < 1e-9);
        assert!(Spread::of([]).median().abs() < 1e-9);
        let shown = Spread::of([3.0, 1.0, 2.0]).show(" ms", number);
        assert_eq!(shown, "2 ms (1–3)");
        assert_eq!(Spread::of([7.0]).show("/s", number), "7/s");
    }

    #[test]
    fn a_row_says_whether_it_is_met() {
        let row = Row::new("a", "b", "c".to_owned(), 3, false).ratio(1.5);
        let Part::Table { rows, .. } = part(&[row]) else {
            unreachable!("it is a table");
        };
        assert_eq!(rows[0], ["a", "b", "c", "1.50", "3", "MISSED"]);
    }
}

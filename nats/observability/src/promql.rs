//! What an expression names, and pieces that many of them share.
//!
//! Not a parser: it tells metrics from functions, operators and labels, and knows in which
//! aggregation a metric stands. Whether an expression is well-formed, promtool says.

use std::collections::BTreeSet;

/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Words that are neither metrics nor functions.
const OPERATORS: [&str; 8] = [
    "and", "or", "unless", "bool", "offset", "atan2", "inf", "nan",
];
/// Functions that make one series of many.
const AGGREGATIONS: [&str; 12] = [
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "count",
    "count_values",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
];

/// A metric in an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Use {
    /// As it stands there.
    pub name: String,
    /// The innermost aggregation around it.
    pub aggregation: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'e> {
    Word(&'e str),
    Open,
    Close,
}

/// The names of all metrics in an expression.
pub fn names(expr: &str) -> BTreeSet<String> {
    uses(expr).into_iter().map(|u| u.name).collect()
}

/// All metrics in an expression, in order.
pub fn uses(expr: &str) -> Vec<Use> {
    let mut tokens = tokens(expr).into_iter().peekable();
    let mut uses = Vec::new();
    // What each parenthesis that is open belongs to.
    let mut open: Vec<Option<&str>> = Vec::new();
    let mut called: Option<&str> = None;
    while let Some(token) = tokens.next() {
        match token {
            Token::Open => open.push(called.take()),
            Token::Close => {
                open.pop();
            }
            Token::Word(word) if BEFORE_LABELS.contains(&word) => {
                if tokens.peek() == Some(&Token::Open) {
                    while tokens.next().is_some_and(|t| t != Token::Close) {}
                }
            }
            Token::Word(word) if OPERATORS.contains(&word.to_lowercase().as_str()) => {}
            Token::Word(word)
                if AGGREGATIONS.contains(&word) || tokens.peek() == Some(&Token::Open) =>
            {
                called = Some(word);
            }
            Token::Word(word) => {
                let around = open.iter().rev().flatten();
                let aggregation = around.copied().find(|w| AGGREGATIONS.contains(w));
                uses.push(Use {
                    name: word.to_owned(),
                    aggregation: aggregation.map(str::to_owned),
                });
            }
        }
    }
    uses
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Words and parentheses; numbers, strings, selectors and ranges are left out.
fn tokens(expr: &str) -> Vec<Token<'_>> {
    let mut rest = expr;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (one, others) = rest.split_at(first.len_utf8());
        rest = match first {
            '(' => {
                tokens.push(Token::Open);
                others
            }
            ')' => {
                tokens.push(Token::Close);
                others
            }
            '"' | '\'' | '`' => after(others, first),
            '{' => after_selector(others),
            '[' => after(others, ']'),
            c if is_word(c) => {
                let (word, others) =
                    rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
                if !one.starts_with(|c: char| c.is_ascii_digit()) {
                    tokens.push(Token::Word(word));
                }
                others
            }
            _ => others,
        };
    }
    tokens
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// A value in a selector may hold a brace.
fn after_selector(text: &str) -> &str {
    let mut rest = text;
    while let Some(at) = rest.find(['}', '"']) {
        let (_, from) = rest.split_at(at);
        match from.strip_prefix('}') {
            Some(others) => return others,
            None => rest = after(after(from, '"'), '"'),
        }
    }
    ""
}

/// By how much a figure of the cell that only grows has grown within `window`.
///
/// Not `increase`: these figures are functions of the log. A process that starts reads the log
/// anew, and what it serves meanwhile is low; to `increase` that is a counter which began again
/// and then counted all history. Compared is with the highest value of the window before,
/// whichever process served it.
pub fn grown(metric: &str, by: &str, selector: &str, window: &str) -> String {
    format!(
        "max by ({by}) ({metric}{selector})\n  - max by ({by}) (max_over_time({metric}{selector}[{window}] offset {window}))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expr: &str, expected: &[(&str, &str)]) {
        let found: Vec<(String, String)> = uses(expr)
            .into_iter()
            .map(|u| (u.name, u.aggregation.unwrap_or_default()))
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(n, a)| ((*n).to_owned(), (*a).to_owned()))
            .collect();
        assert_eq!(found, expected, "{expr}");
    }

    #[test]
    fn metrics_are_told_from_everything_else() {
        check("up", &[("up", "")]);
        check(
            r#"sum by (cell) (rate(a_total{x="b{}(c)", y!="d"}[5m:30s] offset 1h)) / 2e3"#,
            &[("a_total", "sum")],
        );
        check("sum(a) by (cell) > bool b", &[("a", "sum"), ("b", "")]);
        check(
            "sum(max by (q) (increase(a[1m]))) unless on (cell) group_left () (b == 1)",
            &[("a", "max"), ("b", "")],
        );
        check(
            r#"label_replace(a, "x", "$1", "y", "(.*)") or vector(0) and on () c:d"#,
            &[("a", ""), ("c:d", "")],
        );
        check(
            "histogram_quantile(0.99, sum by (le) (rate(h_bucket[5m])))",
            &[("h_bucket", "sum")],
        );
        check("topk(5, max by (queue) (a)) * Inf", &[("a", "max")]);
    }
}

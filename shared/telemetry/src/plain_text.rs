//! The same page in Prometheus' older text format, for those who do not ask for OpenMetrics.

/// The format's media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites an OpenMetrics page: counters are named in full, exemplars are left out, and so is
/// the end mark.
pub(crate) fn of_open_metrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // Help stands before the type, and only the type says how the name ends.
    let mut help: Option<(&str, &str)> = None;
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next()) {
            (Some("#"), Some("HELP")) => {
                help = words.next().zip(words.next());
            }
            (Some("#"), Some("TYPE")) => {
                let (name, kind) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                let end = if kind == "counter" { "_total" } else { "" };
                if let Some((of, text)) = help.take().filter(|(of, _)| *of == name) {
                    out.push_str(&format!("# HELP {of}{end} {text}\n"));
                }
                out.push_str(&format!("# TYPE {name}{end} {kind}\n"));
            }
            (Some("#"), _) => {}
            _ => {
                // Quotes are escaped in labels, so no value of one holds this.
                let sample = line.split(" # {").next().unwrap_or(line);
                out.push_str(sample);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_in_full_and_exemplars_left_out() {
        let page = "# HELP a_b What it is.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
            # HELP s How long.\n# TYPE s histogram\ns_bucket{le=\"1.0\"} 1 # {trace_id=\"ab\"} 0.5\n\
            # TYPE g gauge\ng 1\n# EOF\n";
        let plain = "# HELP a_b_total What it is.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
            # HELP s How long.\n# TYPE s histogram\ns_bucket{le=\"1.0\"} 1\n\
            # TYPE g gauge\ng 1\n";
        assert_eq!(of_open_metrics(page), plain);
    }
}

//! Reports as one HTML file that needs nothing else.

use crate::report::{Part, Report};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
padding:0 1rem;color:#222}table{border-collapse:collapse;margin:.5rem 0 1.5rem}\
th,td{border-bottom:1px solid #ddd;padding:.2rem .7rem;text-align:left;vertical-align:top}\
th{border-bottom:2px solid #888}pre{background:#f5f5f5;padding:.8rem;overflow-x:auto;\
font-size:12px}figure{margin:1rem 0 2rem}figcaption{font-weight:600}.missed{color:#b00020}\
.met{color:#00695c}small{color:#666}";

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page of a report.
pub(crate) fn page(report: &Report) -> String {
    let parts: String = report.parts.iter().map(part).collect();
    let (title, origin) = (escape(&report.title), escape(&report.origin_text()));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1><p><small>{origin}</small></p>{parts}</html>\n"
    )
}

fn part(part: &Part) -> String {
    match part {
        Part::Heading(text) => format!("<h2>{}</h2>", escape(text)),
        Part::Text(text) => format!("<p>{}</p>", escape(text)),
        Part::Commands(commands) => {
            format!("<pre>{}</pre>", escape(&commands.join("\n")))
        }
        Part::Plot(plot) => format!(
            "<figure><figcaption>{}</figcaption><small>{}, {}</small><br>{}{}</figure>",
            escape(&plot.title),
            plot.legend(),
            escape(&plot.y),
            "",
            plot.svg()
        ),
        Part::Table { title, head, rows } => {
            let head: String = head.iter().map(|h| cell("th", h)).collect();
            let rows = rows.iter().map(|row| {
                let cells: String = row.iter().map(|c| cell("td", c)).collect();
                format!("<tr>{cells}</tr>")
            });
            let rows: String = rows.collect();
            let title = escape(title);
            format!("<h3>{title}</h3><table><tr>{head}</tr>{rows}</table>")
        }
    }
}

fn cell(kind: &str, text: &str) -> String {
    let class = match text {
        "met" => " class=\"met\"",
        "MISSED" => " class=\"missed\"",
        _ => "",
    };
    format!("<{kind}{class}>{}</{kind}>", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Origin;

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let report = Report {
            title: "<x>".to_owned(),
            origin: Origin::default(),
            took_s: 0.0,
            parts: vec![Part::Text("a & b".to_owned())],
        };
        let page = page(&report);
        assert!(page.contains("&lt;x&gt;") && page.contains("a &amp; b"));
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}

//! Line charts as SVG.

use serde::{Deserialize, Serialize};

use crate::html::escape;
use crate::table::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Colours that are told apart by those who see fewer, too.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#999933",
];
/// Where no number stands on an axis, on a logarithmic one.
const STEPS: usize = 5;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scale {
    /// Evenly, from zero.
    #[default]
    Linear,
    /// By powers of ten.
    Log,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// What it shows.
    pub(crate) name: String,
    /// Its points.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plot {
    /// What it shows.
    pub(crate) title: String,
    /// What is to the right.
    pub(crate) x: String,
    /// What is above.
    pub(crate) y: String,
    /// How the axis to the right is divided.
    pub(crate) x_scale: Scale,
    /// How the axis upwards is divided.
    pub(crate) y_scale: Scale,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

/// An axis: values to pixels.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let is_shown = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let values: Vec<f64> = values.filter(is_shown).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match (scale, low <= high) {
            (_, false) => (1.0, 10.0),
            (Scale::Linear, _) => (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
            (Scale::Log, _) => (low / 1.2, high * 1.2),
        };
        Self {
            scale,
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + part * (self.to - self.from)
    }

    /// Values that a number stands at.
    fn ticks(&self) -> Vec<f64> {
        if self.scale == Scale::Log {
            let (first, last) = (self.low.log10().ceil(), self.high.log10().floor());
            if last - first >= 1.0 {
                let powers = first as i32..=last as i32;
                return powers.map(|p| 10_f64.powi(p)).collect();
            }
            return vec![self.low * 1.2, self.high / 1.2];
        }
        let rough = (self.high - self.low) / STEPS as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
        let step = nice.into_iter().find(|n| *n >= rough).unwrap_or(rough);
        let count = ((self.high - self.low) / step).floor() as usize;
        (0..=count).map(|i| self.low + step * i as f64).collect()
    }
}

impl Plot {
    /// The chart.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| l.points.iter());
        let x = Axis::new(self.x_scale, points().map(|p| p.0), LEFT, WIDTH - RIGHT);
        let y = Axis::new(self.y_scale, points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        for tick in x.ticks() {
            let at = x.at(tick);
            out += &rule(at, TOP, at, HEIGHT - BOTTOM);
            out += &label(at, HEIGHT - BOTTOM + 14.0, "middle", &number(tick));
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            out += &rule(LEFT, at, WIDTH - RIGHT, at);
            out += &label(LEFT - 6.0, at + 4.0, "end", &number(tick));
        }
        out += &label(WIDTH / 2.0, HEIGHT - 8.0, "middle", &escape(&self.x));
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            out += &drawn(line, colour, &x, &y);
        }
        out + "</svg>"
    }

    /// Which line is which.
    pub(crate) fn legend(&self) -> String {
        let each = self.lines.iter().zip(COLOURS.iter().cycle());
        let each = each.map(|(line, colour)| {
            let name = escape(&line.name);
            format!("<span style=\"color:{colour}\">&#9632;</span> {name}")
        });
        each.collect::<Vec<_>>().join(" &nbsp; ")
    }
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>")
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"11\" \
         fill=\"#444\">{text}</text>"
    )
}

fn drawn(line: &Line, colour: &str, x: &Axis, y: &Axis) -> String {
    let at: Vec<(f64, f64)> = line.points.iter().map(|p| (x.at(p.0), y.at(p.1))).collect();
    let path: Vec<String> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut out = format!(
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
        path.join(" ")
    );
    // Few points are measurements, many are a course.
    if at.len() <= 20 {
        for (x, y) in at {
            out += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_all_values_between_their_ends() {
        for scale in [Scale::Linear, Scale::Log] {
            let values = [3.0, 70.0, 4_000.0];
            let axis = Axis::new(scale, values.into_iter(), 80.0, 704.0);
            for value in values {
                assert!(
                    (80.0..=704.0).contains(&axis.at(value)),
                    "{scale:?} {value}"
                );
            }
            assert!((2..=8).contains(&axis.ticks().len()), "{:?}", axis.ticks());
        }
        let empty = Axis::new(Scale::Log, [].into_iter(), 0.0, 1.0);
        assert!(empty.at(5.0).is_finite());
    }

    #[test]
    fn a_chart_is_well_formed() {
        let plot = Plot {
            title: "a < b".to_owned(),
            lines: vec![Line {
                name: "n".to_owned(),
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            }],
            ..Plot::default()
        };
        let svg = plot.svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
    }
}

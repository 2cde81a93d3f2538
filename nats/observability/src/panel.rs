//! A panel: what it asks, and what is good and bad there. `grafana` writes it as Grafana wants it.

mod grafana;

use serde_json::{Value, json};

/// The data source that whoever looks has chosen.
pub fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${DS_PROMETHEUS}"})
}

/// What draws it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A lamp: the last value, its colour says whether it is well.
    Stat,
    /// Lines.
    Lines,
    /// Areas on top of each other.
    Areas,
    /// The last values of several queries, a row for each set of labels.
    Table,
}

/// One expression of a panel.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    /// The expression.
    pub expr: String,
    /// What its series are called; in a table the column.
    pub legend: &'static str,
    /// Whether tasks that stand for their bucket are shown beside it.
    pub has_exemplars: bool,
}

/// A panel.
#[derive(Clone, PartialEq, Debug)]
pub struct Panel {
    /// What it shows.
    pub title: &'static str,
    /// What is good, what is bad, and where to go from here.
    pub description: &'static str,
    /// What it asks.
    pub queries: Vec<Query>,
    kind: Kind,
    unit: &'static str,
    width: u32,
    height: u32,
    steps: Vec<(&'static str, Option<f64>)>,
    words: Vec<(u32, &'static str)>,
    no_value: Option<&'static str>,
    links: Vec<Value>,
    overrides: Vec<Value>,
    has_names: bool,
    hidden: &'static [&'static str],
}

/// Where a panel stands: columns of 24, rows.
#[derive(Clone, Copy, Default, Debug)]
pub struct Place {
    x: u32,
    y: u32,
    height: u32,
}

impl Place {
    /// The next place in reading order.
    pub fn next(&mut self, panel: &Panel) -> Value {
        if self.x + panel.width > 24 {
            self.x = 0;
            self.y += self.height;
            self.height = 0;
        }
        let place = json!({"x": self.x, "y": self.y, "w": panel.width, "h": panel.height});
        self.x += panel.width;
        self.height = self.height.max(panel.height);
        place
    }
}

impl Panel {
    fn new(kind: Kind, title: &'static str, description: &'static str) -> Self {
        let (width, height) = match kind {
            Kind::Stat => (4, 4),
            Kind::Lines | Kind::Areas | Kind::Table => (12, 8),
        };
        Self {
            title,
            description,
            queries: Vec::new(),
            kind,
            unit: "short",
            width,
            height,
            steps: vec![("green", None)],
            words: Vec::new(),
            no_value: None,
            links: Vec::new(),
            overrides: Vec::new(),
            has_names: false,
            hidden: &[],
        }
    }

    /// A lamp.
    pub fn stat(title: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Stat, title, description)
    }

    /// Lines over time.
    pub fn lines(title: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Lines, title, description)
    }

    /// Areas over time.
    pub fn areas(title: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Areas, title, description)
    }

    /// A table of last values.
    pub fn table(title: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Table, title, description)
    }

    /// One more expression.
    #[must_use]
    pub fn query(mut self, legend: &'static str, expr: impl Into<String>) -> Self {
        let expr = expr.into();
        // Several values need their names beside them.
        self.has_names |= !self.queries.is_empty();
        self.queries.push(Query {
            expr,
            legend,
            has_exemplars: false,
        });
        self
    }

    /// One more expression, with exemplars.
    #[must_use]
    pub fn query_with_exemplars(self, legend: &'static str, expr: impl Into<String>) -> Self {
        let mut panel = self.query(legend, expr);
        if let Some(query) = panel.queries.last_mut() {
            query.has_exemplars = true;
        }
        panel
    }

    /// Its unit, by Grafana's name.
    #[must_use]
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// The unit of one column or series.
    #[must_use]
    pub fn unit_of(mut self, name: &'static str, unit: &'static str) -> Self {
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }));
        self
    }

    /// The colour of one series, and another one from a value on.
    #[must_use]
    pub fn hue_of(mut self, name: &str, below: &str, value: f64, above: &str) -> Self {
        let steps = json!([{"color": below, "value": null}, {"color": above, "value": value}]);
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "thresholds", "value": {"mode": "absolute", "steps": steps}}],
        }));
        self
    }

    /// Its width, of 24.
    #[must_use]
    pub fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// Orange from this value on.
    #[must_use]
    pub fn orange_from(mut self, value: f64) -> Self {
        self.steps.push(("orange", Some(value)));
        self
    }

    /// Red from this value on.
    #[must_use]
    pub fn red_from(mut self, value: f64) -> Self {
        self.steps.push(("red", Some(value)));
        self
    }

    /// Red below this value.
    #[must_use]
    pub fn red_below(mut self, value: f64) -> Self {
        self.steps = vec![("red", None), ("green", Some(value))];
        self
    }

    /// A word instead of a value.
    #[must_use]
    pub fn word(mut self, value: u32, word: &'static str) -> Self {
        self.words.push((value, word));
        self
    }

    /// What stands there while there is nothing.
    #[must_use]
    pub fn no_value(mut self, text: &'static str) -> Self {
        self.no_value = Some(text);
        self
    }

    /// A link that knows the value that was clicked at.
    #[must_use]
    pub fn link(mut self, title: &'static str, url: &'static str) -> Self {
        self.links
            .push(json!({"title": title, "url": url, "targetBlank": true}));
        self
    }

    /// Each value has its name beside it: one query, many series.
    #[must_use]
    pub fn with_names(mut self) -> Self {
        self.has_names = true;
        self
    }

    /// Columns of a table that say nothing.
    #[must_use]
    pub fn hide(mut self, columns: &'static [&'static str]) -> Self {
        self.hidden = columns;
        self
    }
}

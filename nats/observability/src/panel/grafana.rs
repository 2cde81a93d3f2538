//! A panel as Grafana reads it.

use serde_json::{Value, json};

use super::{Kind, Panel, Query, datasource};

impl Panel {
    /// The panel as Grafana reads it.
    pub fn to_json(&self, id: usize, place: &Value) -> Value {
        let (kind, options) = self.options();
        let mut panel = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": place,
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides},
            "options": options,
            "targets": self.targets(),
        });
        if let (Kind::Table, Some(fields)) = (self.kind, panel.as_object_mut()) {
            fields.insert("transformations".to_owned(), self.transformations());
        }
        panel
    }

    fn options(&self) -> (&'static str, Value) {
        match self.kind {
            Kind::Stat => (
                "stat",
                json!({
                    "colorMode": "background",
                    "graphMode": "none",
                    "justifyMode": "auto",
                    "orientation": "auto",
                    "percentChangeColorMode": "standard",
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                    "showPercentChange": false,
                    "textMode": if self.has_names { "value_and_name" } else { "value" },
                    "wideLayout": true,
                }),
            ),
            Kind::Lines | Kind::Areas => (
                "timeseries",
                json!({
                    "legend": {
                        "calcs": ["lastNotNull", "max"],
                        "displayMode": "table",
                        "placement": "bottom",
                        "showLegend": true,
                    },
                    "tooltip": {"hideZeros": false, "mode": "multi", "sort": "desc"},
                }),
            ),
            Kind::Table => ("table", json!({"cellHeight": "sm", "showHeader": true})),
        }
    }

    fn defaults(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|(color, value)| json!({"color": color, "value": value}))
            .collect();
        let color = match self.kind {
            Kind::Stat => "thresholds",
            Kind::Lines | Kind::Areas | Kind::Table => "palette-classic-by-name",
        };
        let mut defaults = json!({
            "color": {"mode": color},
            "custom": self.custom(),
            "links": self.links,
            "mappings": self.mappings(),
            "thresholds": {"mode": "absolute", "steps": steps},
            "unit": self.unit,
        });
        if let Some(fields) = defaults.as_object_mut() {
            if let Some(text) = self.no_value {
                fields.insert("noValue".to_owned(), json!(text));
            }
            if self.kind != Kind::Table {
                fields.insert("min".to_owned(), json!(0));
            }
        }
        defaults
    }

    fn custom(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({}),
            Kind::Table => {
                json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false})
            }
            Kind::Lines | Kind::Areas => {
                let (mode, fill) = match self.kind {
                    Kind::Areas => ("normal", 30),
                    _ => ("none", 5),
                };
                // A line where it turns bad, if there is one.
                let limit = if self.steps.len() > 1 {
                    "dashed"
                } else {
                    "off"
                };
                json!({
                    "axisPlacement": "auto",
                    "drawStyle": "line",
                    "fillOpacity": fill,
                    "lineInterpolation": "linear",
                    "lineWidth": 1,
                    "showPoints": "never",
                    "spanNulls": false,
                    "stacking": {"group": "A", "mode": mode},
                    "thresholdsStyle": {"mode": limit},
                })
            }
        }
    }

    fn mappings(&self) -> Value {
        if self.words.is_empty() {
            return json!([]);
        }
        let options: serde_json::Map<String, Value> = self
            .words
            .iter()
            .enumerate()
            .map(|(index, (value, word))| {
                (value.to_string(), json!({"index": index, "text": word}))
            })
            .collect();
        json!([{"type": "value", "options": options}])
    }

    fn targets(&self) -> Vec<Value> {
        let is_table = self.kind == Kind::Table;
        let is_last = is_table || self.kind == Kind::Stat;
        let one = |(reference, query): (char, &Query)| {
            json!({
                "datasource": datasource(),
                "editorMode": "code",
                "exemplar": query.has_exemplars,
                "expr": query.expr,
                "format": if is_table { "table" } else { "time_series" },
                "instant": is_last,
                "legendFormat": if query.legend.is_empty() { "__auto" } else { query.legend },
                "range": !is_last,
                "refId": reference.to_string(),
            })
        };
        ('A'..='Z').zip(&self.queries).map(one).collect()
    }

    /// One row for each set of labels, with a column for each query.
    fn transformations(&self) -> Value {
        let renamed: serde_json::Map<String, Value> = if self.queries.len() == 1 {
            let legend = self.queries.iter().map(|q| q.legend);
            legend.map(|l| ("Value".to_owned(), json!(l))).collect()
        } else {
            ('A'..='Z')
                .zip(&self.queries)
                .map(|(reference, q)| (format!("Value #{reference}"), json!(q.legend)))
                .collect()
        };
        let hidden: serde_json::Map<String, Value> = ["Time"]
            .iter()
            .chain(self.hidden)
            .map(|column| ((*column).to_owned(), json!(true)))
            .collect();
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": hidden, "indexByName": {}, "renameByName": renamed,
            }},
        ])
    }
}

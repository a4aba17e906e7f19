//! What was measured, and what it says: medians, spread, ratios.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Seconds.
    Lower,
    /// Rates.
    Higher,
}

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    pub name: String,
    pub unit: &'static str,
    pub better: Better,
    pub value: f64,
    /// It was stopped at its limit: the value is the limit.
    pub stopped: bool,
    /// What the contender's daemon used meanwhile.
    pub daemon_cpu_s: f64,
    /// The most resident memory of the contender's daemon meanwhile.
    pub daemon_rss_mib: f64,
}

impl Metric {
    /// A value that a workload found itself, while the processes `pids` served.
    pub fn noted(name: &str, unit: &'static str, better: Better, value: f64, pids: &[u32]) -> Self {
        let daemon_rss_mib = crate::usage::peak_mib(pids);
        let (name, daemon_cpu_s) = (name.to_owned(), 0.0);
        Self { name, unit, better, value, stopped: false, daemon_cpu_s, daemon_rss_mib }
    }
}

/// A metric with where it comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub workload: &'static str,
    pub contender: String,
    pub round: usize,
    #[serde(flatten)]
    pub metric: Metric,
}

/// What is known of the machine and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub commit: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub disk: String,
    pub size: String,
    pub rounds: usize,
    pub started: u64,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub setting: Setting,
    /// Contenders and workloads that did not run, and why.
    pub absent: Vec<String>,
    pub samples: Vec<Sample>,
}

/// Several rounds of one metric on one contender.
#[derive(Clone, Debug)]
pub struct Cell {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub unit: &'static str,
    pub better: Better,
    pub stopped: bool,
    pub rss_mib: f64,
    pub cpu_s: f64,
}

/// Cells by (workload, metric) and contender.
pub type Table = BTreeMap<(&'static str, String), BTreeMap<String, Cell>>;

impl Results {
    /// Rounds put together.
    pub fn table(&self) -> Table {
        let mut all: BTreeMap<_, BTreeMap<String, Vec<&Metric>>> = BTreeMap::new();
        for sample in &self.samples {
            let row = all.entry((sample.workload, sample.metric.name.clone())).or_default();
            row.entry(sample.contender.clone()).or_default().push(&sample.metric);
        }
        let cells = |row: BTreeMap<String, Vec<&Metric>>| {
            row.into_iter().map(|(contender, metrics)| (contender, cell(&metrics))).collect()
        };
        all.into_iter().map(|(key, row)| (key, cells(row))).collect()
    }

    /// Metrics of a workload in the order in which they were measured.
    pub fn order(&self) -> Vec<(&'static str, String)> {
        let mut order: Vec<(&'static str, String)> = Vec::new();
        for sample in &self.samples {
            let key = (sample.workload, sample.metric.name.clone());
            if !order.contains(&key) {
                order.push(key);
            }
        }
        order
    }
}

fn cell(metrics: &[&Metric]) -> Cell {
    let mut values: Vec<f64> = metrics.iter().map(|metric| metric.value).collect();
    values.sort_by(f64::total_cmp);
    let most = |of: fn(&Metric) -> f64| metrics.iter().map(|m| of(m)).fold(0.0, f64::max);
    Cell {
        median: median(&values),
        least: values.first().copied().unwrap_or_default(),
        most: values.last().copied().unwrap_or_default(),
        unit: metrics[0].unit,
        better: metrics[0].better,
        stopped: metrics.iter().any(|metric| metric.stopped),
        rss_mib: most(|metric| metric.daemon_rss_mib),
        cpu_s: most(|metric| metric.daemon_cpu_s),
    }
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

impl Cell {
    /// How many times as long as `other` this takes; of rates likewise, so that less is better.
    pub fn ratio_to(&self, other: &Cell) -> f64 {
        match self.better {
            Better::Lower => self.median / other.median,
            Better::Higher => other.median / self.median,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(better: Better, value: f64) -> Metric {
        Metric {
            name: "m".to_owned(),
            unit: "s",
            better,
            value,
            stopped: false,
            daemon_cpu_s: 0.0,
            daemon_rss_mib: 0.0,
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
    }

    #[test]
    fn a_ratio_below_one_is_better_for_times_and_for_rates() {
        let of = |better, value| cell(&[&metric(better, value)]);
        assert_eq!(of(Better::Lower, 1.0).ratio_to(&of(Better::Lower, 2.0)), 0.5);
        assert_eq!(of(Better::Higher, 2.0).ratio_to(&of(Better::Higher, 1.0)), 0.5);
    }
}

//! What was measured, and what it says: medians, spread, ratios.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};

/// A name that lasts as long as the program. Behind a name of its own, or serde would borrow it
/// from what it reads.
type Word = &'static str;

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    #[serde(deserialize_with = "for_ever")]
    pub unit: Word,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    #[serde(deserialize_with = "for_ever")]
    pub workload: Word,
    pub contender: String,
    pub round: usize,
    #[serde(flatten)]
    pub metric: Metric,
}

/// What is known of the machine and the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// Names that a report reads once and needs until it ends.
fn for_ever<'de, D: Deserializer<'de>>(from: D) -> Result<Word, D::Error> {
    Ok(String::deserialize(from)?.leak())
}

impl Results {
    /// Joins a later run of the same size on the same machine: what it measured too replaces what
    /// was there.
    ///
    /// # Errors
    /// Where size or machine are others.
    pub fn join(&mut self, later: Self) -> Result<()> {
        let (own, other) = (&mut self.setting, later.setting);
        let machine = |s: &Setting| (s.cpu.clone(), s.cores, s.memory_mib, s.size.clone());
        ensure!(
            machine(own) == machine(&other),
            "runs of another size or machine: {:?} and {:?}",
            machine(own),
            machine(&other)
        );
        if !own.commit.split(", ").any(|commit| commit == other.commit) {
            own.commit = format!("{}, {}", own.commit, other.commit);
        }
        own.rounds = own.rounds.max(other.rounds);
        let measured = |workload: &str| later.samples.iter().any(|s| s.workload == workload);
        self.samples.retain(|sample| !measured(sample.workload));
        let replaced =
            |absent: &String| absent.split_once(" on ").is_some_and(|(w, _)| measured(w));
        self.absent.retain(|absent| !replaced(absent));
        let news: Vec<_> = later.absent.into_iter().filter(|a| !self.absent.contains(a)).collect();
        self.absent.extend(news);
        self.samples.extend(later.samples);
        Ok(())
    }

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

    fn run(commit: &str, size: &str, samples: &[(&'static str, f64)], absent: &[&str]) -> Results {
        let sample = |&(workload, value): &(&'static str, f64)| Sample {
            workload,
            contender: "c".to_owned(),
            round: 0,
            metric: metric(Better::Lower, value),
        };
        let setting = Setting {
            commit: commit.to_owned(),
            kernel: String::new(),
            cpu: String::new(),
            cores: 2,
            memory_mib: 1,
            disk: String::new(),
            size: size.to_owned(),
            rounds: 1,
            started: 0,
        };
        let absent = absent.iter().map(|&text| text.to_owned()).collect();
        Results { setting, absent, samples: samples.iter().map(sample).collect() }
    }

    #[test]
    fn a_later_run_replaces_the_workloads_that_it_measured() {
        let mut all =
            run("1", "full", &[("tree", 1.0), ("git", 2.0)], &["git on c failed: x", "j"]);
        all.join(run("2", "full", &[("git", 3.0), ("large", 4.0)], &["j"])).expect("alike");
        let values: Vec<_> = all.samples.iter().map(|s| (s.workload, s.metric.value)).collect();
        assert_eq!(values, [("tree", 1.0), ("git", 3.0), ("large", 4.0)]);
        assert_eq!((all.setting.commit.as_str(), &all.absent[..]), ("1, 2", &["j".to_owned()][..]));
        assert!(all.join(run("3", "quick", &[], &[])).is_err());
    }

    #[test]
    fn results_read_back() {
        let all = run("1", "full", &[("tree", 1.0)], &[]);
        let json = serde_json::to_string(&all).expect("JSON");
        let back: Results = serde_json::from_str(&json).expect("read");
        assert_eq!(format!("{back:?}"), format!("{all:?}"));
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

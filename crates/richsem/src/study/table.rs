//! The table of a study: one row for each variant, then one for each comparison. As text, Markdown and
//! JSON.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{Estimate, ResultLine, Results, Study};
use crate::error::{Error, Result, write_atomically};

/// A cell without a value.
const NOTHING: &str = "–";

/// The results of a study. Values are fractions (0.345, not 34.5).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyTable {
    /// Name of the study, see [`Study::name`].
    pub study: String,
    /// The metrics, in the order of the study file.
    pub metrics: Vec<String>,
    /// Number of finished runs.
    pub done: usize,
    /// Number of runs that the study has.
    pub planned: usize,
    /// One row for each variant, in the order of the study file.
    pub variants: Vec<VariantRow>,
    /// One row for each comparison, in the order of the study file.
    pub differences: Vec<DifferenceRow>,
}

/// Mean results of a variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantRow {
    /// Name of the variant.
    pub variant: String,
    /// Seeds of its finished runs.
    pub seeds: Vec<u64>,
    /// Metric → mean over the runs where there was something to evaluate.
    pub metrics: BTreeMap<String, Option<Estimate>>,
}

/// Differences of two variants, paired: each difference is between runs of the same seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DifferenceRow {
    /// Name of the variant that is compared.
    pub variant: String,
    /// Name of the variant whose results are subtracted.
    pub against: String,
    /// Seeds that are finished for both.
    pub seeds: Vec<u64>,
    /// Metric → mean of `variant` − `against`.
    pub metrics: BTreeMap<String, Option<Estimate>>,
}

impl StudyTable {
    /// The table of the finished runs.
    #[must_use]
    pub fn new(study: &Study, results: &Results) -> Self {
        let lines: Vec<Option<&ResultLine>> =
            study.runs.iter().map(|run| results.of(study, run)).collect();
        // Of one variant, by seed.
        let of = |variant: usize| -> BTreeMap<u64, &ResultLine> {
            let runs = study.runs.iter().zip(&lines).filter(|(run, _)| run.variant == variant);
            runs.filter_map(|(run, line)| Some((run.seed, (*line)?))).collect()
        };
        let value =
            |line: &ResultLine, metric: &String| line.metrics.get(metric).copied().flatten();
        let each = |values: &dyn Fn(&String) -> Vec<f64>| {
            let metrics = study.metrics.iter();
            metrics.map(|metric| (metric.clone(), Estimate::of(&values(metric)))).collect()
        };
        let mut variants = Vec::new();
        let mut differences = Vec::new();
        for (i, variant) in study.variants.iter().enumerate() {
            let runs = of(i);
            variants.push(VariantRow {
                variant: variant.name.clone(),
                seeds: runs.keys().copied().collect(),
                metrics: each(&|m| runs.values().filter_map(|line| value(line, m)).collect()),
            });
            for &reference in &variant.against {
                let others = of(reference);
                let pairs: Vec<(u64, &ResultLine, &ResultLine)> = runs
                    .iter()
                    .filter_map(|(seed, line)| Some((*seed, *line, *others.get(seed)?)))
                    .collect();
                differences.push(DifferenceRow {
                    variant: variant.name.clone(),
                    against: study.variants[reference].name.clone(),
                    seeds: pairs.iter().map(|(seed, ..)| *seed).collect(),
                    metrics: each(&|m| {
                        let pair = |(_, a, b): &(u64, &ResultLine, &ResultLine)| {
                            Some(value(a, m)? - value(b, m)?)
                        };
                        pairs.iter().filter_map(pair).collect()
                    }),
                });
            }
        }
        Self {
            study: study.name.clone(),
            metrics: study.metrics.clone(),
            done: lines.iter().flatten().count(),
            planned: study.runs.len(),
            variants,
            differences,
        }
    }

    /// What the values of the table are, in words.
    #[must_use]
    pub fn caption(&self) -> String {
        let Self { study, done, planned, .. } = self;
        format!(
            "{study}: {done} of {planned} runs. Points (percent) of each run's last evaluation: \
             mean ± half the 95 % t-interval over the seeds; differences are of the same seed, \
             mean [95 % t-interval]."
        )
    }

    /// The cells of the means: a row for each variant, with name, number of seeds, and each metric.
    #[must_use]
    pub fn variant_cells(&self) -> Vec<Vec<String>> {
        let row = |row: &VariantRow| {
            self.cells(row.variant.clone(), row.seeds.len(), &row.metrics, |estimate| {
                let half = estimate.half_width().map_or_else(|| NOTHING.to_owned(), points);
                format!("{} ± {half}", points(estimate.mean))
            })
        };
        self.variants.iter().map(row).collect()
    }

    /// The cells of the differences: a row for each comparison, in the same way.
    #[must_use]
    pub fn difference_cells(&self) -> Vec<Vec<String>> {
        let row = |row: &DifferenceRow| {
            let name = format!("{} − {}", row.variant, row.against);
            self.cells(name, row.seeds.len(), &row.metrics, |estimate| {
                let interval = match (estimate.low, estimate.high) {
                    (Some(low), Some(high)) => format!("{}, {}", signed(low), signed(high)),
                    _ => NOTHING.to_owned(),
                };
                format!("{} [{interval}]", signed(estimate.mean))
            })
        };
        self.differences.iter().map(row).collect()
    }

    fn cells(
        &self,
        name: String,
        seeds: usize,
        metrics: &BTreeMap<String, Option<Estimate>>,
        text: impl Fn(&Estimate) -> String,
    ) -> Vec<String> {
        let cell = |metric: &String| match metrics.get(metric) {
            Some(Some(estimate)) if estimate.n == seeds => text(estimate),
            // Some runs have nothing to evaluate there.
            Some(Some(estimate)) => format!("{} (n = {})", text(estimate), estimate.n),
            _ => NOTHING.to_owned(),
        };
        let head = [name, seeds.to_string()];
        head.into_iter().chain(self.metrics.iter().map(cell)).collect()
    }

    /// The caption and both tables as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}\n", escape(&self.caption()));
        for (title, rows) in
            [("variant", self.variant_cells()), ("difference", self.difference_cells())]
        {
            if rows.is_empty() {
                continue;
            }
            let head = [title, "seeds"].map(str::to_owned).into_iter();
            let head: Vec<String> = head.chain(self.metrics.iter().cloned()).collect();
            let rule = ["---"].into_iter().chain(vec!["---:"; self.metrics.len() + 1]);
            let rule: Vec<String> = rule.map(str::to_owned).collect();
            text.push('\n');
            for cells in [head, rule].iter().chain(&rows) {
                let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
                text += &format!("| {} |\n", cells.join(" | "));
            }
        }
        text
    }

    /// Writes `study.md` and `study.json`.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::other(format!("study.json: {e}")))?;
        for (name, text) in [("study.md", self.to_markdown()), ("study.json", json + "\n")] {
            write_atomically(&folder.join(name), |file| Ok(file.write_all(text.as_bytes())?))?;
        }
        Ok(())
    }
}

/// A fraction in percent, one decimal.
fn points(fraction: f64) -> String {
    format!("{:.1}", rounded(fraction))
}

/// A fraction in percent, one decimal, with its sign.
fn signed(fraction: f64) -> String {
    format!("{:+.1}", rounded(fraction))
}

/// A fraction as percent, to one decimal. Adding zero makes a negative zero positive.
fn rounded(fraction: f64) -> f64 {
    (fraction * 1000.0).round() / 10.0 + 0.0
}

/// Text as Markdown shows it literally, in the cell of a table.
fn escape(text: &str) -> String {
    let special = |c: char| "\\|*_`<>".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

//! Which parts of a set are looked at: of a set with several, those for training, validation and test.

use std::path::PathBuf;

use anyhow::Result;
use richsem::{
    data::{dataset::Dataset, formats::same_split},
    doctor::Role,
};

use super::{Args, Opened, open};
use crate::output;

/// What is looked at beside the training part.
pub(super) struct Found {
    /// The validation set.
    pub(super) val: Option<PathBuf>,
    /// The names of the test parts of DATA.
    pub(super) tests: Vec<String>,
}

/// The validation set that is named; else, where no part of DATA is named, the one that has a validation part.
/// The test parts of DATA, where no part of it is named. What is left out is told.
pub(super) fn of_data(args: &Args) -> Result<Found> {
    let opening = args.set.opening();
    let parts = Dataset::parts(&args.data, &opening)?;
    let are = |role: &str| parts.iter().filter(|part| same_split(part, role)).collect::<Vec<_>>();
    let (trains, vals) = (are("train"), are("val"));
    if opening.split.is_some() || trains.is_empty() {
        return Ok(Found { val: args.val.clone(), tests: Vec::new() });
    }
    let own = args.val.is_none() && !vals.is_empty();
    let val = if own { Some(args.data.clone()) } else { args.val.clone() };
    let mut tests = are("test");
    tests.retain(|part| !trains.contains(part) && !vals.contains(part));
    let left: Vec<String> = parts
        .iter()
        .filter(|part| !trains.contains(part) && !tests.contains(part))
        .filter(|part| !(own && vals.contains(part)))
        .map(|part| format!("`{part}`"))
        .collect();
    if !left.is_empty() {
        output::note(format!(
            "{}: {} not looked at; name a part with --split to look at it alone",
            args.data.display(),
            left.join(", ")
        ));
    }
    Ok(Found { val, tests: tests.into_iter().cloned().collect() })
}

/// Opens the test parts. One that is not there (exports often name one without) is told, and left out.
pub(super) fn open_tests(args: &Args, names: &[String]) -> Vec<Opened> {
    let opened = names.iter().filter_map(|name| {
        let opened = open(args, &args.data, args.images.as_deref(), (Role::Test, Some(name)));
        let told = |error| {
            output::warn(format!("the part `{name}` is not looked at, it cannot be read: {error}"));
        };
        opened.map_err(told).ok()
    });
    opened.collect()
}

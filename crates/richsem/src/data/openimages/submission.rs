//! Predictions as Kaggle's competition takes them: a row an image.

use std::path::Path;

use super::{
    Names,
    boxes::has_area,
    judged::ScoredBox,
    names::Part,
    predictions::{Predictions, name, write_row},
    table::{self, Format, Row, Rows, check_share},
};
use crate::{
    data::reading::UNWATCHED,
    error::{Error, Result, write_atomically},
};

static FORMAT: Format =
    Format { what: "a submission", required: &["ImageId", "PredictionString"], optional: &[] };
const IMAGE: usize = 0;
const STRING: usize = 1;

/// What a prediction is, in a string: here XMin and YMin come first.
const WORDS: [&str; 6] = ["MID", "score", "xmin", "ymin", "xmax", "ymax"];

/// Reads a submission: a row an image, with repeated `MID score xmin ymin xmax ymax`, which may be none.
/// All images are added to `images`, those without a prediction, too.
///
/// # Errors
/// A file that cannot be read, is not CSV or lacks a column; a prediction that is not as it should be, with
/// line and position.
pub fn read_submission(
    path: &Path,
    images: &mut Names,
    classes: &mut Names,
) -> Result<Predictions> {
    let mut all = Predictions::default();
    let header = table::read(path, &FORMAT, UNWATCHED, part, |part| {
        let [without_area, empty] = part.append_to(&mut all.boxes, images, classes);
        all.without_area += without_area;
        all.empty_images += empty;
    })?;
    all.columns = header.columns();
    Ok(all)
}

fn part(rows: &mut Rows<'_>) -> Result<Part<ScoredBox, [usize; 2]>> {
    let mut part = Part::<_, [usize; 2]>::new();
    while let Some(row) = rows.next()? {
        let image = part.image(row.text(IMAGE)?);
        let before = part.records.len();
        let mut words = row.text_or_empty(STRING)?.split_ascii_whitespace();
        while let Some(mid) = words.next() {
            let class = part.class(mid);
            let mut numbers = [0.0; 5];
            for (i, number) in numbers.iter_mut().enumerate() {
                let at = (part.records.len() - before) * WORDS.len() + i + 1;
                *number = self::number(&row, at, words.next())?;
            }
            let [score, bbox @ ..] = numbers;
            part.counts[0] += usize::from(!has_area(bbox));
            part.records.push(ScoredBox { image, class, score, bbox });
        }
        part.counts[1] += usize::from(part.records.len() == before);
    }
    Ok(part)
}

/// The word at a position of the string, as a number.
fn number(row: &Row<'_>, at: usize, word: Option<&str>) -> Result<f64> {
    let what = WORDS[at % WORDS.len()];
    let wrong = |problem: String, hint: &str| row.wrong(STRING, problem).with_hint(hint);
    let hint = "a prediction is six words: MID score xmin ymin xmax ymax";
    let Some(word) = word else {
        return Err(wrong(format!("the string ends after {at} words, before {what}"), hint));
    };
    let number = word.parse().ok().filter(|number: &f64| number.is_finite());
    let Some(number) = number else {
        let problem = format!("expected a number for {what} (word {}), got `{word}`", at + 1);
        return Err(wrong(problem, hint));
    };
    if what != "score" {
        check_share(number).map_err(|(problem, hint)| {
            wrong(format!("{what} (word {}): {problem}", at + 1), hint)
        })?;
    }
    Ok(number)
}

/// Writes a submission: a row for each of `images`, in their order, also where nothing was found.
/// Predictions of an image stay in their order. `classes` are the MIDs of the numbers.
///
/// # Errors
/// A file that cannot be written; a number that has no name; a MID with a space in it.
pub fn write_submission(
    path: &Path,
    predictions: &[ScoredBox],
    images: &Names,
    classes: &Names,
) -> Result<()> {
    if let Some(mid) = classes.iter().find(|mid| mid.contains(char::is_whitespace)) {
        let problem = format!("the class `{mid}` has a space in its MID");
        return Err(Error::other(problem).with_hint("a submission separates words by spaces"));
    }
    let mut order: Vec<&ScoredBox> = predictions.iter().collect();
    order.sort_by_key(|found| found.image);
    if let Some(last) = order.last() {
        name(images, last.image)?;
    }
    write_atomically(path, |out| {
        let mut out = csv::Writer::from_writer(out);
        write_row(&mut out, FORMAT.required)?;
        let mut rest = &order[..];
        for (number, image) in (0..).zip(images.iter()) {
            let (here, after) = rest.split_at(rest.partition_point(|f| f.image <= number));
            rest = after;
            let words = here.iter().map(|found| {
                let [x0, y0, x1, y1] = found.bbox;
                let mid = name(classes, found.class)?;
                Ok(format!("{mid} {} {x0} {y0} {x1} {y1}", found.score))
            });
            write_row(&mut out, &[image, &words.collect::<Result<Vec<_>>>()?.join(" ")])?;
        }
        Ok(out.flush()?)
    })
}

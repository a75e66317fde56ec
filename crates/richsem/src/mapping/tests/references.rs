//! Precision and recall on tables that nothing was fitted on. With `--nocapture` the tests print them over
//! thresholds, and every error.

use super::{
    fit::{Score, best, score},
    support::{Texts, lvis, named, openimages, with_text},
};
use crate::{
    mapping::{
        ClassName,
        candidates::{Candidate, Pairs},
        model::{THRESHOLD, WEIGHTS},
        wordnet::WordNet,
    },
    testing::shared,
};

/// Two vocabularies and, for each class of FROM, the id of the right class of TO: empty if there is none,
/// none if it is not measured.
struct Reference<'a> {
    title: &'static str,
    from: Vec<ClassName<'a>>,
    to: Vec<ClassName<'a>>,
    truth: Vec<Option<String>>,
}

impl Reference<'_> {
    /// Prints a table over thresholds and the errors at ours, and gives the score there.
    fn measure(&self) -> Score {
        let found = Pairs::of(&self.from, &self.to).candidates(&WEIGHTS);
        let right =
            |from: usize, to: usize| self.truth[from].as_ref().map(|id| *id == self.to[to].id);
        let all = self.truth.iter().flatten().filter(|id| !id.is_empty()).count();
        println!("{}, {all} to find\nthreshold  precision recall", self.title);
        for step in 1..=19 {
            let threshold = f64::from(step) / 20.0;
            let score = score(&found, threshold, right);
            println!("{threshold:>9}  {:.4} {:.4} {score:?}", score.precision(), score.recall(all));
        }
        self.print_errors(&found);
        score(&found, THRESHOLD, right)
    }

    fn print_errors(&self, found: &[Vec<Candidate>]) {
        for ((class, truth), candidates) in self.from.iter().zip(&self.truth).zip(found) {
            let Some(truth) = truth else { continue };
            let said = best(candidates).filter(|best| best.confidence >= THRESHOLD);
            if said.map_or("", |best| &self.to[best.to].id) == truth {
                continue;
            }
            let what = if said.is_some() { "wrong" } else { "missed" };
            let name = self.to.iter().find(|c| c.id == *truth).map_or("none", |class| &class.name);
            println!("{what}: {} `{}` {:?} is {name}", class.id, class.name, class.synonyms);
            for candidate in candidates.iter().take(2) {
                let name = &self.to[candidate.to].name;
                println!("    {:.3} {name}: {}", candidate.confidence, candidate.evidence);
            }
        }
    }
}

#[test]
fn openimages_to_lvis() {
    let (Some((from, truth)), Some(to), Some(texts)) = (openimages(), lvis(true), Texts::read())
    else {
        return;
    };
    let title = "OpenImages → LVIS by names and WordNet";
    let names = Reference { title, from, to, truth };
    assert_eq!(names.measure(), Score { right: 287, wrong: 2 });
    let title = "OpenImages → LVIS with text embeddings";
    let from = with_text(names.from, &texts.openimages);
    let both = Reference { title, from, to: with_text(names.to, &texts.lvis), truth: names.truth };
    assert_eq!(both.measure(), Score { right: 294, wrong: 2 });
}

#[test]
fn wnids_to_lvis_without_its_synsets() {
    let (Some(list), Some(to), Some(given)) =
        (shared("lvis/imagenet_lvis_wnid.txt"), lvis(false), lvis(true))
    else {
        return;
    };
    let wordnet = WordNet::get();
    let list = std::fs::read_to_string(list).unwrap();
    let class = |wnid: &str| {
        let words = wordnet.words(wordnet.by_wnid(wnid).unwrap());
        let synonyms = words[1..].iter().map(|word| (*word).to_owned()).collect();
        ClassName { wnid: Some(wnid.to_owned()), synonyms, ..named(wnid, words[0]) }
    };
    let truth = |wnid: &str| {
        let synset = wordnet.by_wnid(wnid);
        let is = |class: &&ClassName<'_>| wordnet.by_name(class.synset.as_ref().unwrap()) == synset;
        Some(given.iter().find(is).unwrap().id.clone())
    };
    let reference = Reference {
        title: "997 wnids of ImageNet → LVIS without synsets",
        from: list.lines().map(class).collect(),
        to,
        truth: list.lines().map(truth).collect(),
    };
    assert_eq!(reference.measure(), Score { right: 984, wrong: 1 });
}

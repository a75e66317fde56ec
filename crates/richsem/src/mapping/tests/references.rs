//! Precision and recall on tables that nothing was fitted on.

use super::{
    fit::{Score, THRESHOLDS, best, fit, score, unidet},
    support::{Texts, lvis, named, openimages, with_text},
};
use crate::{
    mapping::{ClassName, candidates::{Candidate, Pairs}},
    testing::shared,
};

fn table(title: &str, found: &[Vec<Candidate>], all: usize, right: impl Fn(usize, usize) -> Option<bool> + Copy) {
    println!("{title}\nthreshold  precision recall");
    for threshold in THRESHOLDS {
        let score = score(found, all, threshold, right);
        println!("{threshold:>9}  {:.4} {:.4} {score:?}", score.precision(), score.recall());
    }
}

fn errors(
    found: &[Vec<Candidate>],
    from: &[ClassName<'_>],
    to: &[ClassName<'_>],
    threshold: f64,
    truth: impl Fn(usize) -> Option<String>,
) {
    for (i, candidates) in found.iter().enumerate() {
        let Some(truth) = truth(i) else { continue };
        let best = best(candidates);
        let said = best.filter(|b| b.confidence >= threshold).map(|b| to[b.to].id.clone());
        if said.clone().unwrap_or_default() == truth {
            continue;
        }
        let what = if said.is_some() { "WRONG" } else { "missed" };
        let name = to.iter().find(|c| c.id == truth).map_or("none", |c| &c.name);
        println!("{what} {} `{}` {:?} is {name}", from[i].id, from[i].name, from[i].synonyms);
        for c in candidates.iter().take(3) {
            println!("      {:.3} {:?} {}: {}", c.confidence, c.relation, to[c.to].name, c.evidence);
        }
    }
}

#[test]
fn openimages_to_lvis() {
    let (Some(tasks), Some((from, truth)), Some(to), Some(texts)) =
        (unidet(), openimages(), lvis(true), Texts::read())
    else {
        return;
    };
    let weights = fit(&tasks.iter().collect::<Vec<_>>());
    let right = |to: &[ClassName<'_>], f: usize, t: usize| truth[f].as_ref().map(|id| *id == to[t].id);
    let found = Pairs::of(&from, &to).candidates(&weights);
    table("OpenImages → LVIS, without text", &found, 302, |f, t| right(&to, f, t));
    let (from, to) = (with_text(from, &texts.openimages), with_text(to, &texts.lvis));
    let found = Pairs::of(&from, &to).candidates(&weights);
    table("OpenImages → LVIS, with text", &found, 302, |f, t| right(&to, f, t));
    errors(&found, &from, &to, 0.5, |i| truth[i].clone());
}

#[test]
fn wnids_to_lvis_without_synsets() {
    let (Some(tasks), Some(list), Some(to), Some(given)) =
        (unidet(), shared("lvis/imagenet_lvis_wnid.txt"), lvis(false), lvis(true))
    else {
        return;
    };
    let wordnet = crate::mapping::wordnet::WordNet::get();
    let weights = fit(&tasks.iter().collect::<Vec<_>>());
    let list = std::fs::read_to_string(list).unwrap();
    let from: Vec<ClassName<'_>> = list.lines().map(|wnid| {
        let words = wordnet.words(wordnet.by_wnid(wnid).unwrap());
        ClassName {
            wnid: Some(wnid.to_owned()),
            synonyms: words[1..].iter().map(|w| (*w).to_owned()).collect(),
            ..named(wnid, words[0])
        }
    }).collect();
    let truth: Vec<String> = list.lines().map(|wnid| {
        let synset = wordnet.by_wnid(wnid);
        let class = given.iter().find(|c| wordnet.by_name(c.synset.as_ref().unwrap()) == synset);
        class.unwrap().id.clone()
    }).collect();
    let found = Pairs::of(&from, &to).candidates(&weights);
    table("997 wnids → LVIS", &found, 997, |f, t| Some(truth[f] == to[t].id));
    errors(&found, &from, &to, 0.5, |i| Some(truth[i].clone()));
}

use super::support::named;
use crate::mapping::{
    Decision, Options,
    evidence::{Evidence, Known},
    map,
    words::{Kind, Words, plain, singular},
};

fn of(name: &str, synonyms: &[&str]) -> (Vec<(String, Kind)>, Vec<String>) {
    let synonyms: Vec<String> = synonyms.iter().map(|s| (*s).to_owned()).collect();
    let words = Words::of(name, &synonyms);
    let phrases = words.phrases.into_iter().map(|phrase| (phrase.text, phrase.kind));
    (phrases.collect(), words.hints)
}

#[test]
fn names_are_taken_apart() {
    let pair = |text: &str, kind| (text.to_owned(), kind);
    let (phrases, hints) = of("mouse_(computer_equipment)", &["computer_mouse", "Mouse"]);
    assert_eq!(phrases, [pair("mouse", Kind::Name), pair("computer mouse", Kind::Synonym)]);
    assert_eq!(hints, ["computer", "equipment"]);
    let (phrases, _) = of("monitor_(computer_equipment) computer_monitor", &[]);
    assert_eq!(phrases, [pair("monitor", Kind::Name), pair("computer monitor", Kind::Synonym)]);
    let (phrases, _) = of("Cutting/chopping Board", &[]);
    let texts: Vec<&str> = phrases.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["cutting", "chopping board", "cutting board"]);
    assert!(phrases.iter().all(|(_, kind)| *kind == Kind::Alternative));
    assert_eq!(of("(thing)", &[]).0, [pair("thing", Kind::Name)]);
    assert_eq!(of("", &[]).0, []);
    assert_eq!(plain("Kitchen & dining room table"), "kitchen and dining room table");
    assert_eq!(plain("T-shirt's"), "t-shirts");
}

#[test]
fn plurals_have_wordnets_singulars() {
    for (plural, expected) in [
        ("boots", Some("boot")),
        ("roller skates", Some("roller skate")),
        ("knives", Some("knife")),
        ("geese", Some("goose")),
        ("cherries", Some("cherry")),
        ("wine glasses", Some("wine glass")),
        // Words of their own.
        ("glasses", None),
        ("shorts", None),
        ("bus", None),
        ("grass", None),
        ("xyzzys", None),
        ("", None),
    ] {
        assert_eq!(singular(plural).as_deref(), expected, "{plural}");
    }
}

fn evidence(from: &str, to: &str) -> Evidence {
    Evidence::of(&Known::of(&named("1", from)), &Known::of(&named("2", to)), None)
}

#[test]
fn a_name_within_another_is_told_from_names_that_share_words() {
    for (from, to, expected) in [
        ("Polar bear", "bear", true),
        ("Television", "television_set", true),
        ("mugs", "Coffee mug", true),
        ("Table tennis racket", "table-tennis_table", false),
        ("Mobile phone", "cell phone", false),
        ("bear", "bear", false),
        ("bear", "bearskin", false),
    ] {
        assert_eq!(evidence(from, to).within, expected, "{from}, {to}");
        assert_eq!(evidence(to, from).within, expected, "{to}, {from}");
    }
}

#[test]
fn a_word_that_wordnet_has_for_the_likeliest_sense_counts() {
    for (from, to, expected) in [
        ("Cattle", "cow", true),
        ("Mobile phone", "cellphone", true),
        // `couch` has a sense of `sofa`; `lounge` is a word of that sense.
        ("sofa", "lounge", true),
        ("Cattle", "horse", false),
        ("xyzzy", "cow", false),
    ] {
        assert_eq!(evidence(from, to).lemma, expected, "{from}, {to}");
        assert_eq!(evidence(to, from).lemma, expected, "{to}, {from}");
    }
}

/// Names that differ in case alone are two classes where both are there.
#[test]
fn a_class_is_the_one_that_is_written_so() {
    let list = || [named("1", "cat"), named("2", "Cat"), named("3", "dog")];
    let mapped = map(&list(), &list(), &Options::default());
    let decisions: Vec<Decision> = mapped.classes.iter().map(|class| class.decision).collect();
    assert_eq!(decisions, [0, 1, 2].map(Decision::Same));
    let mapped = map(&list()[1..], &list()[..1], &Options::default());
    assert_eq!(mapped.classes[0].decision, Decision::Same(0));
}

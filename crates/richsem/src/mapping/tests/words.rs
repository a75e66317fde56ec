use crate::mapping::words::{Kind, Words, plain, singular};

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

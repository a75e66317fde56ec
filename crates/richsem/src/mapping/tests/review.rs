use std::path::Path;

use super::support::named;
use crate::mapping::{
    ClassName, Decision, Options, map,
    review::{Review, to_json},
};

fn vocabularies() -> (Vec<ClassName<'static>>, Vec<ClassName<'static>>) {
    let from = vec![
        named("/m/a", "Salmon \"pink\""),
        named("/m/b", "Salmon"),
        named("/m/c", "Bicycle"),
        named("/m/d", "xyzzy"),
    ];
    let to = vec![
        named("7", "bicycle"),
        named("8", "salmon_(fish)"),
        named("9", "salmon_(food)"),
        named("10", "zebra"),
    ];
    (from, to)
}

#[test]
fn decisions_survive_reruns_and_win() {
    let (from, to) = vocabularies();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("review.toml");
    let run = || {
        let mut mapping = map(&from, &to, &Options::default());
        let review = Review::read(&path).unwrap();
        let (next, kept) = review.apply(&path, &mut mapping, &from, &to).unwrap();
        next.write(&path).unwrap();
        (mapping, kept, next)
    };
    let (mapping, kept, _) = run();
    assert_eq!(mapping.classes[1].decision, Decision::Review);
    assert_eq!(mapping.classes[2].decision, Decision::Same(0));
    assert_eq!(mapping.classes[3].decision, Decision::None);
    assert_eq!((kept.decided, kept.open), (0, 1));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("from = \"/m/b\"") && text.contains("salmon_(food)"), "{text}");

    // A person decides, and overrules what was mapped by itself.
    let text = text.replacen("decision = \"\"", "decision = \"salmon_(food)\"", 1)
        + "\n[[class]]\nfrom = \"/m/c\"\ndecision = \"none\"\n"
        + "\n[[class]]\nfrom = \"/m/gone\"\ndecision = \"7\"\n";
    std::fs::write(&path, text).unwrap();
    let (mapping, kept, first) = run();
    assert_eq!(mapping.classes[1].decision, Decision::Same(2));
    assert_eq!(mapping.classes[2].decision, Decision::None);
    assert_eq!((kept.decided, kept.open, kept.gone.len()), (2, 0, 1));
    assert_eq!(kept.changed, Vec::<String>::new());
    let (again, kept_again, second) = run();
    assert_eq!((again, kept_again, second), (mapping.clone(), kept, first));
    let json: serde_json::Value = serde_json::from_str(&to_json(&mapping, &from, &to)).unwrap();
    assert_eq!(json["/m/b"], serde_json::json!([9]));
    assert_eq!(json["/m/c"], serde_json::json!([]));

    // Other candidates than when it was decided.
    let fewer = &to[..3];
    let mut mapping = map(&from, &[&fewer[..1], &fewer[2..]].concat(), &Options::default());
    let to = [&fewer[..1], &fewer[2..]].concat();
    let (_, kept) = Review::read(&path).unwrap().apply(&path, &mut mapping, &from, &to).unwrap();
    assert_eq!(kept.changed.len(), 1, "{kept:?}");
    assert!(
        kept.changed[0].contains("salmon_(fish), ") || kept.changed[0].contains("salmon_(food)")
    );
}

#[test]
fn what_cannot_be_read_or_meant_is_refused() {
    let (from, to) = vocabularies();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("review.toml");
    let entry = |decision: &str| {
        format!("version = 1\n[[class]]\nfrom = \"/m/b\"\ndecision = {decision}\n")
    };
    for (text, says) in [
        ("version = ".to_owned(), "line 1"),
        (entry("3"), "line 4"),
        ("version = 2".to_owned(), "expected 1, got 2"),
        (String::new(), "TOML: the file is empty\n  hint: remove it"),
        (entry("\"\"") + "[[class]]\nfrom = \"/m/b\"\n", "class[1].from: `/m/b` is there twice"),
        ("version = 1\n[[class]]\nfrm = \"/m/b\"\n".to_owned(), "frm"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = Review::read(&path).unwrap_err().to_string();
        assert!(message.contains("review.toml: ") && message.contains(says), "{message}");
    }
    std::fs::write(&path, [0xff, 0xfe, 0x41]).unwrap();
    assert!(Review::read(&path).unwrap_err().to_string().contains("UTF-16"));
    let apply = |decision: &str, to: &[ClassName<'_>]| {
        std::fs::write(&path, entry(decision)).unwrap();
        let mut mapping = map(&from, to, &Options::default());
        let applied = Review::read(&path).unwrap().apply(&path, &mut mapping, &from, to);
        applied.unwrap_err().to_string()
    };
    let message = apply("\"zebro\"", &to);
    assert!(message.contains("class[0].decision") && message.contains("`zebra`"), "{message}");
    let twice = [to.clone(), vec![named("11", "zebra")]].concat();
    assert!(apply("\"zebra\"", &twice).contains("give its id"));
    let missing = Review::read(Path::new("/no/such/file.toml")).unwrap();
    assert!(missing.entries.is_empty());
}

use super::{super::*, Written, message};
use crate::{testing::shared, vocabulary::ClassIndex};

const TREE: &str = r#"{"LabelName": "/m/root", "Subcategory": [
    {"LabelName": "/m/animal", "Subcategory": [
        {"LabelName": "/m/bear", "Subcategory": [{"LabelName": "/m/teddy"}]},
        {"LabelName": "/m/dog", "Part": [{"LabelName": "/m/tail"}, {"LabelName": "/m/toy"}]}]},
    {"LabelName": "/m/toy", "Subcategory": [{"LabelName": "/m/teddy"}, {"LabelName": "/m/dog"}]},
    {"LabelName": "/m/rug", "Subcategory": [{"LabelName": "/m/bear"}]}]}"#;

fn open(text: &str) -> crate::Result<Hierarchy> {
    Hierarchy::open(&Written::new(text).path())
}

fn list<'a>(mids: impl Iterator<Item = &'a str>) -> String {
    mids.map(|mid| &mid[3..]).collect::<Vec<_>>().join(" ")
}

#[test]
fn ancestors_are_those_of_all_places() {
    let tree = open(TREE).unwrap();
    assert_eq!(tree.root(), "/m/root");
    assert_eq!(list(tree.classes().iter()), "animal bear teddy dog toy rug");
    assert_eq!(list(tree.ancestors("/m/dog")), "animal toy");
    assert_eq!(list(tree.ancestors("/m/bear")), "animal rug");
    // Below the rug, the bear has nothing below it: the original reads it so.
    assert_eq!(list(tree.ancestors("/m/teddy")), "animal bear toy");
    assert_eq!(list(tree.descendants("/m/rug")), "bear");
    assert_eq!(list(tree.descendants("/m/animal")), "bear teddy dog");
    // Parts are no subclasses, and the root is no class.
    assert_eq!(tree.parts(), 2);
    for mid in ["/m/animal", "/m/tail", "/m/root", "/m/nothing"] {
        assert_eq!(list(tree.ancestors(mid)), "", "{mid}");
    }
    assert_eq!(list(tree.descendants("/m/root")), "");
    assert_eq!(tree.classes().position("/m/tail"), None);
}

#[test]
fn relations_are_by_position() {
    let tree = open(TREE).unwrap();
    let classes: Names =
        ["/m/teddy", "/m/tail", "/m/dog", "/m/animal", "/m/toy", "/m/bear"].into_iter().collect();
    let relations = tree.over(&classes);
    assert_eq!(relations.len(), 6);
    assert_eq!(relations.ancestors(0), [3, 4, 5]);
    assert_eq!(relations.descendants(3), [0, 2, 5]);
    assert_eq!(relations.outside(), [1]);
    // A number that there is not has no relations.
    assert_eq!((relations.ancestors(9), relations.descendants(9)), (&[][..], &[][..]));
    // In another order the same classes are related.
    let other: Names =
        ["/m/bear", "/m/dog", "/m/teddy", "/m/tail", "/m/animal", "/m/toy"].into_iter().collect();
    let place = [2, 3, 1, 4, 5, 0].map(ClassIndex);
    assert_eq!(relations.moved(&place), tree.over(&other));
    assert_eq!(Relations::none(2).outside(), [0, 1]);
    assert_eq!(Relations::none(2).ancestors(1), [0; 0]);
}

#[test]
fn training_knows_ancestors_and_leaves_descendants_open() {
    let classes: Names =
        ["/m/animal", "/m/bear", "/m/teddy", "/m/dog", "/m/toy"].into_iter().collect();
    let relations = open(TREE).unwrap().over(&classes);
    let bear = relations.expand(&[1], &[]);
    assert_eq!((&bear.present[..], &bear.absent[..]), (&[0, 1][..], &[][..]));
    // A teddy is open. A dog is not: nobody annotated the animal.
    assert_eq!(bear.unknown, [2]);
    let animal = relations.expand(&[0], &[]);
    assert_eq!((animal.present, animal.unknown), (vec![0], vec![1, 2, 3]));
    // No bear: no teddy.
    let no_bear = relations.expand(&[0], &[1]);
    assert_eq!((no_bear.absent, no_bear.unknown), (vec![1, 2], vec![3]));
    // A dog, and no animal.
    let odd = relations.expand(&[3], &[0]);
    assert_eq!((odd.present, odd.absent), (vec![0, 3, 4], vec![1, 2]));
    assert_eq!((odd.contradictory, odd.unknown), (vec![0, 3], vec![]));
    assert_eq!(relations.expand(&[], &[]), Knowledge::default());
}

#[test]
fn the_challenges_hierarchy_keeps_both_parents() {
    let Some(folder) = shared("evaluation/openimages") else { return };
    let path = folder.join("oid-challenge-2019-label500-hierarchy.json");
    let tree = Hierarchy::open(&path).unwrap();
    assert_eq!((tree.root(), tree.classes().len(), tree.parts()), ("/m/0bl9f", 500, 0));
    let classes = read_classes(&folder.join("oid-challenge-2019-classes-description-500.csv"));
    let classes = classes.unwrap();
    assert!(tree.over(&classes.mids).outside().is_empty());
    let name = |mid: &str| &classes.names[classes.mids.position(mid).unwrap() as usize];
    let named = |wanted: &str| {
        let at = classes.names.iter().position(|name| name == wanted).unwrap();
        let mut names: Vec<_> =
            tree.ancestors(classes.mids.get(at as u32).unwrap()).map(name).collect();
        names.sort();
        names
    };
    assert_eq!(named("Teddy bear"), ["Animal", "Bear", "Carnivore", "Toy"]);
    assert_eq!(tree.descendants("/m/0jbk").count(), 96);
    // Names are not unique.
    let mut names = classes.names.clone();
    names.sort();
    names.dedup();
    assert_eq!((classes.names.len(), names.len()), (500, 498));
}

#[test]
fn broken_hierarchies_are_explained() {
    for (text, expected) in [
        ("", "FILE: JSON: EOF while parsing"),
        (&TREE[..100], "FILE: JSON: EOF while parsing"),
        ("[]", "FILE: top level: expected an object"),
        ("{}", "FILE: top level: expected a `LabelName`"),
        (r#"{"LabelName": "/m/r"}"#, "FILE: Subcategory: there are no classes"),
        (r#"{"LabelName": "/m/r", "Subcategory": {}}"#, "FILE: Subcategory: expected a list"),
        (
            r#"{"LabelName": "/m/r", "Subcategory": [{"LabelName": "/m/a"}, "b"]}"#,
            "FILE: Subcategory[1]: expected an object",
        ),
        (
            r#"{"LabelName": "/m/r", "Subcategory": [{"LabelName": "/m/a",
                "Subcategory": [{"LabelName": 3}]}]}"#,
            "FILE: Subcategory[0].Subcategory[0]: expected a `LabelName`",
        ),
        (
            r#"{"LabelName": "/m/r", "Subcategory": [{"LabelName": "/m/a",
                "Subcategory": [{"LabelName": "/m/a"}]}]}"#,
            "FILE: Subcategory[0].Subcategory[0].LabelName: `/m/a` is below `/m/a` here, and above",
        ),
        // Each step in a place of its own.
        (
            r#"{"LabelName": "/m/r", "Subcategory": [
                {"LabelName": "/m/a", "Subcategory": [{"LabelName": "/m/b"}]},
                {"LabelName": "/m/b", "Subcategory": [{"LabelName": "/m/c"}]},
                {"LabelName": "/m/c", "Subcategory": [{"LabelName": "/m/a"}]}]}"#,
            "FILE: Subcategory[2].Subcategory[0].LabelName: `/m/a` is below `/m/c` here, and above",
        ),
    ] {
        let file = Written::new(text);
        let got = message(Hierarchy::open(&file.path()), &file.path());
        assert!(got.starts_with(expected), "{got}");
    }
    let deep =
        format!("{}{}", r#"{"LabelName":"/m/r","Subcategory":["#.repeat(1000), "]}".repeat(1000));
    let file = Written::new(deep);
    assert!(message(Hierarchy::open(&file.path()), &file.path()).contains("recursion limit"));
    let file = Written::new(b"\xff\xfe{\0");
    assert!(message(Hierarchy::open(&file.path()), &file.path()).contains("UTF-16"));
}

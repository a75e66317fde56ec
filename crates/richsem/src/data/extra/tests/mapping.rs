use super::*;
use crate::data::extra::support::{file, vocabulary};

fn of(by: Option<MappingConfig>) -> Mapper {
    Mapper::new(by.as_ref(), &vocabulary()).unwrap()
}

fn folder(mapper: &Mapper, name: &str) -> Vec<u32> {
    mapper.classes(&SourceClass::folder(name)).iter().map(|c| c.0).collect()
}

#[test]
fn folders_are_found_by_wnid_synset_name_or_id() {
    for (by, name, class) in [
        (MappingConfig::Wnid {}, "n02084071", 1),
        (MappingConfig::Synset {}, "airplane.n.01", 2),
        (MappingConfig::Name {}, "cat", 0),
        (MappingConfig::Id {}, "5", 1),
    ] {
        let mapper = of(Some(by));
        assert_eq!(folder(&mapper, name), [class]);
        for other in ["n02084071", "airplane.n.01", "cat", "5"].iter().filter(|o| **o != name) {
            assert!(folder(&mapper, other).is_empty(), "{other}");
        }
    }
}

#[test]
fn classes_that_share_a_wnid_are_all_meant() {
    let mut categories = vocabulary().categories().to_vec();
    categories[1].wnid = categories[0].wnid.clone();
    let mapper = Mapper::new(Some(&MappingConfig::Wnid {}), &Vocabulary::new(categories)).unwrap();
    assert_eq!(folder(&mapper, "n02121620"), [0, 1]);
}

#[test]
fn listed_categories_go_by_synset_and_without_one_by_name() {
    let class = |name: &str, synset: Option<&str>| SourceClass {
        name: name.into(),
        id: Some(3),
        synset: synset.map(str::to_owned),
        wnid: None,
    };
    let mapper = of(None);
    assert_eq!(mapper.classes(&class("kitty", Some("cat.n.01"))), [ClassIndex(0)]);
    assert_eq!(mapper.classes(&class("dog", None)), [ClassIndex(1)]);
    assert!(mapper.classes(&class("dog", Some("hotdog.n.02"))).is_empty(), "another dog");
    // A vocabulary without synsets.
    let mut categories = vocabulary().categories().to_vec();
    categories.iter_mut().for_each(|c| c.synset = None);
    let mapper = Mapper::new(None, &Vocabulary::new(categories)).unwrap();
    assert_eq!(mapper.classes(&class("dog", Some("dog.n.01"))), [ClassIndex(1)]);
}

#[test]
fn a_mapping_file_names_classes_in_any_way() {
    let json = r#"{"tabby": "cat", "jet": ["airplane.n.01", 9], "pets": [3, "n02084071"],
                   "thing": [], "7": "dog"}"#;
    let toml = "tabby = 'cat'\njet = ['airplane.n.01', 9]\npets = [3, 'n02084071']\nthing = []\n\
                7 = 'dog'";
    for (name, text) in [("map.json", json), ("map.toml", toml)] {
        let (_folder, path) = file(name, text);
        let mapper = of(Some(MappingConfig::File { path }));
        assert_eq!(folder(&mapper, "tabby"), [0]);
        assert_eq!(folder(&mapper, "jet"), [2]);
        assert_eq!(folder(&mapper, "pets"), [0, 1]);
        assert_eq!(folder(&mapper, "7"), [1]);
        assert!(folder(&mapper, "thing").is_empty() && folder(&mapper, "cat").is_empty());
    }
}

#[test]
fn a_list_made_for_a_larger_vocabulary_is_a_mapping_too() {
    let text = r#"[{"wnid": "n1", "synset": "cat.n.01", "lvis_name": "x", "lvis_id": 9, "how": "?"},
                   {"wnid": "n1", "synset": "dog.n.01"},
                   {"wnid": "n2", "lvis_name": "airplane", "lvis_id": 1},
                   {"wnid": "n3", "id": 5},
                   {"wnid": "n4", "synset": "yeti.n.01"}]"#;
    let (_folder, path) = file("map.json", text);
    let mapper = of(Some(MappingConfig::File { path }));
    let got: Vec<_> = ["n1", "n2", "n3", "n4", "n5"].map(|n| folder(&mapper, n)).into();
    assert_eq!(got, [vec![0, 1], vec![2], vec![1], vec![], vec![]]);
}

#[test]
fn mistakes_in_a_mapping_file_are_named() {
    for (name, text, expected) in [
        ("m.json", "{\"a\": \"aeroplane\"}", "m.json: a: \"aeroplane\" is no category"),
        ("m.json", "{\"a\": \"airplan\"}", "did you mean `airplane`?"),
        ("m.json", "{\"a\": [3, 4]}", "m.json: a: 4 is no category of the detection set"),
        ("m.json", "{\"a\": 4}", "it has 3, 5, 9"),
        ("m.json", "{\"a\": null}", "m.json: a: expected a category id, name"),
        ("m.json", "{\"a\": {\"b\": 3}}", "m.json: a: expected a category id, name"),
        ("m.json", "{\"a\": 3", "m.json: JSON: EOF"),
        ("m.json", "", "m.json: JSON: EOF"),
        ("m.json", "a = 3", "ends in .toml"),
        ("m.toml", "a = 1\na = 2", "m.toml: line 2: the key `a` is there twice"),
        ("m.toml", "a = ", "m.toml: line 1 (`a`): "),
        ("m.json", "3", "m.json: top level: expected an object"),
        ("m.json", "[{\"synset\": \"cat.n.01\"}]", "m.json: [0]: missing field `wnid`"),
        ("m.json", "[{\"wnid\": \"n1\"}]", "m.json: [0]: expected a synset"),
        ("m.json", "[3]", "m.json: [0]: invalid type"),
    ] {
        let (_folder, path) = file(name, text);
        let by = MappingConfig::File { path };
        let error = Mapper::new(Some(&by), &vocabulary()).err().unwrap().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_map_of_imagenet_21k_to_lvis_is_read() {
    let Some(path) = crate::testing::shared("lvis/lvis_imagenet21k_wnid_map_DERIVED.json") else {
        return;
    };
    let mapper = of(Some(MappingConfig::File { path }));
    assert_eq!(folder(&mapper, "n02691156"), [2], "airplane, by its synset");
    assert!(
        folder(&mapper, "n02682922").is_empty(),
        "aerosol_can, which is not in this vocabulary"
    );
}

use std::collections::BTreeMap;

use super::support::lvis;
use crate::{mapping::wordnet::WordNet, testing::shared};

#[test]
fn the_extract_is_whole_and_keeps_its_licence() {
    let wordnet = WordNet::get();
    assert_eq!(wordnet.len(), 82_115);
    assert!(wordnet.licence().contains("WordNet 3.0 Copyright 2006 by Princeton University."));
    let file = include_str!("../wordnet/LICENSE");
    assert!(file.contains(wordnet.licence()), "the licence beside the extract is another one");
}

#[test]
fn names_and_wnids_are_those_of_version_3_0() {
    let wordnet = WordNet::get();
    let mouse = wordnet.by_name("mouse.n.04").unwrap();
    assert_eq!(wordnet.wnid(mouse), "n03793489");
    assert_eq!(wordnet.by_wnid("n03793489"), Some(mouse));
    assert_eq!(wordnet.name(mouse), "mouse.n.04");
    assert_eq!(wordnet.words(mouse), ["mouse", "computer_mouse"]);
    assert!(wordnet.gloss(mouse).starts_with("a hand-operated electronic device"));
    let device = wordnet.by_name("device.n.01").unwrap();
    assert_eq!(wordnet.steps_up(mouse, device), Some(2));
    assert_eq!(wordnet.steps_up(device, mouse), None);
    let wheel = wordnet.by_name("wheel.n.01").unwrap();
    let vehicle = wordnet.by_name("wheeled_vehicle.n.01").unwrap();
    assert!(wordnet.wholes(wheel).contains(&vehicle));
    let paris = wordnet.by_name("paris.n.01").unwrap();
    assert!(wordnet.is_instance(paris) && !wordnet.is_visible(paris));
    for none in ["mouse.n.99", "mouse.v.01", "mouse", "", ".n.01", "no_such_word.n.01"] {
        assert_eq!(wordnet.by_name(none), None, "{none}");
    }
    for none in ["n00000000", "n3793489", "x03793489", "nabcdefgh", "", "n+3793489"] {
        assert_eq!(wordnet.by_wnid(none), None, "{none}");
    }
}

#[test]
fn lviss_synsets_have_the_published_wnids() {
    let (Some(classes), Some(list), Some(map)) = (
        lvis(true),
        shared("lvis/imagenet_lvis_wnid.txt"),
        shared("lvis/lvis_imagenet21k_wnid_map_DERIVED.json"),
    ) else {
        return;
    };
    let wordnet = WordNet::get();
    let unknown: Vec<String> = classes
        .iter()
        .map(|class| class.synset.clone().unwrap())
        .filter(|synset| wordnet.by_name(synset).is_none())
        .collect();
    assert_eq!((classes.len(), unknown), (1203, vec!["stop_sign.n.01".to_owned()]));
    let by_id: BTreeMap<String, String> = classes
        .iter()
        .filter_map(|class| Some((class.id.clone(), wordnet.by_name(class.synset.as_ref()?)?)))
        .map(|(id, synset)| (id, wordnet.wnid(synset)))
        .collect();
    let published = std::fs::read_to_string(list).unwrap();
    let ours: Vec<&String> = by_id.values().collect();
    let missing = published.lines().filter(|wnid| !ours.iter().any(|ours| ours == wnid)).count();
    assert_eq!((published.lines().count(), missing), (997, 0));
    let records: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(map).unwrap()).unwrap();
    for record in &records {
        let id = record["lvis_id"].to_string();
        assert_eq!(by_id.get(&id).map(String::as_str), record["wnid"].as_str(), "{record}");
    }
}

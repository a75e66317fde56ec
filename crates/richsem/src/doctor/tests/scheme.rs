use super::{
    super::{
        scheme::*,
        sizes::{density, sizes},
    },
    *,
};
use crate::vocabulary::Frequency;

/// The numbers of a set with these images a class, with nothing else to say.
fn numbers(images: usize, by_class: &[usize]) -> Numbers {
    let folder = Folder::new();
    let files = ["a.jpg".to_owned()];
    let set = folder.annotations("t.json", &files, &[(0, 1, [0.0, 0.0, 50.0, 50.0])], &[(1, "a")]);
    let classes = by_class.iter().enumerate().map(|(i, &images)| ClassNumbers {
        name: format!("class{i}"),
        images,
        extra: 0,
        frequency: Frequency::of(images as u32),
    });
    Numbers {
        places: Vec::new(),
        images,
        classes: classes.collect(),
        verified: None,
        density: density(&set, 900),
        sizes: sizes(&set, &[Frequency::Rare], &Scale::default()),
        most_judged: 0,
        max_detections: 300,
        has_extra: false,
    }
}

fn keys(scheme: &Scheme) -> Vec<&str> {
    scheme.advice.iter().filter(|a| a.value.is_some()).map(|a| &*a.key).collect()
}

fn threshold(scheme: &Scheme) -> Option<f64> {
    let sampler = scheme.advice.iter().find(|a| a.key == "data.sampler")?;
    sampler.value.as_ref()?.get("threshold")?.as_float()
}

/// LVIS v1: 100,170 images, 1203 classes. By its own counts the rule gives its own threshold.
#[test]
fn of_lvis_the_threshold_is_its_own() {
    let Some(path) = crate::testing::shared("lvis/lvis_v1_train_cat_info.json") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let classes: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let counts: Vec<usize> =
        classes.iter().map(|c| c["image_count"].as_u64().unwrap() as usize).collect();
    let mut lvis = numbers(100_170, &counts);
    lvis.verified = Some(0.02);
    let scheme = scheme(&lvis);
    assert_eq!(threshold(&scheme), Some(0.001));
    assert_eq!(keys(&scheme), ["data.sampler", "loss.federated"]);
}

#[test]
fn the_threshold_follows_the_set() {
    // 1,000 images: 100 of them are a tenth.
    assert_eq!(threshold(&scheme(&numbers(1000, &[400, 300, 200, 30, 6]))), Some(0.1));
    // All classes have few images: a third of them are not repeated.
    assert_eq!(threshold(&scheme(&numbers(100, &[40, 20, 10, 5, 2, 1]))), Some(0.2));
    // Balanced, or all of them frequent, or nothing at all.
    for by_class in [&[40, 38, 35, 30][..], &[4000, 900, 150], &[0, 0], &[], &[7]] {
        assert_eq!(threshold(&scheme(&numbers(5000, by_class))), None, "{by_class:?}");
    }
}

#[test]
fn where_the_numbers_say_nothing_nothing_is_said() {
    let silent = scheme(&numbers(5000, &[4000, 900, 150]));
    assert_eq!((silent.advice.len(), silent.toml.as_str()), (0, "version = 1\n"));
}

#[test]
fn a_federated_loss_is_for_classes_that_are_not_verified() {
    let with = |classes: usize, verified| {
        let mut numbers = numbers(5000, &vec![200; classes]);
        numbers.verified = verified;
        let scheme = scheme(&numbers);
        keys(&scheme).iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(with(60, Some(0.1)), ["loss.federated"]);
    assert_eq!(with(50, Some(0.1)), ["loss.unknown_classes"], "50 of 50 are all");
    assert_eq!(with(60, Some(1.0)), [""; 0]);
    assert_eq!(with(60, None), [""; 0]);
}

/// A set of which everything is to be said.
fn all() -> Numbers {
    let mut numbers = numbers(1000, &[&[400; 30][..], &[30; 20], &[3; 10]].concat());
    numbers.verified = Some(0.2);
    numbers.density = Density { most: 1003, beyond: 2, ..numbers.density };
    numbers.most_judged = 301;
    numbers.sizes.lost = 40;
    numbers.sizes.boxes = 100;
    numbers.sizes.needed = Some(1056);
    let place = |key: &str, settings: &[(&str, &str)]| Place {
        key: key.to_owned(),
        settings: settings.iter().map(|&(k, v)| (k.to_owned(), v.to_owned().into())).collect(),
    };
    numbers.places = vec![
        place("data.train", &[("annotations", "/a \"b\"/train.json"), ("images", "/images")]),
        place("data.extra.imagenet", &[("images", "/imagenet")]),
    ];
    numbers
}

#[test]
fn every_setting_is_written_below_its_reason() {
    let scheme = scheme(&all());
    assert_eq!(
        keys(&scheme),
        [
            "data.sampler",
            "loss.federated",
            "model.dino.transformer.num_queries",
            "eval.max_detections",
            "data.resize",
            "data.augment"
        ]
    );
    let read: toml::Table = toml::from_str(&scheme.toml).unwrap();
    assert_eq!(read["data"]["sampler"]["threshold"].as_float(), Some(0.1));
    assert_eq!(read["model"]["dino"]["transformer"]["num_queries"].as_integer(), Some(1100));
    assert_eq!(read["eval"]["max_detections"].as_integer(), Some(400));
    assert_eq!(read["data"]["resize"]["size"].as_integer(), Some(1056));
    let scales = read["data"]["augment"]["scales"].as_array().unwrap();
    assert_eq!((scales[0].as_integer(), scales.len()), (Some(640), 14));
    assert_eq!(read["data"]["train"]["annotations"].as_str(), Some("/a \"b\"/train.json"));
    for advice in &scheme.advice {
        assert!(!advice.source.is_empty() && advice.why.chars().any(|c| c.is_ascii_digit()));
    }
}

/// The parser of `richsem train` itself.
#[test]
fn training_takes_the_settings() {
    let scheme = scheme(&all());
    let config = crate::config::Config::parse(&scheme.toml, Path::new("scheme.toml")).unwrap();
    assert_eq!(config.model.as_dino().unwrap().transformer.num_queries, 1100);
    assert_eq!(config.loss.federated.unwrap().classes, 50);
    assert_eq!(config.data.resize.size, 1056);
    let mut few = all();
    few.classes.truncate(45);
    let text = super::super::scheme::scheme(&few).toml;
    crate::config::Config::parse(&text, Path::new("scheme.toml")).unwrap();
}

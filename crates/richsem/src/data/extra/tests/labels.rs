use crate::data::{
    dataset::Dataset,
    extra::{
        ClassificationSet, ExtraConfig, MappingConfig,
        support::{file, items, vocabulary},
    },
};
use crate::testing::shared;

#[test]
fn labels_of_parquet_are_learned_from() {
    let Some(path) = shared("samples/hf_parquet/classification") else { return };
    let (_kept, map) = file("map.json", r#"{"n01440764": "dog", "n02123045": "cat"}"#);
    let mapping = Some(MappingConfig::File { path: map });
    let config = ExtraConfig { mapping, ..ExtraConfig::new(path.clone()) };
    let set = ClassificationSet::open(&config, &vocabulary()).unwrap();
    let expected =
        [("15.jpg".to_owned(), vec![1], 0), ("train-00000-of-00001/1.jpg".to_owned(), vec![0], 1)];
    assert_eq!(items(&set), expected);
    for i in 0..set.len() {
        set.store().image(&set.item(i).name).unwrap();
    }
    assert!(set.report().to_string().contains("\n  1 image without a label, left out"));
    // By wnid, as all are called so.
    let error = ClassificationSet::open(&ExtraConfig::new(path), &vocabulary()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("mapping by wnid") && error.contains("`n01440764`"), "{error}");
}

#[test]
fn a_table_of_boxes_is_no_classification_set() {
    let Some(path) = shared("samples/hf_parquet/struct_of_lists") else { return };
    let error = ClassificationSet::open(&ExtraConfig::new(path), &vocabulary()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("no column of labels") && error.contains("`data.train`"), "{error}");
    // And a table of labels is no detection set.
    let Some(path) = shared("samples/hf_parquet/classification") else { return };
    let error = Dataset::open(&path).unwrap_err().to_string();
    assert!(error.contains("expected annotations"), "{error}");
}

#[test]
fn webdatasets_samples_have_the_label_of_their_field() {
    let Some(folder) = shared("samples/webdataset") else { return };
    let (_kept, map) = file("map.json", r#"{"0": "cat", "1": "airplane"}"#);
    let mapping = Some(MappingConfig::File { path: map });
    let pattern = folder.join("cls-{000000..000000}.tar");
    let config = ExtraConfig { mapping, ..ExtraConfig::new(pattern) };
    let set = ClassificationSet::open(&config, &vocabulary()).unwrap();
    let expected = [
        ("cls-000000/000000.jpg".to_owned(), vec![2], 0),
        ("cls-000000/000002.JPEG".to_owned(), vec![0], 1),
        ("cls-000000/sub/000001.jpg".to_owned(), vec![0], 2),
    ];
    assert_eq!(items(&set), expected);
    set.store().image(&set.item(2).name).unwrap();
    let text = set.report().to_string();
    assert!(text.contains("field of samples, not their images"), "{text}");
    // Numbers are never taken for ids by themselves.
    let config = ExtraConfig::new(folder.join("cls-000000.tar"));
    let error = ClassificationSet::open(&config, &vocabulary()).unwrap_err().to_string();
    assert!(error.contains("mapping by name") && error.contains("called `0`, `1`"), "{error}");
}

/// A tar of these files.
fn shard(files: &[(&str, &[u8])]) -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, path) = file("s.tar", "");
    let mut builder = tar::Builder::new(fs_err::File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap();
    (folder, path)
}

#[test]
fn labels_are_numbers_names_or_keys_of_json() {
    let open = |files: &[(&str, &[u8])]| {
        let (_kept, path) = shard(files);
        ClassificationSet::open(&ExtraConfig::new(path), &vocabulary())
            .map(|set| (items(&set), set.report().unlabelled))
            .map_err(|error| error.to_string())
    };
    let set = open(&[
        ("a.jpg", b"x"),
        ("a.cls", b"\xef\xbb\xbfdog\n"),
        ("b.jpg", b"x"),
        ("b.json", br#"{"label": "cat"}"#),
        ("c.jpg", b"x"),
        ("c.cls", b"-1"),
        ("d.jpg", b"x"),
        ("d.json", br#"{"caption": "a dog"}"#),
    ]);
    let expected = vec![("a.jpg".to_owned(), vec![1], 0), ("b.jpg".to_owned(), vec![0], 1)];
    assert_eq!(set.unwrap(), (expected, 2));
    let error = open(&[("a.jpg", b"x"), ("a.cls", b"\xff\xfe")]).unwrap_err();
    assert!(error.contains("s.tar/a.jpg: field cls: expected the number or name"), "{error}");
    let error = open(&[("a.jpg", b"x"), ("a.json", b"{")]).unwrap_err();
    assert!(error.contains("s.tar/a.jpg: field json: EOF"), "{error}");
    let error = open(&[("a.jpg", b"x"), ("a.json", br#"{"label": [1]}"#)]).unwrap_err();
    assert!(error.contains("label: expected the number or name of a class, got [1]"), "{error}");
}

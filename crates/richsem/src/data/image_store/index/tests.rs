//! Names found again, in memory and in a file, whole and damaged.
#![allow(clippy::unwrap_used)]

use super::*;

/// As ImageNet's.
fn names(classes: u64, images: u64) -> Vec<(String, Span)> {
    let mut entries = Vec::new();
    for class in 0..classes {
        for image in 0..images {
            // Not in order: as numbers of images are not.
            let number = (image * 7919 + class * 31) % 20_000;
            let name = format!("n{:08}/n{:08}_{number}.JPEG", class * 577, class * 577);
            let offset = (class * images + image) * 110_000 + 512;
            entries.push((name, Span { part: 0, offset, length: 100_000 + number }));
        }
    }
    entries
}

fn at(part: u32, offset: u64) -> Span {
    Span { part, offset, length: 1 }
}

fn all(index: &Index) -> Vec<(String, Span)> {
    let mut all = Vec::new();
    index.each_within("", |name, span| all.push((name.to_owned(), span))).unwrap();
    all
}

#[test]
fn every_name_is_found_and_no_other() {
    let entries = names(20, 333);
    let index = Index::of(entries.clone(), Path::new("a")).unwrap();
    assert_eq!(index.len(), 20 * 333);
    for (name, span) in &entries {
        assert_eq!(index.find(name).unwrap(), Some(*span), "{name}");
        assert_eq!(index.find(&format!("{name}.")).unwrap(), None);
        assert_eq!(index.find(&name[..name.len() - 1]).unwrap(), None);
    }
    for name in ["", "a", "n", "z", "n00000000/"] {
        assert_eq!(index.find(name).unwrap(), None, "{name}");
    }
    let mut sorted = entries;
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all(&index), sorted);
    let below = "n00000577/";
    let mut within = Vec::new();
    index.each_within(below, |name, _| within.push(name.to_owned())).unwrap();
    assert_eq!(within.len(), 333);
    assert!(within.iter().all(|name| name.starts_with(below)));
    let empty = Index::of(Vec::new(), Path::new("a")).unwrap();
    assert!(empty.find("a").unwrap().is_none() && empty.first_from("").unwrap().is_none());
    assert!(empty.folders("").unwrap().is_empty());
}

#[test]
fn folders_are_listed_without_their_files() {
    let names = ["a-b/x", "a/deep/y", "a/x", "a0/x", "b.txt", "ü/ö/x", "ü/x"];
    let entries = names.iter().map(|name| ((*name).to_owned(), at(0, 0))).collect();
    let index = Index::of(entries, Path::new("a")).unwrap();
    assert_eq!(index.folders("").unwrap(), ["a-b", "a", "a0", "ü"]);
    assert_eq!(index.folders("a/").unwrap(), ["deep"]);
    assert_eq!(index.folders("ü/").unwrap(), ["ö"]);
    assert!(index.folders("c/").unwrap().is_empty());
}

#[test]
fn the_last_of_equal_names_counts() {
    let list = |entries: &[(&str, u64)]| {
        let entries = entries.iter().map(|(name, n)| ((*name).to_owned(), at(0, *n))).collect();
        Index::of(entries, Path::new("a")).unwrap()
    };
    let lists = [
        list(&[("a", 1), ("b", 2), ("b", 3), ("d", 4)]),
        list(&[]),
        list(&[("b", 5), ("c", 6)]),
        list(&[("b", 7), ("d", 8)]),
    ];
    let (mut merged, mut replaced) = (Vec::new(), Vec::new());
    merge(
        lists.iter().map(Index::blocks).collect(),
        |name, span| {
            merged.push((name.to_owned(), span.offset));
            Ok(())
        },
        |name| replaced.push(name.to_owned()),
    )
    .unwrap();
    let expected = [("a", 1), ("b", 7), ("c", 6), ("d", 8)];
    assert_eq!(merged, expected.map(|(name, n)| (name.to_owned(), n)));
    assert_eq!(replaced, ["b", "b", "d"]);
}

/// 14.2 million files then take 14 MB, or 0.3 GB if nothing can be written.
#[test]
fn a_name_takes_few_bytes() {
    let entries = names(300, 650);
    let count = entries.len();
    let index = Index::of(entries, Path::new("a")).unwrap();
    let Blob::Memory(blocks) = &index.blob else { panic!("not in memory") };
    let (directory, blocks) = (index.directory.memory(), blocks.capacity());
    assert!(directory < count, "{directory} bytes in memory for {count} files");
    assert!(directory + blocks < 26 * count, "{blocks} bytes of blocks for {count} files");
}

#[test]
fn damage_is_an_error_and_never_another_place() {
    let entries = names(2, 100);
    let index = Index::of(entries.clone(), Path::new("kept")).unwrap();
    let Blob::Memory(blocks) = &index.blob else { panic!("not in memory") };
    for i in (0..blocks.len()).step_by(5) {
        let mut changed = blocks.clone();
        changed[i] ^= 1 << (i % 8);
        let changed = Index::new(Blob::Memory(changed), index.directory.clone(), Path::new("kept"));
        let mut errors = 0;
        for (name, span) in &entries {
            match changed.find(name) {
                Ok(found) => assert_eq!(found, Some(*span), "{name} with byte {i} changed"),
                Err(error) => {
                    assert!(error.to_string().contains("kept: index: "), "{error}");
                    errors += 1;
                }
            }
        }
        assert!(errors > 0, "byte {i}");
    }
    let cut = Blob::Memory(blocks[..blocks.len() / 2].to_vec());
    let cut = Index::new(cut, index.directory.clone(), Path::new("kept"));
    assert!(cut.find("n00000577/n00000577_19999.JPEG").is_err());
}

#[test]
fn a_directory_of_other_bytes_is_none_or_whole() {
    let index = Index::of(names(3, 200), Path::new("a")).unwrap();
    let bytes = index.directory.to_bytes();
    assert_eq!(Directory::from_bytes(&bytes).as_ref(), Some(&index.directory));
    for length in 0..bytes.len() {
        assert_eq!(Directory::from_bytes(&bytes[..length]), None, "{length}");
    }
    for i in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[i] ^= 0x80;
        if let Some(directory) = Directory::from_bytes(&changed) {
            let Blob::Memory(blocks) = &index.blob else { panic!("not in memory") };
            let changed = Index::new(Blob::Memory(blocks.clone()), directory, Path::new("a"));
            let _ = changed.find("n00000577/x");
        }
    }
}

//! Tables whole and damaged, with the names and the annotations of their images.
#![allow(clippy::unwrap_used)]

use std::{path::Path, slice::from_ref, sync::Arc};

use ::parquet::{
    basic::Compression,
    data_type::{BoolType, DoubleType, Int64Type},
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use super::*;
use crate::data::image_store::{ImageStore, StoreKind};

const IMAGE: &str = "optional group image { optional binary bytes; optional binary path (UTF8); }";

type Group<'a> = SerializedRowGroupWriter<'a, fs_err::File>;

/// Bytes of an image's file: any will do.
fn contents(row: usize) -> Vec<u8> {
    (0..3000).map(|i| (i * 31 + row * 17) as u8).collect()
}

/// Writes a table of so many row groups. `put` is given the number of a group, and writes its columns in
/// order.
fn write(
    path: &Path,
    columns: &str,
    features: Option<&str>,
    compression: Compression,
    (groups, mut put): (usize, impl FnMut(usize, &mut Group<'_>)),
) {
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {columns} }}")).unwrap());
    let features = features.map(|features| {
        let value = format!("{{\"info\": {{\"features\": {features}}}}}");
        vec![KeyValue::new("huggingface".to_owned(), value)]
    });
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(1)
        .set_key_value_metadata(features)
        .build();
    let file = fs_err::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for group in 0..groups {
        let mut columns = writer.next_row_group().unwrap();
        put(group, &mut columns);
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

fn put<T: ::parquet::data_type::DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    levels: (Option<&[i16]>, Option<&[i16]>),
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, levels.0, levels.1).unwrap();
    column.close().unwrap();
}

/// The images' columns: bytes and path of rows; of a path that is none, null.
fn images(group: &mut Group<'_>, paths: &[Option<&str>], from: usize) {
    let bytes: Vec<ByteArray> = (0..paths.len()).map(|i| contents(from + i).into()).collect();
    put::<ByteArrayType>(group, &bytes, (Some(&vec![2; paths.len()]), None));
    let levels: Vec<i16> = paths.iter().map(|path| if path.is_some() { 2 } else { 1 }).collect();
    let paths: Vec<ByteArray> = paths.iter().flatten().map(|path| (*path).into()).collect();
    put::<ByteArrayType>(group, &paths, (Some(&levels), None));
}

fn table(path: &Path, groups: &[&[Option<&str>]], compression: Compression) {
    let put = |number: usize, group: &mut Group<'_>| {
        let before = groups[..number].iter().map(|group| group.len()).sum();
        images(group, groups[number], before);
    };
    write(path, IMAGE, None, compression, (groups.len(), put));
}

fn names(tables: &Tables) -> Vec<String> {
    let mut names = Vec::new();
    tables.index.each_within("", |name, _| names.push(name.to_owned())).unwrap();
    names
}

#[test]
fn rows_are_read_by_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000-of-00001.parquet");
    let zstd = Compression::ZSTD(::parquet::basic::ZstdLevel::default());
    let gzip = Compression::GZIP(::parquet::basic::GzipLevel::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, gzip] {
        let (a, b): (Vec<String>, Vec<String>) =
            (0..20).map(|i| (format!("a{i}.jpg"), format!("b/{i}.png"))).unzip();
        let groups = [a, b].map(|g| g.into_iter().map(Some).collect::<Vec<_>>());
        let groups: Vec<Vec<Option<&str>>> =
            groups.iter().map(|group| group.iter().map(Option::as_deref).collect()).collect();
        table(&path, &groups.iter().map(Vec::as_slice).collect::<Vec<_>>(), compression);
        let tables = Tables::open(&path, from_ref(&path)).unwrap();
        assert_eq!(tables.index.len(), 40);
        for i in (0..20).rev() {
            assert_eq!(tables.read(&format!("a{i}.jpg")).unwrap(), contents(i), "{compression}");
            assert_eq!(tables.read(&format!("b/{i}.png")).unwrap(), contents(20 + i));
        }
        let error = tables.read("c.jpg").unwrap_err().to_string();
        assert!(error.contains("c.jpg: not among the table's 40 images"), "{error}");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for i in 0..20 {
                        assert_eq!(tables.read(&format!("./a{i}.jpg")).unwrap(), contents(i));
                    }
                });
            }
        });
    }
}

#[test]
fn rows_without_a_path_of_their_own_are_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    table(&path("x.parquet"), &[&[Some("a.jpg"), None], &[Some("c.PNG")]], Compression::SNAPPY);
    let tables = Tables::open(&path("x.parquet"), &[path("x.parquet")]).unwrap();
    assert_eq!(names(&tables), ["a.jpg", "c.PNG", "x/1.jpg"]);
    assert_eq!(tables.read("c.PNG").unwrap(), contents(2));
    assert!(tables.notes()[0].starts_with("1 image is called by file and row"));
    // One path in two files.
    table(&path("y.parquet"), &[&[Some("a.jpg")]], Compression::SNAPPY);
    table(&path("z.parquet"), &[&[Some("b.jpg"), Some("a.jpg")]], Compression::SNAPPY);
    let tables = Tables::open(folder.path(), &[path("y.parquet"), path("z.parquet")]).unwrap();
    assert_eq!(names(&tables), ["b.jpg", "y/0.jpg", "z/1.jpg"]);
    assert_eq!(tables.read("z/1.jpg").unwrap(), contents(1));
    assert!(tables.notes()[0].contains("(as `a.jpg`)"), "{:?}", tables.notes());
    // Paths that look like files and rows.
    let like = [Some("w/1.jpg"), None];
    table(&path("w.parquet"), &[&like], Compression::SNAPPY);
    let tables = Tables::open(&path("w.parquet"), &[path("w.parquet")]).unwrap();
    assert_eq!(names(&tables), ["w/0.jpg", "w/1.jpg"]);
    assert_eq!(tables.read("w/1.jpg").unwrap(), contents(1));
    // Whole tables without paths, or without rows.
    table(&path("n.parquet"), &[&[None, None]], Compression::SNAPPY);
    let tables = Tables::open(&path("n.parquet"), &[path("n.parquet")]).unwrap();
    assert_eq!(names(&tables), ["n/0.jpg", "n/1.jpg"]);
    table(&path("e.parquet"), &[], Compression::SNAPPY);
    assert_eq!(Tables::open(&path("e.parquet"), &[path("e.parquet")]).unwrap().index.len(), 0);
}

#[test]
fn tables_without_images_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let error = |columns: &str| {
        write(&path, columns, None, Compression::SNAPPY, (0, |_, _| ()));
        ImageStore::open(&path, crate::data::image_io::Orientation::Exif).unwrap_err().to_string()
    };
    let text = error("optional int64 label; optional binary url (UTF8);");
    assert!(
        text.contains("a.parquet: image: no column of images; the columns are label, url"),
        "{text}"
    );
    let two = format!("{} {}", IMAGE.replace("image", "left"), IMAGE.replace("image", "right"));
    let text = error(&two);
    assert!(text.contains("none is called `image`: left, right"), "{text}");
    let null = |_: usize, group: &mut Group<'_>| {
        put::<ByteArrayType>(group, &[], (Some(&[1, 0]), None));
        put::<ByteArrayType>(group, &[ByteArray::from("a.jpg")], (Some(&[2, 0]), None));
    };
    write(&path, IMAGE, None, Compression::SNAPPY, (1, null));
    let tables = Tables::open(&path, from_ref(&path)).unwrap();
    for (row, name) in ["a.jpg", "a/1.jpg"].iter().enumerate() {
        let text = tables.read(name).unwrap_err().to_string();
        assert!(text.contains(&format!("a.parquet: row {row}: image.bytes: null")), "{text}");
    }
}

#[test]
fn cut_and_changed_tables_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let paths = [Some("a.jpg"), Some("b.jpg"), Some("c.jpg"), Some("d.jpg")];
    table(&path, &[&paths[..2], &paths[2..]], Compression::SNAPPY);
    let whole = fs_err::read(&path).unwrap();
    let check = |bytes: &[u8]| {
        fs_err::write(&path, bytes).unwrap();
        let tables = match Tables::open(&path, from_ref(&path)) {
            Ok(tables) => tables,
            Err(error) => {
                assert!(error.to_string().contains("a.parquet"), "{error}");
                return false;
            }
        };
        for name in names(&tables) {
            let _ = tables.read(&name);
        }
        if let Ok(annotations) = Annotations::open(&path) {
            let _ = annotations.each(|_| Ok(()));
        }
        true
    };
    assert!(check(&whole));
    for length in (0..whole.len()).step_by(97) {
        assert!(!check(&whole[..length]), "{length}");
    }
    // What the file says about itself, and the beginnings of its pages.
    for at in (0..300).chain(whole.len() - 1200..whole.len()) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        check(&changed);
    }
}

const OBJECTS: &str = r#"{"image": {"_type": "Image"}, "objects": {"category":
    {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}}}"#;

const LISTS: &str = "optional int64 image_id; optional group objects {
    optional group bbox (LIST) { repeated group list { optional group element (LIST) {
        repeated group list { optional double element; } } } }
    optional group category (LIST) { repeated group list { optional int64 element; } }
    optional group iscrowd (LIST) { repeated group list { optional boolean element; } }
    optional group segmentation (LIST) { repeated group list { optional int64 element; } } }";

/// Three rows: two boxes, none, null.
fn lists(path: &Path, categories: &[i64], category_levels: (&[i16], &[i16])) {
    let boxes = [1.0, 2.0, 3.0, 4.0, 0.5, 0.25, 0.125, 1.5];
    let put_rows = |_: usize, group: &mut Group<'_>| {
        images(group, &[Some("a.jpg"), Some("b.jpg"), Some("c.jpg")], 0);
        put::<Int64Type>(group, &[7, 8], (Some(&[1, 1, 0]), None));
        let levels = [6, 6, 6, 6, 6, 6, 6, 6, 2, 0];
        let repeats = [0, 2, 2, 2, 1, 2, 2, 2, 0, 0];
        put::<DoubleType>(group, &boxes, (Some(&levels), Some(&repeats)));
        let (levels, repeats) = category_levels;
        put::<Int64Type>(group, categories, (Some(levels), Some(repeats)));
        put::<BoolType>(group, &[true], (Some(&[4, 3, 2, 0]), Some(&[0, 1, 0, 0])));
        put::<Int64Type>(group, &[], (Some(&[1, 1, 0]), Some(&[0, 0, 0])));
    };
    let columns = format!("{IMAGE} {LISTS}");
    write(path, &columns, Some(OBJECTS), Compression::SNAPPY, (1, put_rows));
}

#[test]
fn a_struct_of_lists_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    lists(&path, &[1, -1], (&[4, 4, 2, 0], &[0, 1, 0, 0]));
    let annotations = Annotations::open(&path).unwrap();
    assert_eq!(annotations.classes().unwrap(), ["cat", "dog"]);
    assert_eq!(annotations.labels(), None);
    assert_eq!(annotations.unread(), ["objects.segmentation"]);
    assert!(annotations.has_boxes() && annotations.len() == 3);
    let mut rows = Vec::new();
    annotations
        .each(|row| {
            rows.push(row);
            Ok(())
        })
        .unwrap();
    let images: Vec<&str> = rows.iter().map(|row| &*row.image).collect();
    assert_eq!(images, ["a.jpg", "b.jpg", "c.jpg"]);
    let object = |bbox, category, crowd| Object { bbox, category, id: None, area: None, crowd };
    assert_eq!(
        rows[0].objects.as_deref().unwrap(),
        [
            object([1.0, 2.0, 3.0, 4.0], Some(Value::Integer(1)), Some(true)),
            object([0.5, 0.25, 0.125, 1.5], None, None),
        ]
    );
    assert_eq!(rows[0].id, Some(Value::Integer(7)));
    assert_eq!((rows[1].objects.as_deref(), rows[1].row), (Some(&[][..]), 1));
    assert_eq!((rows[2].objects.as_deref(), &rows[2].id), (None, &None));
}

#[test]
fn lists_of_different_lengths_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    lists(&path, &[1], (&[4, 2, 0], &[0, 0, 0]));
    let error = Annotations::open(&path).unwrap().each(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("a.parquet: row 0: category: 1 values for 2 boxes"), "{error}");
}

#[test]
fn boxes_of_other_than_four_numbers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let columns = format!(
        "{IMAGE} optional group bbox (LIST) {{ repeated group list {{ optional group element (LIST) {{ \
         repeated group list {{ optional double element; }} }} }} }} optional int64 label;"
    );
    let put_rows = |_: usize, group: &mut Group<'_>| {
        images(group, &[Some("a.jpg")], 0);
        put::<DoubleType>(group, &[1.0, 2.0, 3.0], (Some(&[5, 5, 5]), Some(&[0, 2, 2])));
        put::<Int64Type>(group, &[3], (Some(&[1]), None));
    };
    write(&path, &columns, None, Compression::SNAPPY, (1, put_rows));
    let annotations = Annotations::open(&path).unwrap();
    let error = annotations.each(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("row 0: bbox: expected four numbers, got [1.0, 2.0, 3.0]"), "{error}");
}

#[test]
fn files_of_one_set_have_the_same_classes() {
    let folder = tempfile::tempdir().unwrap();
    let labels = |name: &str, names: &str| {
        let features = format!("{{\"label\": {{\"names\": {names}, \"_type\": \"ClassLabel\"}}}}");
        let put_rows = |_: usize, group: &mut Group<'_>| {
            images(group, &[Some(&format!("{name}.png")), None], 0);
            put::<Int64Type>(group, &[1, -1], (Some(&[1, 1]), None));
        };
        let columns = format!("{IMAGE} optional int64 label;");
        let path = folder.path().join(name);
        write(&path, &columns, Some(&features), Compression::SNAPPY, (1, put_rows));
    };
    labels("train-0.parquet", r#"["a", "b"]"#);
    labels("train-1.parquet", r#"["a", "b"]"#);
    let annotations = Annotations::open(&folder.path().join("train-{0..1}.parquet")).unwrap();
    assert_eq!(annotations.labels().unwrap(), ["a", "b"]);
    let mut rows = Vec::new();
    annotations
        .each(|row| {
            rows.push((row.image, row.label));
            Ok(())
        })
        .unwrap();
    let row = |image: &str, label| (image.to_owned(), label);
    let expected = [
        row("train-0.parquet.png", Some(Value::Integer(1))),
        row("train-0/1.jpg", None),
        row("train-1.parquet.png", Some(Value::Integer(1))),
        row("train-1/1.jpg", None),
    ];
    assert_eq!(rows, expected);
    labels("train-1.parquet", r#"["b", "a"]"#);
    let error = Annotations::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("train-1.parquet: huggingface: its classes are not those"), "{error}");
}

#[test]
fn the_samples_are_read() {
    let open = |name: &str| {
        let folder = crate::testing::shared(&format!("samples/hf_parquet/{name}"))?;
        // As on Hugging Face: `data/` and what is said about it.
        let path = folder.join("data");
        assert_eq!(ImageStore::kind_of(&folder).unwrap(), StoreKind::Parquet);
        let annotations = Annotations::open(&path).unwrap();
        let store = ImageStore::open(&folder, crate::data::image_io::Orientation::Exif).unwrap();
        let mut rows = Vec::new();
        annotations
            .each(|row| {
                rows.push(row);
                Ok(())
            })
            .unwrap();
        for row in &rows {
            let size = store.image(&row.image).unwrap().dimensions();
            assert!(size.0 > 0, "{row:?}");
        }
        Some((annotations, rows))
    };
    let Some((annotations, rows)) = open("classification") else { return };
    assert_eq!(annotations.labels().unwrap(), ["n01440764", "n02123045"]);
    let seen: Vec<_> = rows.iter().map(|row| (&*row.image, row.label.clone())).collect();
    let expected = [
        ("15.jpg", Some(Value::Integer(0))),
        ("train-00000-of-00001/1.jpg", Some(Value::Integer(1))),
        ("images/19.png", None),
    ];
    assert_eq!(seen, expected);
    assert!(!annotations.has_boxes());
    let Some((annotations, rows)) = open("struct_of_lists") else { return };
    assert_eq!(annotations.classes().unwrap(), ["Coverall", "Face_Shield", "Gloves"]);
    assert!(annotations.unread().is_empty());
    let ids = [114, 115].map(|id| Some(Value::Integer(id)));
    let [coverall, gloves] = [0, 2].map(|class| Some(Value::Integer(class)));
    let object = |bbox, category, id: &Option<Value>, area| Object {
        bbox,
        category,
        id: id.clone(),
        area: Some(area),
        crowd: None,
    };
    let expected = [
        object([4.0, 3.0, 20.0, 30.0], coverall, &ids[0], 600.0),
        object([30.0, 10.0, 25.0, 25.0], gloves, &ids[1], 625.0),
    ];
    assert_eq!(rows[0].objects.as_deref().unwrap(), expected);
    assert_eq!(
        (rows[0].width, rows[0].height, &rows[0].id),
        (Some(64), Some(48), &Some(Value::Integer(15)))
    );
    assert_eq!(rows[1].objects.as_deref().unwrap(), []);
    let Some((annotations, rows)) = open("list_of_structs") else { return };
    assert_eq!(annotations.classes(), None);
    let expected = Object {
        bbox: [0.0, 0.0, 64.0, 48.0],
        category: Some(Value::Text("Face_Shield".to_owned())),
        id: Some(Value::Integer(120)),
        area: None,
        crowd: Some(false),
    };
    assert_eq!(rows[2].objects.as_deref().unwrap(), [expected]);
}

#[test]
fn a_compression_that_is_not_read_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.parquet");
    table(&path, &[&[Some("a.jpg")]], Compression::ZSTD(Default::default()));
    let whole = fs_err::read(&path).unwrap();
    // The number of the compression, in the footer.
    let codec = |number: u8| [0x15, number << 1, 0x16];
    for (number, name) in [(4, "brotli"), (5, "lz4"), (7, "lz4_raw")] {
        let mut bytes = whole.clone();
        let at = (0..bytes.len() - 3).filter(|&at| bytes[at..at + 3] == codec(6));
        for at in at.collect::<Vec<_>>() {
            bytes[at..at + 3].copy_from_slice(&codec(number));
        }
        fs_err::write(&path, bytes).unwrap();
        let store = ImageStore::open(&path, Default::default());
        let text = store.and_then(|store| store.read("a.jpg")).unwrap_err().to_string();
        let says = format!("compressed with {name}, which is not read");
        assert!(text.contains(&says) && text.contains("compression=\"zstd\""), "{text}");
        assert!(!text.contains("is the file whole"), "{text}");
    }
}

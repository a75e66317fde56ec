//! What headers say: of members, and of images.

use super::*;

/// The crate `tar` walks the same archives: it is the oracle for names, links, places and lengths.
#[test]
fn headers_of_all_forms_are_found_at_all_distances() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let lengths = [0, 1, 511, 512, 513, 3000, 4096, 9000, 70_000, 0, 0, 2, 200_000, 7];
    for (i, length) in lengths.iter().cycle().take(60).enumerate() {
        let contents = vec![b'x'; *length];
        let name = match i % 4 {
            0 => format!("{i}.jpg"),
            // GNU's long name, and one that ustar cuts into two fields.
            1 => format!("{}/{i}.jpg", "long".repeat(60)),
            2 => format!("{}/{i}.jpg", "folder".repeat(20)),
            _ => format!("./n{i}/ä.jpg"),
        };
        let path = format!("{}/{i}.jpg", "pax".repeat(300));
        let mut header =
            if i % 3 == 0 { ::tar::Header::new_ustar() } else { ::tar::Header::new_gnu() };
        header.set_size(contents.len() as u64);
        if i % 5 == 4 {
            builder.append_pax_extensions([("path", path.as_bytes())]).unwrap();
        }
        if i % 7 == 6 {
            let target = "target".repeat(40);
            header.set_size(0);
            header.set_entry_type(::tar::EntryType::Symlink);
            let mut header = ::tar::Header::new_gnu();
            header.set_size(0);
            header.set_entry_type(::tar::EntryType::Symlink);
            builder.append_link(&mut header, format!("{i}.jpg"), target).unwrap();
        } else if i % 3 == 0 && i % 4 == 1 {
            // Longer than a ustar header takes.
            builder.append_data(&mut header, format!("{i}.jpg"), &*contents).unwrap();
        } else {
            builder.append_data(&mut header, &name, &*contents).unwrap();
        }
    }
    let bytes = builder.into_inner().unwrap();
    let mut archive = ::tar::Archive::new(&*bytes);
    let oracle = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned());
        (name, target, entry.raw_file_position(), entry.size())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.tar", &bytes);
    let file = fs_err::File::open(&path).unwrap();
    let end = bytes.len() as u64;
    let region = region::Region { file: &file, path: &path, inner: None, start: 0, end };
    let mut members = super::super::members::Members::new(region, 0);
    let mut count = 0;
    for expected in oracle {
        let member = members.next().unwrap().unwrap();
        let name = member.name.into_owned();
        assert_eq!((name, member.target, member.offset, member.length), expected);
        count += 1;
    }
    assert_eq!(count, 60);
    assert!(members.next().unwrap().is_none());
}

/// Were an image read whole, this one would need 64 GiB.
#[test]
fn the_size_of_an_image_is_read_from_its_headers() {
    use std::io::{Seek as _, Write as _};
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(7, 5).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut file = std::fs::File::create(&path).unwrap();
    let length = 1 << 36;
    let mut header = ::tar::Header::new_gnu();
    header.set_path("a.png").unwrap();
    header.set_size(length);
    header.set_entry_type(::tar::EntryType::Regular);
    header.set_cksum();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(png.get_ref()).unwrap();
    file.set_len(512 + length + 1024).unwrap();
    file.rewind().unwrap();
    let archives = open(&[path], &never()).unwrap();
    assert_eq!(archives.frame("a.png").unwrap().stored, [5, 7]);
    assert!(archives.frame("b.png").is_err());
}

#[test]
fn the_size_of_a_packed_image_is_that_of_its_contents() {
    use std::io::Write as _;
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(3, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(png.get_ref()).unwrap();
    let packed = packed.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar(&[("a.png", &packed), ("b.png", png.get_ref()), ("c.png", b"none")]);
    let archives = open(&[written(folder.path(), "a.tar", &bytes)], &never()).unwrap();
    for name in ["a.png", "b.png"] {
        assert_eq!(archives.frame(name).unwrap().stored, [2, 3]);
    }
    assert!(archives.frame("c.png").is_err());
}

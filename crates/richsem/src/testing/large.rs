//! Data as large as what people have, and what it costs in memory.

use std::{
    io::{self, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Boxes, images and classes of OpenImages' training set.
const OPEN_IMAGES: [u64; 3] = [14_610_229, 1_743_042, 600];

/// Writes a tar archive of `inner` archives of `files` files of `length` bytes each, all zeros. Only the headers
/// take room on the disk.
///
/// # Errors
/// The file cannot be written.
pub fn write_nested_tar(path: &Path, inner: usize, files: usize, length: u64) -> io::Result<()> {
    let file = fs_err::File::create(path)?;
    let put = |at: u64, name: &str, length: u64| {
        let mut header = ::tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(length);
        header.set_entry_type(::tar::EntryType::Regular);
        header.set_cksum();
        file.file().write_all_at(header.as_bytes(), at)
    };
    let step = 512 + length.next_multiple_of(512);
    let inner_length = files as u64 * step + 1024;
    for i in 0..inner as u64 {
        let at = i * (inner_length + 512);
        put(at, &format!("n{i:08}.tar"), inner_length)?;
        for f in 0..files as u64 {
            put(at + 512 + f * step, &format!("n{i:08}_{f}.JPEG"), length)?;
        }
    }
    file.set_len(inner as u64 * (inner_length + 512) + 1024)
}

/// Writes a file of boxes as OpenImages V6 has it: at `scale` 1 with the 14.6 million boxes, the images and the
/// classes of its training set.
///
/// # Errors
/// The file cannot be written.
pub fn write_openimages(out: &mut dyn Write, scale: f64) -> io::Result<()> {
    let [boxes, images, classes] = OPEN_IMAGES;
    let of = |count: u64| ((count as f64 * scale) as u64).max(1);
    let (boxes, images) = (of(boxes), of(images));
    writeln!(
        out,
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,\
         IsInside,XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
    )?;
    let step = u64::MAX / images;
    for i in 0..boxes {
        let image = u64::try_from(u128::from(i) * u128::from(images) / u128::from(boxes))
            .expect("below the number of images");
        // Anything that looks drawn: a multiplicative hash.
        let drawn = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        let class = (drawn % classes) * (drawn / classes % classes) / classes;
        let [x, y, w, h] = [0, 10, 20, 30].map(|by| (drawn >> by) % 500_000);
        let [x0, y0, x1, y1] = [x, y, x + w, y + h].map(|share| share as f64 / 1e6);
        let id = image * step;
        writeln!(
            out,
            "{id:016x},xclick,/m/0{class:04x},1,{x0:.6},{x1:.6},{y0:.6},{y1:.6},{},{},{},0,0,{x0:.6},{x0:.6},\
             {x1:.6},{x1:.6},{y0:.6},{y1:.6},{y0:.6},{y1:.6}",
            drawn >> 3 & 1,
            drawn >> 4 & 1,
            u8::from(drawn % 16 == 0),
        )?;
    }
    Ok(())
}

/// A line of `/proc/self/status` in MB of 10^6 bytes, as `VmHWM`: the most memory that was ever resident. None
/// where there is no such file.
#[must_use]
pub fn resident_mb(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

//! Batches for `predict --tensor`.

use serde_json::json;

use super::{Case, all_refused, util::Dir};

/// A safetensors file of one tensor, as it is written down.
fn file(name: &str, kind: &str, shape: &[u64], values: &[u8]) -> Vec<u8> {
    let entry = json!({"dtype": kind, "shape": shape, "data_offsets": [0, values.len()]});
    let header = json!({ name: entry }).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
}

#[test]
fn batches_that_are_none_are_refused_with_what_is_expected() {
    let dir = Dir::with_run();
    let hint = "hint: expected `images` [B, 3, H, W] f32";
    let header = "header: not a safetensors file";
    let damaged = "hint: the file is truncated, or of another kind";
    let ones = |count: usize| [0u8, 0, 128, 63].repeat(count);
    let whole = file("images", "F32", &[1, 3, 8, 8], &ones(192));
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("empty", vec![], header, damaged),
        ("cut", whole[..whole.len() / 2].to_vec(), header, damaged),
        ("text", b"images\n".repeat(9), header, damaged),
        ("a header that is huge", [&[0xff; 8], &whole[8..]].concat(), header, damaged),
        (
            "a header longer than the file",
            [&90_000_000u64.to_le_bytes(), &whole[8..]].concat(),
            header,
            damaged,
        ),
        (
            "a header that is no JSON",
            [&8u64.to_le_bytes()[..], b"not JSON"].concat(),
            header,
            damaged,
        ),
        ("of something else", file("weight", "F32", &[2], &ones(2)), "images: missing", hint),
        (
            "in f64",
            file("images", "F64", &[1, 3, 8, 8], &ones(384)),
            "images: expected [B, 3, H, W] f32, got [1, 3, 8, 8] Double",
            hint,
        ),
        (
            "in integers",
            file("images", "I64", &[1, 3, 8, 8], &ones(384)),
            "images: expected [B, 3, H, W] f32, got [1, 3, 8, 8] Int64",
            hint,
        ),
        (
            "one image",
            file("images", "F32", &[3, 8, 8], &ones(192)),
            "images: expected [B, 3, H, W], got [3, 8, 8]",
            hint,
        ),
        (
            "colours last",
            file("images", "F32", &[1, 8, 8, 3], &ones(192)),
            "images: expected [B, 3, H, W], got [1, 8, 8, 3]",
            hint,
        ),
        (
            "no images",
            file("images", "F32", &[0, 3, 8, 8], &[]),
            "images: expected at least one image, [B, 3, H, W] f32, got [0, 3, 8, 8]",
            hint,
        ),
        (
            "no numbers",
            file("images", "F32", &[1, 3, 8, 8], &[0xff; 768]),
            "images: holds NaN or infinite values",
            hint,
        ),
        (
            "larger than anything, and empty",
            file("images", "F32", &[1 << 40, 0, 1 << 40], &[]),
            "images: no tensor can have the shape",
            "hint: the file is damaged",
        ),
        (
            "a kind that libtorch lacks",
            file("images", "F8_E4M3", &[4], &[0; 4]),
            "images: kind F8_E4M3 is not supported",
            "hint: floats of",
        ),
    ];
    let raw = ["--raw", "raw.safetensors", "--weights", "run", "--device", "cpu"];
    let predict = |batch| [&["predict", "--tensor", batch][..], &raw].concat();
    for (name, content, says, hint) in &cases {
        dir.write("bad.safetensors", content);
        let case: Case = (name, &predict("bad.safetensors"), &["bad.safetensors: ", says, hint]);
        all_refused(&dir, &[case]);
    }
    dir.write("batch.safetensors", &whole);
    let to = |raw| ["predict", "--tensor", "batch.safetensors", "--weights", "run", "--raw", raw];
    all_refused(
        &dir,
        &[
            ("absent", &predict("none.safetensors"), &["--tensor: no such file as", "hint: "]),
            (
                "a folder",
                &predict("set"),
                &["--tensor: `set` is a folder, expected a file", "hint: "],
            ),
            ("an image", &predict("set/images/val/000001.jpg"), &["000001.jpg: header: ", damaged]),
            ("annotations", &predict("set/val.json"), &["set/val.json: header: ", damaged]),
            (
                "a place that is not there",
                &to("none/raw.safetensors"),
                &["--raw: ", "mkdir -p none"],
            ),
            ("a place that is a folder", &to("set"), &["--raw: `set` is a folder"]),
        ],
    );
}

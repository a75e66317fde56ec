//! A two-stage detector through every verb that DINO goes through.
#![allow(clippy::unwrap_used)]

mod util;

use richsem::testing::write_small_set;
use util::Dir;

const SETTINGS: &str = r#"
version = 1
seed = 5

[data]
batch_size = 2
workers = 2
train = "set/train.json"
val = "set/val.json"
augment = { scales = [64, 80], max_size = 128 }
resize = { size = 64, max_size = 128 }

[model]
kind = "faster_rcnn"

[model.faster_rcnn]
fpn_dim = 16
backbone = { name = "resnet18", width = 8, norm = "group_norm", groups = 4, frozen_stages = -1 }
rpn = { sizes = [8, 16, 32, 64, 128], post_nms_train = 50, post_nms_test = 40, batch_per_image = 64 }
roi = { dim = 32, pool = 4, batch_per_image = 32 }

[train]
epochs = 1
lr_drop = []
"#;

#[test]
fn train_evaluate_predict_inform_and_convert() {
    let dir = Dir::new();
    write_small_set(&dir.path("set")).unwrap();
    dir.write("small.toml", SETTINGS);
    dir.command(&["train", "-c", "small.toml", "--run", "run", "--device", "cpu"]).ok();
    let metrics = dir.text("run/metrics.jsonl");
    for term in ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"] {
        assert!(metrics.contains(term), "{term}: {metrics}");
    }
    let ran = dir.command(&["info", "run"]).ok();
    for part in
        ["Faster R-CNN as detectron2 has it, 40 proposals", "2fc, 32 features, softmax", "masked"]
    {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    let eval = ["eval", "--weights", "run", "--annotations", "set/val.json", "--device", "cpu"];
    dir.command(&eval).ok().stdout_has("AP");
    let images = dir.files("set/images");
    let image = format!("set/images/{}", images[0]);
    dir.command(&["predict", &image, "--weights", "run", "--output", "found", "--device", "cpu"])
        .ok();
    assert!(!dir.files("found").is_empty());

    // A run of detectron2's variant becomes a checkpoint of detectron2, and a detector again.
    let converted = dir.command(&["convert", "run", "d2.pth"]).ok();
    converted.stdout_has("a checkpoint of detectron2").stdout_has("trained with padding masked");
    dir.command(&["info", "d2.pth"]).ok().stdout_has("a Faster R-CNN of detectron2");
    let back = ["convert", "d2.pth", "back.safetensors"];
    dir.command(&back).fails(1).stderr_has("--annotations");
    // Its norms are no batch norms, which the settings say.
    let with = ["--annotations", "set/val.json", "-c", "small.toml"];
    dir.command(&[&back[..], &with].concat()).ok();
    dir.command(&["convert", "run", "d2.pth", "--clip", "set/val.json"])
        .fails(1)
        .stderr_has("--clip");

    // The other family's settings.
    let other = ["train", "-c", "small.toml", "--run", "b", "--set", "loss.l1=2"];
    dir.command(&other).fails(1).stderr_has("loss.l1").stderr_has("only DINO has it");
    assert!(!dir.exists("b"));
}

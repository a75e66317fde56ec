//! Every rule of reading settings.

use super::*;
use crate::models::{backbone::BackboneConfig, padding::Padding};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn load(text: &str, assignments: &[&str]) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "c.toml", text);
    let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
    Config::load(&path, &assignments)
}

fn refused(text: &str, assignments: &[&str], parts: &[&str]) {
    let message = load(text, assignments).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

#[test]
fn defaults_are_the_references() {
    let config = load("version = 1", &[]).unwrap();
    assert_eq!(config.train.lr, 1e-4);
    assert_eq!(config.train.lr_drop, [20]);
    assert_eq!(config.model.as_dino().unwrap().transformer.num_queries, 900);
    assert_eq!(config.data.augment.scales, (480..=800).step_by(32).collect::<Vec<u32>>());
}

#[test]
fn a_saved_config_reads_back_the_same() {
    let text = "version = 1\n[train]\nema = {}\n[loss.federated]\nclasses = 7\n\
                [data.sampler]\nkind = \"repeat_factor\"\n\
                [data.augment]\ncrop = { probability = 0 }\n\
                [model.class_head]\nkind = \"text\"\ntable = \"/t.npy\"";
    let mut config = load(text, &[]).unwrap();
    assert_eq!(config.loss.federated.as_ref().unwrap().classes, 7);
    assert_eq!(config.data.augment.crop.probability, 0.0);
    // A run settles it before it saves its settings.
    config.model.set_padding(Some(config.model.padding()));
    assert_eq!(Config::parse_saved(&config.to_toml(), Path::new("saved.toml")).unwrap(), config);
}

/// Runs of before the mean had a warm-up go on without one, and their padding stays the official code's;
/// new ones have a warm-up, and padding changes nothing.
#[test]
fn a_setting_that_came_later_is_off_in_saved_settings() {
    let text =
        "version = 1\n[train]\nema = { decay = 0.9 }\n[model.dino]\nreturn_interm_indices = [2, 3]";
    let saved = |text: &str| Config::parse_saved(text, Path::new("config.toml")).unwrap();
    let warm = |config: &Config| config.train.ema.as_ref().map(|ema| ema.warmup);
    assert_eq!(warm(&load(text, &[]).unwrap()), Some(true));
    assert_eq!(warm(&saved(text)), Some(false));
    let padding = |config: &Config| config.model.padding();
    assert_eq!(padding(&load(text, &[]).unwrap()), Padding::Masked);
    assert_eq!(padding(&saved(text)), Padding::Official);
    let mut new = load(text, &[]).unwrap();
    new.model.set_padding(Some(Padding::Masked));
    assert_eq!(saved(&new.to_toml()), new);
    assert_eq!(warm(&saved("version = 1")), None);

    let text = "version = 1\n[data]\ntrain = { annotations = \"a\", images = \"i\" }\n\
                [data.extra.a]\nimages = \"i\"\n[data.extra.b]\nimages = \"i\"\norientation = \"exif\"";
    let read = |config: Config| {
        let DataConfig { train, val, extra, .. } = config.data;
        assert!(val.is_none(), "none is made up");
        let extra: Vec<_> = extra.values().map(|set| set.orientation).collect();
        (train.unwrap().orientation, extra)
    };
    use Orientation::{Exif, Stored};
    assert_eq!(read(load(text, &[]).unwrap()), (Exif, vec![Exif, Exif]));
    assert_eq!(read(saved(text)), (Stored, vec![Stored, Exif]));
}

#[test]
fn a_child_states_only_how_it_differs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    write(
        folder.path(),
        "parent.toml",
        "version = 1\n[train]\nlr = 0.5\nepochs = 3\n\
         [data]\ntrain = { annotations = \"a.json\", images = \"i\" }",
    );
    let child = write(
        &folder.path().join("sub"),
        "child.toml",
        "extends = \"../parent.toml\"\n[train]\nepochs = 4\n[data.val]\nannotations = \"v.json\"\nimages = \"/abs\"",
    );
    let config = Config::load(&child, &["train.lr=0.25".into(), "seed = 9".into()]).unwrap();
    assert_eq!((config.train.lr, config.train.epochs, config.seed), (0.25, 4, 9));
    // Paths are relative to the file that says them.
    let normal = |p: &Path| p.components().filter(|c| c.as_os_str() != "..").count();
    let (train, val) = (config.data.train.unwrap(), config.data.val.unwrap());
    assert!(train.annotations.is_absolute() && normal(&train.annotations) > 2);
    assert!(val.annotations.ends_with("sub/v.json"), "{}", val.annotations.display());
    assert_eq!(val.images.as_deref(), Some(Path::new("/abs")));
}

#[test]
fn another_kind_replaces_the_whole_choice() {
    let text = "version = 1\n[data.sampler]\nkind = \"repeat_factor\"\nthreshold = 0.01";
    let config = load(text, &["data.sampler={kind=\"uniform\"}"]).unwrap();
    assert_eq!(config.data.sampler, SamplerConfig::Uniform {});
}

/// A file that chooses another backbone than the file below it, which does not say its kind.
#[test]
fn another_backbone_leaves_nothing_of_the_one_below() {
    let folder = tempfile::tempdir().unwrap();
    let base = "version = 1\n[model.dino.backbone]\nname = \"resnet34\"\nfrozen_stages = 2";
    let _ = write(folder.path(), "base.toml", base);
    let over = |text: &str| {
        let text = format!("version = 1\nextends = \"base.toml\"\n[model.dino.backbone]\n{text}");
        Config::load(&write(folder.path(), "over.toml", &text), &[])
    };
    let swin = over("kind = \"swin\"\nname = \"swin_s\"").unwrap();
    assert_eq!(swin.model.backbone().describe(), "swin_s, window 7");
    let BackboneConfig::Swin(settings) = swin.model.backbone() else { panic!("no Swin") };
    assert_eq!(settings.frozen_stages, -1);
    // Of the same kind, what is not said stays.
    let resnet = over("norm = \"group_norm\"").unwrap();
    let BackboneConfig::Resnet(settings) = resnet.model.backbone() else { panic!("no ResNet") };
    assert_eq!((settings.frozen_stages, settings.name.name()), (2, "resnet34"));
    let read = |config: &Config| {
        Config::parse_saved(&config.to_toml(), Path::new("saved.toml")).unwrap().model
    };
    assert_eq!(read(&swin).backbone(), swin.model.backbone());
}

#[test]
fn faults_of_a_backbone_are_named() {
    let section = |text: &str| format!("version = 1\n[model.dino.backbone]\n{text}");
    for (text, parts) in [
        ("kind = \"swim\"", ["model.dino.backbone.kind: ", "did you mean `swin`?"]),
        ("kind = \"swin\"\nname = \"swin_x\"", ["model.dino.backbone.name: ", "swin_"]),
        ("kind = \"swin\"\nnorm = \"frozen_bn\"", ["model.dino.backbone.norm: unknown", "hint"]),
        ("kind = \"swin\"\nwindow = 1", ["model.dino.backbone.window: expected 2 to 64", "got 1"]),
        ("kind = \"swin\"\nwidth = 40", ["model.dino.backbone.width: expected a", "of 32"]),
        ("kind = \"swin\"\ndrop_path = 1", ["model.dino.backbone.drop_path: expected 0", "got 1"]),
        ("kind = \"focalnet\"\nfocal_window = 4", ["focal_window: expected an odd", "got 4"]),
        ("kind = \"convnext\"\nlayers = [3]", ["layers: expected four block counts", "[3]"]),
        ("kind = \"convnext\"\nname = 3", ["model.dino.backbone.name: expected", "got"]),
    ] {
        refused(&section(text), &[], &parts);
    }
    // What the convolutions would drop.
    let convnext = section("kind = \"convnext\"");
    refused(
        &convnext,
        &["data.pad_multiple=16"],
        &["data.pad_multiple: expected a multiple of 32, as the backbone (convnext_t) needs it"],
    );
    let vit = section("kind = \"vit\"\nwindow = 7");
    assert_eq!(load(&vit, &[]).unwrap().model.padding(), Padding::Official);
    refused(
        &vit,
        &["model.dino.padding=masked"],
        &["model.dino.padding: masked, and the backbone (vitdet_b) has", "set it to \"official\""],
    );
    // Patches of 14 pixels, and what a family has not.
    let dinov2 = section("kind = \"vit\"\nname = \"dinov2_b\"");
    refused(
        &dinov2,
        &[],
        &[
            "data.pad_multiple: expected a multiple of 28, as the backbone (dinov2_b) needs it, got 32",
        ],
    );
    assert!(load(&dinov2, &["data.pad_multiple=28"]).is_ok());
    for (text, parts) in [
        (
            "name = \"dinov2_b\"\nwindow = 16",
            ["window: dinov2_b has none: its class token", "take it"],
        ),
        (
            "name = \"clip_vit_b16\"\nglobal_blocks = [1]",
            ["global_blocks: clip_vit_b16 has none", ""],
        ),
        (
            "name = \"dinov3_l\"\nposition_grid = 14",
            ["position_grid: dinov3_l has none: its", "rotary"],
        ),
        (
            "name = \"eva02_l\"\nrelative_grid = 64",
            ["relative_grid: eva02_l has none: only vitdet", ""],
        ),
        ("name = \"eva02_l\"\nregisters = 4", ["registers: eva02_l has none: only dinov2 and", ""]),
        ("name = \"dinov2_b\"\nactivation = \"gelu\"", ["activation: dinov2_b has none: only", ""]),
        ("name = \"dinov3_b\"\nfrozen_blocks = 13", ["frozen_blocks: expected -1 to 12", "13"]),
        ("name = \"dinov3_b\"\npatch = 2", ["patch: expected 4 to 64", "got 2"]),
        ("name = \"dinov3_b\"\nwidth = 100", ["width: expected a multiple of 48", "100"]),
        ("name = \"dinov4_b\"", ["model.dino.backbone.name: ", "dinov"]),
    ] {
        refused(&section(&format!("kind = \"vit\"\n{text}")), &[], &parts);
    }
    let rcnn = "version = 1\nmodel.kind = \"faster_rcnn\"\n[model.faster_rcnn]\nvariant = \"torchvision\"\n\
                [model.faster_rcnn.backbone]\nkind = \"vit\"\nname = \"dinov2_b\"";
    refused(
        rcnn,
        &["data.pad_multiple=28"],
        &[
            "model.faster_rcnn.variant: torchvision, which has whole strides",
            "[3.5, 7.0, 14.0, 28.0]",
        ],
    );
    // A level that there is not.
    refused(
        &convnext,
        &["model.dino.return_interm_indices=[2,3,4]"],
        &["return_interm_indices: expected rising level numbers from 0 to 3, got [2, 3, 4]"],
    );
}

/// The files in `configs/` are whole, but for the data that they name.
#[test]
fn the_configurations_of_backbones_are_read() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs"));
    for (file, backbone) in [
        ("baseline_r50", "resnet50, frozen_bn"),
        ("richsem_r50_21k", "resnet50, frozen_bn"),
        ("dino_swin_t", "swin_t, window 7"),
        ("dino_swin_l", "swin_l, window 12"),
        ("richsem_swin_l", "swin_l, window 12"),
        ("dino_focalnet_l", "focalnet_l, 4 levels, window 3"),
        ("richsem_focalnet_h", "focalnet_h, 4 levels, window 3"),
        ("dino_convnext_l", "convnext_l"),
        ("dino_vitdet_b", "vitdet_b"),
        ("dino_dinov2_b", "dinov2_b, 4 registers"),
        ("dino_dinov3_b", "dinov3_b"),
        ("dino_eva02_l", "eva02_l"),
        ("dino_clip_vit_b16", "clip_vit_b16"),
    ] {
        let data = ["data.train=t", "data.val=v"].map(str::to_owned);
        let config = Config::load(&folder.join(format!("{file}.toml")), &data).unwrap();
        assert_eq!(config.model.backbone().describe(), backbone, "{file}");
        if let BackboneConfig::Resnet(resnet) = config.model.backbone() {
            // With MIIL's weights the paper's code trains every convolution.
            let frozen = if file.ends_with("21k") { -1 } else { 1 };
            assert_eq!(resnet.frozen_stages, frozen, "{file}");
        }
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    refused(
        "version = 1\n[train]\nlr_drops = [3]",
        &[],
        &["c.toml: train.lr_drops: unknown key", "`lr_drop`"],
    );
    refused("version = 1\nsede = 3", &[], &["c.toml: sede", "`seed`"]);
    refused(
        "version = 1",
        &["model.dino.transformer.num_query=3"],
        &["`set`", "num_query", "`num_queries`"],
    );
}

/// Of every setting that is one of several kinds, and of every kind.
#[test]
fn no_kind_of_a_setting_takes_unknown_keys() {
    let text = r#"text = { kind = "table", table = "t.npy" }"#;
    for (section, kind) in [
        ("model.class_head", r#"kind = "linear""#),
        ("model.class_head", r#"kind = "text""#),
        ("data.sampler", r#"kind = "uniform""#),
        ("data.sampler", "kind = \"repeat_factor\"\nthreshold = 0.01"),
        ("data.sampler", r#"kind = "class_aware""#),
        ("data.extra.a.form", r#"kind = "mosaic""#),
        ("data.extra.a.form", r#"kind = "single""#),
        ("data.extra.a.mapping", r#"by = "wnid""#),
        ("data.extra.a.mapping", r#"by = "synset""#),
        ("data.extra.a.mapping", r#"by = "name""#),
        ("data.extra.a.mapping", r#"by = "id""#),
        ("data.extra.a.mapping", "by = \"file\"\npath = \"m.json\""),
        ("teacher.text", "kind = \"table\"\ntable = \"t.npy\""),
        ("teacher.text", r#"kind = "prompts""#),
    ] {
        let around = match section.split('.').next() {
            Some("teacher") => "[teacher]\nweights = \"w.pt\"\n".to_owned(),
            _ if section.contains("extra") => {
                format!("[teacher]\nweights = \"w.pt\"\n{text}\n[data.extra.a]\nimages = \"i\"\n")
            }
            _ => String::new(),
        };
        let file = format!("version = 1\n{around}[{section}]\n{kind}\n");
        if let Err(error) = load(&file, &[]) {
            // Only what else such a run needs may be missing.
            assert!(!error.to_string().contains("unknown"), "{section} {kind}: {error}");
        }
        refused(&format!("{file}nonsense = 5"), &[], &["nonsense", "unknown"]);
    }
}

/// Also where serde itself knows only the setting that it is part of.
#[test]
fn a_wrong_type_names_the_innermost_key() {
    for (assignment, key) in [
        ("data.sampler={kind='repeat_factor',threshold='x'}", "data.sampler.threshold: expected"),
        ("data.sampler={kind=3}", "data.sampler.kind: expected"),
        ("data.extra.a={images='i',form={kind='mosaic',tile='x'}}", "data.extra.a.form.tile: exp"),
        ("data.extra.a={images='i',mapping={by='file',path=3}}", "data.extra.a.mapping.path: exp"),
        ("model.class_head={kind='text',table=[1]}", "model.class_head.table: expected"),
        (
            "teacher={weights='w',text={kind='prompts',set='own',templates=['a',7]}}",
            "teacher.text.templates: expected",
        ),
        ("teacher={weights='w',text={kind='prompts',set=4}}", "teacher.text.set: expected"),
        ("data.augment.scales=[480,'x']", "data.augment.scales[1]: expected"),
        ("data.augment.crop.resize=['x']", "data.augment.crop.resize[0]: expected"),
        ("model.pixel_mean=[1]", "model.pixel_mean: "),
        (
            "model.dino.backbone=['resnet34',16]",
            "model.dino.backbone: expected a table, got a list",
        ),
        ("eval=[3]", "eval: expected a table, got a list"),
        (
            "teacher={weights='w',precision=16}",
            "teacher.precision: expected one of the known words, got another kind of value",
        ),
        (
            "semantic.projection={kind='linear',q=1}",
            "semantic.projection: expected one of the known words, got a table",
        ),
        ("teacher={weights='w',vit=3}", "teacher.vit: expected one of the known words, got "),
        ("train.precision=16", "train.precision: expected one of the known words, got "),
        ("data.sampler=3", "data.sampler: expected a table with its kind, got integer `3`"),
    ] {
        refused("version = 1", &[assignment], &[key]);
    }
}

#[test]
fn nonsense_is_refused_with_the_range() {
    for (assignment, problem) in [
        ("model.denoising.number=100000", "model.dino.denoising.number: expected 0 to 1000"),
        ("model.dino.denoising.box_noise=1e30", "model.dino.denoising.box_noise: expected 0 to 10"),
        ("data.pad_multiple=100000", "data.pad_multiple: expected 1 to 2048"),
        ("data.batch_size=1000000", "data.batch_size: expected 1 to 4096"),
        ("data.prefetch=1000000", "data.prefetch: expected 1 to 1024"),
        ("eval.batch_size=1000000", "eval.batch_size: expected 1 to 4096"),
        ("model.dino.transformer.num_queries=100000", "num_queries: expected 1 to 10000"),
        ("model.dino.transformer.hidden_dim=96000", "hidden_dim: expected 1 to 8192"),
        ("model.dino.transformer.enc_n_points=4000", "enc_n_points: expected 1 to 64"),
        ("train.lr=1e30", "train.lr: expected 0 to 1, got 1000000"),
        ("train.weight_decay=1e30", "train.weight_decay: expected 0 to 100"),
        ("train.clip_max_norm=1e30", "train.clip_max_norm: expected 0 to"),
        ("train.lr_gamma=10.0", "train.lr_gamma: expected 0 to 1"),
        ("train.epochs=1000000000000", "train.epochs: expected 1 to 100000"),
        ("loss.focal_alpha=2.0", "loss.focal_alpha: expected 0 to 1, got 2"),
        ("loss.focal_gamma=1e30", "loss.focal_gamma: expected 0 to 10"),
        ("loss.l1=1e30", "loss.l1: expected 0 to 10000"),
        ("loss.matcher.giou=inf", "loss.matcher.giou: expected 0 to 10000, got inf"),
        ("loss.federated.power=1e30", "loss.federated.power: expected 0 to 10"),
        ("semantic.weight=1e30", "semantic.weight: expected 0 to 10000"),
        ("model.pixel_mean=[123.7,116.3,103.5]", "model.pixel_mean[0]: expected 0 to 1"),
        ("model.pixel_std=[58.4,57.1,57.4]", "divide what is for 0 to 255 by 255"),
        ("model.pixel_std=[0.2,nan,0.2]", "model.pixel_std[1]: expected 0.001 to 1, got NaN"),
    ] {
        refused("version = 1", &[assignment], &[problem]);
    }
    for (assignments, problem) in [
        (
            ["loss.class=0", "loss.l1=0", "loss.giou=0"],
            "loss.class: expected class, l1 or giou above 0",
        ),
        (
            ["loss.matcher.class=0", "loss.matcher.l1=0", "loss.matcher.giou=0"],
            "loss.matcher.class: expected class, l1 or giou above 0",
        ),
    ] {
        refused("version = 1", &assignments, &[problem]);
    }
}

#[test]
fn wrong_values_name_file_key_and_reason() {
    refused(
        "version = 1\n[train]\nlr = \"fast\"",
        &[],
        &["c.toml: train.lr", "string", "expected a number, got string"],
    );
    refused("version = 1\n[train]\nlr = -1.0", &[], &["c.toml: train.lr", "expected 0 to 1", "-1"]);
    refused("version = 1\n[train]\nprecision = \"fp8\"", &[], &["train.precision", "fp8", "bf16"]);
    refused("version = 1\n[train]\nprecision = \"bf61\"", &[], &["bf61", "hint: ", "`bf16`?"]);
    refused(
        "version = 1",
        &["data.sampler.kind=repeat_factors"],
        &["`set`: data.sampler", "`repeat_factors`", "did you mean `repeat_factor`?"],
    );
    refused("version = 1\n[train]\nepochs = 0", &[], &["train.epochs", "expected 1 to"]);
    refused("version = 1\n[train]\nlr_drop = [4, 2]", &[], &["train.lr_drop", "got 2 after 4"]);
    refused("version = 1\n[train]\nlr_drop = [2, 2]", &[], &["train.lr_drop", "got 2 after 2"]);
    refused("version = 2", &[], &["version", "expected 1, got 2", "hint"]);
    refused("seed = 1", &[], &["version: missing", "version = 1"]);
    refused("version = 1\n[train\nlr = 1", &[], &["c.toml: line 2"]);
    // Which of two: the message has it, and where the second is.
    refused(
        "version = 1\n[train]\nlr = 1\nlr = 2",
        &[],
        &["c.toml: line 4: the key `lr` is there twice"],
    );
    refused(
        "version = 1\n[train]\n\n[train]\nlr = 1",
        &[],
        &["c.toml: line 4: the key `train` is there"],
    );
    // What a file says may not go with what a preset says: the file is named, not the preset.
    refused(
        "version = 1\nextends = \"preset:tiny\"\n[model.dino.transformer]\nnheads = 7",
        &[],
        &[
            "c.toml: model.dino.transformer.hidden_dim: expected a multiple of nheads (7)",
            "hint: `model.dino.transformer.nheads` is said here, `model.dino.transformer.hidden_dim` in preset:tiny",
        ],
    );
    refused(
        "version = 1\nextends = \"preset:tiny\"",
        &["model.dino.transformer.nheads=7"],
        &["`set`: model.dino.transformer.hidden_dim"],
    );
    refused("version = 1", &["train.lr"], &["`set`", "key=value"]);
    refused("version = 1\nextends = 3", &[], &["extends"]);
    refused("version = 1\nextends = \"c.toml\"", &[], &["extends itself"]);
    refused("version = 1\nextends = \"none.toml\"", &[], &["none.toml"]);
    refused(
        "version = 1\n[model.dino]\nreturn_interm_indices = [0, 1, 2, 3]\n[model.dino.transformer]\nnum_feature_levels = 3",
        &[],
        &["num_feature_levels", "at least the 4", "got 3"],
    );
    refused("version = 1\n[loss.federated]\nclasses = 0", &[], &["loss.federated.classes", "hint"]);
}

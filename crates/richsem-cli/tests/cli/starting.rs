//! From a set of images to a run: `dataset split`, `init`, presets, shorthands, `weights`.

use super::util::Dir;

/// 4 classes in 24 images, in one piece.
fn drawn() -> Dir {
    let dir = Dir::new();
    let mut synth = vec!["synth", "set", "--classes", "4", "--train-images", "24"];
    synth.extend(["--val-images", "4", "--image-size", "96,128"]);
    synth.extend(["--classification-per-class", "0"]);
    dir.command(&synth).ok();
    dir
}

#[test]
fn a_set_in_one_piece_is_divided_and_what_init_writes_trains() {
    let dir = drawn();
    let split = ["dataset", "split", "set/train.json", "mine", "--images", "set/images"];
    let ran = dir.command(&split).ok().stdout_has("next: richsem init mine");
    let images = |part: &str| ran.row(part)[2].parse::<usize>().unwrap();
    assert_eq!(images("train") + images("val"), 24, "{ran:?}");
    assert!((3..=7).contains(&images("val")), "{ran:?}");
    dir.command(&split).fails(1).stderr_has("exists and is not empty");

    let init = ["init", "mine", "--device", "cpu", "--minutes", "0.2"];
    let ran = dir.command(&init).ok();
    let ran = ran
        .stdout_has("richsem train -c mine.toml --run runs/mine")
        .stdout_has("richsem eval --weights runs/mine --annotations mine")
        .stdout_has("richsem predict IMAGE --weights runs/mine");
    assert_eq!(ran.row("preset"), ["preset", "tiny"]);
    let text = dir.text("mine.toml");
    for part in ["extends = \"preset:tiny\"", "lr_backbone = 0.001", "annotations = \"mine\"", "# "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // README shows what it writes.
    let readme = include_str!("../../../../README.md");
    let shown = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(shown.lines().count() > 8, "{shown}");
    for line in shown.lines() {
        assert!(text.lines().any(|written| written == line), "README has `{line}`: {text}");
    }
    dir.command(&init).fails(1).stderr_has("mine.toml` exists").stderr_has("--overwrite");

    // One epoch shows that it trains; what init said to type next follows.
    let train = ["train", "-c", "mine.toml", "--run", "runs/mine", "--device", "cpu"];
    let ran = dir.command(&[&train[..], &["--epochs", "1", "--batch", "4"]].concat()).ok();
    assert!(!ran.stderr.contains("hardly learns"), "{ran:?}");
    let eval = ["eval", "--weights", "runs/mine", "--annotations", "mine", "--device", "cpu"];
    dir.command(&[&eval[..], &["--per-class"]].concat()).ok();

    // From that detector to the same classes: every row of its class head is kept.
    let again = ["init", "mine", "--weights", "runs/mine", "--device", "cpu", "--minutes", "0.1"];
    dir.command(&[&again[..], &["-o", "again.toml"]].concat()).ok().stdout_has("from a detector");
    let text = dir.text("again.toml");
    assert!(text.contains("hidden_dim = 96") && text.contains("[init]\n"), "{text}");
    dir.command(&[
        "train",
        "-c",
        "again.toml",
        "--run",
        "runs/again",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ])
    .ok()
    .stderr_has("weights from");
}

/// A shell takes what is printed to be typed, whatever the names.
#[test]
fn printed_commands_are_quoted() {
    let dir = drawn();
    let set = "it's my set";
    let split = ["dataset", "split", "set/train.json", set, "--images", "set/images"];
    dir.command(&split).ok().stdout_has("next: richsem init \"it's my set\"");
    let init = ["init", set, "--device", "cpu", "--minutes", "0.1"];
    let ran = dir.command(&init).ok().stderr_has("richsem doctor \"it's my set\"");
    let lines = ran.stdout.lines().chain(ran.stderr.lines());
    let commands = lines.filter_map(|line| line.find("richsem ").map(|at| &line[at..]));
    let words = |command: &str| {
        let line = format!("richsem() {{ printf '%s\\n' \"$@\"; }}; {command}");
        let read = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands: Vec<Vec<String>> = commands.map(words).collect();
    let run = "runs/it's my set";
    for expected in [
        &["train", "-c", "it's my set.toml", "--run", run][..],
        &["eval", "--weights", run, "--annotations", set, "--per-class"],
        &["predict", "IMAGE", "--weights", run, "--output", "found"],
        &["doctor", set],
    ] {
        assert!(commands.iter().any(|words| words == expected), "{expected:?}: {commands:?}");
    }
    dir.command(&["train", set])
        .fails(1)
        .stderr_has("`richsem init \"it's my set\"` writes settings");
}

/// Whatever the parts are called, what is printed to be typed next works.
#[test]
fn what_is_printed_to_be_typed_next_works() {
    let dir = drawn();
    let typed = |line: &str, from: &str| -> Vec<String> {
        let at = line.find(from).unwrap_or_else(|| panic!("no `{from}` in {line}"));
        let command = line[at..].lines().next().unwrap();
        command.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    for (out, parts, next) in [
        ("usual", "train=0.7,valid=0.2,test=0.1", "usual"),
        ("other", "a=0.5,b=0.5", "other --split a --val other/b.json"),
        ("folds", "fold0=1,fold1=1,fold2=1", "folds --split fold0 --val folds/fold1.json"),
        ("half", "train=0.5,rest=0.5", "half --val half/rest.json"),
        ("second", "first=0.5,val=0.5", "second --split first"),
        ("many", "train1=0.4,train2=0.4,val=0.2", "many --split train1"),
    ] {
        let split = ["dataset", "split", "set/train.json", out, "--images", "set/images"];
        let ran = dir.command(&[&split[..], &["--parts", parts]].concat()).ok();
        let init = typed(&ran.stdout, "richsem init");
        assert_eq!(init[1..].join(" "), next, "{parts}");
        if !["other", "second"].contains(&out) {
            continue;
        }
        let mut init: Vec<&str> = init.iter().map(String::as_str).collect();
        init.extend(["--device", "cpu", "--minutes", "0.1"]);
        let ran = dir.command(&init).ok();
        assert!(!ran.stderr.contains("no validation set"), "{ran:?}");
        let doctor = typed(&ran.stderr, "richsem doctor");
        let doctor: Vec<&str> = doctor.iter().map(String::as_str).collect();
        let ran = dir.raw_command(&doctor).output().unwrap();
        let told = String::from_utf8_lossy(&ran.stderr);
        assert!(!told.contains("error"), "{parts}: {told}");
    }
    // A run that is there is another one.
    std::fs::create_dir_all(dir.path("runs/b")).unwrap();
    // What was said of a set is said again.
    let init = ["init", "other", "--split", "b", "--format", "coco", "-o", "b.toml"];
    dir.command(&[&init[..], &["--device", "cpu", "--minutes", "0.1"]].concat())
        .ok()
        .stderr_has("richsem dataset split other OUT --split b --format coco`")
        .stderr_has("richsem doctor other --split b --format coco")
        .stdout_has("richsem train -c b.toml --run runs/b-2");
}

/// The kind and the sizes are read from the file's tensors.
#[test]
fn init_writes_the_backbone_of_the_weights_whatever_its_kind() {
    use richsem::checkpoint_io::{read_weights, safetensors};
    let dir = Dir::with_data();
    let kind = "backbone = { kind = \"swin\", width = 16, head_width = 8, window = 4, layers = [1, 1, 1, 1] }";
    let config: Vec<String> = dir
        .text("tiny.toml")
        .lines()
        .map(|line| if line.starts_with("backbone") { kind.to_owned() } else { line.to_owned() })
        .collect();
    dir.write("swin.toml", config.join("\n"));
    dir.command(&["train", "-c", "swin.toml", "--run", "run", "--device", "cpu"]).ok();
    // The backbone alone, as it is published.
    let all = read_weights(&dir.path("run/checkpoints/last/model.safetensors")).unwrap();
    let own = all.into_iter().filter_map(|(name, x)| {
        let own = name.strip_prefix("backbone.0.")?;
        (!own.starts_with("norm")).then(|| (own.to_owned(), x))
    });
    let none = safetensors::Metadata::new();
    safetensors::write(&dir.path("swin.safetensors"), &own.collect(), &none).unwrap();
    let init = ["init", "set", "--weights", "swin.safetensors", "--device", "cpu", "--minutes"];
    dir.command(&[&init[..], &["0.05", "-o", "mine.toml"]].concat())
        .ok()
        .stderr_has("a Swin Transformer")
        .stdout_has("from a trained swin_t");
    let text = dir.text("mine.toml");
    for part in ["kind = \"swin\"\n", "name = \"swin_t\"\n", "width = 16\n", "window = 4\n"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let train = ["train", "-c", "mine.toml", "--run", "next", "--device", "cpu", "--epochs", "1"];
    dir.command(&train).ok().stderr_has("swin.safetensors");
}

/// A ResNet of other sizes than the published one; and sets on which a run would fail or say nothing.
#[test]
fn what_init_writes_trains_or_init_says_why_not() {
    use richsem::checkpoint_io::{read_weights, safetensors};
    let dir = Dir::with_run();
    let all = read_weights(&dir.path("run/checkpoints/last/model.safetensors")).unwrap();
    let own = all
        .into_iter()
        .filter_map(|(name, x)| Some((name.strip_prefix("backbone.0.body.")?.to_owned(), x)));
    let none = safetensors::Metadata::new();
    let mut own: std::collections::BTreeMap<_, _> = own.collect();
    safetensors::write(&dir.path("groups.safetensors"), &own, &none).unwrap();
    let norms: Vec<_> = own
        .iter()
        .filter(|(_, x)| x.dim() == 1)
        .map(|(n, x)| (n.clone(), x.shallow_clone()))
        .collect();
    for (name, x) in norms {
        let Some(norm) = name.strip_suffix("weight") else { continue };
        own.insert(format!("{norm}running_mean"), x.zeros_like());
        own.insert(format!("{norm}running_var"), x.ones_like());
    }
    safetensors::write(&dir.path("resnet.safetensors"), &own, &none).unwrap();
    let init = ["init", "set", "--device", "cpu", "--minutes", "0.05", "--overwrite"];
    let init = |more: &[&str]| dir.command(&[&init[..], &["-o", "mine.toml"], more].concat());
    init(&["--weights", "groups.safetensors"]).fails(1).stderr_has("do not tell its sizes");
    init(&["--weights", "resnet.safetensors"]).ok().stdout_has("from a trained resnet18");
    let train = ["train", "-c", "mine.toml", "--run", "next", "--device", "cpu", "--epochs", "1"];
    dir.command(&train).ok().stderr_has("resnet.safetensors");

    init(&["--orientation", "stored"]).ok().stdout_has("--annotations set --orientation stored");
    assert_eq!(dir.text("mine.toml").matches("orientation = \"stored\"").count(), 2);
    let told = "images of data.val are in data.train, too";
    init(&["--split", "train", "--val", "set/train.json"]).ok();
    let same = ["init", "set/val.json", "--val", "set/val.json", "--images", "set/images"];
    let rest = ["--device", "cpu", "--minutes", "0.05", "-o", "same.toml"];
    dir.command(&[&same[..], &rest].concat()).ok().stderr_has(told);
    let train = ["train", "-c", "same.toml", "--run", "same", "--device", "cpu", "--epochs", "1"];
    dir.command(&train).ok().stderr_has(told);

    std::fs::rename(dir.path("set/images"), dir.path("elsewhere")).unwrap();
    init(&[]).fails(1).stderr_has("are not near the annotations, and training needs them");
    std::fs::create_dir(dir.path("empty")).unwrap();
    init(&["--images", "empty"]).fails(1).stderr_has("holds none of the annotated images");
}

#[test]
fn a_preset_needs_no_file_and_flags_change_what_depends_on_them() {
    let dir = drawn();
    dir.command(&["train", "--preset", "list"]).ok().stdout_has("tiny").stdout_has("finetune_r50");
    let train = ["train", "--preset", "tiny", "--data", "set", "--run", "run", "--device", "cpu"];
    let flags = ["--epochs", "1", "--imgsz", "64", "--lr", "0.001", "--batch", "6"];
    dir.command(&[&train[..], &flags].concat())
        .ok()
        .stderr_has("train.lr_drop=[] (--epochs: [15] of 18 epochs until now)")
        .stderr_has("train.lr_backbone=0.001");
    let config = dir.text("run/config.toml");
    for part in ["epochs = 1\n", "batch_size = 6\n", "lr_backbone = 0.001\n", "max_size = 64\n"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    // A set in pieces: each has a flag, and what lacks one names it.
    for part in ["train.json", "val.json"] {
        dir.write(part, dir.text(&format!("set/{part}")));
    }
    let pieces = ["--data", "train.json", "--val", "val.json", "--device", "cpu"];
    dir.command(&[&["train", "--preset", "tiny"], &pieces[..]].concat())
        .fails(1)
        .stderr_has("--set data.train.images=FOLDER, or for both sets --images FOLDER");
    let pieces = [&pieces[..], &["--images", "set/images"]].concat();
    dir.command(&[&["train"], &pieces[..]].concat()).fails(2).stderr_has(
        "richsem train --preset tiny --data train.json --val val.json --images set/images",
    );
    let short = ["--epochs", "1", "--imgsz", "64", "--batch", "6"];
    dir.command(&[&["train", "--preset", "tiny"], &pieces[..], &short].concat()).ok();
    dir.command(&["train", "--preset", "tinny", "--data", "set"])
        .fails(1)
        .stderr_has("there is no preset `tinny`")
        .stderr_has("did you mean `tiny`?");
    // The settings contradict the start: told before the first step.
    dir.write("slow.toml", "version = 1\nextends = \"preset:tiny\"\n[data]\ntrain = \"set\"\n");
    let slow = ["train", "-c", "slow.toml", "--set", "train.lr_backbone=1e-5", "--epochs", "1"];
    dir.command(&[&slow[..], &["--run", "slow", "--device", "cpu"]].concat())
        .ok()
        .stderr_has("so slowly it hardly learns. Set train.lr_backbone = 5e-4");
}

#[test]
fn a_run_ends_early_and_stays_ended() {
    let dir = Dir::with_data();
    // Nothing is learnt at a rate of 0, so that no AP is better than the first.
    let still =
        ["--set", "train.lr=0", "--set", "train.lr_backbone=0", "--set", "train.patience=2"];
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--epochs", "9", "--device", "cpu"];
    dir.command(&[&train[..], &still].concat())
        .ok()
        .stderr_has("train.patience: no better AP for 2 epochs")
        .stderr_has("; ended by train.patience after epoch 3 of 9; best AP")
        .stdout_has("after epoch 3:");
    assert!(!dir.text("run/metrics.jsonl").contains("\"epoch\":4,\"metrics\""));
    let before = dir.text("run/metrics.jsonl");
    let note = "train.patience ended the run after epoch 3 of 9.";
    let unfinished = "The run is not finished";
    let is_told = || {
        let page = dir.text("run/report.html");
        page.contains(note) && !page.contains(unfinished)
    };
    assert!(is_told());
    // It has nothing left to do.
    let resumed = dir
        .command(&["train", "--resume", "run", "--device", "cpu"])
        .ok()
        .stderr_has("; ended by train.patience after epoch 3 of 9; best AP");
    assert!(!resumed.stderr.contains(unfinished), "{resumed:?}");
    assert_eq!(dir.text("run/metrics.jsonl"), before);
    dir.command(&["report", "run", "--device", "cpu"]).ok().stderr_has(note);
    assert!(is_told());
}

#[test]
fn weights_are_listed_and_say_what_to_do_where_they_cannot_be_had() {
    let dir = Dir::new();
    let home = dir.path("home");
    let weights = |args: &[&str]| {
        let command = dir.command(&[&["weights"], args].concat());
        command.env("RICHSEM_HOME", home.to_str().unwrap()).env("RICHSEM_MIRROR", "")
    };
    let listed = weights(&[]).ok();
    assert_eq!(listed.row("resnet50-v2").last(), Some(&"fetch"));
    assert_eq!(listed.row("dino-r50-coco").last(), Some(&"hand"));
    weights(&["fetch", "resnet500"]).fails(1).stderr_has("did you mean `resnet50`?");
    weights(&["fetch", "resnet18"])
        .env("RICHSEM_OFFLINE", "1")
        .fails(1)
        .stderr_has("https://download.pytorch.org/models/resnet18-f37072fd.pth")
        .stderr_has("home/weights/resnet18-f37072fd.pth");
    // Nothing to fetch with.
    weights(&["fetch", "resnet18"])
        .env("PATH", dir.path("empty").to_str().unwrap())
        .fails(1)
        .stderr_has("`curl`, which fetches files, is not here");
    // A mirror that has something else.
    dir.write("mirror/resnet18-f37072fd.pth", "<html>log in</html>");
    if std::process::Command::new("curl").arg("--version").output().is_ok() {
        let mirror = format!("file://{}", dir.path("mirror").display());
        weights(&["fetch", "resnet18"])
            .env("RICHSEM_MIRROR", &mirror)
            .fails(1)
            .stderr_has("SHA-256: expected f37072fd")
            .stderr_has("a page of a proxy");
    }
    // What nobody states a checksum of is to be a file of weights.
    let kept = "home/weights/resnet50_miil_21k.pth";
    dir.write(kept, "<html>log in</html>");
    let listed = weights(&[]).ok().stderr_has("a web page");
    assert_eq!(listed.row("resnet50-21k").last(), Some(&"file"));
    weights(&["fetch", "resnet50-21k"]).fails(1).stderr_has("a web page").stderr_has("rm ");
    dir.write(kept, b"PK\x03\x04");
    let here = weights(&["fetch", "resnet50-21k"]).ok().stderr_has("nobody states its checksum");
    assert_eq!(here.stdout.trim(), home.join("weights/resnet50_miil_21k.pth").to_str().unwrap());
}

/// Mosaics are timed and fit the detector; the images of both sets may be in two folders.
#[test]
fn init_counts_batches_of_classification_images_and_takes_two_folders_of_images() {
    let dir = Dir::new();
    let synth = ["synth", "set", "--classes", "4", "--train-images", "12", "--val-images", "4"];
    let more = ["--image-size", "96,128", "--classification-per-class", "3"];
    dir.command(&[&synth[..], &more].concat()).ok();
    for part in ["train", "val"] {
        let names = dir.text(&format!("set/{part}.json"));
        dir.write(&format!("ann/{part}.json"), names.replace(&format!("{part}/"), part));
        for image in dir.files(&format!("set/images/{part}")) {
            let bytes = dir.read(&format!("set/images/{part}/{image}"));
            dir.write(&format!("of-{part}/{part}{image}"), bytes);
        }
    }
    let init = ["init", "ann/train.json", "--val", "ann/val.json", "--device", "cpu"];
    let init = [&init[..], &["--minutes", "0.05", "-o", "mine.toml"]].concat();
    let one = [&init[..], &["--images", "of-train"]].concat();
    dir.command(&one).fails(1).stderr_has("ann/val.json: the folder").stderr_has("--val-images");
    let both = ["--val-images", "of-val", "--extra", "set/classification"];
    let ran = dir.command(&[&one[..], &both].concat()).ok();
    let ran = ran.stdout_has("--annotations ann/val.json --images of-val");
    let length = ran.row("length").join(" ");
    let steps = length.split_once(" of ").unwrap().1.split(' ').next().unwrap();
    let steps: u32 = steps.parse().unwrap();
    assert_eq!(steps % 2, 0, "a batch of mosaics for each of detection images: {length}");
    let text = dir.text("mine.toml");
    for part in ["form.kind = \"mosaic\"\n", "form.tile = 96\n", "images = \"of-val\"\n"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let train = ["train", "-c", "mine.toml", "--run", "run", "--device", "cpu", "--epochs", "1"];
    dir.command(&train).ok().stderr_has(&format!("1 epoch of {steps} batches"));
}

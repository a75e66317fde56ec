//! Every habit has an answer that holds, and none takes the place of what there is.

use std::{collections::HashSet, path::Path};

use super::{values::assignment, *};

fn command() -> Command {
    crate::command_line()
}

fn said(line: &str) -> Said {
    let words = std::iter::once("richsem").chain(line.split_whitespace());
    read(words.map(OsString::from).collect(), &command())
}

/// What `clap` gets, and what is told.
fn taken(line: &str) -> (String, Vec<String>) {
    match said(line) {
        Said::Arguments(arguments, notes) => {
            let words: Vec<_> = arguments[1..].iter().map(|a| a.to_str().unwrap()).collect();
            (words.join(" "), notes)
        }
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match said(line) {
        Said::Refused(problem) => problem,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn words_of_others_are_taken_as_those_of_here() {
    for (typed, expected) in [
        ("help", "--help"),
        ("help train", "train --help"),
        ("help dataset split", "dataset split --help"),
        (
            "train data=coco.yaml epochs=3 imgsz=640 lr0=0.01 device=0",
            "train --data coco.yaml --epochs 3 --imgsz 640 --lr 0.01 --device cuda:0",
        ),
        (
            "train -c a.toml train.lr=0.1 --batch-size=8",
            "train -c a.toml --set train.lr=0.1 --batch 8",
        ),
        ("train -c a.toml --set train.lr=0.1", "train -c a.toml --set train.lr=0.1"),
        ("train -c a=b.toml --run x=y", "train -c a=b.toml --run x=y"),
        ("train -c a.toml --cfg-options train.lr=1", "train -c a.toml --set train.lr=1"),
        (
            "train --amp patience=5 amp=False",
            "train --set train.precision=bf16 --set train.patience=5",
        ),
        ("predict --source a.jpg --conf-thres 0.4", "predict a.jpg --conf 0.4"),
        ("predict source=a.jpg model=run conf=0.4", "predict a.jpg --weights run --conf 0.4"),
        ("predict a.jpg save_txt=True save=True", "predict a.jpg --formats images,json,yolo"),
        ("predict a.jpg -- x=y", "predict a.jpg -- x=y"),
        ("val model=run data=mine", "val --weights run --annotations mine"),
        ("checks --device=1", "checks --device=cuda:1"),
        ("synth s --overwrite=true --seed=-1", "synth s --overwrite --seed=-1"),
        ("--help train", "train --help"),
        ("train help", "train --help"),
        (
            "Train -c a.toml Batch=2 --Allow_Missing x",
            "train -c a.toml --batch 2 --allow-missing x",
        ),
        ("mode=train task=detect data=x.yaml", "train --data x.yaml"),
        ("task=detect mode=val model=run data=mine", "eval --weights run --annotations mine"),
        ("detect train data=a epochs=3", "train --data a --epochs 3"),
        ("train -c a.toml task=detect resume=False", "train -c a.toml"),
        ("train -c a.toml --run none", "train -c a.toml --run none"),
        ("predict a.jpg -w run --score 0.4", "predict a.jpg --weights run --conf 0.4"),
        ("predict a.jpg -weights run -output=found", "predict a.jpg --weights run --output=found"),
        ("train --lr -1", "train --lr=-1"),
        (
            "train -c a.toml SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.001 --run r",
            "train -c a.toml --batch 2 --lr 0.001 --run r",
        ),
        (
            "train --config-file a.toml MODEL.WEIGHTS w.pth OUTPUT_DIR o",
            "train --config a.toml --init w.pth --run o",
        ),
        (
            "eval MODEL.WEIGHTS w.safetensors mine",
            "eval --weights w.safetensors --annotations mine",
        ),
        ("eval w.safetensors mine", "eval --weights w.safetensors --annotations mine"),
        ("predict w.pt a.jpg", "predict --weights w.pt a.jpg"),
        ("predict a.jpg w.pt --weights run", "predict a.jpg w.pt --weights run"),
        ("train -c a.toml SOLVER.BASE_LR=0.01", "train -c a.toml --lr 0.01"),
        ("train -c a.toml --set optimizer.lr=0.01", "train -c a.toml --lr 0.01"),
        (
            "train -c a.toml --opts SOLVER.IMS_PER_BATCH 4 SOLVER.GAMMA 0.1 --run r",
            "train -c a.toml --batch 4 --set train.lr_gamma=0.1 --run r",
        ),
        (
            "train -c a.toml --cfg-options optimizer.type=SGD train.lr=1",
            "train -c a.toml --set train.optimizer=SGD --set train.lr=1",
        ),
        (
            "train --opts train.lr 0.1 data.workers=2",
            "train --set train.lr=0.1 --set data.workers=2",
        ),
        ("train --set seed=1 a.toml", "train --set seed=1 a.toml"),
        ("settings SOLVER.BASE_LR", "settings SOLVER.BASE_LR"),
        ("eval --task=detect w.pt mine", "eval --weights w.pt --annotations mine"),
        ("predict -i a.jpg --slice-height 320", "predict a.jpg --tiles 320"),
        (
            "train --data a.json --val b.json --img-dir c",
            "train --data a.json --val b.json --images c",
        ),
        (
            "train --train.lr 0.1 --data.batch-size=4",
            "train --set train.lr=0.1 --set data.batch_size=4",
        ),
        ("train val=True cos_lr=False mosaic=0.0 save=True cache=None", "train"),
        ("train --tensorboard --cache False --amp False -c a.toml", "train -c a.toml"),
        ("train --list-presets", "train --preset list"),
        (
            "train --grad-clip 1 --early-stop 5",
            "train --set train.clip_max_norm=1 --set train.patience=5",
        ),
        ("predict a.jpg show=False --agnostic 0 --save True", "predict a.jpg"),
        ("eval --html x.html save_txt=False", "eval --report x.html"),
        ("init X --force", "init X --overwrite"),
        ("synth x --overwrite True", "synth x --overwrite"),
        ("report run --html x.html", "report run --output x.html"),
        ("init --data X", "init X"),
        ("doctor --data X", "doctor X"),
        (
            "dataset convert a b --from coco --target yolo",
            "dataset convert a b --format coco --to yolo",
        ),
    ] {
        assert_eq!(taken(typed).0, expected, "{typed}");
    }
    assert_eq!(taken("train lr0=1").1, ["lr0= is --lr here"]);
    assert_eq!(taken("train resume=False").1, ["--resume is left out: False is said for it"]);
    assert_eq!(taken("eval w.pt mine").1, ["mine is --annotations here", "w.pt is --weights here"]);
    assert!(taken("train epochs=1 -c a.toml").1.is_empty(), "its own words are not told");
    for line in ["--version", "version", "-V"] {
        assert_eq!(said(line), Said::Version);
    }
    // A file of such a name is a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source=a.jpg");
    std::fs::write(&file, "").unwrap();
    assert_eq!(assignment(file.to_str().unwrap()), None);
}

#[test]
fn what_is_not_there_is_said_in_a_line() {
    for (typed, part) in [
        ("detect a.jpg", "richsem predict IMAGE"),
        ("export model=run", "it is not there"),
        ("predict a.jpg --classes 0", "cannot be chosen"),
        ("yolo detect train data=a.yaml", "richsem init"),
        ("train model=yolov8n.pt data=coco8.yaml", "--preset"),
        ("predict a.jpg --show", "no video"),
        ("eval --imgsz 640", "as in training"),
        ("train SOLVER.MAX_ITER=900", "--epochs"),
        ("init X --epochs 3", "--minutes"),
        ("dataset split a b --val 0.2", "--parts train=0.8,val=0.2"),
        ("dataset check a", "richsem doctor DATA"),
        ("dataset visualize a", "dataset show"),
        ("dataset merge a b", "not there"),
        ("dataset split a b --val-split 0.2", "--parts train=0.8,val=0.2"),
        ("weights list", "richsem weights"),
        ("continue", "--resume"),
        ("fit", "richsem train"),
        ("rename", "can change"),
        ("trian", "did you mean `train`?"),
        ("infrence", "richsem predict"),
        ("detetc", "richsem predict"),
        ("predictt", "did you mean `predict`?"),
        ("python train.py", "richsem train"),
        ("tools/train_net.py", "richsem train"),
        ("compare a b", "--compare"),
        ("metrics", "richsem report"),
        ("docs", "--help"),
        ("update", "richsem checks"),
        ("install", "richsem checks"),
        ("examples", "--help"),
        ("frobnicate", "richsem --help lists all"),
        ("help yolo", "richsem init"),
        ("help nothing", "richsem --help lists all"),
        ("model.train", "richsem train -c DATA.toml"),
        ("model.train(data='a.yaml')", "richsem train -c DATA.toml"),
        ("model.predict", "richsem predict IMAGE"),
        ("model.export", "not there"),
        ("task=segment", "detects objects"),
        ("mode=export", "not there"),
        ("data=x", "the verb comes first"),
        ("--source bus.jpg", "richsem predict --source bus.jpg"),
        ("--nonsense", "before a verb"),
        ("train resume", "richsem train --resume"),
        ("train resume=True", "richsem train --resume RUN"),
        ("train --resume True", "richsem train --resume RUN"),
        ("predict screen", "ffmpeg"),
        ("predict --source 0", "ffmpeg"),
        ("weights convert", "richsem convert"),
        ("weights yolov8n.pt", "richsem weights fetch NAME"),
        ("weights resnet50", "richsem weights fetch resnet50"),
        ("dataset stat a", "did you mean `dataset stats`?"),
        ("predict a.jpg visualize=True", "no such choice"),
        ("predict a.jpg save_frames=True", "no video"),
        ("predict a.jpg retina_masks=True", "no such choice"),
        ("predict a.jpg workers=2", "threads"),
        ("predict a.jpg nonsense=2", "richsem predict --help"),
        ("eval workers=0", "threads"),
        ("val name=x", "--json FILE"),
        ("val project=x", "--json FILE"),
        ("train time=0.5", "richsem settings"),
        ("train box=7.5", "richsem settings loss"),
        ("train dropout=0.1", "richsem settings"),
        ("train nonsense=1", "richsem settings"),
        ("train SOLVER.NONSENSE 1", "richsem settings"),
        ("train conf=0.25", "richsem predict IMAGE"),
        ("train --val-split 0.2", "richsem dataset split"),
        ("train --auto-scale-lr", "--lr 0.0001"),
        ("predict a.jpg --agnostic", "within a class"),
        ("predict a.jpg -v", "stderr"),
        ("predict a.jpg -x", "./-x"),
        ("predict a.jpg --wieghts run", "did you mean --weights?"),
        ("predict a.jpg --no-such", "richsem predict --help"),
        ("train -c a.toml --thresholds t", "it is a flag of predict"),
        ("train --tune", "richsem train --help"),
        ("evel", "did you mean `eval`?"),
        ("train --device 0,1", "--gpus 2"),
        ("train device=[0,1,2]", "--gpus 3"),
        ("train --device cuda:0,1", "--gpus 2"),
        ("bench --device 0,1", "--device cuda:0"),
        ("train batch=-1", "richsem init DATA"),
        ("train --batch auto", "richsem init DATA"),
        ("train --batch-size 0.7", "richsem init DATA"),
        ("predict a.jpg --batch=auto", "--batch 4"),
        ("train imgsz=640,480", "--imgsz 640"),
        ("train --imgsz 480 640", "--imgsz 640"),
        ("train --img 640x480", "--imgsz 640"),
        ("train --wandb", "TensorBoard"),
        ("train --mosaic 1.0", "data.augment"),
        ("train --train.lr", "--set train.lr=VALUE"),
        ("init X --train-size 0.8", "richsem dataset split"),
        ("predict 1.jpg --weights RUN --save-json out.json", "--output FOLDER"),
    ] {
        let problem = refused(typed);
        assert!(problem.contains(part) && !problem.contains('\n'), "{typed}: {problem}");
    }
}

/// The flags, settings and verbs that answers name are there; no word is one that the verb has itself.
#[test]
fn every_answer_holds() {
    let command = command();
    let find = |verbs: &str| {
        verbs.split(' ').try_fold(command.clone(), |at, verb| at.find_subcommand(verb).cloned())
    };
    let flags = |verb: &str| -> Vec<String> {
        let verb = find(verb).expect(verb);
        verb.get_arguments().filter_map(|arg| Some(arg.get_long()?.to_owned())).collect()
    };
    let all: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let mut seen = HashSet::new();
    for habit in habits() {
        let verbs = if habit.verbs.is_empty() { &all[..0] } else { habit.verbs };
        for verb in verbs {
            let known = flags(verb);
            for word in habit.words {
                assert!(seen.insert((*verb, *word)), "{verb} --{word} is there twice");
                assert!(!known.iter().any(|flag| flag == word), "{verb} has --{word}");
            }
            let has = |flag: &str| known.iter().any(|known| *known == flag.trim_start_matches('-'));
            match habit.answer {
                Answer::Flag(flag) => assert!(has(flag), "{verb} has no {flag}"),
                Answer::Set(key) => {
                    assert!(has("--set"));
                    let found = richsem::settings_reference::find(key);
                    // Several kinds of a choice may have a setting of one name.
                    let is = !found.is_empty() && found.iter().all(|setting| setting.key == key);
                    assert!(is, "there is no setting {key}");
                }
                Answer::Switch(arguments) => {
                    assert!(arguments.first().is_none_or(|flag| has(flag)), "{arguments:?}");
                }
                Answer::Argument => {
                    let verb = find(verb).unwrap();
                    assert!(verb.get_positionals().next().is_some());
                }
                Answer::Says(_) | Answer::Lacks(_) => {}
            }
        }
    }
    for (words, answer) in verbs::VERBS {
        for word in *words {
            assert!(command.find_subcommand(word).is_none(), "`{word}` is a verb");
            assert!(seen.insert(("", word)), "{word} is there twice");
        }
        named(answer, &all);
        assert!(answer.contains("richsem "), "{answer}");
    }
    for (verb, words, answer) in sets::INNER {
        for word in *words {
            assert!(find(&format!("{verb} {word}")).is_none(), "{verb} {word} is a verb");
            assert!(seen.insert((*verb, *word)), "{verb} {word} is there twice");
        }
        named(answer, &all);
        assert!(answer.contains("richsem "), "{answer}");
    }
    let mut seen = HashSet::new();
    for (verb, words, answer) in verbs::INSTEAD {
        for word in *words {
            assert!(seen.insert((*verb, *word)), "{verb} {word} is there twice");
        }
        named(answer, &all);
    }
    for habit in habits() {
        if let Answer::Says(answer) | Answer::Lacks(answer) = habit.answer {
            named(answer, &all);
        }
    }
}

/// One line, of verbs that there are.
fn named(answer: &str, verbs: &[&str]) {
    assert!(answer.len() < 130 && !answer.contains('\n'), "{answer}");
    for verb in answer.split("richsem ").skip(1) {
        let verb = verb.split(|c: char| !c.is_ascii_alphabetic() && c != '-').next().unwrap();
        assert!(verbs.contains(&verb), "`{verb}` in: {answer}");
    }
}

/// docs/words.md has this table.
#[test]
fn the_page_has_every_habit() {
    let mut page = String::from(
        "# Words of other programs\n\nWhat people type who know Ultralytics, YOLOv5, RF-DETR, detectron2, \
         MMDetection, DETR or DINO, and what it is here. `name=value` is `--name value`. (This page is made from \
         the program's own table: `crates/richsem-cli/src/words/`.)\n\n## Verbs\n\n| typed | answer |\n|---|---|\n",
    );
    let code = |words: &[&str], dash: &str| {
        let dash = |word: &str| if dash == "--" && word.len() == 1 { "-" } else { dash };
        let words: Vec<String> =
            words.iter().map(|word| format!("`{}{word}`", dash(word))).collect();
        words.join(", ")
    };
    for (words, answer) in verbs::VERBS {
        page += &format!("| {} | {answer} |\n", code(words, ""));
    }
    page += "\n## Verbs of verbs\n\n| typed | answer |\n|---|---|\n";
    for (verb, words, answer) in sets::INNER {
        page += &format!("| {} | {answer} |\n", code(words, &format!("{verb} ")));
    }
    page += "\n## In the place of a file\n\n| typed | answer |\n|---|---|\n";
    for (verb, words, answer) in verbs::INSTEAD {
        page += &format!("| {} | {answer} |\n", code(words, &format!("{verb} ")));
    }
    let tables: [(&str, &str, &[Habit], &str); 14] = [
        ("Flags of", "train", FLAGS, "--"),
        ("Keys for", "train", keys::KEYS, ""),
        ("Flags of", "eval", FLAGS, "--"),
        ("Keys for", "eval", keys::KEYS, ""),
        ("Flags of", "predict", FLAGS, "--"),
        ("Keys for", "predict", keys::KEYS, ""),
        ("Flags of", "report", FLAGS, "--"),
        ("Flags of", "synth", FLAGS, "--"),
        ("Flags of", "init", sets::FLAGS, "--"),
        ("Flags of", "doctor", sets::FLAGS, "--"),
        ("Flags of", "dataset stats", sets::FLAGS, "--"),
        ("Flags of", "dataset show", sets::FLAGS, "--"),
        ("Flags of", "dataset convert", sets::FLAGS, "--"),
        ("Flags of", "dataset split", sets::FLAGS, "--"),
    ];
    for (title, verb, habits, dash) in tables {
        page += &format!("\n## {title} `{verb}`\n\n| typed | answer |\n|---|---|\n");
        for habit in habits.iter().filter(|habit| habit.verbs.contains(&verb)) {
            let answer = match habit.answer {
                Answer::Flag(flag) => format!("works: it is `{flag}`"),
                Answer::Set(key) => format!("works: it is `--set {key}=`"),
                Answer::Switch([]) => "works: it is always so".to_owned(),
                Answer::Switch(arguments) => format!("works: it is `{}`", arguments.join(" ")),
                Answer::Argument if verb == "predict" => "works: it is an image".to_owned(),
                Answer::Argument => "works: it is the set, without a flag".to_owned(),
                Answer::Says(what) | Answer::Lacks(what) => what.to_owned(),
            };
            page += &format!("| {} | {answer} |\n", code(habit.words, dash));
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/words.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/words.md is not the table's: UPDATE=1 writes it anew");
}

#[test]
fn settings_are_found_by_the_names_that_others_have() {
    for (name, says) in [
        ("imgsz", "data.resize"),
        ("SOLVER.MAX_ITER", "train.epochs"),
        ("BASE_LR", "train.lr"),
        ("learning_rate", "train.lr"),
        ("--lr", "train.lr"),
        ("workers", "data.workers"),
        ("grad_clip", "train.clip_max_norm"),
        ("early_stopping", "train.patience"),
        ("scheduler", "train.lr_drop"),
        ("cosine", "train.lr_drop"),
        ("color_jitter", "data.augment"),
        ("gpus", "richsem train --gpus"),
        ("device", "richsem train --device"),
        ("allow_missing", "init.allow_missing"),
        ("val", "data.val"),
    ] {
        let hint = setting_hint(name).unwrap_or_default();
        assert!(hint.contains(says), "{name}: {hint}");
    }
    for (_, is) in super::settings::CHANGED {
        for key in is.split([' ', ',']).filter(|word| word.contains('.')) {
            assert!(!richsem::settings_reference::find(key).is_empty(), "{key}");
        }
    }
    assert_eq!(setting_hint("nothing"), None);
}

/// Words of a choice, in any case.
#[test]
fn choices_are_taken_in_any_case() {
    let line = ["richsem", "dataset", "convert", "a", "b", "--to", "COCO"];
    command().try_get_matches_from(line).unwrap();
    let line = ["richsem", "eval", "--weights", "w", "--annotations", "a", "--precision", "BF16"];
    command().try_get_matches_from(line).unwrap();
}

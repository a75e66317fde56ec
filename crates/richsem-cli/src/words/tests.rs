//! Every habit has an answer that holds, and none takes the place of what there is.

use std::collections::HashSet;

use super::*;

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
        ("trian", "trian"),
    ] {
        assert_eq!(taken(typed).0, expected, "{typed}");
    }
    assert_eq!(taken("train lr0=1").1, ["lr0= is --lr here"]);
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
    ] {
        let problem = refused(typed);
        assert!(problem.contains(part) && !problem.contains('\n'), "{typed}: {problem}");
    }
}

/// The flags, settings and verbs that answers name are there; no word is one that the verb has itself.
#[test]
fn every_answer_holds() {
    let command = command();
    let flags = |verb: &str| -> Vec<String> {
        let verb = command.find_subcommand(verb).expect(verb);
        verb.get_arguments().filter_map(|arg| Some(arg.get_long()?.to_owned())).collect()
    };
    let all: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let mut seen = HashSet::new();
    for habit in FLAGS {
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
                    let verb = command.find_subcommand(verb).unwrap();
                    assert!(verb.get_positionals().next().is_some());
                }
                Answer::Says(_) => {}
            }
        }
    }
    for (words, answer) in VERBS {
        for word in *words {
            assert!(command.find_subcommand(word).is_none(), "`{word}` is a verb");
            assert!(seen.insert(("", word)), "{word} is there twice");
        }
        named(answer, &all);
        assert!(answer.contains("richsem "), "{answer}");
    }
    for habit in FLAGS {
        if let Answer::Says(answer) = habit.answer {
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
         the program's own table: `crates/richsem-cli/src/words/habits.rs`.)\n\n## Verbs\n\n| typed | answer |\n|---|---|\n",
    );
    let code = |words: &[&str], dash: &str| {
        let words: Vec<String> = words.iter().map(|word| format!("`{dash}{word}`")).collect();
        words.join(", ")
    };
    for (words, answer) in VERBS {
        page += &format!("| {} | {answer} |\n", code(words, ""));
    }
    for (title, verb) in [("train", "train"), ("eval", "eval"), ("predict", "predict")] {
        page += &format!("\n## Flags of `{title}`\n\n| typed | answer |\n|---|---|\n");
        for habit in FLAGS.iter().filter(|habit| habit.verbs.contains(&verb)) {
            let answer = match habit.answer {
                Answer::Flag(flag) => format!("works: it is `{flag}`"),
                Answer::Set(key) => format!("works: it is `--set {key}=`"),
                Answer::Switch([]) => "works: it is always so".to_owned(),
                Answer::Switch(arguments) => format!("works: it is `{}`", arguments.join(" ")),
                Answer::Argument => "works: it is an image".to_owned(),
                Answer::Says(what) => what.to_owned(),
            };
            page += &format!("| {} | {answer} |\n", code(habit.words, "--"));
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/words.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/words.md is not the table's: UPDATE=1 writes it anew");
}

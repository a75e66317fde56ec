//! Ends before the end: signals, and a loss that is not finite.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::util::Dir;

#[test]
fn a_loss_that_is_not_finite_ends_with_3() {
    let dir = Dir::with_run();
    // A weight of the checkpoint that is none, and epochs to go on with.
    let file = "run/checkpoints/last/training.safetensors";
    let mut bytes = dir.read(file);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let params = header + names["params.0"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[params..params + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    dir.write(file, bytes);
    let config = dir.text("run/config.toml").replace("epochs = 1", "epochs = 2");
    dir.write("run/config.toml", config);
    let resume = dir.command(&["train", "--resume", "run", "--device", "cpu"]);
    resume.fails(3).stderr_has("not finite").stderr_has("hint");
}

/// What was changed is told with what it means; the run goes on with it, whatever the rates' groups.
#[test]
fn a_run_goes_on_with_settings_that_were_changed() {
    let dir = Dir::with_run();
    let mut config = dir.text("run/config.toml");
    let mut change = |old: &str, new: &str| {
        assert!(config.contains(old), "{old}: {config}");
        config = config.replacen(old, new, 1);
    };
    change("epochs = 1", "epochs = 2");
    change("lr = 0.0001", "lr = 0.0005");
    change("max_detections = 300", "max_detections = 100");
    change("log_every = ", "ema = { decay = 0.5 }\nlog_every = ");
    dir.write("run/config.toml", &config);
    let resume = ["train", "--resume", "run", "--device", "cpu"];
    dir.command(&resume)
        .ok()
        .stderr_has("changed since the checkpoint: train.epochs: 1 -> 2 (the run's new length)")
        .stderr_has("train.lr: 0.0001 -> 0.0005 (from now on)")
        .stderr_has("train.ema.decay: nothing -> 0.5 (from now on)")
        .stderr_has("eval.max_detections: 300 -> 100 (from now on; AP before and after")
        .stderr_has("resumed at step ");
    // Of changes with which it cannot go on each is named, and the others beside them.
    let refused = config
        .replacen("lr = 0.0005", "lr = 0.0006", 1)
        .replacen("seed = 0", "seed = 7", 1)
        .replacen("num_queries = 20", "num_queries = 30", 1);
    dir.write("run/config.toml", refused);
    dir.command(&resume)
        .fails(1)
        .stderr_has("num_queries: it was 20 until the checkpoint and is 30 now")
        .stderr_has("seed: 0 -> 7 (the run's place in its epoch would be at other images)")
        .stderr_has("train.lr: 0.0005 -> 0.0006 (from now on)");
    dir.write("run/config.toml", &config);
    // The next time nothing has changed.
    let again = dir.raw_command(&resume).output().unwrap();
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && !stderr.contains("changed since"), "{stderr}");
}

#[test]
fn a_signal_leaves_nothing_of_a_set_that_was_being_drawn() {
    let dir = Dir::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = dir.raw_command(&["synth", "set", "--train-images", "100000"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let drawing = || {
            let below = std::fs::read_dir(dir.path("")).unwrap().flatten();
            below.map(|e| e.path().join("set/images/train/000003.jpg")).any(|file| file.exists())
        };
        while !drawing() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("stopped: `set` is as it was"), "{stderr}");
        assert_eq!(std::fs::read_dir(dir.path("")).unwrap().count(), 0);
    }
}

#[test]
fn a_signal_stops_a_run_that_can_be_resumed() {
    let dir = Dir::with_data();
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let endless = ["--set", "train.epochs=100000", "--set", "train.eval_every=0"];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let _ = std::fs::remove_dir_all(dir.path("run"));
        let mut command = dir.raw_command(&[&train[..], &endless].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("step 2 ")), "training never began");
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
        assert!(rest.iter().any(|l| l.contains("richsem train --resume run")), "{rest:?}");
    }
    let state = dir.json("run/checkpoints/last/state.json");
    let (updates, epoch) = (state["updates"].as_u64().unwrap(), state["epoch"].as_u64().unwrap());
    assert!(updates >= 2);
    // The settings of a run are those of its folder: there it is made shorter.
    let config =
        dir.text("run/config.toml").replace("epochs = 100000", &format!("epochs = {}", epoch + 1));
    dir.write("run/config.toml", config);
    let ran = dir.command(&["train", "--resume", "run", "--device", "cpu"]).ok();
    let ran = ran.stderr_has(&format!("resumed at step {updates}"));
    assert!(ran.stdout.contains(&format!("after epoch {}:", epoch + 1)), "{ran:?}");
    assert_eq!(dir.json("run/checkpoints/last/state.json")["updates"], (epoch + 1) * 6);
}

/// Two different signals: the system may make one of two that are the same.
#[test]
fn a_second_signal_ends_at_once_and_says_so() {
    let dir = Dir::with_data();
    let args = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu", "--set"];
    let mut command = dir.raw_command(&[&args[..], &["train.epochs=1000"]].concat());
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let begun = lines.by_ref().find(|line| line.starts_with("training: 1000 epochs of 6 batches"));
    assert!(begun.is_some());
    let id = child.id().to_string();
    // Both wait until it goes on, so that it cannot end by the first alone.
    for signal in ["STOP", "INT", "TERM", "CONT"] {
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.starts_with("ended at once")), "{rest:?}");
    assert!([Some(130), Some(143)].contains(&child.wait().unwrap().code()));
}

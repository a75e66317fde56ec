//! Runs that start from the weights of another detector.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use richsem::{
    checkpoint_io::{pth, safetensors},
    config::Config,
    convert::dino::keys::{Layout, Variant},
    synth::SynthConfig,
    testing::{normal, small_run, small_set, write_set, write_small_set},
    train::{NewRun, Observer, RunFolder, Start, Worker, train},
};
use tch::{Device, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// What a run says.
#[derive(Default)]
struct Said(Vec<String>);

impl Observer for Said {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

impl Said {
    fn has(&self, part: &str) -> bool {
        self.0.iter().any(|text| text.contains(part))
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With a set of 4 classes and one of 6 others.
    fn new() -> Self {
        // Whatever the environment says: tests side by side wait for each other's threads.
        tch::set_num_threads(1);
        let place = Self { folder: tempfile::tempdir().unwrap() };
        write_small_set(&place.path("four")).unwrap();
        let six = SynthConfig { classes: 6, seed: 3, ..small_set() };
        write_set(&six, &place.path("six")).unwrap();
        for classes in [4, 6] {
            let rows = Tensors::from([("rows".to_owned(), normal(classes, &[classes as i64, 24]))]);
            let path = place.path(&format!("text{classes}.safetensors"));
            safetensors::write(&path, &rows, &safetensors::Metadata::new()).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings on one of the sets. With a rate of 0 the weights at the end are those of the start.
    fn config(&self, set: &str, lr: f64, more: &str) -> Config {
        let epochs = if lr > 0.0 { 8 } else { 1 };
        let train = format!("epochs = {epochs}\nlr_drop = []\n");
        let text = small_run(&self.path(set), &train);
        let text = text
            .replace("lr = 0.001\nlr_backbone = 0.001", &format!("lr = {lr}\nlr_backbone = {lr}"));
        let text = text.replace("norm = \"batch_norm\"", "norm = \"group_norm\", groups = 4");
        Config::parse(&format!("{text}\n{more}"), Path::new("test.toml")).unwrap()
    }

    fn run(&self, config: &Config, name: &str) -> richsem::Result<Said> {
        let mut said = Said::default();
        let start = Start::New {
            config: Box::new(config.clone()),
            folder: NewRun::claim(&self.path(name)).unwrap(),
        };
        train(start, &Worker::alone(Device::Cpu), &mut said, &AtomicBool::new(false))?;
        Ok(said)
    }

    fn weights_file(&self, run: &str) -> PathBuf {
        self.path(run).join("checkpoints/last/model.safetensors")
    }

    fn weights(&self, run: &str) -> Tensors {
        safetensors::read(&self.weights_file(run)).unwrap().0
    }

    fn init(&self, run: &str) -> String {
        format!("[init]\nweights = {:?}\n", self.weights_file(run))
    }

    fn first_loss(&self, run: &str) -> f64 {
        let rows = RunFolder::open(&self.path(run)).unwrap().metrics().unwrap();
        rows.iter()
            .find_map(|row| match row {
                richsem::train::MetricsRow::Train(row) => Some(row.loss),
                richsem::train::MetricsRow::Eval(_) => None,
            })
            .unwrap()
    }
}

fn text(table: &Path) -> String {
    format!("[model.class_head]\nkind = \"text\"\ntable = {table:?}\n")
}

#[track_caller]
fn assert_same(got: &Tensors, expected: &Tensors, but: &[&str]) {
    let mut differ = 0;
    for (name, tensor) in expected {
        match but.iter().any(|prefix| name.starts_with(prefix)) {
            true => differ += usize::from(got.get(name) != Some(tensor)),
            false => assert_eq!(&got[name], tensor, "{name}"),
        }
    }
    assert_eq!(differ > 0, !but.is_empty(), "{but:?} should differ");
}

#[test]
fn a_linear_head_goes_on_with_its_classes_and_starts_anew_with_others() {
    let place = Place::new();
    place.run(&place.config("four", 0.002, ""), "first").unwrap();
    let before = place.weights("first");

    let same = place.config("four", 0.0, &place.init("first"));
    let said = place.run(&same, "same").unwrap();
    assert!(said.has("a detector of this program") && !said.has("anew"), "{:?}", said.0);
    assert_same(&place.weights("same"), &before, &[]);
    // The EMA, which is what is saved, starts there, too; the loss is that of a trained
    // model, not of initial values.
    place.run(&place.config("four", 0.0, ""), "scratch").unwrap();
    let (from, scratch) = (place.first_loss("same"), place.first_loss("scratch"));
    assert!(from < 0.9 * scratch, "{from} {scratch}");

    let said = place.run(&place.config("six", 0.0, &place.init("first")), "other").unwrap();
    assert!(said.has("was trained with other classes"), "{:?}", said.0);
    let heads = ["class_embed.0.", "transformer.enc_out_class_embed."];
    assert_same(&place.weights("other"), &before, &heads);
    let rows = |run: &str| place.weights(run)["class_embed.0.weight"].shallow_clone();
    assert_eq!(rows("other").size(), [6, 32]);
    // Rows go by name: those of classes that both have are the file's.
    let names = |run: &str| -> Vec<String> {
        let classes = RunFolder::open(&place.path(run)).unwrap().vocabulary().unwrap().unwrap();
        classes.categories().iter().map(|class| class.name.clone()).collect()
    };
    let (here, there) = (names("other"), names("first"));
    for (row, name) in (0..).zip(&here) {
        let old = there.iter().position(|other| other == name);
        let kept = old.is_some_and(|old| {
            rows("other").get(row) == before["class_embed.0.weight"].get(old as i64)
        });
        assert_eq!(kept, old.is_some(), "{name}");
    }

    // A detector knows nothing of what it started from, and a run goes on where it stood.
    std::fs::remove_file(place.weights_file("first")).unwrap();
    let (_, metadata) = safetensors::read(&place.weights_file("other")).unwrap();
    assert!(!metadata["richsem"].contains("[init]"));
    let mut said = Said::default();
    let resume = Start::Resume(place.path("other"));
    train(resume, &Worker::alone(Device::Cpu), &mut said, &AtomicBool::new(false)).unwrap();
    assert!(!said.has("weights from"), "{:?}", said.0);
    assert_same(&place.weights("other"), &before, &heads);
    let error = place.run(&same, "again").err().unwrap().to_string();
    assert!(error.contains("init.weights") && error.contains("does not exist"), "{error}");
}

#[test]
fn a_text_head_takes_every_weight_to_other_classes() {
    let place = Place::new();
    let four = text(&place.path("text4.safetensors"));
    place.run(&place.config("four", 0.002, &four), "first").unwrap();
    let six = text(&place.path("text6.safetensors"));
    let config = place.config("six", 0.0, &format!("{six}{}", place.init("first")));
    let said = place.run(&config, "other").unwrap();
    assert!(!said.has("anew"), "{:?}", said.0);
    assert_same(&place.weights("other"), &place.weights("first"), &["text_table"]);
    assert_eq!(place.weights("other")["text_table"].size(), [6, 24]);
}

/// The table is read anew at each start: from wherever it lies now, but no other one.
#[test]
fn a_text_head_is_resumed_with_its_own_text_alone() {
    let place = Place::new();
    let table = place.path("text4.safetensors");
    place.run(&place.config("four", 0.0, &text(&table)), "run").unwrap();
    let resume = || {
        let go = AtomicBool::new(false);
        train(
            Start::Resume(place.path("run")),
            &Worker::alone(Device::Cpu),
            &mut Said::default(),
            &go,
        )
    };
    let moved = place.path("moved.safetensors");
    std::fs::rename(&table, &moved).unwrap();
    let settings = place.path("run/config.toml");
    let said = std::fs::read_to_string(&settings).unwrap();
    let said = said.replace("text4.safetensors", "moved.safetensors");
    std::fs::write(&settings, said).unwrap();
    resume().unwrap();
    let rows = Tensors::from([("rows".to_owned(), normal(9, &[4, 24]))]);
    safetensors::write(&moved, &rows, &safetensors::Metadata::new()).unwrap();
    let error = resume().unwrap_err().to_string();
    assert!(error.contains("text_table: the class head's text was another one"), "{error}");
}

#[test]
fn other_sizes_are_listed_and_patterns_let_them_start_anew() {
    let place = Place::new();
    place.run(&place.config("four", 0.002, ""), "first").unwrap();
    let wider = place.init("first") + &text(&place.path("text4.safetensors")) + "[loss]\n";
    let mut config = place.config("four", 0.0, &wider);
    config.model.as_dino_mut().unwrap().transformer.num_queries = 12;
    let error = place.run(&config, "wider").err().unwrap().to_string();
    for part in [
        "unexpected class_embed.0.bias",
        "missing class_embed.dino_visual_proj.weight",
        "transformer.tgt_embed.weight: shape [10, 32] in the file, [12, 32] here",
        "hint: [model] must be as it was",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!place.path("wider").exists(), "no run is begun");
    let heads = ["class_embed.*", "transformer.enc_out_class_embed.*", "*tgt_embed.*"];
    config.init.as_mut().unwrap().allow_missing = heads.map(str::to_owned).to_vec();
    let said = place.run(&config, "wider").unwrap();
    assert!(said.has("allowed, starts anew or is left out: missing class_embed.label_proj.weight"));
    let mut before = place.weights("first");
    before.retain(|name, _| !name.contains("class_embed") && !name.contains("tgt_embed"));
    assert_same(&place.weights("wider"), &before, &[]);
}

/// The official code's checkpoint, without being converted first.
#[test]
fn official_checkpoints_are_started_from() {
    let place = Place::new();
    place.run(&place.config("four", 0.002, ""), "first").unwrap();
    let before = place.weights("first");
    let layout = Layout { variant: Variant::Dino, decoder_layers: 2 };
    let mut official = Tensors::new();
    for (path, tensor) in &before {
        for key in layout.keys_of(path) {
            official.insert(key, tensor.shallow_clone());
        }
    }
    official.insert("label_enc.weight".into(), normal(1, &[5, 32]));
    let file = place.path("official.pth");
    pth::write(&file, Some("model"), &official).unwrap();
    let init = format!("[init]\nweights = {file:?}\n");
    let said = place.run(&place.config("four", 0.0, &init), "from").unwrap();
    assert!(said.has("a checkpoint of DINO"), "{:?}", said.0);
    assert!(said.has("does not say which classes"), "{:?}", said.0);
    let heads = ["class_embed.0.", "transformer.enc_out_class_embed."];
    assert_same(&place.weights("from"), &before, &heads);
}

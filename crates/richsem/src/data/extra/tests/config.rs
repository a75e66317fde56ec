use super::*;
use crate::targets::BoxMatching;

fn read(text: &str) -> Result<ExtraConfig, toml::de::Error> {
    toml::from_str(text)
}

#[test]
fn a_set_is_configured_by_its_images_alone() {
    let config = read("images = 'set.tar'").unwrap();
    assert_eq!(config, ExtraConfig::new("set.tar"));
    assert_eq!(config.form, FormConfig::Mosaic { tile: 640 });
    assert_eq!((config.weight, config.order), (1, OrderConfig::Shuffled));
    config.validate("data.extra").unwrap();
}

#[test]
fn every_setting_is_read_and_written_again() {
    let text = "images = 'a'\ninfo = 'b'\nmapping = { by = 'file', path = 'c' }\n\
                form = { kind = 'single' }\nbatch_size = 3\nweight = 2\norder = 'official'\n\
                [augment]\nscales = [64]\nmax_size = 100\n\
                [supervision]\nl1 = false\nassignment = 'max_size'\ninterm_exempt = true";
    let config = read(text).unwrap();
    assert_eq!(config.mapping, Some(MappingConfig::File { path: "c".into() }));
    assert_eq!((config.form, config.form.images()), (FormConfig::Single {}, 1));
    assert_eq!(config.supervision.assignment, BoxMatching::MaxSize);
    assert!(!config.supervision.l1 && config.supervision.class);
    assert_eq!(read(&toml::to_string_pretty(&config).unwrap()).unwrap(), config);
    for by in ["wnid", "synset", "name", "id"] {
        read(&format!("images = 'a'\nmapping = {{ by = '{by}' }}")).unwrap();
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    for unknown in [
        "colour = 1",
        "form = { kind = 'mosaik' }",
        "form = { kind = 'single', tile = 3 }",
        "mapping = { by = 'file' }",
        "mapping = { by = 'wnid', path = 'x' }",
        "order = 'random'",
    ] {
        assert!(read(&format!("images = 'a'\n{unknown}")).is_err(), "{unknown}");
    }
    for (text, key) in [
        ("form = { kind = 'mosaic', tile = 1 }", "x.form.tile: expected"),
        ("form = { kind = 'mosaic', tile = 100000 }", "x.form.tile: expected"),
        ("batch_size = 0", "x.batch_size: expected"),
        ("augment = { flip = 2.0 }", "x.augment.flip: expected"),
    ] {
        let error = read(&format!("images = 'a'\n{text}")).unwrap().validate("x").unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
    // Left out of the row of batches, not wrong.
    read("images = 'a'\nweight = 0").unwrap().validate("x").unwrap();
}

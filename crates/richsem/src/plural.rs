//! Numbers of things in messages: `1 box`, `2 boxes`.

use std::fmt::Display;

/// A number and what is counted, in the singular or the plural: `counted(1, "image")` is `1 image`,
/// `counted(2, "training class")` is `2 training classes`. `one` is the singular of a regular noun, words
/// before it stay as they are.
#[must_use]
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {}", of(count, one))
}

/// The noun alone, for numbers that are written in another way: `of(1000, "box")` is `boxes`.
#[must_use]
pub fn of(count: impl Display, one: &str) -> String {
    if count.to_string() == "1" {
        return one.to_owned();
    }
    let hisses = ["s", "x", "tch", "sh"].iter().any(|end| one.ends_with(end));
    let vowels = ['a', 'e', 'i', 'o', 'u'];
    match one.strip_suffix('y').filter(|stem| !stem.ends_with(vowels)) {
        Some(stem) => format!("{stem}ies"),
        None if hisses => format!("{one}es"),
        None => format!("{one}s"),
    }
}

/// A number, what is counted and its verb, `[for one, for several]`: `clause(1, "image", ["is", "are"])` is
/// `1 image is`.
#[must_use]
pub fn clause(count: usize, one: &str, [is, are]: [&str; 2]) -> String {
    format!("{} {}", counted(count, one), if count == 1 { is } else { are })
}

/// A part of what is counted and its verb: `among(1, 3, "image", ["has", "have"])` is `1 of 3 images has`.
#[must_use]
pub fn among(count: usize, all: usize, one: &str, [is, are]: [&str; 2]) -> String {
    format!("{count} of {} {}", counted(all, one), if count == 1 { is } else { are })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_have_their_plurals() {
        let all = [
            ("image", "images"),
            ("box", "boxes"),
            ("rare class", "rare classes"),
            ("batch", "batches"),
            ("epoch", "epochs"),
            ("query", "queries"),
            ("key", "keys"),
        ];
        for (one, many) in all {
            assert_eq!(counted(1, one), format!("1 {one}"));
            assert_eq!(counted(0, one), format!("0 {many}"));
            assert_eq!(counted(2, one), format!("2 {many}"));
            assert_eq!(clause(1, one, ["is", "are"]), format!("1 {one} is"));
            assert_eq!(among(1, 2, one, ["is", "are"]), format!("1 of 2 {many} is"));
            assert_eq!(among(2, 2, one, ["is", "are"]), format!("2 of 2 {many} are"));
            assert_eq!(clause(2, one, ["is", "are"]), format!("2 {many} are"));
        }
    }
}

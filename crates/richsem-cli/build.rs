//! Writes libtorch's folder into this crate's own tests and binaries (`rpath`), so that they start
//! without `LD_LIBRARY_PATH`; and tells the program the commit that it is built from.

use std::{path::Path, process::Command};

fn main() {
    let folder =
        std::env::var("DEP_TORCH_EXT_LIB_DIR").expect("torch-ext reports libtorch's folder");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RICHSEM_COMMIT");
    println!("cargo:rustc-env=RICHSEM_COMMIT={}", commit());
}

/// `RICHSEM_COMMIT`, for builds outside of a clone, or what git says.
fn commit() -> String {
    if let Ok(given) = std::env::var("RICHSEM_COMMIT") {
        return given;
    }
    // A line is added to it by every commit.
    let log = "../../.git/logs/HEAD";
    if Path::new(log).is_file() {
        println!("cargo:rerun-if-changed={log}");
    }
    let git = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let text = git.ok().filter(|out| out.status.success()).map(|out| out.stdout);
    text.and_then(|text| String::from_utf8(text).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

//! Compiles the C++ shim against libtorch's headers, and writes libtorch's folder into the
//! binaries (`rpath`), so that they start without `LD_LIBRARY_PATH`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/shim");
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return;
    }
    // torch-sys tells its direct dependents where it linked libtorch from.
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports libtorch's folder"),
    );
    let include = lib.join("../include");
    assert!(
        include.join("torch/csrc/autograd/function.h").exists(),
        "no libtorch headers in `{}`: run `make libtorch`, or set LIBTORCH to a libtorch 2.11 \
         with headers",
        include.display()
    );
    let version = version(&include);
    assert!(
        version.as_deref() == Some("2.11"),
        "libtorch: expected version 2.11, got {} in `{}`: set LIBTORCH to a libtorch 2.11, or unset it \
         and run `make libtorch` (LIBTORCH_BYPASS_VERSION_CHECK does not help here: this crate reaches \
         into what only 2.11 has)",
        version.as_deref().unwrap_or("headers that say none"),
        include.display()
    );
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .opt_level(2)
        .debug(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        // libtorch's own headers are not free of warnings.
        .warnings(false)
        .files(["src/shim/shim.cpp", "src/shim/graph.cpp", "src/shim/store.cpp"])
        .compile("torch_ext_shim");

    let folder = canonical_folder(&lib);
    println!("cargo:lib_dir={}", folder.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
}

/// Major and minor version of the headers, as `2.11`.
fn version(include: &Path) -> Option<String> {
    // Older ones have the second alone; it includes the first now.
    ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"].iter().find_map(
        |name| {
            let file = include.join(name);
            let text = std::fs::read_to_string(&file).ok()?;
            println!("cargo:rerun-if-changed={}", file.display());
            let number = |part: &str| {
                let line = text
                    .lines()
                    .find_map(|l| l.strip_prefix(&format!("#define TORCH_VERSION_{part} ")))?;
                line.trim().parse::<u32>().ok()
            };
            Some(format!("{}.{}", number("MAJOR")?, number("MINOR")?))
        },
    )
}

/// The folder in which `libtorch_cpu.so` really lies. The folder linked from may hold symbolic
/// links to the CPU half alone; from the real one, libtorch's own `$ORIGIN`-relative run path
/// finds the NVIDIA libraries, and the CUDA half lies beside it.
fn canonical_folder(lib: &Path) -> PathBuf {
    let library = lib.join("libtorch_cpu.so");
    match library.canonicalize() {
        Ok(real) => real.parent().expect("a file lies in a folder").to_owned(),
        Err(error) => panic!("`{}`: {error}", library.display()),
    }
}

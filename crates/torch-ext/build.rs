//! Compiles the C++ shim against libtorch's headers, and writes libtorch's folder into the
//! binaries (`rpath`), so that they start without `LD_LIBRARY_PATH`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/shim");
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
        .files(["src/shim/shim.cpp", "src/shim/graph.cpp"])
        .compile("torch_ext_shim");

    let folder = canonical_folder(&lib);
    println!("cargo:lib_dir={}", folder.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
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

//! Writes libtorch's folder into this crate's own tests and binaries (`rpath`), so that they start
//! without `LD_LIBRARY_PATH`, and tells it to the build scripts of crates that depend on this one
//! (`DEP_RICHSEM_LIB_DIR`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // For documentation alone there is no libtorch.
    if let Ok(folder) = std::env::var("DEP_TORCH_EXT_LIB_DIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        println!("cargo:lib_dir={folder}");
    }
}

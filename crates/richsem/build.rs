//! Writes libtorch's folder into this crate's own tests and binaries (`rpath`), so that they start
//! without `LD_LIBRARY_PATH`.

fn main() {
    let folder =
        std::env::var("DEP_TORCH_EXT_LIB_DIR").expect("torch-ext reports libtorch's folder");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    println!("cargo:rerun-if-changed=build.rs");
}

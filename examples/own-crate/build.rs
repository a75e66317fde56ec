//! Writes libtorch's folder into the program, so that it starts without `LD_LIBRARY_PATH`.

fn main() {
    let folder = std::env::var("DEP_RICHSEM_LIB_DIR").expect("richsem says where libtorch is");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}

//! How libtorch takes memory of a GPU. A process of its own: other tests take some too.

use tch::{Kind, Tensor};
use torch_ext::{DeviceChoice, memory};

const MIB: u64 = 1 << 20;

/// In pieces that grow: by 20 MiB each. The usual pieces are as large as the first tensor in them.
#[test]
fn memory_is_taken_in_pieces_that_grow() {
    let device = match DeviceChoice::Cuda(None).resolve() {
        Ok(device) => device,
        Err(problem) => {
            println!("skipped, there is no CUDA device: {problem}");
            return;
        }
    };
    if std::env::vars_os().any(|(name, _)| name.to_string_lossy().ends_with("ALLOC_CONF")) {
        println!("skipped: the environment says how");
        return;
    }
    let tensor = Tensor::zeros([30 * MIB as i64], (Kind::Uint8, device));
    let reserved = memory(device).map(|memory| memory.reserved);
    assert_eq!(reserved, Some(40 * MIB));
    drop(tensor);
}

//! NumPy's archives of arrays (`.npz`): a zip archive with a `.npy` member for each, as `numpy.savez` and
//! `numpy.savez_compressed` write it.

use rawzip::FileReader;

use super::{
    arrays,
    stored_bytes::StoredBytes,
    value::{Fault, Heap, Node, Source, Value},
};
use crate::checkpoint_io::{
    array::{Values, strides},
    npy,
};

/// How a member's name ends.
pub(super) const EXTENSION: &str = ".npy";

/// More than any header of an array of numbers takes.
const LONGEST_HEADER: u64 = 1 << 16;

/// Adds a member's array to `heap`, and where its values lie to `places`.
pub(super) fn array(
    file: &FileReader,
    place: StoredBytes,
    heap: &mut Heap,
    places: &mut Vec<Option<StoredBytes>>,
) -> Result<Value, Fault> {
    let head = place.head(file, LONGEST_HEADER.min(place.bytes))?;
    let header = npy::Header::read(&head).map_err(Fault::from)?;
    let (kind, swapped) = match header.values {
        Values::Numbers { kind, swapped } => (kind, swapped),
        others => {
            // Read for its checksum alone, as below: damage may have made another kind of it.
            place.read(file)?;
            return heap.add(match others {
                Values::Unread(name) => Node::Unread(name),
                _ => Node::Object { script: false, state: Value::None },
            });
        }
    };
    let bytes = place.bytes.saturating_sub(header.length as u64);
    if bytes == 0 {
        place.read(file)?;
    }
    let stride = strides(&header.shape, header.fortran).ok_or("sides that cannot be")?;
    let extent = arrays::Extent { size: header.shape, stride };
    let node = arrays::of_numbers(heap, Source::Member, (kind, swapped), bytes, extent)?;
    places.push(Some(place.behind(header.length as u64)));
    heap.add(node)
}

// CUDA graphs: at::cuda::CUDAGraph, which lives in libtorch_cuda.so alone. Its members are looked up
// by name once that library is open, so that a program linked with this file starts without it (and
// is compiled without CUDA's headers, which libtorch's own header of the class includes). Names,
// parameters and the size below are those of libtorch 2.11: shim.h wants its headers, and version.rs
// looks at the library before it opens the CUDA half that lies beside it.

#include "shim.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <dlfcn.h>

#include <array>
#include <memory>

namespace {

// The members that are called here, as the C functions that they are in the Itanium C++ ABI.
struct Functions {
  void (*construct)(void* graph, bool keep_graph);
  void (*destruct)(void* graph);
  void (*capture_begin)(void* graph, c10::MempoolId_t pool, int mode);
  void (*capture_end)(void* graph);
  void (*replay)(void* graph);
  c10::MempoolId_t (*graph_pool_handle)();
};

template <typename F>
void find(F& function, const char* name) {
  function = reinterpret_cast<F>(dlsym(RTLD_DEFAULT, name));
  TORCH_CHECK(
      function != nullptr,
      "CUDA graphs: libtorch's CUDA half has no `",
      name,
      "`; expected libtorch 2.11");
}

const Functions& functions() {
  static const Functions found = [] {
    Functions f;
    find(f.construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(f.destruct, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(
        f.capture_begin,
        "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(f.capture_end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(f.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    find(f.graph_pool_handle, "_ZN2at4cuda17graph_pool_handleEv");
    return f;
  }();
  return found;
}

// What the graphs of one owner share: memory, since they are replayed one after another and what one
// leaves is used before the next starts; and the stream on which they are recorded.
struct Pool {
  c10::Device device;
  c10::Stream stream;
  std::mutex mutex;
  size_t graphs = 0;
  c10::MempoolId_t id{0, 0};

  Pool(c10::Device device, c10::Stream stream) : device(device), stream(stream) {}

  // With its last graph libtorch's pool ends, and the next graph begins another.
  c10::MempoolId_t enter() {
    std::lock_guard<std::mutex> lock(mutex);
    if (graphs == 0) {
      id = functions().graph_pool_handle();
    }
    ++graphs;
    return id;
  }

  void leave() {
    std::lock_guard<std::mutex> lock(mutex);
    --graphs;
  }
};

// A graph's share of a pool, given back also where the graph cannot be made.
struct Memory {
  Pool& pool;
  c10::MempoolId_t id;

  explicit Memory(Pool& pool) : pool(pool), id(pool.enter()) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    pool.leave();
  }
};

struct Graph {
  // First, so that the graph in `storage` ends before its share.
  Memory memory;
  // Larger than the class, which has some 200 bytes.
  alignas(16) std::array<unsigned char, 1024> storage;
  // Of the thread that records.
  c10::Device device_before;
  c10::Stream stream_before;

  Graph(Pool& pool, c10::Device device, c10::Stream stream)
      : memory(pool), device_before(device), stream_before(stream) {
    functions().construct(storage.data(), /*keep_graph=*/false);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    functions().destruct(storage.data());
  }

  void restore(const c10::impl::VirtualGuardImpl& guard) const {
    guard.exchangeStream(stream_before);
    guard.setDevice(device_before);
  }
};

} // namespace

extern "C" {

char* ext_graph_pool_new(int index, Pool** result) noexcept {
  return guarded([&] {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *result = new Pool(device, guard.getStreamFromGlobalPool(device, false));
  });
}

// After all of its graphs.
char* ext_graph_pool_free(Pool* pool) noexcept {
  return guarded([&] { delete pool; });
}

char* ext_graph_begin(Pool* pool, Graph** result) noexcept {
  return guarded([&] {
    const c10::Device device = pool->device;
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    guard.synchronizeDevice(device.index());
    auto graph = std::make_unique<Graph>(*pool, guard.getDevice(), guard.getStream(device));
    try {
      // The recording goes to the current stream of the current device.
      guard.setDevice(device);
      guard.exchangeStream(pool->stream);
      constexpr int kThreadLocal = 1; // cudaStreamCaptureModeThreadLocal
      functions().capture_begin(graph->storage.data(), graph->memory.id, kThreadLocal);
    } catch (...) {
      graph->restore(guard);
      throw;
    }
    *result = graph.release();
  });
}

// Whatever happens, device and stream are then those from before.
char* ext_graph_end(Graph* graph) noexcept {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    try {
      functions().capture_end(graph->storage.data());
    } catch (...) {
      graph->restore(guard);
      throw;
    }
    graph->restore(guard);
  });
}

char* ext_graph_replay(Graph* graph) noexcept {
  return guarded([&] { functions().replay(graph->storage.data()); });
}

char* ext_graph_free(Graph* graph) noexcept {
  return guarded([&] { delete graph; });
}

// A tensor of the memory that `like` names, for as long as `owner` is not released: by its last user, on
// any thread.
char* ext_claim(
    const at::Tensor* like,
    void* owner,
    void (*release)(void*),
    at::Tensor* result) noexcept {
  return guarded([&] {
    // Releases the owner where it cannot be made, too.
    const std::shared_ptr<void> claim(owner, release);
    *result = at::from_blob(
        like->data_ptr(),
        like->sizes(),
        like->strides(),
        [claim](void*) {},
        like->options());
  });
}

} // extern "C"

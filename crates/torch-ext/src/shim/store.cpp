// c10d's TCPStore: where the processes of a run find each other. It lies in libtorch_cpu.so.

#include "shim.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>

C10_DECLARE_int(caffe2_log_level);

namespace {

struct Store {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

std::chrono::milliseconds in_ms(int64_t ms) {
  return std::chrono::milliseconds(ms);
}

std::vector<uint8_t> bytes(const uint8_t* data, size_t size) {
  return std::vector<uint8_t>(data, data + size);
}

// A copy that the caller frees with `ext_free`.
void hand_out(const std::vector<uint8_t>& from, char** data, size_t* size) {
  *data = static_cast<char*>(std::malloc(from.size() + 1));
  TORCH_CHECK(*data != nullptr, "out of memory");
  std::memcpy(*data, from.data(), from.size());
  *size = from.size();
}

} // namespace

extern "C" {

// A server listens on all addresses; `port` 0 lets the system choose one. `quiet`: what sockets meet while
// they try again is not written to stderr by libtorch itself; every failure is returned.
char* ext_store_open(
    const char* host,
    uint16_t port,
    int server,
    int64_t timeout_ms,
    int quiet,
    Store** store) noexcept {
  return guarded([&] {
    if (quiet) {
      FLAGS_caffe2_log_level = 3;
    }
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = server != 0;
    options.waitWorkers = false;
    options.timeout = in_ms(timeout_ms);
    *store = new Store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

void ext_store_free(Store* store) noexcept {
  // Its destructor closes sockets and joins a server's thread.
  char* message = guarded([&] { delete store; });
  if (message != nullptr && message != out_of_memory) {
    std::free(message);
  }
}

uint16_t ext_store_port(const Store* store) noexcept {
  return store->store->getPort();
}

char* ext_store_set(Store* store, const char* key, const uint8_t* data, size_t size) noexcept {
  return guarded([&] { store->store->set(key, bytes(data, size)); });
}

// What the key has then: `data`, or what another one set first.
char* ext_store_set_once(
    Store* store,
    const char* key,
    const uint8_t* data,
    size_t size,
    char** result,
    size_t* result_size) noexcept {
  return guarded([&] {
    hand_out(store->store->compareSet(key, {}, bytes(data, size)), result, result_size);
  });
}

char* ext_store_add(Store* store, const char* key, int64_t amount, int64_t* sum) noexcept {
  return guarded([&] { *sum = store->store->add(key, amount); });
}

char* ext_store_has(Store* store, const char* key, int* has) noexcept {
  return guarded([&] { *has = store->store->check({key}); });
}

// Waits for the key.
char* ext_store_get(
    Store* store,
    const char* key,
    int64_t timeout_ms,
    char** result,
    size_t* result_size) noexcept {
  return guarded([&] {
    store->store->wait({key}, in_ms(timeout_ms));
    hand_out(store->store->get(key), result, result_size);
  });
}

} // extern "C"

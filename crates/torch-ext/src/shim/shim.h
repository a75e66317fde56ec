// What the C++ files of the shim share: no exception crosses into Rust. Functions of `extern "C"` are
// `noexcept`, so that one which did would end the program instead of being undefined; functions of Rust
// that are called from here end it likewise where they would unwind.
#pragma once

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

// build.rs says it better, and before this is compiled.
#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR != 11
#error "expected the headers of libtorch 2.11: run `make libtorch`, or set LIBTORCH to a libtorch 2.11"
#endif

// The message where there is no memory for one; null would mean that nothing went wrong.
inline char out_of_memory[] = "out of memory";

inline char* copy_message(const char* text) noexcept {
  const size_t size = std::strlen(text) + 1;
  char* copy = static_cast<char*>(std::malloc(size));
  if (copy == nullptr) {
    return out_of_memory;
  }
  std::memcpy(copy, text, size);
  return copy;
}

// Runs `body`, and turns whatever it throws into a message.
template <typename F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return copy_message(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return copy_message(e.what());
  } catch (...) {
    return copy_message("an unknown C++ exception");
  }
}

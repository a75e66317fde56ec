// What libtorch has and tch does not bind, as plain C functions.
//
// Every function returns null, or a message that the caller frees with `ext_free`: no C++
// exception crosses into Rust. Nothing here names a symbol of libtorch_cuda.so: CUDA is reached
// through the registries of c10, so that a program linked with it starts without the CUDA half.

#include "shim.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/convolution_backward.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <caffe2/core/common.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

namespace {

c10::DeviceType device_type(int cuda) {
  return cuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
}

std::vector<at::Tensor> tensors(at::Tensor* const* from, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    list.push_back(*from[i]);
  }
  return list;
}

c10::DeviceAllocator* cuda_allocator() {
  return c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

// The Rust side of a custom autograd function. `backward` receives the gradient of the output, the
// saved tensors, and which inputs need a gradient; it assigns the inputs' gradients with
// `ext_assign`, or returns non-zero after describing the failure with `ext_string_set`.
using Backward = int (*)(
    void* context,
    at::Tensor* grad,
    at::Tensor* const* saved,
    size_t saved_count,
    const bool* needs,
    at::Tensor* const* grads_out,
    size_t input_count,
    std::string* error);
using Release = void (*)(void* context);
// Owned by one at a time: it is released once, whatever is thrown on the way.
using Context = std::unique_ptr<void, Release>;

struct RustNode : public torch::autograd::Node {
  RustNode(
      std::string op,
      Context context,
      Backward backward,
      torch::autograd::edge_list&& edges)
      : Node(std::move(edges)),
        op_(std::move(op)),
        context_(std::move(context)),
        backward_(backward) {}

  std::string name() const override {
    return op_ + "Backward";
  }

  void save(const std::vector<at::Tensor>& tensors) {
    saved_.reserve(tensors.size());
    for (const auto& tensor : tensors) {
      saved_.emplace_back(tensor, /*is_output=*/false);
    }
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    // Two backward passes over a shared graph may run in two threads.
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(
        !released_,
        op_,
        ": trying to run backward through the graph a second time; keep the graph on the first "
        "pass if that is meant");
    const size_t count = num_outputs();
    torch::autograd::variable_list results(count);
    if (!grads[0].defined()) {
      return results;
    }
    const bool create_graph = at::GradMode::is_enabled();
    {
      at::NoGradGuard no_grad;
      std::vector<at::Tensor> saved;
      std::vector<at::Tensor*> saved_pointers;
      saved.reserve(saved_.size());
      for (const auto& variable : saved_) {
        saved.push_back(variable.unpack());
        saved_pointers.push_back(&saved.back());
      }
      std::vector<at::Tensor*> out(count);
      // std::vector<bool> has no plain array underneath.
      std::unique_ptr<bool[]> needs(new bool[count]);
      for (size_t i = 0; i < count; ++i) {
        out[i] = &results[i];
        needs[i] = task_should_compute_output(i);
      }
      std::string error;
      if (backward_(
              context_.get(),
              &grads[0],
              saved_pointers.data(),
              saved_pointers.size(),
              needs.get(),
              out.data(),
              count,
              &error) != 0) {
        TORCH_CHECK(false, error.empty() ? op_ + ": out of memory in a backward pass" : error);
      }
    }
    if (create_graph) {
      // These gradients are constants to autograd. Whoever differentiates them again is told so,
      // instead of silently receiving a zero.
      for (auto& result : results) {
        if (result.defined()) {
          auto refusal = std::shared_ptr<Node>(
              new torch::autograd::Error(
                  op_ + ": second-order gradients are not implemented",
                  torch::autograd::edge_list(next_edges())),
              torch::autograd::deleteNode);
          result = result.detach();
          torch::autograd::set_history(result, refusal);
        }
      }
    }
    return results;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved_) {
      variable.reset_data();
    }
    context_.reset();
    released_ = true;
  }

 private:
  std::string op_;
  Context context_;
  Backward backward_;
  bool released_ = false;
  std::vector<torch::autograd::SavedVariable> saved_;
};

} // namespace

extern "C" {

void ext_free(char* message) noexcept {
  if (message != out_of_memory) {
    std::free(message);
  }
}

// Version of the libtorch that is loaded, freed by the caller with `ext_free`; empty if it does not say.
// Not from `at::show_config`: that asks the CUDA half too, and a half that is not open yet is taken for
// absent from then on.
char* ext_version(char** text) noexcept {
  return guarded([&] {
    const auto& options = caffe2::GetBuildOptions();
    const auto version = options.find("TORCH_VERSION");
    *text = copy_message(version == options.end() ? "" : version->second.c_str());
  });
}

// Leaves the string as it was where there is no memory.
void ext_string_set(std::string* target, const char* text, size_t length) noexcept {
  try {
    target->assign(text, length);
  } catch (...) {
  }
}

// The same in pinned memory of the host.
char* ext_pin_memory(at::Tensor* target, const at::Tensor* source) noexcept {
  return guarded([&] { *target = source->pin_memory(); });
}

char* ext_assign(at::Tensor* target, const at::Tensor* source) noexcept {
  return guarded([&] { *target = *source; });
}

// ---- autocast ------------------------------------------------------------------------------

struct AutocastState {
  int enabled;
  int dtype;
};

char* ext_autocast_enter(int cuda, int enabled, int dtype, AutocastState* previous) noexcept {
  return guarded([&] {
    const auto type = device_type(cuda);
    previous->enabled = at::autocast::is_autocast_enabled(type);
    previous->dtype = static_cast<int>(at::autocast::get_autocast_dtype(type));
    if (enabled) {
      at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
    }
    at::autocast::set_autocast_enabled(type, enabled != 0);
    at::autocast::increment_nesting();
  });
}

char* ext_autocast_leave(int cuda, const AutocastState* previous) noexcept {
  return guarded([&] {
    const auto type = device_type(cuda);
    // The cache holds the weights' low-precision copies: stale once an optimizer step has run.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(type, previous->enabled != 0);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(previous->dtype));
  });
}

// The kind that autocast computes in, or -1 where it is off.
char* ext_autocast_dtype(int cuda, int* dtype) noexcept {
  return guarded([&] {
    const auto type = device_type(cuda);
    *dtype = at::autocast::is_autocast_enabled(type)
        ? static_cast<int>(at::autocast::get_autocast_dtype(type))
        : -1;
  });
}

// ---- gradients -----------------------------------------------------------------------------

char* ext_set_grad(at::Tensor* parameter, const at::Tensor* grad) noexcept {
  return guarded([&] {
    TORCH_CHECK(
        parameter->sizes() == grad->sizes() && parameter->dtype() == grad->dtype() &&
            parameter->device() == grad->device(),
        "set_grad: the parameter is ",
        parameter->dtype(),
        parameter->sizes(),
        " on ",
        parameter->device(),
        ", the gradient ",
        grad->dtype(),
        grad->sizes(),
        " on ",
        grad->device());
    TORCH_CHECK(
        parameter->is_leaf(), "set_grad: only leaf tensors (parameters) accumulate a gradient");
    parameter->mutable_grad() = *grad;
  });
}

char* ext_gradients(
    at::Tensor* const* outputs,
    at::Tensor* const* grads,
    size_t count,
    at::Tensor* const* inputs,
    at::Tensor* const* results,
    size_t input_count) noexcept {
  return guarded([&] {
    const auto made = torch::autograd::grad(
        tensors(outputs, count),
        tensors(inputs, input_count),
        tensors(grads, count),
        /*retain_graph=*/std::nullopt,
        /*create_graph=*/false,
        /*allow_unused=*/true);
    for (size_t i = 0; i < input_count; ++i) {
      *results[i] = made[i];
    }
  });
}

char* ext_add_all(at::Tensor* const* places, at::Tensor* const* added, size_t count) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_add_(tensors(places, count), tensors(added, count));
  });
}

// Attaches a node to `output`, the result of an operation on `inputs` computed without gradients.
// Takes ownership of `context` whatever happens. Makes no node where no gradient can be asked for.
char* ext_attach(
    at::Tensor* output,
    at::Tensor* const* inputs,
    size_t input_count,
    at::Tensor* const* saved,
    size_t saved_count,
    const char* op,
    void* context,
    Backward backward,
    Release release) noexcept {
  Context owned(context, release);
  return guarded([&] {
    std::vector<at::Tensor> arguments;
    bool any = false;
    for (size_t i = 0; i < input_count; ++i) {
      arguments.push_back(*inputs[i]);
      any = any || inputs[i]->requires_grad();
      TORCH_CHECK(
          output->unsafeGetTensorImpl() != inputs[i]->unsafeGetTensorImpl(),
          op,
          ": the output is input ",
          i,
          " itself; return a new tensor");
    }
    if (!any || !at::GradMode::is_enabled()) {
      return;
    }
    TORCH_CHECK(
        !output->requires_grad(), op, ": the output already has a gradient function of its own");
    auto node = std::shared_ptr<RustNode>(
        new RustNode(
            op, std::move(owned), backward, torch::autograd::collect_next_edges(arguments)),
        torch::autograd::deleteNode);
    std::vector<at::Tensor> kept;
    for (size_t i = 0; i < saved_count; ++i) {
      kept.push_back(*saved[i]);
    }
    node->save(kept);
    torch::autograd::set_history(*output, node);
  });
}

// ---- settings ------------------------------------------------------------------------------

char* ext_set_tf32(int on) noexcept {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(on != 0);
    at::globalContext().setAllowTF32CuDNN(on != 0);
  });
}

char* ext_set_cudnn_benchmark(int on) noexcept {
  return guarded([&] { at::globalContext().setBenchmarkCuDNN(on != 0); });
}

char* ext_set_deterministic(int on) noexcept {
  return guarded([&] {
    at::globalContext().setDeterministicCuDNN(on != 0);
    // Warn only: an operation without a deterministic CUDA form still runs.
    at::globalContext().setDeterministicAlgorithms(on != 0, /*warn_only=*/true);
    // That mode also fills every new tensor with NaN, a debugging aid that costs a pass of memory.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

char* ext_is_deterministic(int* on) noexcept {
  return guarded([&] { *on = at::globalContext().deterministicAlgorithms(); });
}

// ---- CUDA through c10's registries ----------------------------------------------------------

// As torch.cuda.memory._set_allocator_settings has it: read at each allocation, in c10's own memory.
char* ext_cuda_expandable_segments() noexcept {
  return guarded([] {
    using Config = c10::CachingAllocator::AcceleratorAllocatorConfig;
    c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
    TORCH_CHECK(Config::use_expandable_segments(), "the allocator did not take its settings");
  });
}

char* ext_cuda_synchronize(int index) noexcept {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA)
        .synchronizeDevice(static_cast<c10::DeviceIndex>(index));
  });
}

char* ext_cuda_stream(int index, void** stream) noexcept {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *stream = guard
                  .getStream(
                      c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)))
                  .native_handle();
  });
}

struct MemoryState {
  int64_t allocated;
  int64_t reserved;
  int64_t peak_allocated;
  int64_t peak_reserved;
};

char* ext_cuda_memory(int index, MemoryState* state) noexcept {
  return guarded([&] {
    const auto stats = cuda_allocator()->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    // Entry 0 aggregates the small and the large pool.
    state->allocated = stats.allocated_bytes[0].current;
    state->reserved = stats.reserved_bytes[0].current;
    state->peak_allocated = stats.allocated_bytes[0].peak;
    state->peak_reserved = stats.reserved_bytes[0].peak;
  });
}

char* ext_cuda_empty_cache() noexcept {
  return guarded([&] { cuda_allocator()->emptyCache(); });
}

char* ext_cuda_reset_peak_memory(int index) noexcept {
  return guarded(
      [&] { cuda_allocator()->resetPeakStats(static_cast<c10::DeviceIndex>(index)); });
}

// ---- convolution ---------------------------------------------------------------------------

char* ext_convolution_backward(
    const at::Tensor* grad,
    const at::Tensor* x,
    const at::Tensor* weight,
    int64_t stride,
    int64_t padding,
    const bool* needs,
    at::Tensor* grad_x,
    at::Tensor* grad_weight) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const std::array<int64_t, 2> strides = {stride, stride}, paddings = {padding, padding};
    const std::array<int64_t, 2> ones = {1, 1}, zeros = {0, 0};
    at::Tensor none;
    std::tie(*grad_x, *grad_weight, none) = at::convolution_backward(
        *grad,
        *x,
        *weight,
        /*bias_sizes=*/std::nullopt,
        strides,
        paddings,
        /*dilation=*/ones,
        /*transposed=*/false,
        /*output_padding=*/zeros,
        /*groups=*/1,
        {needs[0], needs[1], false});
  });
}

// ---- optimizer -----------------------------------------------------------------------------

char* ext_fused_adamw(
    at::Tensor* const* params,
    at::Tensor* const* grads,
    at::Tensor* const* exp_avgs,
    at::Tensor* const* exp_avg_sqs,
    at::Tensor* const* steps,
    size_t count,
    double lr,
    double beta1,
    double beta2,
    double weight_decay,
    double eps,
    at::Tensor* skip) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_fused_adamw_(
        tensors(params, count),
        tensors(grads, count),
        tensors(exp_avgs, count),
        tensors(exp_avg_sqs, count),
        /*max_exp_avg_sqs=*/{},
        tensors(steps, count),
        lr,
        beta1,
        beta2,
        weight_decay,
        eps,
        /*amsgrad=*/false,
        /*maximize=*/false,
        /*grad_scale=*/{},
        /*found_inf=*/skip == nullptr ? std::nullopt : std::make_optional(*skip));
  });
}

char* ext_fused_sgd(
    at::Tensor* const* params,
    at::Tensor* const* grads,
    at::Tensor* const* momentum_buffers,
    size_t count,
    double lr,
    double momentum,
    double weight_decay,
    at::Tensor* skip) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_fused_sgd_(
        tensors(params, count),
        tensors(grads, count),
        tensors(momentum_buffers, count),
        weight_decay,
        momentum,
        lr,
        /*dampening=*/0.0,
        /*nesterov=*/false,
        /*maximize=*/false,
        // Buffers of zeros make the first step as it is to be.
        /*is_first_step=*/false,
        /*grad_scale=*/{},
        /*found_inf=*/skip == nullptr ? std::nullopt : std::make_optional(*skip));
  });
}

} // extern "C"

// One phase of a convolution by oneDNN, as a call from an XLA program on a CPU.
//
// The batch is divided into equal parts, each computed by one thread. OpenMP, for which this oneDNN
// is built, starts no threads: while idle they would spin on cores that XLA needs.

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "parallel.h"
#include "xla/ffi/api/ffi.h"

// Functions of GCC's OpenMP, which oneDNN uses with any compiler of this file.
extern "C" int omp_get_max_threads();
extern "C" void omp_set_num_threads(int);

namespace ffi = xla::ffi;
using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;
using Dims = memory::dims;

namespace {

enum Phase : int64_t { kForward = 0, kInputGrad = 1, kWeightGrad = 2 };

// Shapes of one part: images [B, H, W, C], kernel [h, w, C, O], output [B, H', W', O]; strides and
// pads.
struct Geometry {
  Phase phase;
  Type type;
  Dims strides, low, high, images, kernel, output;

  auto Key() const {
    return std::tie(phase, type, strides, low, high, images, kernel, output);
  }
  bool operator<(const Geometry& other) const { return Key() < other.Key(); }
};

struct Plan {
  dnnl::primitive primitive;
  memory::desc images, output, kernel, kernel_as_given, scratch;
};

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

memory At(const memory::desc& desc, void* data) { return memory(desc, Engine(), data); }

// Uninitialised memory, aligned for vectors.
class Bytes {
 public:
  explicit Bytes(size_t size) : data_(std::aligned_alloc(64, (size / 64 + 1) * 64), &std::free) {
    if (!data_) throw std::bad_alloc();
  }
  char* get() const { return static_cast<char*>(data_.get()); }

 private:
  std::unique_ptr<void, decltype(&std::free)> data_;
};

// During its lifetime oneDNN runs on the calling thread only.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

Plan MakePlan(const Geometry& g) {
  const Dims &x = g.images, &w = g.kernel, &y = g.output;
  const Dims kernel = {w[3], w[2], w[0], w[1]};
  const memory::desc images({x[0], x[3], x[1], x[2]}, g.type, Tag::nhwc);
  const memory::desc output({y[0], y[3], y[1], y[2]}, g.type, Tag::nhwc);
  const memory::desc given(kernel, g.type, Tag::hwio), any(kernel, g.type, Tag::any);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  constexpr auto kDirect = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, kDirect, images, any, output, g.strides, g.low,
      g.high, attr);
  if (g.phase == kForward) {
    return {dnnl::convolution_forward(forward), images, output, forward.weights_desc(), given,
            forward.scratchpad_desc()};
  }
  if (g.phase == kInputGrad) {
    const dnnl::convolution_backward_data::primitive_desc input_grad(
        Engine(), kDirect, images, any, output, g.strides, g.low, g.high, forward, attr);
    return {dnnl::convolution_backward_data(input_grad), images, output, input_grad.weights_desc(),
            given, input_grad.scratchpad_desc()};
  }
  // In float32, because the parts are added up.
  const memory::desc sum(kernel, Type::f32, Tag::any);
  const dnnl::convolution_backward_weights::primitive_desc weight_grad(
      Engine(), kDirect, images, sum, output, g.strides, g.low, g.high, forward, attr);
  return {dnnl::convolution_backward_weights(weight_grad), images, output,
          weight_grad.diff_weights_desc(), given, weight_grad.scratchpad_desc()};
}

// The plan of the calling thread: nothing is shared, so nothing is locked. oneDNN's own cache makes
// a second thread's plan cheap.
const Plan& PlanFor(const Geometry& geometry) {
  thread_local std::map<Geometry, Plan> plans;
  auto found = plans.find(geometry);
  if (found == plans.end()) found = plans.emplace(geometry, MakePlan(geometry)).first;
  return found->second;
}

void Reorder(memory from, memory to) {
  dnnl::reorder(from, to).execute(Stream(), from, to);
  Stream().wait();
}

// Bytes of scratch memory beyond what oneDNN asks for. Its weight gradient of a strided 1x1 kernel
// (measured on oneDNN 3.2) copies each image without the pixels that the stride skips, with the
// channels of whole vectors, but asks for the memory of the channels there are. So with fewer
// channels than a vector has, it writes behind its memory.
size_t Beyond(const Geometry& g) {
  constexpr int64_t kLongestVector = 16;  // floats of AVX-512
  const bool strided = g.strides[0] > 1 || g.strides[1] > 1;
  if (g.phase != kWeightGrad || !strided || g.kernel[0] != 1 || g.kernel[1] != 1) return 0;
  return g.output[1] * g.output[2] * kLongestVector * sizeof(float);
}

// Computes one part on the calling thread. `images`, `kernel`, `output` are arrays or gradients.
void Execute(const Geometry& geometry, char* images, char* kernel, char* output) {
  const OneThread one;
  const Plan& plan = PlanFor(geometry);
  const Bytes scratch(plan.scratch.get_size() + Beyond(geometry));
  const bool forward = geometry.phase == kForward, input_grad = geometry.phase == kInputGrad;
  plan.primitive.execute(
      Stream(),
      {{input_grad ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, At(plan.images, images)},
       {forward || input_grad ? DNNL_ARG_WEIGHTS : DNNL_ARG_DIFF_WEIGHTS, At(plan.kernel, kernel)},
       {forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, At(plan.output, output)},
       {DNNL_ARG_SCRATCHPAD, At(plan.scratch, scratch.get())}});
  Stream().wait();
}

// Computes all parts. oneDNN needs its own order of the kernel's elements; a call reorders it once.
void Convolve(ffi::ThreadPool& pool, const Geometry& part, int64_t parts, int64_t threads,
              char* images, char* kernel, char* output) {
  const OneThread one;
  const Plan& plan = PlanFor(part);
  const bool weight_grad = part.phase == kWeightGrad;
  const bool reordered = plan.kernel != plan.kernel_as_given || (weight_grad && parts > 1);
  const size_t size = plan.kernel.get_size();
  const Bytes kernels(reordered ? size * (weight_grad ? parts : 1) : 0);
  if (reordered && !weight_grad)
    Reorder(At(plan.kernel_as_given, kernel), At(plan.kernel, kernels.get()));
  const size_t image_bytes = plan.images.get_size(), output_bytes = plan.output.get_size();
  InParallel(pool, threads, parts, [&](int64_t i) {
    Execute(part, images + i * image_bytes,
            !reordered ? kernel : kernels.get() + (weight_grad ? i * size : 0),
            output + i * output_bytes);
  });
  if (!reordered || !weight_grad) return;
  const size_t elements = size / sizeof(float);
  float* sum = reinterpret_cast<float*>(kernels.get());
  InParallel(pool, threads, threads, [&](int64_t t) {
    for (int64_t i = 1; i < parts; ++i) {
      for (size_t e = elements * t / threads; e < elements * (t + 1) / threads; ++e)
        sum[e] += sum[i * elements + e];
    }
  });
  Reorder(At(plan.kernel, kernels.get()), At(plan.kernel_as_given, kernel));
}

Dims DimsOf(const ffi::AnyBuffer& x) { return Dims(x.dimensions().begin(), x.dimensions().end()); }

std::string Text(const Dims& dims) {
  std::string text;
  for (int64_t d : dims) text += (text.empty() ? "" : "x") + std::to_string(d);
  return text;
}

ffi::Error Conv(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b,
                ffi::Result<ffi::AnyBuffer> result, int64_t phase, int64_t parts, int64_t threads,
                ffi::Span<const int64_t> strides, ffi::Span<const int64_t> padding) {
  const ffi::DataType type = a.element_type();
  if ((type != ffi::F32 && type != ffi::BF16) || b.element_type() != type ||
      result->element_type() != type) {
    return ffi::Error::InvalidArgument("a convolution takes arrays of float32 or of bfloat16");
  }
  // Forward: images, kernel -> output. Input gradient: output's, kernel -> images'. Weight
  // gradient: images, output's -> kernel's.
  const ffi::AnyBuffer images = phase == kInputGrad ? *result : a;
  const ffi::AnyBuffer kernel = phase == kWeightGrad ? *result : b;
  const ffi::AnyBuffer output = phase == kForward ? *result : phase == kInputGrad ? a : b;
  Geometry part = {static_cast<Phase>(phase),
                   type == ffi::F32 ? Type::f32 : Type::bf16,
                   {strides[0], strides[1]},
                   {padding[0], padding[2]},
                   {padding[1], padding[3]},
                   DimsOf(images),
                   DimsOf(kernel),
                   DimsOf(output)};
  part.images[0] /= parts;
  part.output[0] /= parts;
  auto data = [](const ffi::AnyBuffer& x) { return static_cast<char*>(x.untyped_data()); };
  try {
    Convolve(pool, part, parts, threads, data(images), data(kernel), data(output));
  } catch (const std::exception& e) {
    return ffi::Error::Internal(std::string("oneDNN: ") + e.what() + " (images " +
                                Text(part.images) + ", kernel " + Text(part.kernel) + ")");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnlearnJaxConv, Conv,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("phase")
                                  .Attr<int64_t>("parts")
                                  .Attr<int64_t>("threads")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("padding"));

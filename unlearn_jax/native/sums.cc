// The two sums of a batch norm over its images, and the two of its gradient, each pair in one pass:
// XLA reads the arrays once for each sum, on one core.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Number of rows summed up in float32 before they are added in double: few enough for float32.
constexpr int64_t kRows = 256;

// Adds to sum [C] the rows of a [rows, C], and to product [C] those of a * (b - shift).
__attribute__((target_clones("avx512f", "avx2", "default"))) void AddRows(
    const float* __restrict a, const float* __restrict b, const float* __restrict shift,
    int64_t rows, int64_t channels, float* __restrict sum, float* __restrict product) {
  const int64_t C = channels;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4, a += 4 * C, b += 4 * C) {
    for (int64_t c = 0; c < C; ++c) {
      const float a0 = a[c], a1 = a[C + c], a2 = a[2 * C + c], a3 = a[3 * C + c], m = shift[c];
      sum[c] += (a0 + a1) + (a2 + a3);
      product[c] += (a0 * (b[c] - m) + a1 * (b[C + c] - m)) +
                    (a2 * (b[2 * C + c] - m) + a3 * (b[3 * C + c] - m));
    }
  }
  for (; r < rows; ++r, a += C, b += C) {
    for (int64_t c = 0; c < C; ++c) {
      sum[c] += a[c];
      product[c] += a[c] * (b[c] - shift[c]);
    }
  }
}

// a, b [M, N, C], shift [M, C] -> sums [M, 2, C]. Each of `threads` takes a share of the N rows.
ffi::Error Sums(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> b,
                ffi::Buffer<ffi::F32> shift, ffi::Result<ffi::Buffer<ffi::F32>> sums,
                int64_t threads) try {
  if (sums->element_count() == 0) return ffi::Error::Success();
  const int64_t C = shift.dimensions().back(), M = shift.element_count() / C, parts = threads;
  const int64_t N = a.element_count() / (M * C);
  std::vector<double> totals(M * parts * 2 * C);
  InParallel(pool, threads, M * parts, [&](int64_t i) {
    const int64_t m = i / parts, part = i % parts, end = N * (part + 1) / parts;
    std::vector<float> block(2 * C);
    for (int64_t r = N * part / parts; r < end; r += kRows) {
      std::fill(block.begin(), block.end(), 0.f);
      const int64_t first = (m * N + r) * C;
      AddRows(a.typed_data() + first, b.typed_data() + first, shift.typed_data() + m * C,
              std::min(kRows, end - r), C, block.data(), block.data() + C);
      for (int64_t c = 0; c < 2 * C; ++c) totals[i * 2 * C + c] += block[c];
    }
  });
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t c = 0; c < 2 * C; ++c) {
      double total = 0;
      for (int64_t part = 0; part < parts; ++part)
        total += totals[(m * parts + part) * 2 * C + c];
      sums->typed_data()[m * 2 * C + c] = static_cast<float>(total);
    }
  }
  return ffi::Error::Success();
} catch (const std::exception& e) {
  return ffi::Error::Internal(std::string("sums: ") + e.what());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnlearnJaxSums, Sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("threads"));

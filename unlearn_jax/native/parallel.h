// Equal parts of one call, run side by side on XLA's own threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

// Runs `part(0)` to `part(count - 1)` on the calling thread and on up to `threads - 1` of the pool.
// The caller never waits for a part that no thread has begun: all threads of the pool may be
// callers that wait. An exception of a part is thrown to the caller.
inline void InParallel(xla::ffi::ThreadPool& pool, int64_t threads, int64_t count,
                       std::function<void(int64_t)> part) {
  if (threads == 1 || count == 1) {
    for (int64_t i = 0; i < count; ++i) part(i);
    return;
  }
  struct Work {
    std::function<void(int64_t)> part;
    int64_t count;
    std::atomic<int64_t> next{0}, finished{0};
    std::mutex mutex;  // guards the members below
    std::condition_variable changed;
    std::exception_ptr error;

    void Help() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        std::exception_ptr failure;
        try {
          part(i);
        } catch (...) {
          failure = std::current_exception();
        }
        std::lock_guard<std::mutex> lock(mutex);
        if (failure) error = failure;
        if (finished.fetch_add(1) + 1 == count) changed.notify_all();
      }
    }
  };
  auto work = std::make_shared<Work>();
  work->part = std::move(part);
  work->count = count;
  for (int64_t i = 1; i < std::min(threads, count); ++i) pool.Schedule([work] { work->Help(); });
  work->Help();
  // The other parts are about to end: sleeping and waking up would take longer than most of them.
  for (int spin = 0; spin < 20000 && work->finished.load() < count; ++spin)
    __builtin_ia32_pause();
  std::unique_lock<std::mutex> lock(work->mutex);
  work->changed.wait(lock, [&] { return work->finished.load() == count; });
  if (work->error) std::rethrow_exception(work->error);
}

// The memory and the threads of one call.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

constexpr int kUnits = 32;  // hidden units whose gates are packed at a time

template <class S>
using Buffer = std::unique_ptr<S[], void (*)(void*)>;

template <class S>
Buffer<S> allocate(int64_t count) {
  const std::size_t bytes = (count * sizeof(S) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<std::size_t>(64, bytes));
  if (!memory) throw std::bad_alloc();
  return {static_cast<S*>(memory), std::free};
}

inline int team_size(int threads, int64_t hidden) {
#ifdef _OPENMP
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, hidden / kUnits)));
#else
  (void)threads, (void)hidden;
  return 1;
#endif
}

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

inline int thread_count() {  // of the running team, which may be smaller than what was asked for
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}

}  // namespace

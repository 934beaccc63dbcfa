// Vectors of GCC and Clang's extension, as wide as the instruction set compiled for, and the shuffles needed here.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#ifndef VECTOR_BYTES
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

// Kept out of line: inlined into the loops over tiles, the compiler runs out of registers and spills accumulators.
#define KERNEL __attribute__((noinline))

namespace {

template <class S>
struct Simd {
  typedef S Vector __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int width = VECTOR_BYTES / sizeof(S);
};

template <class S>
using Vector = typename Simd<S>::Vector;

template <class S>
inline Vector<S> load(const S* p) {  // any alignment
  Vector<S> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class S>
inline void store(S* p, Vector<S> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class S>
inline Vector<S> broadcast(S s) {
  return s - Vector<S>{};
}

using Floats = Vector<float>;
constexpr int kFloats = Simd<float>::width;
typedef int32_t Lanes __attribute__((vector_size(VECTOR_BYTES)));

// Each rule maps an output lane to a lane of two operands, a = [0, width) and b = [width, 2 width).
template <int Offset>
struct Interleave {  // a0 b0 a1 b1 of each 128-bit lane, from element Offset on
  static constexpr int at(int j) { return (j / 4) * 4 + Offset + (j % 4) / 2 + (j % 2) * kFloats; }
};
template <int Offset>
struct Pairs {  // a0 a1 b0 b1 of each 128-bit lane, from element Offset on
  static constexpr int at(int j) { return (j / 4) * 4 + Offset + j % 2 + ((j % 4) / 2) * kFloats; }
};
template <int Distance, bool High>
struct Exchange {  // blocks of Distance elements: a0 b0 a2 b2, or with High a1 b1 a3 b3
  static constexpr int at(int j) {
    if (High) return (j & Distance) ? j + kFloats : j + Distance;
    return (j & Distance) ? j - Distance + kFloats : j;
  }
};

template <class Rule, std::size_t... J>
inline Floats shuffle(Floats a, Floats b, std::index_sequence<J...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, Rule::at(J)...);
#else
  return __builtin_shuffle(a, b, Lanes{Rule::at(J)...});
#endif
}

template <class Rule>
inline Floats shuffle(Floats a, Floats b) {
  return shuffle<Rule>(a, b, std::make_index_sequence<kFloats>{});
}

template <int Distance>
inline void exchange_blocks(Floats* v) {
  if constexpr (Distance < kFloats) {
    for (int i = 0; i < kFloats; i++) {
      if (i & Distance) continue;
      const Floats a = v[i], b = v[i + Distance];
      v[i] = shuffle<Exchange<Distance, false>>(a, b);
      v[i + Distance] = shuffle<Exchange<Distance, true>>(a, b);
    }
    exchange_blocks<2 * Distance>(v);
  }
}

// Transposes a square of vectors: 4 x 4 within 128-bit lanes, then the lanes among each other.
inline void transpose(Floats* v) {
  for (int i = 0; i < kFloats; i += 4) {
    const Floats ab0 = shuffle<Interleave<0>>(v[i], v[i + 1]), ab2 = shuffle<Interleave<2>>(v[i], v[i + 1]);
    const Floats cd0 = shuffle<Interleave<0>>(v[i + 2], v[i + 3]), cd2 = shuffle<Interleave<2>>(v[i + 2], v[i + 3]);
    v[i] = shuffle<Pairs<0>>(ab0, cd0);
    v[i + 1] = shuffle<Pairs<2>>(ab0, cd0);
    v[i + 2] = shuffle<Pairs<0>>(ab2, cd2);
    v[i + 3] = shuffle<Pairs<2>>(ab2, cd2);
  }
  exchange_blocks<4>(v);
}

// sums[u] += all lanes of v[u], for four vectors.
inline void add_lane_sums(const Floats* v, float* sums) {
  const Floats ab = shuffle<Interleave<0>>(v[0], v[1]) + shuffle<Interleave<2>>(v[0], v[1]);
  const Floats cd = shuffle<Interleave<0>>(v[2], v[3]) + shuffle<Interleave<2>>(v[2], v[3]);
  const Floats abcd = shuffle<Pairs<0>>(ab, cd) + shuffle<Pairs<2>>(ab, cd);
  typedef float Four __attribute__((vector_size(16)));
  Four lanes[kFloats / 4], total;
  std::memcpy(lanes, &abcd, sizeof abcd);
  std::memcpy(&total, sums, sizeof total);
  for (const Four& lane : lanes) total += lane;
  std::memcpy(sums, &total, sizeof total);
}

inline void add_lane_sums(const Vector<double>* v, double* sums) {
  for (int u = 0; u < 4; u++)
    for (int j = 0; j < Simd<double>::width; j++) sums[u] += v[u][j];
}

}  // namespace

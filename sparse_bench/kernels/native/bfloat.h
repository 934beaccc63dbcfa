// Activations in bfloat16. A packed row holds words of two tokens each: the low half is token j of a group, the high
// half is token j + width. So one shift and one mask turn a vector of words into two vectors of floats.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#include "packing.h"
#include "simd.h"

namespace {

struct BFloat {
  uint16_t bits;
};

typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));

template <class To, class From>
inline To reinterpret(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float widened(BFloat number) { return reinterpret<float>(uint32_t(number.bits) << 16); }

// The nearest bfloat16 numbers, ties to even, in the high halves. Numbers that are none stay none.
inline Words rounded(Floats numbers) {
  const Words bits = reinterpret<Words>(numbers);
  const Words nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Words ordered = reinterpret<Words>(numbers == numbers);  // all ones, or zero for one that is none
  return (nearest & ordered) | (~ordered & 0x7fc00000u);
}

inline Words load_halves(const BFloat* low, const BFloat* high) {
  Halves a, b;
  std::memcpy(&a, low, sizeof a);
  std::memcpy(&b, high, sizeof b);
  return __builtin_convertvector(a, Words) | (__builtin_convertvector(b, Words) << 16);
}

inline void store_halves(Words words, BFloat* low, BFloat* high) {
  const Halves a = __builtin_convertvector(words & 0xffffu, Halves), b = __builtin_convertvector(words >> 16, Halves);
  std::memcpy(low, &a, sizeof a);
  std::memcpy(high, &b, sizeof b);
}

inline void transpose(Words* v) {
  Floats square[kFloats];
  for (int i = 0; i < kFloats; i++) square[i] = reinterpret<Floats>(v[i]);
  transpose(square);
  for (int i = 0; i < kFloats; i++) v[i] = reinterpret<Words>(square[i]);
}

// How activations of type A are kept in a packed row: a vector of cells becomes `per` vectors of numbers.
template <class A>
struct Packed {
  using Cell = A;
  using Number = A;
  static constexpr int per = 1;
};
template <>
struct Packed<BFloat> {
  using Cell = uint32_t;
  using Number = float;
  static constexpr int per = 2;
};

// The low halves as floats. Older processors shift on the port that their multiply-adds need, and shuffle on another.
inline Floats low_halves(Words cells) {
#if defined(__AVX512BW__)
  const __m512i bytes = _mm512_set4_epi32(0x0d0c8080, 0x09088080, 0x05048080, 0x01008080);
  return reinterpret<Floats>(_mm512_shuffle_epi8(reinterpret<__m512i>(cells), bytes));
#else
  return reinterpret<Floats>(cells << 16);
#endif
}

inline void expand(Words cells, Floats* numbers) {
  numbers[0] = low_halves(cells);
  numbers[1] = reinterpret<Floats>(cells & 0xffff0000u);
}

// One vector of cells as vectors of numbers.
template <class S>
inline void load_numbers(const S* cells, Vector<S>* numbers) {
  numbers[0] = load(cells);
}
inline void load_numbers(const uint32_t* cells, Floats* numbers) { expand(load(cells), numbers); }

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile.
template <int P, bool Sum>
KERNEL void pack(const Rows<const BFloat*>& rows, int64_t f0, int64_t count, uint32_t* dst, float* sum) {
  constexpr int W = kFloats, R = P * W;
  int64_t f = 0;
  for (; f + W <= count; f += W) {
    Floats total{};
    if constexpr (Sum) total = load(sum + f0 + f);
    for (int p = 0; p < P; p++) {
      Words v[W];
      for (int i = 0; i < W; i++) {
        const BFloat *low = rows.row[2 * p * W + i] + f0 + f, *high = rows.row[(2 * p + 1) * W + i] + f0 + f;
        if (f % kRun == 0) {
          __builtin_prefetch(low + kRun, 0, kToSecondLevel);
          __builtin_prefetch(high + kRun, 0, kToSecondLevel);
        }
        v[i] = load_halves(low, high);
        if constexpr (Sum) {
          Floats two[2];
          expand(v[i], two);
          total += two[0] + two[1];
        }
      }
      transpose(v);
      for (int i = 0; i < W; i++) store(reinterpret_cast<float*>(dst + (f + i) * R + p * W), reinterpret<Floats>(v[i]));
    }
    if constexpr (Sum) store(sum + f0 + f, total);
  }
  for (; f < count; f++) {
    float total = 0;
    for (int p = 0; p < P; p++)
      for (int i = 0; i < W; i++) {
        const BFloat low = rows.row[2 * p * W + i][f0 + f], high = rows.row[(2 * p + 1) * W + i][f0 + f];
        dst[f * R + p * W + i] = uint32_t(low.bits) | uint32_t(high.bits) << 16;
        total += widened(low) + widened(high);
      }
    if constexpr (Sum) sum[f0 + f] += total;
  }
}

// Vectors of numbers as one vector of cells.
template <class S>
inline void store_numbers(S* cells, const Vector<S>* numbers) {
  store(cells, numbers[0]);
}
inline Words squeezed(const Floats* numbers) {
  return (rounded(numbers[0]) >> 16) | (rounded(numbers[1]) & 0xffff0000u);
}
inline void store_numbers(uint32_t* cells, const Floats* numbers) {
  const Words words = squeezed(numbers);
  std::memcpy(cells, &words, sizeof words);
}

// rows[tile, f0 + f] = the f-th packed row for f < count; words(f, p) is its p-th vector.
template <int P, class Get>
inline void unpack_words(const Get& words, int64_t f0, int64_t count, const Rows<BFloat*>& rows) {
  constexpr int W = kFloats;
  for (int64_t f = 0; f < count; f += W) {
    const int64_t features = count - f < W ? count - f : W;
    for (int p = 0; p < P; p++) {
      Words v[W];
      for (int i = 0; i < W; i++) v[i] = i < features ? words(f + i, p) : Words{};
      transpose(v);
      for (int i = 0; i < W; i++) {
        BFloat *low = rows.row[2 * p * W + i] + f0 + f, *high = rows.row[(2 * p + 1) * W + i] + f0 + f;
        if (features == W) store_halves(v[i], low, high);
        else
          for (int64_t k = 0; k < features; k++) {
            low[k] = {static_cast<uint16_t>(v[i][k])};
            high[k] = {static_cast<uint16_t>(v[i][k] >> 16)};
          }
      }
    }
  }
}

// rows[tile, f0 + f] = src[f, tile] for f < count, rounded.
template <int P>
KERNEL void unpack(const float* src, int64_t f0, int64_t count, const Rows<BFloat*>& rows) {
  const auto words = [&](int64_t f, int p) {
    const Floats numbers[2] = {load(src + (f * P + p) * 2 * kFloats), load(src + (f * P + p) * 2 * kFloats + kFloats)};
    return squeezed(numbers);
  };
  unpack_words<P>(words, f0, count, rows);
}

// The same for cells.
template <int P>
KERNEL void unpack(const uint32_t* src, int64_t f0, int64_t count, const Rows<BFloat*>& rows) {
  unpack_words<P>([&](int64_t f, int p) { return load(src + (f * P + p) * kFloats); }, f0, count, rows);
}

}  // namespace

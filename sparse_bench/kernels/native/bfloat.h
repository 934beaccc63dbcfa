// Activations in bfloat16. A packed row holds words of two tokens each: the low half is token j of a group, the high
// half is token j + width. So one shift and one mask turn a vector of words into two vectors of floats.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#include "packing.h"
#include "simd.h"

#if defined(__AVX512BF16__) && VECTOR_BYTES == 64
#define BFLOAT_DOTS  // see dots.h
#endif

namespace {

struct BFloat {
  uint16_t bits;
};

typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint16_t Shorts __attribute__((vector_size(VECTOR_BYTES)));
constexpr int kShorts = 2 * kFloats;

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

// As the rules for floats, each maps an output lane to a lane of a = [0, width) or b = [width, 2 width).
template <int Offset>
struct ZipShorts {  // a0 b0 a1 b1 a2 b2 a3 b3 of each 128-bit lane, from element Offset on
  static constexpr int at(int j) { return j / 8 * 8 + Offset + j % 8 / 2 + j % 2 * kShorts; }
};
template <int Half>
struct UnzipShorts {  // of each 128-bit lane a's four words, then b's four words: the low or the high half of each
  static constexpr int at(int j) { return j / 8 * 8 + j % 4 * 2 + Half + j / 4 % 2 * kShorts; }
};
template <int Offset>
struct ZipFours {  // a's and b's 128-bit lanes in turn, from the one of that number on
  static constexpr int lane(int j) { return j / 4 + Offset; }
  static constexpr int at(int j) { return lane(j) / 2 * 4 + j % 4 + lane(j) % 2 * kFloats; }
};

template <class Rule, std::size_t... J>
inline Shorts shuffle(Shorts a, Shorts b, std::index_sequence<J...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, Rule::at(J)...);
#else
  return __builtin_shuffle(a, b, Shorts{Rule::at(J)...});
#endif
}

template <class Rule, class To, class From>
inline To shuffle_shorts(From a, From b) {
  return reinterpret<To>(
      shuffle<Rule>(reinterpret<Shorts>(a), reinterpret<Shorts>(b), std::make_index_sequence<kShorts>{}));
}

// The two tokens of a word are added to a float.
inline Floats added(Floats total, Words tokens) {
#ifdef BFLOAT_DOTS
  return _mm512_dpbf16_ps(total, reinterpret<__m512bh>(tokens), reinterpret<__m512bh>(0x3f803f80u - Words{}));
#else
  Floats two[2];
  expand(tokens, two);
  return total + (two[0] + two[1]);
#endif
}

inline void store_words(uint32_t* to, Words words) { std::memcpy(to, &words, sizeof words); }

// Packs a vector of shorts of each token: interleaved, two tokens' are two vectors of words. Word 4 l + i of the first
// is feature 8 l + i, that of the second feature 8 l + 4 + i.
template <int P, bool Sum>
inline void pack_run(const Rows<const BFloat*>& rows, int64_t first, uint32_t* dst, float* sum) {
  constexpr int W = kFloats, R = P * W;
  Floats total[2] = {};
  for (int p = 0; p < P; p++) {
    Words v[2][W];
    for (int i = 0; i < W; i++) {
      const BFloat *low = rows.row[2 * p * W + i] + first, *high = rows.row[(2 * p + 1) * W + i] + first;
      __builtin_prefetch(low + kRun, 0, kToSecondLevel);
      __builtin_prefetch(high + kRun, 0, kToSecondLevel);
      Shorts a, b;
      std::memcpy(&a, low, sizeof a);
      std::memcpy(&b, high, sizeof b);
      v[0][i] = shuffle_shorts<ZipShorts<0>, Words>(a, b);
      v[1][i] = shuffle_shorts<ZipShorts<4>, Words>(a, b);
      if constexpr (Sum)
        for (int h = 0; h < 2; h++) total[h] = added(total[h], v[h][i]);
    }
    for (int h = 0; h < 2; h++) {
      transpose(v[h]);
      for (int i = 0; i < W; i++) store_words(dst + (i / 4 * 8 + h * 4 + i % 4) * R + p * W, v[h][i]);
    }
  }
  if constexpr (Sum) {
    store(sum + first, load(sum + first) + shuffle<ZipFours<0>>(total[0], total[1]));
    store(sum + first + W, load(sum + first + W) + shuffle<ZipFours<W / 4>>(total[0], total[1]));
  }
}

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile.
template <int P, bool Sum>
KERNEL void pack(const Rows<const BFloat*>& rows, int64_t f0, int64_t count, uint32_t* dst, float* sum) {
  constexpr int W = kFloats, R = P * W;
  int64_t f = 0;
  for (; f + kShorts <= count; f += kShorts) pack_run<P, Sum>(rows, f0 + f, dst + f * R, sum);
  for (; f + W <= count; f += W) {
    Floats total{};
    for (int p = 0; p < P; p++) {
      Words v[W];
      for (int i = 0; i < W; i++) {
        v[i] = load_halves(rows.row[2 * p * W + i] + f0 + f, rows.row[(2 * p + 1) * W + i] + f0 + f);
        if constexpr (Sum) total = added(total, v[i]);
      }
      transpose(v);
      for (int i = 0; i < W; i++) store_words(dst + (f + i) * R + p * W, v[i]);
    }
    if constexpr (Sum) store(sum + f0 + f, load(sum + f0 + f) + total);
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

// Weights are rounded to bfloat16 for products with bfloat16 activations, on any processor.
#ifdef BFLOAT_DOTS
using BFloatWeight = BFloat;
#else
using BFloatWeight = float;
#endif
template <class A>
struct Weight {
  using Type = A;
};
template <>
struct Weight<BFloat> {
  using Type = BFloatWeight;
};

// `count` of a vector's numbers, rounded.
inline void store_rounded(Floats numbers, int64_t count, BFloat* to) {
  const Halves halves = __builtin_convertvector(rounded(numbers) >> 16, Halves);
  if (count == kFloats) std::memcpy(to, &halves, sizeof halves);
  else std::memcpy(to, &halves, count * sizeof *to);
}
inline void store_rounded(Floats numbers, int64_t count, float* to) {
  const Words words = rounded(numbers) & 0xffff0000u;
  std::memcpy(to, &words, count * sizeof *to);
}

// to[k] = value(k), rounded, for begin <= k < end.
template <class Value, class Kept>
inline void round_values(int64_t begin, int64_t end, const Value& value, Kept* to) {
  for (int64_t k = begin; k < end; k += kFloats) {
    const int64_t some = end - k < kFloats ? end - k : kFloats;
    alignas(VECTOR_BYTES) float taken[kFloats] = {};
    for (int64_t i = 0; i < some; i++) taken[i] = value(k + i);
    store_rounded(load(taken), some, to + k);
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
  store_words(cells, squeezed(numbers));
}

// Two vectors of numbers that were added up as one vector of cells.
inline Words sums_as_cells(const Floats* sums) {
#ifdef BFLOAT_DOTS  // sums are of interleaved shorts, four words of each 128-bit lane in turn
  const __m512i both = reinterpret<__m512i>(_mm512_cvtne2ps_pbh(sums[1], sums[0]));
  return reinterpret<Words>(_mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), both));
#else
  return squeezed(sums);
#endif
}

// Numbers in the order of sums, from and to one vector of cells.
template <class S>
inline void load_in_order_of_sums(const S* cells, Vector<S>* numbers) {
  numbers[0] = load(cells);
}
inline void load_in_order_of_sums(const uint32_t* cells, Floats* numbers) {
#ifdef BFLOAT_DOTS
  const __m512i x = reinterpret<__m512i>(load(cells));
  numbers[0] = reinterpret<Floats>(_mm512_unpacklo_epi16(__m512i{}, x));
  numbers[1] = reinterpret<Floats>(_mm512_unpackhi_epi16(__m512i{}, x));
#else
  expand(load(cells), numbers);
#endif
}
template <class S>
inline void store_sums(S* cells, const Vector<S>* sums) {
  store(cells, sums[0]);
}
inline void store_sums(uint32_t* cells, const Floats* sums) { store_words(cells, sums_as_cells(sums)); }

// Brings the rows of a tile into the order of sums of P vectors of cells.
template <int P, class A, class Row>
inline void order_as_sums(Rows<Row>& rows) {
#ifdef BFLOAT_DOTS
  if constexpr (std::is_same_v<A, BFloat>) {
    const Rows<Row> natural = rows;
    for (int lane = 0; lane < P * kShorts; lane++) {
      const int first = lane / kShorts * kShorts, half = lane % kShorts / kFloats, j = lane % kFloats;
      const int place = j / 4 * 8 + half * 4 + j % 4;  // among the shorts of a vector of cells
      rows.row[lane] = natural.row[first + place % 2 * kFloats + place / 2];
    }
  }
#else
  (void)rows;
#endif
}

// rows[tile, f0 + f] = the f-th packed row for f < count; words(f, p) is its p-th vector.
template <int P, class Get>
inline void unpack_words(const Get& words, int64_t f0, int64_t count, const Rows<BFloat*>& rows) {
  constexpr int W = kFloats;
  int64_t f = 0;
  for (; f + kShorts <= count; f += kShorts)
    for (int p = 0; p < P; p++) {
      Words v[2][W];
      for (int h = 0; h < 2; h++) {
        for (int i = 0; i < W; i++) v[h][i] = words(f + i / 4 * 8 + h * 4 + i % 4, p);
        transpose(v[h]);
      }
      for (int i = 0; i < W; i++) {
        BFloat *low = rows.row[2 * p * W + i] + f0 + f, *high = rows.row[(2 * p + 1) * W + i] + f0 + f;
        __builtin_prefetch(low + kRun, 1, kToSecondLevel);
        __builtin_prefetch(high + kRun, 1, kToSecondLevel);
        const Shorts a = shuffle_shorts<UnzipShorts<0>, Shorts>(v[0][i], v[1][i]);
        const Shorts b = shuffle_shorts<UnzipShorts<1>, Shorts>(v[0][i], v[1][i]);
        std::memcpy(low, &a, sizeof a);
        std::memcpy(high, &b, sizeof b);
      }
    }
  for (; f < count; f += W) {
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
    const Floats sums[2] = {load(src + (f * P + p) * 2 * kFloats), load(src + (f * P + p) * 2 * kFloats + kFloats)};
    return sums_as_cells(sums);
  };
  unpack_words<P>(words, f0, count, rows);
}

// The same for cells.
template <int P>
KERNEL void unpack(const uint32_t* src, int64_t f0, int64_t count, const Rows<BFloat*>& rows) {
  unpack_words<P>([&](int64_t f, int p) { return load(src + (f * P + p) * kFloats); }, f0, count, rows);
}

}  // namespace

// Between token-major matrices, [tokens, features], and the feature-major scratch of one tile, [features, tile].

#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace {

constexpr int kLine = 16;       // features in a cache line of floats
// Features that a few token rows are read or written through before the next few are. Token rows are often a power of
// two apart and then share few places in the caches: the fewer of them are in turn the better. The processor does not
// foresee such jumps, so that each run asks for the same token rows' next one.
constexpr int kRun = 32;
constexpr int kToSecondLevel = 2;  // how near: one run of a tile's rows would push another out of the first level
constexpr int kMaxVectors = 8;  // vectors of tokens in the widest tile

// Addresses of the token rows of a tile. Rows beyond the last token read zeros or write to a dump, so that no inner
// loop knows about incomplete tiles.
template <class P>
struct Rows {
  P row[kMaxVectors * Simd<float>::width];

  Rows(P first, int64_t stride, int valid, int tile, P beyond) {
    for (int t = 0; t < tile; t++) row[t] = t < valid ? first + t * stride : beyond;
  }
};

// Squares of vectors in one line: all of a token's line is taken at once, before other tokens' lines push it out.
template <int Run>
constexpr int kSquares = (Run < kLine ? Run : kLine) / kFloats;

template <int N, int Run, bool Sum>
inline void pack_run(const Rows<const float*>& rows, int64_t first, float* dst, float* sum) {
  constexpr int W = kFloats, T = N * W, H = kSquares<Run>;
  for (int t = 0; t < T; t += W)
    for (int run = 0; run < Run; run += H * W) {
      const int64_t f = first + run;
      Floats v[H][W];
      for (int i = 0; i < W; i++) {
        if constexpr (Run == kRun) __builtin_prefetch(rows.row[t + i] + f + kRun, 0, kToSecondLevel);
        for (int h = 0; h < H; h++) v[h][i] = load(rows.row[t + i] + f + h * W);
      }
      for (int h = 0; h < H; h++) {
        if constexpr (Sum) {
          Floats total = load(sum + f + h * W);
          for (int i = 0; i < W; i++) total += v[h][i];
          store(sum + f + h * W, total);
        }
        transpose(v[h]);
        for (int i = 0; i < W; i++) store(dst + (run + h * W + i) * T + t, v[h][i]);
      }
    }
}

template <int N, int Run>
inline void unpack_run(const float* src, int64_t first, const Rows<float*>& rows) {
  constexpr int W = kFloats, T = N * W, H = kSquares<Run>;
  for (int t = 0; t < T; t += W)
    for (int run = 0; run < Run; run += H * W) {
      Floats v[H][W];
      for (int h = 0; h < H; h++) {
        for (int i = 0; i < W; i++) v[h][i] = load(src + (run + h * W + i) * T + t);
        transpose(v[h]);
      }
      for (int i = 0; i < W; i++) {
        if constexpr (Run == kRun) __builtin_prefetch(rows.row[t + i] + first + run + kRun, 1, kToSecondLevel);
        for (int h = 0; h < H; h++) store(rows.row[t + i] + first + run + h * W, v[h][i]);
      }
    }
}

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile.
template <int N, bool Sum, class S>
KERNEL void pack(const Rows<const S*>& rows, int64_t f0, int64_t count, S* dst, S* sum) {
  constexpr int W = Simd<S>::width, T = N * W;
  int64_t f = 0;
  if constexpr (std::is_same_v<S, float>) {
    for (; f + kRun <= count; f += kRun) pack_run<N, kRun, Sum>(rows, f0 + f, dst + f * T, sum);
    for (; f + W <= count; f += W) pack_run<N, W, Sum>(rows, f0 + f, dst + f * T, sum);
  }
  for (; f < count; f++) {
    S total = 0;
    for (int t = 0; t < T; t++) {
      const S s = rows.row[t][f0 + f];
      dst[f * T + t] = s;
      total += s;
    }
    if constexpr (Sum) sum[f0 + f] += total;
  }
}

// rows[tile, f0 + f] = src[f, tile] for f < count.
template <int N, class S>
KERNEL void unpack(const S* src, int64_t f0, int64_t count, const Rows<S*>& rows) {
  constexpr int W = Simd<S>::width, T = N * W;
  int64_t f = 0;
  if constexpr (std::is_same_v<S, float>) {
    for (; f + kRun <= count; f += kRun) unpack_run<N, kRun>(src + f * T, f0 + f, rows);
    for (; f + W <= count; f += W) unpack_run<N, W>(src + f * T, f0 + f, rows);
  }
  for (; f < count; f++)
    for (int t = 0; t < T; t++) rows.row[t][f0 + f] = src[f * T + t];
}

}  // namespace

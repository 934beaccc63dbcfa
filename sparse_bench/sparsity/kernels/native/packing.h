// Between token-major matrices, [tokens, features], and the feature-major scratch of one tile, [features, tile].

#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace {

constexpr int kLine = 16;       // features moved at a time: one cache line of floats for each token
constexpr int kMaxVectors = 8;  // vectors of tokens in the widest tile
// Features between asking for a token's cache line and using it: the rows of a tile are more streams than processors
// follow by themselves.
constexpr int kFarRead = 128, kFarWrite = 64;

// Addresses of the token rows of a tile. Rows beyond the last token read zeros or write to a dump, so that no inner
// loop knows about incomplete tiles.
template <class P>
struct Rows {
  P row[kMaxVectors * Simd<float>::width];

  Rows(P first, int64_t stride, int valid, int tile, P beyond) {
    for (int t = 0; t < tile; t++) row[t] = t < valid ? first + t * stride : beyond;
  }
};

// Moves H squares of vectors for each vector of tokens. All of a token's line is taken at once: token rows are often
// a power of two apart and then push each other out of the first-level cache.
template <int N, int H, bool Sum>
inline void pack_squares(const Rows<const float*>& rows, int64_t f, float* dst, float* sum) {
  constexpr int W = kFloats, T = N * W;
  for (int t = 0; t < T; t += W) {
    Floats v[H][W];
    for (int i = 0; i < W; i++)
      for (int h = 0; h < H; h++) v[h][i] = load(rows.row[t + i] + f + h * W);
    for (int i = 0; i < W; i++) __builtin_prefetch(rows.row[t + i] + f + kFarRead, 0, 2);
    for (int h = 0; h < H; h++) {
      if constexpr (Sum) {
        Floats total = load(sum + f + h * W);
        for (int i = 0; i < W; i++) total += v[h][i];
        store(sum + f + h * W, total);
      }
      transpose(v[h]);
      for (int i = 0; i < W; i++) store(dst + (h * W + i) * T + t, v[h][i]);
    }
  }
}

template <int N, int H>
inline void unpack_squares(const float* src, int64_t f, const Rows<float*>& rows) {
  constexpr int W = kFloats, T = N * W;
  for (int t = 0; t < T; t += W) {
    Floats v[H][W];
    for (int h = 0; h < H; h++) {
      for (int i = 0; i < W; i++) v[h][i] = load(src + (h * W + i) * T + t);
      transpose(v[h]);
    }
    for (int i = 0; i < W; i++)
      for (int h = 0; h < H; h++) store(rows.row[t + i] + f + h * W, v[h][i]);
    for (int i = 0; i < W; i++) __builtin_prefetch(rows.row[t + i] + f + kFarWrite, 1, 2);
  }
}

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile.
template <int N, bool Sum, class S>
KERNEL void pack(const Rows<const S*>& rows, int64_t f0, int64_t count, S* dst, S* sum) {
  constexpr int W = Simd<S>::width, T = N * W;
  int64_t f = 0;
  if constexpr (std::is_same_v<S, float>) {
    for (; f + kLine <= count; f += kLine) pack_squares<N, kLine / W, Sum>(rows, f0 + f, dst + f * T, sum);
    for (; f + W <= count; f += W) pack_squares<N, 1, Sum>(rows, f0 + f, dst + f * T, sum);
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
    for (; f + kLine <= count; f += kLine) unpack_squares<N, kLine / W>(src + f * T, f0 + f, rows);
    for (; f + W <= count; f += W) unpack_squares<N, 1>(src + f * T, f0 + f, rows);
  }
  for (; f < count; f++)
    for (int t = 0; t < T; t++) rows.row[t][f0 + f] = src[f * T + t];
}

}  // namespace

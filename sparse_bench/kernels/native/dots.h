// The two products on bfloat16 activations for processors that multiply pairs of bfloat16 numbers: one instruction adds
// both products of a pair to a float. The values' gradient takes pairs of tokens as they lie in a packed row. Sums over
// entries take pairs of entries: two rows are interleaved, and the pair's values are one word. These instructions take
// denormal numbers as zero.

#pragma once

#include "bfloat.h"
#include "layout.h"

#ifdef BFLOAT_DOTS

namespace {

inline Floats dot(Floats sum, Words a, Words b) {
  return _mm512_dpbf16_ps(sum, reinterpret<__m512bh>(a), reinterpret<__m512bh>(b));
}

inline Words both_values(const BFloat* value) {
  uint32_t pair;
  std::memcpy(&pair, value, sizeof pair);
  return pair - Words{};
}

// sum[0] and sum[1] += products of two vectors of tokens with a pair of values, in the order of `sums_as_cells`.
inline void add_pair(Words a, Words b, Words values, Floats* sum) {
  const __m512i x = reinterpret<__m512i>(a), y = reinterpret<__m512i>(b);
  sum[0] = dot(sum[0], reinterpret<Words>(_mm512_unpacklo_epi16(x, y)), values);
  sum[1] = dot(sum[1], reinterpret<Words>(_mm512_unpackhi_epi16(x, y)), values);
}

// sum[tile] += value * x[index, tile] over the entries [k, end).
template <int P, class Index>
inline void add_dots(const Index* index, const BFloat* value, int64_t k, int64_t end, const uint32_t* x, Floats* sum) {
  constexpr int W = kFloats, N = 2 * P, R = P * W;
  constexpr int U = P >= 4 ? 1 : 4 / P;  // independent sums hide the latency of the instruction
  Floats sums[U][N];
  for (int i = 0; i < N; i++) sums[0][i] = sum[i];
  for (int u = 1; u < U; u++)
    for (int i = 0; i < N; i++) sums[u][i] = Floats{};
  const auto add = [&](Floats* some) {
    const uint32_t *p = x + int64_t(index[k]) * R, *q = x + int64_t(index[k + 1]) * R;
    const Words values = both_values(value + k);
    for (int i = 0; i < P; i++) add_pair(load(p + i * W), load(q + i * W), values, some + 2 * i);
    k += 2;
  };
  while (k + 2 * U <= end)
    for (int u = 0; u < U; u++) add(sums[u]);
  if constexpr (U > 1)
    while (k + 2 <= end) add(sums[0]);
  if (k < end) {
    const uint32_t* p = x + int64_t(index[k]) * R;
    const Words values = uint32_t(value[k].bits) - Words{};
    for (int i = 0; i < P; i++) add_pair(load(p + i * W), Words{}, values, sums[0] + 2 * i);
  }
  for (int u = 1; u < U; u++)
    for (int i = 0; i < N; i++) sums[0][i] += sums[u][i];
  for (int i = 0; i < N; i++) sum[i] = sums[0][i];
}

// As `row_products`.
template <int P>
KERNEL void row_dots(const uint32_t* x, const Layout& layout, int64_t segment, int count, const BFloat* value,
                     const float* bias, float* out) {
  constexpr int W = kFloats, N = 2 * P, T = N * W, R = P * W;
  const int32_t *start = layout.start.data() + segment, *feature = layout.feature.data() + segment;
  for (int64_t b = 0; b < layout.blocks; b++, x += layout.block * R)
    for (int s = 0; s < count; s++, start++) {
      const int r = *feature++;
      Floats sum[N];
      for (int i = 0; i < N; i++) sum[i] = b ? load(out + r * T + i * W) : broadcast(bias ? bias[r] : 0.0f);
      add_dots<P>(layout.index.data(), value, start[0], start[1], x, sum);
      for (int i = 0; i < N; i++) store(out + r * T + i * W, sum[i]);
    }
}

// As `column_products`.
template <int P, bool Input>
KERNEL void column_dots(const uint32_t* gy, const uint32_t* x, const Layout& layout, int64_t segment, int count,
                        const BFloat* value, float* gx, float* value_grad) {
  constexpr int W = kFloats, N = 2 * P, T = N * W, R = P * W;
  const int32_t *start = layout.start.data() + segment, *feature = layout.feature.data() + segment;
  const uint16_t* row = layout.index.data();
  for (int64_t b = 0; b < layout.blocks; b++, gy += layout.block * R)
    for (int s = 0; s < count; s++, start++) {
      const int c = *feature++;
      Words in[P];
      Floats grad[N];
      for (int i = 0; i < P; i++) in[i] = load(x + c * R + i * W);
      for (int i = 0; i < N; i++) grad[i] = Input && b ? load(gx + c * T + i * W) : Floats{};
      const int64_t end = start[1];
      for (int64_t k = start[0]; k < end; k += kGroup) {
        Floats sums[kGroup] = {};
        for (int u = 0; u < kGroup; u += 2) {
          const uint32_t *p = gy + int64_t(row[k + u]) * R, *q = gy + int64_t(row[k + u + 1]) * R;
          const Words values = both_values(value + k + u);
          for (int i = 0; i < P; i++) {
            const Words g = load(p + i * W), h = load(q + i * W);
            sums[u] = dot(sums[u], g, in[i]);
            sums[u + 1] = dot(sums[u + 1], h, in[i]);
            if constexpr (Input) add_pair(g, h, values, grad + 2 * i);
          }
        }
        add_lane_sums(sums, value_grad + k);
      }
      if constexpr (Input)
        for (int i = 0; i < N; i++) store(gx + c * T + i * W, grad[i]);
    }
}

}  // namespace

#endif

// Products of token-major activations with a sparse weight matrix W [rows, columns], for training on a CPU.
//
//   forward   y[t, r]  = sum_c W[r, c] x[t, c] + b[r]
//   backward  gx[t, c] = sum_r W[r, c] gy[t, r],   gw[r, c] = sum_t gy[t, r] x[t, c]   (stored entries only)
//
// The tokens are cut into tiles of a few vectors. A tile is packed feature-major, [features, tile], into scratch that
// stays in the second-level cache, so that each stored entry of W acts on whole vectors of tokens: the irregular
// pattern costs one address for each row of vectors and no gather. (A feature-major copy of the whole batch would
// have a power-of-two stride and fall into few cache sets; the scratch of one tile has none of that.) The backward
// pass walks through W once by columns: one load of a row of gy feeds both the input's gradient and the dot product
// that is the value's gradient. division.h says how threads share the work.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

#include "bfloat.h"
#include "division.h"
#include "dots.h"
#include "guard.h"
#include "layout.h"
#include "packing.h"
#include "simd.h"

namespace {

// ---- the two products on one panel of one tile -----------------------------------------------------------------

// out[row, tile] = bias + sum over the row's entries of value * x[column, tile], for `count` rows of one panel.
// A packed row of the tile has P vectors; numbers are kept as `A`, and added up in `S`.
template <int P, class A, class S>
KERNEL void row_products(const typename Packed<A>::Cell* x, const Layout& layout, int64_t segment, int count,
                         const S* value, const S* bias, S* out) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M, T = N * W, R = P * W;
  constexpr int U = N >= 8 ? 1 : N >= 4 ? 2 : 8 / N;  // independent sums hide the latency of the multiply-add
  const int32_t *start = layout.start.data() + segment, *feature = layout.feature.data() + segment;
  const uint16_t* column = layout.index.data();
  for (int64_t b = 0; b < layout.blocks; b++, x += layout.block * R)
    for (int s = 0; s < count; s++, start++) {
      const int r = *feature++;
      Vector<S> sum[U][N];
      for (int i = 0; i < N; i++) sum[0][i] = b ? load(out + r * T + i * W) : broadcast(bias ? bias[r] : S(0));
      for (int u = 1; u < U; u++)
        for (int i = 0; i < N; i++) sum[u][i] = Vector<S>{};
      int64_t k = start[0];
      const int64_t end = start[1];
      for (; k + U <= end; k += U)
        for (int u = 0; u < U; u++) {
          const auto* p = x + int64_t(column[k + u]) * R;
          const Vector<S> v = broadcast(value[k + u]);
          for (int i = 0; i < P; i++) {
            Vector<S> numbers[M];
            load_numbers(p + i * W, numbers);
            for (int j = 0; j < M; j++) sum[u][i * M + j] += numbers[j] * v;
          }
        }
      for (; k < end; k++) {
        const auto* p = x + int64_t(column[k]) * R;
        const Vector<S> v = broadcast(value[k]);
        for (int i = 0; i < P; i++) {
          Vector<S> numbers[M];
          load_numbers(p + i * W, numbers);
          for (int j = 0; j < M; j++) sum[0][i * M + j] += numbers[j] * v;
        }
      }
      for (int u = 1; u < U; u++)
        for (int i = 0; i < N; i++) sum[0][i] += sum[u][i];
      for (int i = 0; i < N; i++) store(out + r * T + i * W, sum[0][i]);
    }
}

// gx[column, tile] = sum of value * gy[row, tile], and value_grad += dot(gy[row, tile], x[column, tile]) for each
// entry, for `count` columns of one panel. Segments hold whole groups of entries.
template <int P, bool Input, class A, class S>
KERNEL void column_products(const typename Packed<A>::Cell* gy, const typename Packed<A>::Cell* x, const Layout& layout,
                            int64_t segment, int count, const S* value, S* gx, S* value_grad) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M, T = N * W, R = P * W;
  const int32_t *start = layout.start.data() + segment, *feature = layout.feature.data() + segment;
  const uint16_t* row = layout.index.data();
  for (int64_t b = 0; b < layout.blocks; b++, gy += layout.block * R)
    for (int s = 0; s < count; s++, start++) {
      const int c = *feature++;
      Vector<S> in[N], grad[N];
      for (int i = 0; i < P; i++) load_numbers(x + c * R + i * W, in + i * M);
      for (int i = 0; i < N; i++) grad[i] = Input && b ? load(gx + c * T + i * W) : Vector<S>{};
      const int64_t end = start[1];
      for (int64_t k = start[0]; k < end; k += kGroup) {
        Vector<S> dot[kGroup];
        for (int u = 0; u < kGroup; u++) {
          const auto* p = gy + int64_t(row[k + u]) * R;
          const Vector<S> v = broadcast(value[k + u]);
          for (int i = 0; i < P; i++) {
            Vector<S> g[M];
            load_numbers(p + i * W, g);
            for (int j = 0; j < M; j++) {
              const int n = i * M + j;
              if constexpr (Input) grad[n] += g[j] * v;
              dot[u] = n ? dot[u] + g[j] * in[n] : g[j] * in[n];
            }
          }
        }
        add_lane_sums(dot, value_grad + k);
      }
      if constexpr (Input)
        for (int i = 0; i < N; i++) store(gx + c * T + i * W, grad[i]);
    }
}

// Either product in the way that is fastest for activations of type A.
template <int P, class A, class S>
inline void row_products_of(const typename Packed<A>::Cell* x, const Layout& layout, int64_t segment, int count,
                            const typename Weight<A>::Type* value, const S* bias, S* out) {
#ifdef BFLOAT_DOTS
  if constexpr (std::is_same_v<A, BFloat>) return row_dots<P>(x, layout, segment, count, value, bias, out);
  else
#endif
    row_products<P, A, S>(x, layout, segment, count, value, bias, out);
}
template <int P, bool Input, class A, class S>
inline void column_products_of(const typename Packed<A>::Cell* gy, const typename Packed<A>::Cell* x,
                               const Layout& layout, int64_t segment, int count, const typename Weight<A>::Type* value,
                               S* gx, S* value_grad) {
#ifdef BFLOAT_DOTS
  if constexpr (std::is_same_v<A, BFloat>)
    return column_dots<P, Input>(gy, x, layout, segment, count, value, gx, value_grad);
  else
#endif
    column_products<P, Input, A, S>(gy, x, layout, segment, count, value, gx, value_grad);
}

// ---- memory ----------------------------------------------------------------------------------------------------

// Memory that grows as needed and is kept between calls: its pages stay mapped and its lines in the cache.
class Scratch {
 public:
  void* get(std::size_t bytes) {
    if (bytes > size_) {
      const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
      memory_.reset();  // first, so that old and new need not fit side by side
      size_ = 0;
      memory_.reset(std::aligned_alloc(4096, rounded));
      if (!memory_) throw std::bad_alloc();
      size_ = rounded;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t size_ = 0;
};

thread_local Scratch tile_scratch;  // what one thread packs
thread_local Scratch call_scratch;  // what the threads of one call share, owned by the calling thread

// ---- the two passes --------------------------------------------------------------------------------------------

// The values in the layout's order, as weights for activations of type A.
template <class A, class S>
void arrange(const Layout& layout, const S* values, typename Weight<A>::Type* arranged, int threads) {
  const int64_t count = static_cast<int64_t>(layout.index.size());
  for_ranges(count, count >= kWorthThreadsToCopy ? threads : 1, [&](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<A, BFloat>) {
      const bool in_order = layout.origin.empty();
      const auto value = [&](int64_t k) {
        if (in_order) return values[k];
        __builtin_prefetch(values + layout.origin[k + kAhead]);
        return values[layout.origin[k]];
      };
      round_values(begin, end, value, arranged);
    } else {
      for (int64_t k = begin; k < end; k++) {
        __builtin_prefetch(values + layout.origin[k + kAhead]);
        arranged[k] = values[layout.origin[k]];
      }
    }
  });
  for (const int32_t k : layout.padding) arranged[k] = {};
}

// The inverse for sums that were collected in `parts`: sum[origin[k]] = sum of parts[.][k].
template <class S>
void collect(const Layout& layout, const S* sums, int64_t parts, S* sum, int threads) {
  const int64_t count = static_cast<int64_t>(layout.index.size());
  for_ranges(count, count >= kWorthThreadsToCopy ? threads : 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; k++) {
      __builtin_prefetch(sum + layout.origin[k + kAhead], 1);
      S total = sums[k];
      for (int64_t part = 1; part < parts; part++) total += sums[part * count + k];
      sum[layout.origin[k]] = total;  // padding writes what its original has written
    }
  });
}

// Vectors of a packed row in the widest tiles: as many as the registers hold sums for. Wider tiles share the cost of an
// entry among more tokens.
#ifdef BFLOAT_DOTS
template <class A>
constexpr int kMostForward = 4;
template <class A>
constexpr int kMostBackward = 4;
#else
template <class A>
constexpr int kMostForward = (VECTOR_BYTES < 64 ? 8 : 4) / Packed<A>::per;
template <class A>
constexpr int kMostBackward = 4 / Packed<A>::per;
#endif

// A: what activations are stored as; S: what values and sums are.
template <class A, class S>
void forward(const Plan& w, int64_t tokens, const S* values, const S* bias, const A* x, int64_t x_stride, A* y,
             int threads) {
  using Cell = typename Packed<A>::Cell;
  constexpr int W = Simd<S>::width, M = Packed<A>::per;
  const Layout& layout = w.by_row;
  using Kept = typename Weight<A>::Type;
  const Kept* weights;
  if (std::is_same_v<A, S> && w.in_order) {
    weights = reinterpret_cast<const Kept*>(values);
  } else {
    Kept* arranged = static_cast<Kept*>(call_scratch.get(sizeof(Kept) * layout.index.size()));
    arrange<A>(layout, values, arranged, threads);
    weights = arranged;
  }
  const bool worthwhile = tokens * (w.entries + w.rows + w.columns) >= kWorthThreads;
  const int vectors = std::min(layout.vectors, kMostForward<A>);
  const int64_t row = vectors * W, widest = std::max(w.rows, w.columns);
  const Division division{layout, w.rows, tokens, row * M, W * M};
  division.run(worthwhile ? threads : 1, [&](const Share& share) {
    S* panel = static_cast<S*>(
        tile_scratch.get(sizeof(S) * kPanel * row * M + sizeof(Cell) * w.columns * row + sizeof(A) * widest));
    Cell* packed = reinterpret_cast<Cell*>(panel + kPanel * row * M);
    A* beyond = reinterpret_cast<A*>(packed + w.columns * row);
    for_tiles<W * M, kMostForward<A>>(share.begin, share.end, vectors, [&](auto n, int64_t token, int valid) {
      constexpr int P = decltype(n)::value, T = P * M * W;
      if (valid < T) std::fill_n(beyond, w.columns, A{});
      const Rows<const A*> in(x + token * x_stride, x_stride, valid, T, beyond);
      const Rows<A*> out(y + token * w.rows, w.rows, valid, T, beyond);
      pack<P, false>(in, 0, w.columns, packed, static_cast<S*>(nullptr));
      for (int64_t r = share.first; r < share.last; r += kPanel) {
        const int count = static_cast<int>(std::min<int64_t>(kPanel, w.rows - r));
        const int64_t segment = r * layout.blocks;
        row_products_of<P, A>(packed, layout, segment, count, weights, bias ? bias + r : nullptr, panel);
        unpack<P>(panel, r, count, out);
      }
    });
  });
}

template <bool Input, class A, class S>
void backward(const Plan& w, int64_t tokens, const S* values, const A* gy, int64_t gy_stride, const A* x,
              int64_t x_stride, A* gx, S* gv, S* gb, int threads) {
  using Cell = typename Packed<A>::Cell;
  using Kept = typename Weight<A>::Type;
  constexpr int W = Simd<S>::width, M = Packed<A>::per;
  const Layout& layout = w.by_column;
  const int64_t padded = static_cast<int64_t>(layout.index.size());
  const bool worthwhile = tokens * (2 * w.entries + w.rows + w.columns) >= kWorthThreads;
  const int vectors = std::min(layout.vectors, kMostBackward<A>);
  const int64_t row = vectors * W, widest = std::max(w.rows, w.columns);
  const Division division{layout, w.columns, tokens, tokens_of_a_sum(tokens, row * M), W * M};
  const int64_t parts = division.pieces();
  // Each piece has sums of its own, which are added in order afterwards, whichever thread was faster.
  S* value_sums =
      static_cast<S*>(call_scratch.get(sizeof(S) * parts * (padded + w.rows) + sizeof(Kept) * padded));
  S* bias_sums = value_sums + parts * padded;
  Kept* arranged = reinterpret_cast<Kept*>(bias_sums + parts * w.rows);
  arrange<A>(layout, values, arranged, threads);

  division.run(worthwhile ? threads : 1, [&](const Share& share) {
    S* gx_panel = static_cast<S*>(tile_scratch.get(sizeof(S) * kPanel * row * M +
                                                   sizeof(Cell) * (w.rows + kPanel) * row + sizeof(A) * 2 * widest));
    Cell* packed = reinterpret_cast<Cell*>(gx_panel + kPanel * row * M);
    Cell* x_panel = packed + w.rows * row;
    A* zeros = reinterpret_cast<A*>(x_panel + kPanel * row);
    A* dump = zeros + widest;
    S* value_sum = value_sums + share.piece * padded;
    S* bias_sum = bias_sums + share.piece * w.rows;
    const bool sums_bias = share.first == 0;  // a piece's threads all pack its output gradient; one of them sums it
    if (sums_bias) std::fill_n(bias_sum, w.rows, S(0));
    std::fill_n(zeros, widest, A{});
    for_tiles<W * M, kMostBackward<A>>(share.begin, share.end, vectors, [&](auto n, int64_t token, int valid) {
      constexpr int P = decltype(n)::value, T = P * M * W;
      const Rows<const A*> out(gy + token * gy_stride, gy_stride, valid, T, zeros);
      const Rows<const A*> in(x + token * x_stride, x_stride, valid, T, zeros);
      const Rows<A*> in_grad(Input ? gx + token * w.columns : dump, w.columns, Input ? valid : 0, T, dump);
      if (sums_bias) pack<P, true>(out, 0, w.rows, packed, bias_sum);
      else pack<P, false>(out, 0, w.rows, packed, bias_sum);
      for (int64_t c = share.first; c < share.last; c += kPanel) {
        const int count = static_cast<int>(std::min<int64_t>(kPanel, w.columns - c));
        const int64_t segment = c * layout.blocks;
        pack<P, false>(in, c, count, x_panel, static_cast<S*>(nullptr));
        if (token == share.begin)  // here, where the panel's sums are about to be used
          std::fill(value_sum + layout.start[segment], value_sum + layout.start[segment + count * layout.blocks], S(0));
        column_products_of<P, Input, A>(packed, x_panel, layout, segment, count, arranged, gx_panel, value_sum);
        if constexpr (Input) unpack<P>(gx_panel, c, count, in_grad);
      }
    });
  });

  if (parts == 0) std::fill_n(gv, w.entries, S(0));
  else collect(layout, value_sums, parts, gv, threads);
  for (int64_t r = 0; r < w.rows; r++) {
    S total = 0;
    for (int64_t part = 0; part < parts; part++) total += bias_sums[part * w.rows + r];
    gb[r] = total;
  }
}

}  // namespace

// ---- what Python calls -----------------------------------------------------------------------------------------
// Matrices are token-major with unit stride along features; strides are those of token rows, in elements. Results are
// contiguous. `gx` may be null where the input needs no gradient. Where memory is short, there is no plan (null), and
// the passes return 0 instead of 1.

extern "C" {

int vector_bytes() { return VECTOR_BYTES; }

int has_threads() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

void* plan_new(int64_t rows, int64_t columns, int64_t entries, const int32_t* row_start, const int32_t* column) {
  Plan* made = nullptr;
  finishes([&] { made = new Plan(rows, columns, entries, row_start, column); });
  return made;
}

void plan_free(void* plan) { delete static_cast<Plan*>(plan); }

#define EXPORT(A, S, NAME)                                                                                            \
  int forward_##NAME(const void* plan, int64_t tokens, const S* values, const S* bias, const A* x, int64_t x_stride,  \
                     A* y, int threads) {                                                                             \
    const Plan& w = *static_cast<const Plan*>(plan);                                                                  \
    return finishes([&] { forward<A, S>(w, tokens, values, bias, x, x_stride, y, threads); });                        \
  }                                                                                                                   \
  int backward_##NAME(const void* plan, int64_t tokens, const S* values, const A* gy, int64_t gy_stride, const A* x,  \
                      int64_t x_stride, A* gx, S* gv, S* gb, int threads) {                                           \
    const Plan& w = *static_cast<const Plan*>(plan);                                                                  \
    return finishes([&] {                                                                                             \
      if (gx) backward<true, A, S>(w, tokens, values, gy, gy_stride, x, x_stride, gx, gv, gb, threads);               \
      else backward<false, A, S>(w, tokens, values, gy, gy_stride, x, x_stride, gx, gv, gb, threads);                 \
    });                                                                                                               \
  }

EXPORT(float, float, f32)
EXPORT(double, double, f64)
EXPORT(BFloat, float, bf16)

}  // extern "C"

// Products of token-major activations with a sparse weight matrix, for training on a CPU.
//
//   forward   y[t, r]  = sum_c W[r, c] x[t, c] + b[r]
//   backward  gx[t, c] = sum_r W[r, c] gy[t, r],   gw[r, c] = sum_t gy[t, r] x[t, c]   (stored entries only)
//
// The tokens are cut into tiles of a few vectors. A tile is packed feature-major, [features, tile], into scratch that
// stays in the second-level cache, so that each stored entry of W acts on whole vectors of tokens: the irregular
// pattern costs one address per vector row and no gather. (A feature-major copy of the whole batch would have a
// power-of-two stride and fall into few cache sets; the scratch of one tile has none of that.) The backward pass
// walks W once by columns: one load of a row of gy feeds the input's gradient and the dot product of the value's.
//
// Vectors are those of GCC and Clang's extension; their width follows the instruction set compiled for.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
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

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (Lanes){__VA_ARGS__})
#endif

namespace {

constexpr int kPanel = 16;  // features transposed at a time: one cache line of floats for each token
constexpr int kGroup = 4;   // entries of a column handled together; columns are padded to a multiple of it
constexpr int kMaxVectors = 4;  // vectors in the widest tile: input, gradient and operands then fit 16 registers

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

// ---- lane shuffles (floats only) -------------------------------------------------------------------------------

typedef int32_t Lanes __attribute__((vector_size(VECTOR_BYTES)));
using Floats = Vector<float>;
constexpr int kFloats = Simd<float>::width;

// Each rule maps an output lane to a lane of the two operands, a = [0, W) and b = [W, 2W).
template <int Offset>  // a0 b0 a1 b1 of each 128-bit lane, from element Offset on
struct Interleave {
  static constexpr int at(int j) { return (j / 4) * 4 + Offset + (j % 4) / 2 + (j % 2) * kFloats; }
};
template <int Offset>  // a0 a1 b0 b1
struct Pairs {
  static constexpr int at(int j) { return (j / 4) * 4 + Offset + j % 2 + ((j % 4) / 2) * kFloats; }
};
template <int Distance, bool High>  // exchange of blocks of Distance elements between a and b
struct Exchange {
  static constexpr int at(int j) {
    return High ? ((j & Distance) ? j + kFloats : j + Distance) : ((j & Distance) ? j - Distance + kFloats : j);
  }
};

template <class Rule, std::size_t... J>
inline Floats shuffle(Floats a, Floats b, std::index_sequence<J...>) {
  return SHUFFLE(a, b, Rule::at(J)...);
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
      Floats a = v[i], b = v[i + Distance];
      v[i] = shuffle<Exchange<Distance, false>>(a, b);
      v[i + Distance] = shuffle<Exchange<Distance, true>>(a, b);
    }
    exchange_blocks<2 * Distance>(v);
  }
}

// Transpose a square of vectors: 4 x 4 within 128-bit lanes, then the lanes among each other.
inline void transpose(Floats* v) {
  for (int i = 0; i < kFloats; i += 4) {
    Floats ab0 = shuffle<Interleave<0>>(v[i], v[i + 1]), ab2 = shuffle<Interleave<2>>(v[i], v[i + 1]);
    Floats cd0 = shuffle<Interleave<0>>(v[i + 2], v[i + 3]), cd2 = shuffle<Interleave<2>>(v[i + 2], v[i + 3]);
    v[i] = shuffle<Pairs<0>>(ab0, cd0);
    v[i + 1] = shuffle<Pairs<2>>(ab0, cd0);
    v[i + 2] = shuffle<Pairs<0>>(ab2, cd2);
    v[i + 3] = shuffle<Pairs<2>>(ab2, cd2);
  }
  exchange_blocks<4>(v);
}

// dst[0..3] += sums of the lanes of four vectors.
inline void add_lane_sums(const Floats* d, float* dst) {
  Floats ab = shuffle<Interleave<0>>(d[0], d[1]) + shuffle<Interleave<2>>(d[0], d[1]);
  Floats cd = shuffle<Interleave<0>>(d[2], d[3]) + shuffle<Interleave<2>>(d[2], d[3]);
  Floats sums = shuffle<Pairs<0>>(ab, cd) + shuffle<Pairs<2>>(ab, cd);
  typedef float Four __attribute__((vector_size(16)));
  Four lanes[kFloats / 4], out;
  std::memcpy(lanes, &sums, sizeof sums);
  std::memcpy(&out, dst, sizeof out);
  for (const Four& lane : lanes) out += lane;
  std::memcpy(dst, &out, sizeof out);
}

inline void add_lane_sums(const Vector<double>* d, double* dst) {
  for (int u = 0; u < kGroup; u++)
    for (int j = 0; j < Simd<double>::width; j++) dst[u] += d[u][j];
}

// ---- packing ---------------------------------------------------------------------------------------------------

// Addresses of the token rows of a tile. Rows beyond the last token read zeros and write to a dump, so that no
// inner loop knows about incomplete tiles.
template <class P>
struct Rows {
  P row[kMaxVectors * VECTOR_BYTES / 4];

  template <class S>
  Rows(P first, int64_t stride, int valid, int tile, S* beyond) {
    for (int t = 0; t < tile; t++) row[t] = t < valid ? first + t * stride : beyond;
  }
};

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile. All of a token's
// line is taken at once: token rows are often a power of two apart and push each other out of the first-level cache.
template <int N, bool Sum, class S>
inline void pack(const Rows<const S*>& rows, int64_t f0, int count, S* dst, S* sum) {
  constexpr int W = Simd<S>::width, T = N * W;
  int f = 0;
  if constexpr (std::is_same_v<S, float>) {
    const int whole = count / W * W;
    for (int t = 0; t < T; t += W)
      for (f = 0; f < whole; f += W) {
        Floats v[W];
        for (int i = 0; i < W; i++) v[i] = load(rows.row[t + i] + f0 + f);
        if constexpr (Sum) {
          Floats total = load(sum + f0 + f);
          for (int i = 0; i < W; i++) total += v[i];
          store(sum + f0 + f, total);
        }
        transpose(v);
        for (int i = 0; i < W; i++) store(dst + (f + i) * T + t, v[i]);
      }
  }
  for (; f < count; f++) {
    S total = 0;
    for (int t = 0; t < T; t++) {
      S s = rows.row[t][f0 + f];
      dst[f * T + t] = s;
      total += s;
    }
    if constexpr (Sum) sum[f0 + f] += total;
  }
}

// rows[tile, f0 + f] = src[f, tile] for f < count.
template <int N, class S>
inline void unpack(const S* src, int64_t f0, int count, const Rows<S*>& rows) {
  constexpr int W = Simd<S>::width, T = N * W;
  int f = 0;
  if constexpr (std::is_same_v<S, float>) {
    const int whole = count / W * W;
    for (int t = 0; t < T; t += W)
      for (f = 0; f < whole; f += W) {
        Floats v[W];
        for (int i = 0; i < W; i++) v[i] = load(src + (f + i) * T + t);
        transpose(v);
        for (int i = 0; i < W; i++) store(rows.row[t + i] + f0 + f, v[i]);
      }
  }
  for (; f < count; f++)
    for (int t = 0; t < T; t++) rows.row[t][f0 + f] = src[f * T + t];
}

// ---- the two products on one tile ------------------------------------------------------------------------------

// out[tile] = start + sum over the row's entries of value * x[column, tile].
template <int N, class S>
inline void row_product(const S* x, const int32_t* column, const S* value, int64_t entries, S start, S* out) {
  constexpr int W = Simd<S>::width, T = N * W;
  constexpr int U = N >= 4 ? 2 : 8 / N;  // independent sums hide the latency of the multiply-add
  Vector<S> sum[U][N];
  for (int u = 0; u < U; u++)
    for (int i = 0; i < N; i++) sum[u][i] = broadcast(u == 0 ? start : S(0));
  int64_t k = 0;
  for (; k + U <= entries; k += U)
    for (int u = 0; u < U; u++) {
      const S* p = x + int64_t(column[k + u]) * T;
      Vector<S> v = broadcast(value[k + u]);
      for (int i = 0; i < N; i++) sum[u][i] += load(p + i * W) * v;
    }
  for (; k < entries; k++) {
    const S* p = x + int64_t(column[k]) * T;
    Vector<S> v = broadcast(value[k]);
    for (int i = 0; i < N; i++) sum[0][i] += load(p + i * W) * v;
  }
  for (int u = 1; u < U; u++)
    for (int i = 0; i < N; i++) sum[0][i] += sum[u][i];
  for (int i = 0; i < N; i++) store(out + i * W, sum[0][i]);
}

// One column: gx[tile] = sum of value * gy[row, tile]; value_grad += dot(gy[row, tile], x[tile]) for each entry.
template <int N, bool Input, bool Values, class S>
inline void column_product(const S* gy, const S* x, const int32_t* row, const S* value, int64_t entries, S* gx,
                           S* value_grad) {
  constexpr int W = Simd<S>::width, T = N * W;
  Vector<S> in[N], grad[N];
  for (int i = 0; i < N; i++) {
    in[i] = Values ? load(x + i * W) : Vector<S>{};
    grad[i] = Vector<S>{};
  }
  for (int64_t k = 0; k < entries; k += kGroup) {
    Vector<S> dot[kGroup];
    for (int u = 0; u < kGroup; u++) {
      const S* p = gy + int64_t(row[k + u]) * T;
      Vector<S> v = broadcast(value[k + u]);
      for (int i = 0; i < N; i++) {
        Vector<S> g = load(p + i * W);
        if constexpr (Input) grad[i] += g * v;
        if constexpr (Values) dot[u] = i == 0 ? g * in[i] : dot[u] + g * in[i];
      }
    }
    if constexpr (Values) add_lane_sums(dot, value_grad + k);
  }
  if constexpr (Input)
    for (int i = 0; i < N; i++) store(gx + i * W, grad[i]);
}

// ---- memory ----------------------------------------------------------------------------------------------------

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Memory that grows as needed and is kept between calls: its pages stay mapped and its lines in the cache.
struct Scratch {
  std::unique_ptr<void, Free> memory;
  std::size_t size = 0;

  void* get(std::size_t bytes) {
    if (bytes > size) {
      const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
      memory.reset(std::aligned_alloc(4096, rounded));
      if (!memory) throw std::bad_alloc();
      size = rounded;
    }
    return memory.get();
  }
};

// Scratch of one thread for its tiles.
void* scratch(std::size_t bytes) {
  thread_local Scratch memory;
  return memory.get(bytes);
}

// Scratch of one call for what its threads share, owned by the calling thread.
void* call_scratch(std::size_t bytes) {
  thread_local Scratch memory;
  return memory.get(bytes);
}

// ---- dividing the work -----------------------------------------------------------------------------------------

int64_t second_level_cache() {
  static const int64_t bytes = [] {
    int64_t reported = -1;
#ifdef _SC_LEVEL2_CACHE_SIZE
    reported = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return reported > 0 ? reported : int64_t(512) * 1024;
  }();
  return bytes;
}

// Widest tile whose packed features leave half of the second-level cache to everything else.
int tile_vectors(int64_t features) {
  int n = kMaxVectors;
  while (n > 1 && features * n * VECTOR_BYTES > second_level_cache() / 2) n /= 2;
  return n;
}

// Tokens cut into one contiguous part a thread, in whole vectors.
struct Split {
  int64_t tokens, parts, size;
  int threads;

  Split(int64_t tokens_, int64_t width, int64_t work, int threads_) : tokens(tokens_), threads(threads_) {
    constexpr int64_t kWorthAThread = 1 << 16;  // multiply-adds; below it, waking a thread costs more
    const int64_t vectors = (tokens + width - 1) / width;
    const int64_t wanted = work < 2 * kWorthAThread ? 1 : std::max<int64_t>(1, std::min<int64_t>(threads, vectors));
    size = std::max<int64_t>(1, (vectors + wanted - 1) / wanted) * width;
    parts = (tokens + size - 1) / size;
  }

  // Calls body(part, first token, end) for each part, each on a thread of its own.
  template <class Body>
  void run(const Body& body) const {
    if (parts <= 1) {
      if (parts == 1) body(int64_t(0), int64_t(0), tokens);
      return;
    }
    // The team always has all threads: a runtime that shrinks its pool would pay for growing it again.
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t part = 0; part < parts; part++) body(part, part * size, std::min(tokens, (part + 1) * size));
  }
};

// Calls body(first, end) for ranges of [0, count), one a thread.
template <class Body>
void for_ranges(int64_t count, int threads, const Body& body) {
  constexpr int64_t kWorthAThread = 1 << 14;
  Split(count, 1, count >= 2 * kWorthAThread ? int64_t(1) << 40 : 0, threads).run([&](int64_t, int64_t first, int64_t end) {
    body(first, end);
  });
}

// Calls body(vectors as a constant, first token, valid tokens) over [begin, end): tiles of the given number of
// vectors, then the narrowest tile that holds the rest.
template <class S, class Body>
void for_tiles(int64_t begin, int64_t end, int vectors, const Body& body) {
  constexpr int W = Simd<S>::width;
  while (begin < end) {
    const int64_t left = end - begin;
    int n = vectors;
    while (n > 1 && left <= n / 2 * W) n /= 2;
    const int valid = static_cast<int>(std::min<int64_t>(left, n * W));
    if (n == 4) body(std::integral_constant<int, 4>{}, begin, valid);
    else if (n == 2) body(std::integral_constant<int, 2>{}, begin, valid);
    else body(std::integral_constant<int, 1>{}, begin, valid);
    begin += valid;
  }
}

// ---- the two passes --------------------------------------------------------------------------------------------

template <class S>
void forward(int64_t tokens, int64_t rows, int64_t columns, int64_t entries, const int32_t* row_start,
             const int32_t* column, const S* value, const S* bias, const S* x, int64_t x_stride, S* y, int threads) {
  constexpr int W = Simd<S>::width;
  const int vectors = tile_vectors(columns);
  Split(tokens, W, tokens * (entries + rows + columns), threads).run([&](int64_t, int64_t begin, int64_t end) {
    const int64_t widest = std::max(rows, columns);
    S* packed = static_cast<S*>(scratch(sizeof(S) * (columns * vectors * W + kPanel * kMaxVectors * W + widest)));
    S* panel = packed + columns * vectors * W;
    S* beyond = panel + kPanel * kMaxVectors * W;
    for_tiles<S>(begin, end, vectors, [&](auto n, int64_t token, int valid) {
      constexpr int N = decltype(n)::value, T = N * W;
      if (valid < T) std::fill_n(beyond, columns, S(0));
      Rows<const S*> in(x + token * x_stride, x_stride, valid, T, static_cast<const S*>(beyond));
      for (int64_t f = 0; f < columns; f += kPanel)
        pack<N, false, S>(in, f, std::min<int64_t>(kPanel, columns - f), packed + f * T, nullptr);
      Rows<S*> out(y + token * rows, rows, valid, T, beyond);
      for (int64_t r = 0; r < rows; r += kPanel) {
        const int count = static_cast<int>(std::min<int64_t>(kPanel, rows - r));
        for (int i = 0; i < count; i++) {
          const int64_t k = row_start[r + i];
          row_product<N, S>(packed, column + k, value + k, row_start[r + i + 1] - k, bias ? bias[r + i] : S(0),
                            panel + i * T);
        }
        unpack<N, S>(panel, r, count, out);
      }
    });
  });
}

// Columns are in groups: column_start in entries after padding, origin the place in row order or -1 for padding.
struct Columns {
  int64_t rows, columns, entries, padded;
  const int32_t *start, *row, *origin;
};

template <bool Input, bool Values, class S>
void backward(int64_t tokens, const Columns& w, const S* values, const S* gy, int64_t gy_stride, const S* x,
              int64_t x_stride, S* gx, S* gv, S* gb, int threads) {
  constexpr int W = Simd<S>::width;
  const int vectors = tile_vectors(w.rows);
  const Split split(tokens, W, tokens * (2 * w.entries + w.rows + w.columns), threads);
  // Sums of each part apart, added in order afterwards: the result does not depend on which thread was faster.
  S* value = static_cast<S*>(call_scratch(sizeof(S) * (w.padded + split.parts * (w.padded + w.rows))));
  S* value_sum = value + w.padded;
  S* bias_sum = value_sum + split.parts * w.padded;
  for_ranges(w.padded, threads, [&](int64_t first, int64_t end) {
    for (int64_t k = first; k < end; k++) value[k] = w.origin[k] < 0 ? S(0) : values[w.origin[k]];
  });

  split.run([&](int64_t part, int64_t begin, int64_t end) {
    const int64_t widest = std::max(w.rows, w.columns);
    S* packed = static_cast<S*>(scratch(sizeof(S) * (w.rows * vectors * W + 2 * kPanel * kMaxVectors * W + 2 * widest)));
    S* x_panel = packed + w.rows * vectors * W;
    S* gx_panel = x_panel + kPanel * kMaxVectors * W;
    S* zeros = gx_panel + kPanel * kMaxVectors * W;
    S* dump = zeros + widest;
    S* grads = value_sum + part * w.padded;
    S* bias_grad = bias_sum + part * w.rows;
    if (Values) std::fill_n(grads, w.padded, S(0));
    std::fill_n(bias_grad, w.rows, S(0));
    std::fill_n(zeros, widest, S(0));
    for_tiles<S>(begin, end, vectors, [&](auto n, int64_t token, int valid) {
      constexpr int N = decltype(n)::value, T = N * W;
      Rows<const S*> out(gy + token * gy_stride, gy_stride, valid, T, static_cast<const S*>(zeros));
      for (int64_t f = 0; f < w.rows; f += kPanel)
        pack<N, true, S>(out, f, std::min<int64_t>(kPanel, w.rows - f), packed + f * T, bias_grad);
      Rows<const S*> in(x + token * x_stride, x_stride, valid, T, static_cast<const S*>(zeros));
      Rows<S*> in_grad(gx + token * w.columns, w.columns, valid, T, dump);
      for (int64_t c = 0; c < w.columns; c += kPanel) {
        const int count = static_cast<int>(std::min<int64_t>(kPanel, w.columns - c));
        if constexpr (Values) pack<N, false, S>(in, c, count, x_panel, nullptr);
        for (int i = 0; i < count; i++) {
          const int64_t k = w.start[c + i];
          column_product<N, Input, Values, S>(packed, x_panel + i * T, w.row + k, value + k, w.start[c + i + 1] - k,
                                              gx_panel + i * T, grads + k);
        }
        if constexpr (Input) unpack<N, S>(gx_panel, c, count, in_grad);
      }
    });
  });

  if (Values)
    for_ranges(w.padded, threads, [&](int64_t first, int64_t end) {
      for (int64_t k = first; k < end; k++) {
        if (w.origin[k] < 0) continue;
        S total = 0;
        for (int64_t part = 0; part < split.parts; part++) total += value_sum[part * w.padded + k];
        gv[w.origin[k]] = total;
      }
    });
  if (gb)
    for (int64_t r = 0; r < w.rows; r++) {
      S total = 0;
      for (int64_t part = 0; part < split.parts; part++) total += bias_sum[part * w.rows + r];
      gb[r] = total;
    }
}

}  // namespace

// ---- what Python calls -----------------------------------------------------------------------------------------

extern "C" {

int vector_bytes() { return VECTOR_BYTES; }

// Fills column_start [columns + 1] with the columns' places after padding; returns the padded number of entries.
int64_t count_columns(int64_t columns, int64_t entries, const int32_t* column, int32_t* column_start) {
  std::fill_n(column_start, columns + 1, 0);
  for (int64_t k = 0; k < entries; k++) column_start[column[k] + 1]++;
  for (int64_t c = 0; c < columns; c++)
    column_start[c + 1] = column_start[c] + (column_start[c + 1] + kGroup - 1) / kGroup * kGroup;
  return column_start[columns];
}

// Fills row and origin. A column is padded with its own last row, so that padding touches no number that the column
// does not depend on anyway (a value of zero times infinity is not zero).
void fill_columns(int64_t rows, int64_t columns, const int32_t* row_start, const int32_t* column,
                  const int32_t* column_start, int32_t* row, int32_t* origin) {
  std::unique_ptr<int32_t[]> next(new int32_t[columns]);
  std::copy_n(column_start, columns, next.get());
  for (int64_t r = 0; r < rows; r++)
    for (int32_t k = row_start[r]; k < row_start[r + 1]; k++) {
      const int32_t place = next[column[k]]++;
      row[place] = static_cast<int32_t>(r);
      origin[place] = k;
    }
  for (int64_t c = 0; c < columns; c++)
    for (int32_t k = next[c]; k < column_start[c + 1]; k++) {
      row[k] = row[k - 1];
      origin[k] = -1;
    }
}

#define EXPORT(S, NAME)                                                                                              \
  void forward_##NAME(int64_t tokens, int64_t rows, int64_t columns, int64_t entries, const int32_t* row_start,     \
                      const int32_t* column, const S* value, const S* bias, const S* x, int64_t x_stride, S* y,     \
                      int threads) {                                                                                \
    forward<S>(tokens, rows, columns, entries, row_start, column, value, bias, x, x_stride, y, threads);            \
  }                                                                                                                 \
  void backward_##NAME(int64_t tokens, int64_t rows, int64_t columns, int64_t entries, int64_t padded,              \
                       const int32_t* column_start, const int32_t* row, const int32_t* origin, const S* values,     \
                       const S* gy, int64_t gy_stride, const S* x, int64_t x_stride, S* gx, S* gv, S* gb,           \
                       int threads) {                                                                               \
    const Columns w{rows, columns, entries, padded, column_start, row, origin};                                     \
    if (gx && gv) backward<true, true, S>(tokens, w, values, gy, gy_stride, x, x_stride, gx, gv, gb, threads);      \
    else if (gx) backward<true, false, S>(tokens, w, values, gy, gy_stride, x, x_stride, gx, gv, gb, threads);      \
    else backward<false, true, S>(tokens, w, values, gy, gy_stride, x, x_stride, gx, gv, gb, threads);              \
  }

EXPORT(float, f32)
EXPORT(double, f64)

}  // extern "C"

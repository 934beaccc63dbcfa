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

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#ifndef VECTOR_BYTES
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

#ifndef SECOND_LEVEL_CACHE
#define SECOND_LEVEL_CACHE (512 * 1024)  // bytes a core; the build passes what the machine reports
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

// dst[f, tile] = rows[tile, f0 + f] for f < count; with Sum also sum[f0 + f] += sum over the tile.
template <int N, bool Sum, class S>
inline void pack(const Rows<const S*>& rows, int64_t f0, int count, S* dst, S* sum) {
  constexpr int W = Simd<S>::width, T = N * W;
  int f = 0;
  if constexpr (std::is_same_v<S, float>) {
    for (; f + W <= count; f += W) {
      Floats total{};
      for (int t = 0; t < T; t += W) {
        Floats v[W];
        for (int i = 0; i < W; i++) v[i] = load(rows.row[t + i] + f0 + f);
        if constexpr (Sum)
          for (int i = 0; i < W; i++) total += v[i];
        transpose(v);
        for (int i = 0; i < W; i++) store(dst + (f + i) * T + t, v[i]);
      }
      if constexpr (Sum) store(sum + f0 + f, load(sum + f0 + f) + total);
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
    for (; f + W <= count; f += W) {
      for (int t = 0; t < T; t += W) {
        Floats v[W];
        for (int i = 0; i < W; i++) v[i] = load(src + (f + i) * T + t);
        transpose(v);
        for (int i = 0; i < W; i++) store(rows.row[t + i] + f0 + f, v[i]);
      }
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

// Scratch of the calling thread, kept between calls: its pages stay mapped and its lines in the cache.
void* scratch(std::size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local std::size_t size = 0;
  if (bytes > size) {
    std::size_t rounded = (bytes + 4095) / 4096 * 4096;
    memory.reset(std::aligned_alloc(4096, rounded));
    if (!memory) throw std::bad_alloc();
    size = rounded;
  }
  return memory.get();
}

// ---- what a call works on --------------------------------------------------------------------------------------

// The structure in the two orders that the products walk through. Columns are padded to whole groups with copies of
// their last row index, whose values count as zero.
struct Plan : torch::CustomClassHolder {
  int64_t rows, columns, entries;
  at::Tensor row_start, column;            // CSR, int32
  std::vector<int32_t> column_start, row;  // CSC by groups
  std::vector<int32_t> origin;             // place in CSR order, -1 for padding

  Plan(at::Tensor row_start_, at::Tensor column_, int64_t columns_)
      : rows(row_start_.numel() - 1), columns(columns_), entries(column_.numel()), row_start(std::move(row_start_)),
        column(std::move(column_)) {
    TORCH_CHECK(row_start.device().is_cpu() && column.device().is_cpu(), "structure must be on the CPU");
    TORCH_CHECK(row_start.scalar_type() == at::kInt && column.scalar_type() == at::kInt, "indices must be int32");
    TORCH_CHECK(row_start.is_contiguous() && column.is_contiguous(), "indices must be contiguous");
    const int32_t* start = row_start.const_data_ptr<int32_t>();
    const int32_t* col = column.const_data_ptr<int32_t>();
    TORCH_CHECK(rows >= 0 && start[0] == 0 && start[rows] == entries, "row starts do not match the entries");
    column_start.assign(columns + 1, 0);
    for (int64_t k = 0; k < entries; k++) {
      TORCH_CHECK(col[k] >= 0 && col[k] < columns, "column index out of range");
      column_start[col[k] + 1]++;
    }
    for (int64_t c = 0; c < columns; c++) {
      int32_t padded = (column_start[c + 1] + kGroup - 1) / kGroup * kGroup;
      column_start[c + 1] = column_start[c] + padded;
    }
    std::vector<int32_t> next(column_start.begin(), column_start.end() - 1);
    row.resize(column_start[columns]);
    origin.assign(column_start[columns], -1);
    for (int64_t r = 0; r < rows; r++)
      for (int32_t k = start[r]; k < start[r + 1]; k++) {
        int32_t place = next[col[k]]++;
        row[place] = static_cast<int32_t>(r);
        origin[place] = k;
      }
    for (int64_t c = 0; c < columns; c++)
      for (int32_t k = next[c]; k < column_start[c + 1]; k++) row[k] = row[k - 1];
  }
};

// Tokens cut into one contiguous part a thread, in whole vectors.
struct Split {
  int64_t parts, size;

  Split(int64_t tokens, int64_t width, int64_t work) {
    constexpr int64_t kWorthAThread = 1 << 16;  // multiply-adds; below it, waking a thread costs more
    int64_t vectors = (tokens + width - 1) / width;
    int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    int64_t wanted = std::max<int64_t>(1, std::min({threads, vectors, work / kWorthAThread}));
    size = std::max<int64_t>(1, (vectors + wanted - 1) / wanted) * width;
    parts = (tokens + size - 1) / size;
  }
};

// Calls body<N>(first token, valid tokens) over [begin, end): tiles of the given vectors, then the narrowest tile
// that holds the rest.
template <class S, class Body>
void for_tiles(int64_t begin, int64_t end, int vectors, const Body& body) {
  constexpr int W = Simd<S>::width;
  while (begin < end) {
    int64_t left = end - begin;
    int n = vectors;
    while (n > 1 && left <= n / 2 * W) n /= 2;
    int valid = static_cast<int>(std::min<int64_t>(left, n * W));
    if (n == 4) body(std::integral_constant<int, 4>{}, begin, valid);
    else if (n == 2) body(std::integral_constant<int, 2>{}, begin, valid);
    else body(std::integral_constant<int, 1>{}, begin, valid);
    begin += valid;
  }
}

// Widest tile whose packed features leave half of the second-level cache to everything else.
int tile_vectors(int64_t features) {
  int n = kMaxVectors;
  while (n > 1 && features * n * VECTOR_BYTES > SECOND_LEVEL_CACHE / 2) n /= 2;
  return n;
}

template <class S>
void forward(const Plan& plan, const at::Tensor& x, const at::Tensor& values, const S* bias, at::Tensor& y) {
  const int64_t tokens = x.size(0), in_stride = x.stride(0), out_stride = y.stride(0);
  const S* x_data = x.const_data_ptr<S>();
  S* y_data = y.mutable_data_ptr<S>();
  const S* value = values.const_data_ptr<S>();
  const int32_t* start = plan.row_start.const_data_ptr<int32_t>();
  const int32_t* column = plan.column.const_data_ptr<int32_t>();
  const int64_t rows = plan.rows, columns = plan.columns, widest = std::max(rows, columns);
  const int vectors = tile_vectors(columns);
  constexpr int W = Simd<S>::width;
  Split split(tokens, W, tokens * (plan.entries + rows + columns));
  at::parallel_for(0, split.parts, 1, [&](int64_t first, int64_t last) {
    S* packed = static_cast<S*>(scratch(sizeof(S) * (columns * vectors * W + kPanel * kMaxVectors * W + widest)));
    S* panel = packed + columns * vectors * W;
    S* beyond = panel + kPanel * kMaxVectors * W;
    for (int64_t part = first; part < last; part++)
      for_tiles<S>(part * split.size, std::min(tokens, (part + 1) * split.size), vectors,
                   [&](auto n, int64_t token, int valid) {
        constexpr int N = decltype(n)::value, T = N * W;
        if (valid < T) std::fill_n(beyond, columns, S(0));
        Rows<const S*> in(x_data + token * in_stride, in_stride, valid, T, static_cast<const S*>(beyond));
        for (int64_t f = 0; f < columns; f += kPanel)
          pack<N, false, S>(in, f, std::min<int64_t>(kPanel, columns - f), packed + f * T, nullptr);
        Rows<S*> out(y_data + token * out_stride, out_stride, valid, T, beyond);
        for (int64_t r = 0; r < rows; r += kPanel) {
          const int count = static_cast<int>(std::min<int64_t>(kPanel, rows - r));
          for (int i = 0; i < count; i++) {
            const int32_t k = start[r + i];
            row_product<N, S>(packed, column + k, value + k, start[r + i + 1] - k, bias ? bias[r + i] : S(0),
                              panel + i * T);
          }
          unpack<N, S>(panel, r, count, out);
        }
      });
  });
}

template <bool Input, bool Values, class S>
void backward(const Plan& plan, const at::Tensor& gy, const at::Tensor& x, const at::Tensor& values, at::Tensor& gx,
              at::Tensor& gv, at::Tensor& gb) {
  constexpr int W = Simd<S>::width;
  const int64_t tokens = gy.size(0), rows = plan.rows, columns = plan.columns, widest = std::max(rows, columns);
  const int64_t out_stride = gy.stride(0), in_stride = Values ? x.stride(0) : 0;
  const int64_t padded = static_cast<int64_t>(plan.row.size());
  const int vectors = tile_vectors(rows);
  const S* gy_data = gy.const_data_ptr<S>();
  const S* x_data = Values ? x.const_data_ptr<S>() : nullptr;
  S* gx_data = Input ? gx.mutable_data_ptr<S>() : nullptr;
  Split split(tokens, W, tokens * (2 * plan.entries + rows + columns));

  at::Tensor by_column = at::empty({padded}, values.options());
  S* value = by_column.mutable_data_ptr<S>();
  const S* source = values.const_data_ptr<S>();
  at::parallel_for(0, padded, 1 << 14, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; k++) value[k] = plan.origin[k] < 0 ? S(0) : source[plan.origin[k]];
  });

  // Sums of each part apart and added in order afterwards: the result does not depend on which thread was faster.
  at::Tensor value_sums = at::empty({Values ? split.parts : 0, padded}, values.options());
  at::Tensor bias_sums = at::empty({split.parts, rows}, values.options());
  S* value_sum = value_sums.mutable_data_ptr<S>();
  S* bias_sum = bias_sums.mutable_data_ptr<S>();
  at::parallel_for(0, split.parts, 1, [&](int64_t first, int64_t last) {
    S* packed = static_cast<S*>(scratch(sizeof(S) * (rows * vectors * W + 2 * kPanel * kMaxVectors * W + widest)));
    S* x_panel = packed + rows * vectors * W;
    S* gx_panel = x_panel + kPanel * kMaxVectors * W;
    S* beyond = gx_panel + kPanel * kMaxVectors * W;
    for (int64_t part = first; part < last; part++) {
      S* grads = value_sum + part * padded;
      S* bias_grad = bias_sum + part * rows;
      if (Values) std::fill_n(grads, padded, S(0));
      std::fill_n(bias_grad, rows, S(0));
      for_tiles<S>(part * split.size, std::min(tokens, (part + 1) * split.size), vectors,
                   [&](auto n, int64_t token, int valid) {
        constexpr int N = decltype(n)::value, T = N * W;
        if (valid < T) std::fill_n(beyond, widest, S(0));
        const S* zeros = beyond;
        Rows<const S*> out(gy_data + token * out_stride, out_stride, valid, T, zeros);
        for (int64_t f = 0; f < rows; f += kPanel)
          pack<N, true, S>(out, f, std::min<int64_t>(kPanel, rows - f), packed + f * T, bias_grad);
        Rows<const S*> in(Values ? x_data + token * in_stride : zeros, in_stride, valid, T, zeros);
        Rows<S*> in_grad(Input ? gx_data + token * columns : beyond, Input ? columns : 0, valid, T, beyond);
        for (int64_t c = 0; c < columns; c += kPanel) {
          const int count = static_cast<int>(std::min<int64_t>(kPanel, columns - c));
          if constexpr (Values) {
            if (Input && valid < T) std::fill_n(beyond + c, count, S(0));  // the dump of gx was the zeros of x
            pack<N, false, S>(in, c, count, x_panel, nullptr);
          }
          for (int i = 0; i < count; i++) {
            const int32_t k = plan.column_start[c + i];
            column_product<N, Input, Values, S>(packed, x_panel + i * T, plan.row.data() + k, value + k,
                                                plan.column_start[c + i + 1] - k, gx_panel + i * T, grads + k);
          }
          if constexpr (Input) unpack<N, S>(gx_panel, c, count, in_grad);
        }
      });
    }
  });

  if (Values) {
    S* sum = gv.mutable_data_ptr<S>();
    at::parallel_for(0, padded, 1 << 14, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; k++) {
        if (plan.origin[k] < 0) continue;
        S total = 0;
        for (int64_t part = 0; part < split.parts; part++) total += value_sum[part * padded + k];
        sum[plan.origin[k]] = total;
      }
    });
  }
  if (gb.defined()) {
    S* sum = gb.mutable_data_ptr<S>();
    for (int64_t r = 0; r < rows; r++) {
      S total = 0;
      for (int64_t part = 0; part < split.parts; part++) total += bias_sum[part * rows + r];
      sum[r] = total;
    }
  }
}

at::Tensor run_forward(const Plan& plan, const at::Tensor& x, const at::Tensor& values, const at::Tensor& bias) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == plan.columns, "input must be [tokens, ", plan.columns, "]");
  TORCH_CHECK(values.dim() == 1 && values.numel() == plan.entries, "values must be [", plan.entries, "]");
  TORCH_CHECK(x.scalar_type() == values.scalar_type(), "input and values must have one dtype");
  TORCH_CHECK(x.device().is_cpu() && values.device().is_cpu(), "input and values must be on the CPU");
  at::Tensor y = at::empty({x.size(0), plan.rows}, x.options());
  if (y.numel() == 0) return y;
  at::Tensor b = bias.defined() ? bias.contiguous() : bias;
  if (b.defined()) TORCH_CHECK(b.numel() == plan.rows && b.scalar_type() == x.scalar_type(), "bias does not fit");
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sparse_linear", [&] {
    forward<scalar_t>(plan, x, values, b.defined() ? b.const_data_ptr<scalar_t>() : nullptr, y);
  });
  return y;
}

at::Tensor unit_stride(const at::Tensor& t) {  // rows may be apart, elements of a row must not
  return t.stride(1) == 1 || t.size(1) <= 1 ? t : t.contiguous();
}

struct SparseLinear : torch::autograd::Function<SparseLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& values,
                            const at::Tensor& bias, const c10::intrusive_ptr<Plan>& plan) {
    at::Tensor rows = unit_stride(x), compact = values.contiguous();
    ctx->save_for_backward({rows, compact});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return run_forward(*plan, rows, compact, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "the sparse kernel has no second derivative; use execution 'masked'");
    auto saved = ctx->get_saved_variables();
    auto capsule = ctx->saved_data["plan"].toCapsule();
    const Plan& plan = static_cast<const Plan&>(*capsule);
    const at::Tensor &x = saved[0], &values = saved[1];
    at::Tensor gx, gv, gb, gy = unit_stride(grads[0]);
    const bool input = ctx->needs_input_grad(0), value = ctx->needs_input_grad(1), bias = ctx->needs_input_grad(2);
    if (input) gx = at::empty({x.size(0), plan.columns}, x.options());
    if (value) gv = at::empty({plan.entries}, values.options());
    if (bias) gb = at::empty({plan.rows}, values.options());
    if (input || value) {
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sparse_linear_backward", [&] {
        if (input && value) ::backward<true, true, scalar_t>(plan, gy, x, values, gx, gv, gb);
        else if (input) ::backward<true, false, scalar_t>(plan, gy, x, values, gx, gv, gb);
        else ::backward<false, true, scalar_t>(plan, gy, x, values, gx, gv, gb);
      });
    } else if (bias) {
      gb = gy.sum(0);
    }
    return {gx, gv, gb, at::Tensor()};
  }
};

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::class_<Plan, c10::intrusive_ptr<Plan>>(m, "Plan")
      .def(py::init([](at::Tensor row_start, at::Tensor column, int64_t columns) {
        return c10::make_intrusive<Plan>(std::move(row_start), std::move(column), columns);
      }));
  m.def("linear", [](const at::Tensor& x, const at::Tensor& values, const std::optional<at::Tensor>& bias,
                     const c10::intrusive_ptr<Plan>& plan) {
    return SparseLinear::apply(x, values, bias.value_or(at::Tensor()), plan);
  });
}

// The recurrence of an LSTM layer whose hidden-to-hidden weight W [4 hidden, hidden] is sparse, for training on a CPU.
//
//   a[t] = z[t] + W h[t-1]          z: what the inputs contribute, biases included
//   i, f, g, o = the four blocks of a[t] through sigmoid, sigmoid, tanh, sigmoid
//   c[t] = f c[t-1] + i g,  h[t] = o tanh(c[t])
//
// The sequences of a batch are cut into tiles of a few vectors; a tile's states are held feature-major,
// [features, tile], so that a stored weight acts on whole vectors of sequences. Each thread owns a range of hidden
// units: it computes their four gates and everything that follows from them, so that one barrier a time step is all
// that the threads need, and every sum is in an order of its own, whatever the number of threads.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "bfloat.h"
#include "dots.h"
#include "guard.h"
#include "packing.h"
#include "recurrence.h"
#include "simd.h"
#include "squash.h"
#include "team.h"

namespace {

constexpr int kSaved = 5;   // i, f, g, o and c of every unit and time step
constexpr int kMostVectors = 4;

// Below, A is what the activations of a call are stored as, S the type of sums and cell states. A packed row of
// activations has P vectors of cells, which become N vectors of numbers. States that are kept as S have their tokens
// in the order in which products with A are added up, see bfloat.h.

// sum[tile] += value * source[tile].
template <int P, class A, class S>
inline void add_product(const typename Packed<A>::Cell* source, S value, Vector<S> (&sum)[P * Packed<A>::per]) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per;
  const Vector<S> v = broadcast(value);
  for (int i = 0; i < P; i++) {
    Vector<S> numbers[M];
    load_numbers(source + i * W, numbers);
    for (int j = 0; j < M; j++) sum[i * M + j] += numbers[j] * v;
  }
}

// sum[tile] += value * source[index, tile] over the entries [k, end).
template <int P, class A, class S, class Index>
inline void add_products(const Index* index, const typename Weight<A>::Type* value, int64_t k, int64_t end,
                         const typename Packed<A>::Cell* source, Vector<S>* sum) {
  constexpr int N = P * Packed<A>::per, R = P * Simd<S>::width;
  constexpr int U = N >= 4 ? 1 : 4 / N;  // independent sums hide the latency of the multiply-add
  // Copies, because the compiler keeps the caller's array in memory.
  Vector<S> sums[U][N];
  for (int i = 0; i < N; i++) sums[0][i] = sum[i];
  for (int u = 1; u < U; u++)
    for (int i = 0; i < N; i++) sums[u][i] = Vector<S>{};
  for (; k + U <= end; k += U)
    for (int u = 0; u < U; u++) add_product<P, A, S>(source + int64_t(index[k + u]) * R, value[k + u], sums[u]);
  for (; k < end; k++) add_product<P, A, S>(source + int64_t(index[k]) * R, value[k], sums[0]);
  for (int u = 1; u < U; u++)
    for (int i = 0; i < N; i++) sums[0][i] += sums[u][i];
  for (int i = 0; i < N; i++) sum[i] = sums[0][i];
}

// The same in the way that is fastest for activations of type A.
template <int P, class A, class S, class Index>
inline void add_products_of(const Index* index, const typename Weight<A>::Type* value, int64_t k, int64_t end,
                            const typename Packed<A>::Cell* source, Vector<S>* sum) {
#ifdef BFLOAT_DOTS
  if constexpr (std::is_same_v<A, BFloat>) return add_dots<P>(index, value, k, end, source, sum);
  else
#endif
    add_products<P, A, S>(index, value, k, end, source, sum);
}

// sums[gate, tile] = numbers[gate][unit, tile] + that row of W times the hidden states, for one unit's four gates.
template <int P, class A, class S, class Index>
KERNEL void gates_of_unit(const Recurrence& w, const Index* column, int64_t unit,
                          const typename Weight<A>::Type* values, const typename Packed<A>::Cell* numbers,
                          const typename Packed<A>::Cell* h, S* sums) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M, T = N * W, R = P * W;
  const int32_t* start = w.row_start.data() + unit;
  for (int g = 0; g < kGates; g++, start += w.hidden, numbers += kUnits * R, sums += T) {
    Vector<S> sum[N];
    for (int i = 0; i < P; i++) load_in_order_of_sums(numbers + i * W, sum + i * M);
    add_products_of<P, A, S>(column, values, start[0], start[1], h, sum);
    for (int i = 0; i < N; i++) store(sums + i * W, sum[i]);
  }
}

// The states of a tile, [hidden, tile], from the rows of a matrix of numbers.
template <int P, class A, class S>
void pack_states(const Rows<const S*>& rows, int64_t hidden, S* numbers, typename Packed<A>::Cell* cells) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M;
  pack<N, false, S>(rows, 0, hidden, numbers, nullptr);
  for (int64_t i = 0; i < hidden * P; i++) {
    Vector<S> v[M];
    for (int j = 0; j < M; j++) v[j] = load(numbers + (i * M + j) * W);
    store_numbers(cells + i * W, v);
  }
}

// ---- one tile of sequences through all time steps ----------------------------------------------------------------

// Sizes and strides of a call. Matrices of Python's are [steps, batch, features], contiguous.
struct Call {
  int64_t steps, batch, first;  // first sequence of the tile
  int valid;                    // sequences in it
};

template <int P, class A, class S>
KERNEL void forward_units(const Recurrence& w, const Call& call, int64_t t, int64_t begin, int64_t end,
                          const typename Weight<A>::Type* values, const A* z, const typename Packed<A>::Cell* h,
                          typename Packed<A>::Cell* h_next, S* c, S* saved, A* y, const A* zeros, A* dump) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M, T = N * W, R = P * W;
  const int64_t H = w.hidden, row = t * call.batch + call.first;
  const Rows<const A*> in(z + row * kGates * H, kGates * H, call.valid, T, zeros);
  const Rows<A*> out(y + row * H, H, call.valid, T, dump);
  alignas(64) typename Packed<A>::Cell packed[kGates][kUnits * R];
  for (int64_t first = begin; first < end; first += kUnits) {
    const int64_t count = std::min<int64_t>(kUnits, end - first);
    for (int g = 0; g < kGates; g++) pack<P, false>(in, g * H + first, count, packed[g], static_cast<S*>(nullptr));
    for (int64_t unit = first; unit < first + count; unit++) {
      alignas(64) S gate[kGates][T];
      w.column.visit([&](const auto* column) {
        gates_of_unit<P, A, S>(w, column, unit, values, packed[0] + (unit - first) * R, h, gate[0]);
      });
      S* kept = saved + unit * kSaved * T;
      Vector<S> state[N];
      for (int i = 0; i < N; i++) {
        const Vector<S> in_gate = sigmoid(load(gate[0] + i * W)), forget = sigmoid(load(gate[1] + i * W));
        const Vector<S> candidate = hyperbolic_tangent(load(gate[2] + i * W));
        const Vector<S> out_gate = sigmoid(load(gate[3] + i * W));
        const Vector<S> cell = forget * load(c + unit * T + i * W) + in_gate * candidate;
        store(c + unit * T + i * W, cell);
        state[i] = out_gate * hyperbolic_tangent(cell);
        store(kept + 0 * T + i * W, in_gate);
        store(kept + 1 * T + i * W, forget);
        store(kept + 2 * T + i * W, candidate);
        store(kept + 3 * T + i * W, out_gate);
        store(kept + 4 * T + i * W, cell);
      }
      for (int i = 0; i < P; i++) store_sums(h_next + unit * R + i * W, state + i * M);
    }
    unpack<P>(h_next + first * R, first, count, out);
  }
}

// dh: gradient of h[t] that came from step t+1; replaced by nothing here. da_out: gradient of a[t], feature-major.
template <int P, class A, class S>
KERNEL void backward_units(const Recurrence& w, const Call& call, int64_t t, int64_t begin, int64_t end, const A* gy,
                           const S* dh, S* dc, const S* saved, const S* c_before, int64_t c_stride,
                           typename Packed<A>::Cell* da, A* gz, const A* zeros, A* dump) {
  constexpr int W = Simd<S>::width, M = Packed<A>::per, N = P * M, T = N * W, R = P * W;
  const int64_t H = w.hidden, row = t * call.batch + call.first;
  const Rows<const A*> in(gy + row * H, H, call.valid, T, zeros);
  const Rows<A*> out(gz + row * kGates * H, kGates * H, call.valid, T, dump);
  alignas(64) typename Packed<A>::Cell packed[kUnits * R];
  for (int64_t first = begin; first < end; first += kUnits) {
    const int64_t count = std::min<int64_t>(kUnits, end - first);
    pack<P, false>(in, first, count, packed, static_cast<S*>(nullptr));
    for (int64_t unit = first; unit < first + count; unit++) {
      const S* kept = saved + unit * kSaved * T;
      Vector<S> output_grad[N], gate_grad[kGates][N];
      for (int i = 0; i < P; i++) load_in_order_of_sums(packed + (unit - first) * R + i * W, output_grad + i * M);
      for (int i = 0; i < N; i++) {
        const Vector<S> in_gate = load(kept + 0 * T + i * W), forget = load(kept + 1 * T + i * W);
        const Vector<S> candidate = load(kept + 2 * T + i * W), out_gate = load(kept + 3 * T + i * W);
        const Vector<S> squashed = hyperbolic_tangent(load(kept + 4 * T + i * W));
        const Vector<S> h_grad = output_grad[i] + load(dh + unit * T + i * W);
        const Vector<S> c_grad = load(dc + unit * T + i * W) + h_grad * out_gate * (1 - squashed * squashed);
        store(dc + unit * T + i * W, c_grad * forget);
        gate_grad[0][i] = c_grad * candidate * in_gate * (1 - in_gate);
        gate_grad[1][i] = c_grad * load(c_before + unit * c_stride + i * W) * forget * (1 - forget);
        gate_grad[2][i] = c_grad * in_gate * (1 - candidate * candidate);
        gate_grad[3][i] = h_grad * squashed * out_gate * (1 - out_gate);
      }
      for (int g = 0; g < kGates; g++)
        for (int i = 0; i < P; i++) store_sums(da + (g * H + unit) * R + i * W, gate_grad[g] + i * M);
    }
    for (int g = 0; g < kGates; g++) unpack<P>(da + (g * H + first) * R, g * H + first, count, out);
  }
}

// dh[unit] = sum over the unit's column of W of value * da[row].
template <int P, class A, class S, class Index>
KERNEL void backward_columns(const Recurrence& w, const Index* row, int64_t begin, int64_t end,
                             const typename Weight<A>::Type* arranged, const typename Packed<A>::Cell* da, S* dh) {
  constexpr int W = Simd<S>::width, N = P * Packed<A>::per, T = N * W;
  for (int64_t unit = begin; unit < end; unit++) {
    Vector<S> sum[N] = {};
    add_products_of<P, A, S>(row, arranged, w.column_start[unit], w.column_start[unit + 1], da, sum);
    for (int i = 0; i < N; i++) store(dh + unit * T + i * W, sum[i]);
  }
}

// float or double states of a tile, [hidden, tile], from and to a matrix [batch, hidden]; in the order of sums.
template <int P, class A, class S>
void pack_sums(Rows<const S*> rows, int64_t hidden, S* states) {
  order_as_sums<P, A>(rows);
  pack<P * Packed<A>::per, false, S>(rows, 0, hidden, states, nullptr);
}
template <int P, class A, class S>
void unpack_sums(const S* states, int64_t hidden, Rows<S*> rows) {
  order_as_sums<P, A>(rows);
  unpack<P * Packed<A>::per, S>(states, 0, hidden, rows);
}

template <int P, class A, class S>
void forward_tile(const Recurrence& w, const Call& call, const typename Weight<A>::Type* values, const A* z,
                  const S* h0, const S* c0, A* y, S* c_last, S* saved, int threads) {
  using Cell = typename Packed<A>::Cell;
  constexpr int R = P * Simd<S>::width, N = P * Packed<A>::per, T = N * Simd<S>::width;
  const int64_t H = w.hidden;
  const int team = team_size(threads, H);
  Buffer<Cell> hidden = allocate<Cell>(2 * H * R);
  Buffer<S> cell = allocate<S>(H * T), no_state = allocate<S>(H);
  Buffer<A> spare = allocate<A>((1 + team) * kGates * H);
  Cell* h[2] = {hidden.get(), hidden.get() + H * R};
  S* c = cell.get();
  A* zeros = spare.get();
  std::fill_n(zeros, kGates * H, A{});
  std::fill_n(no_state.get(), H, S(0));
  pack_states<P, A, S>(Rows<const S*>(h0 + call.first * H, H, call.valid, T, no_state.get()), H, c, h[0]);
  pack_sums<P, A, S>({c0 + call.first * H, H, call.valid, T, no_state.get()}, H, c);
#pragma omp parallel num_threads(team)
  {
    const int part = thread_number(), parts = thread_count();
    const int64_t begin = w.first_unit(part, parts), end = w.first_unit(part + 1, parts);
    A* dump = zeros + (1 + part) * kGates * H;
    for (int64_t t = 0; t < call.steps; t++) {
      forward_units<P, A, S>(w, call, t, begin, end, values, z, h[t % 2], h[(t + 1) % 2], c,
                             saved + t * kSaved * H * T, y, zeros, dump);
#pragma omp barrier
    }
  }
  unpack_sums<P, A, S>(c, H, {c_last + call.first * H, H, call.valid, T, no_state.get()});
}

template <int P, class A, class S>
void backward_tile(const Recurrence& w, const Call& call, const typename Weight<A>::Type* arranged, const S* saved,
                   const S* c0, const A* gy, const S* gc_last, A* gz, S* gh0, S* gc0, int threads) {
  using Cell = typename Packed<A>::Cell;
  constexpr int R = P * Simd<S>::width, N = P * Packed<A>::per, T = N * Simd<S>::width;
  const int64_t H = w.hidden;
  const int team = team_size(threads, H);
  Buffer<S> states = allocate<S>(3 * H * T), no_state = allocate<S>(2 * H);
  Buffer<Cell> gates = allocate<Cell>(2 * kGates * H * R);
  Buffer<A> spare = allocate<A>((1 + team) * kGates * H);
  S *dh = states.get(), *dc = dh + H * T, *c_first = dc + H * T, *dump_state = no_state.get() + H;
  Cell* da[2] = {gates.get(), gates.get() + kGates * H * R};
  A* zeros = spare.get();
  std::fill_n(zeros, kGates * H, A{});
  std::fill_n(no_state.get(), H, S(0));
  std::fill_n(dh, H * T, S(0));
  pack_sums<P, A, S>({gc_last + call.first * H, H, call.valid, T, no_state.get()}, H, dc);
  pack_sums<P, A, S>({c0 + call.first * H, H, call.valid, T, no_state.get()}, H, c_first);
#pragma omp parallel num_threads(team)
  {
    const int part = thread_number(), parts = thread_count();
    const int64_t begin = w.first_unit(part, parts), end = w.first_unit(part + 1, parts);
    A* dump = zeros + (1 + part) * kGates * H;
    for (int64_t t = call.steps - 1; t >= 0; t--) {
      const S* before = t ? saved + (t - 1) * kSaved * H * T + 4 * T : c_first;
      // Gradients alternate between two buffers: a thread may begin step t - 1 while another still reads those of t.
      backward_units<P, A, S>(w, call, t, begin, end, gy, dh, dc, saved + t * kSaved * H * T, before,
                              t ? kSaved * T : T, da[t % 2], gz, zeros, dump);
#pragma omp barrier
      w.row.visit(
          [&](const auto* row) { backward_columns<P, A, S>(w, row, begin, end, arranged, da[t % 2], dh); });
    }
  }
  unpack_sums<P, A, S>(dh, H, {gh0 + call.first * H, H, call.valid, T, dump_state});
  unpack_sums<P, A, S>(dc, H, {gc0 + call.first * H, H, call.valid, T, dump_state});
}

// Vectors of cells in the tiles of a batch: as few as hold it, at most kMostVectors of numbers.
template <class A, class S>
int vectors_for(int64_t batch) {
  constexpr int M = Packed<A>::per, W = Simd<S>::width * M;
  return static_cast<int>(std::min<int64_t>(kMostVectors / M, std::max<int64_t>(1, (batch + W - 1) / W)));
}

// Calls body(vectors as a constant, call, saved numbers before this tile) for each tile of sequences.
template <class A, class S, class Body>
void for_sequences(const Recurrence& w, int64_t steps, int64_t batch, const Body& body) {
  const int n = vectors_for<A, S>(batch);
  const int64_t tile = n * Packed<A>::per * Simd<S>::width;
  for (int64_t first = 0; first < batch; first += tile) {
    const Call call{steps, batch, first, static_cast<int>(std::min(tile, batch - first))};
    const int64_t before = first / tile * steps * kSaved * w.hidden * tile;
    if (n == 1) body(std::integral_constant<int, 1>{}, call, before);
    if (n == 2) body(std::integral_constant<int, 2>{}, call, before);
    if constexpr (Packed<A>::per == 1) {
      if (n == 3) body(std::integral_constant<int, 3>{}, call, before);
      if (n == 4) body(std::integral_constant<int, 4>{}, call, before);
    }
  }
}

template <class A, class S>
int64_t saved_size(int64_t hidden, int64_t steps, int64_t batch) {
  const int64_t tile = vectors_for<A, S>(batch) * Packed<A>::per * Simd<S>::width;
  return (batch + tile - 1) / tile * tile * steps * kSaved * hidden;
}

template <class A, class S>
void forward(const Recurrence& w, int64_t steps, int64_t batch, const S* values, const A* z, const S* h0, const S* c0,
             A* y, S* c_last, S* saved, int threads) {
  using Kept = typename Weight<A>::Type;
  Buffer<Kept> copy{nullptr, std::free};
  const Kept* weights = reinterpret_cast<const Kept*>(values);
  if constexpr (!std::is_same_v<A, S>) {
    copy = allocate<Kept>(w.entries);
    round_values(0, w.entries, [&](int64_t k) { return values[k]; }, copy.get());
    weights = copy.get();
  }
  for_sequences<A, S>(w, steps, batch, [&](auto n, const Call& call, int64_t before) {
    forward_tile<decltype(n)::value, A, S>(w, call, weights, z, h0, c0, y, c_last, saved + before, threads);
  });
}

template <class A, class S>
void backward(const Recurrence& w, int64_t steps, int64_t batch, const S* values, const S* saved, const S* c0,
              const A* gy, const S* gc_last, A* gz, S* gh0, S* gc0, int threads) {
  Buffer<typename Weight<A>::Type> arranged = allocate<typename Weight<A>::Type>(w.entries);
  const auto value = [&](int64_t k) { return values[w.origin[k]]; };
  if constexpr (std::is_same_v<A, S>)
    for (int64_t k = 0; k < w.entries; k++) arranged[k] = value(k);
  else round_values(0, w.entries, value, arranged.get());
  for_sequences<A, S>(w, steps, batch, [&](auto n, const Call& call, int64_t before) {
    backward_tile<decltype(n)::value, A, S>(w, call, arranged.get(), saved + before, c0, gy, gc_last, gz, gh0, gc0,
                                            threads);
  });
}

}  // namespace

// ---- what Python calls -----------------------------------------------------------------------------------------
// Everything is contiguous: z and gz [steps, batch, 4 hidden]; y and gy [steps, batch, hidden]; states [batch, hidden].
// Where memory is short, there is no recurrence (null), and the passes return 0 instead of 1.

extern "C" {

void* recurrence_new(int64_t hidden, int64_t entries, const int32_t* row_start, const int32_t* column) {
  Recurrence* made = nullptr;
  finishes([&] { made = new Recurrence(hidden, entries, row_start, column); });
  return made;
}

void recurrence_free(void* recurrence) { delete static_cast<Recurrence*>(recurrence); }

#define EXPORT(A, S, NAME)                                                                                            \
  int64_t lstm_saved_##NAME(int64_t hidden, int64_t steps, int64_t batch) {                                           \
    return saved_size<A, S>(hidden, steps, batch);                                                                    \
  }                                                                                                                   \
  int lstm_forward_##NAME(const void* recurrence, int64_t steps, int64_t batch, const S* values, const A* z,          \
                          const S* h0, const S* c0, A* y, S* c_last, S* saved, int threads) {                         \
    const Recurrence& w = *static_cast<const Recurrence*>(recurrence);                                                \
    return finishes([&] { forward<A, S>(w, steps, batch, values, z, h0, c0, y, c_last, saved, threads); });           \
  }                                                                                                                   \
  int lstm_backward_##NAME(const void* recurrence, int64_t steps, int64_t batch, const S* values, const S* saved,     \
                           const S* c0, const A* gy, const S* gc_last, A* gz, S* gh0, S* gc0, int threads) {          \
    const Recurrence& w = *static_cast<const Recurrence*>(recurrence);                                                \
    return finishes(                                                                                                  \
        [&] { backward<A, S>(w, steps, batch, values, saved, c0, gy, gc_last, gz, gh0, gc0, threads); });             \
  }

EXPORT(float, float, f32)
EXPORT(double, double, f64)
EXPORT(BFloat, float, bf16)

}  // extern "C"

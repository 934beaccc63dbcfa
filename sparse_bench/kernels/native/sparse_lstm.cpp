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
#include <memory>
#include <new>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "guard.h"
#include "packing.h"
#include "simd.h"

namespace {

constexpr int kGates = 4;
constexpr int kSaved = 5;   // i, f, g, o and c of every unit and time step
constexpr int kUnits = 32;  // hidden units whose gates are packed at a time
constexpr int kMostVectors = 4;

// ---- functions of vectors ---------------------------------------------------------------------------------------

// e^x as scale * (1 + rest): the power of two that leaves a remainder of at most ln(2) / 2, and a polynomial in it.
// Where x is that small, the scale is one and the rest e^x - 1, with all its digits.
template <class V>
struct Exponential {
  V scale, rest;
};

// To about 1e-7 relative (Cephes' coefficients). Saturates at both ends.
inline Exponential<Floats> exponential(Floats x) {
  const Floats high = broadcast(88.0f), low = broadcast(-87.0f);
  x = x > high ? high : x;
  x = x < low ? low : x;
  const Floats magic = broadcast(12582912.0f);  // adding it rounds to a whole number
  const Floats n = (x * broadcast(1.44269504088896341f) + magic) - magic;
  const Floats r = x - n * broadcast(0.693359375f) - n * broadcast(-2.12194440e-4f);
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + broadcast(1.3981999507e-3f);
  p = p * r + broadcast(8.3334519073e-3f);
  p = p * r + broadcast(4.1665795894e-2f);
  p = p * r + broadcast(1.6666665459e-1f);
  p = p * r + broadcast(5.0000001201e-1f);
  const Lanes power = (__builtin_convertvector(n, Lanes) + 127) << 23;
  Floats scale;
  std::memcpy(&scale, &power, sizeof scale);
  return {scale, p * r * r + r};
}

// To about 1e-16 relative (Taylor's series). Saturates too.
inline Exponential<Vector<double>> exponential(Vector<double> x) {
  const Vector<double> high = broadcast(708.0), low = broadcast(-708.0);
  x = x > high ? high : x;
  x = x < low ? low : x;
  const Vector<double> magic = broadcast(6755399441055744.0);  // leaves the whole number in the last bits, too
  const Vector<double> shifted = x * broadcast(1.44269504088896341) + magic, n = shifted - magic;
  const Vector<double> r = x - n * broadcast(0.693145751953125) - n * broadcast(1.42860682030941723212e-6);
  Vector<double> p = broadcast(1.0);
  for (int k = 13; k > 1; k--) p = p * (r * broadcast(1.0 / k)) + broadcast(1.0);
  Vector<uint64_t> power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power + 1023) << 52;
  Vector<double> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return {scale, p * r};
}

template <class V>
inline V sigmoid(V x) {
  const auto e = exponential(-x);
  return 1 / (1 + (e.rest + 1) * e.scale);
}

template <class V>
inline V hyperbolic_tangent(V x) {
  const auto e = exponential(x + x);
  const V less_one = e.rest * e.scale + (e.scale - 1);  // e^2x - 1, to all digits where it is small
  return less_one / (less_one + 2);
}

// ---- the weight -------------------------------------------------------------------------------------------------

struct Recurrence {
  int64_t hidden, entries;
  std::vector<int32_t> row_start, column;          // by row of W
  std::vector<int32_t> column_start, row, origin;  // by column; values[origin[k]] is the k-th value

  Recurrence(int64_t hidden_, int64_t entries_, const int32_t* start, const int32_t* columns)
      : hidden(hidden_), entries(entries_), row_start(start, start + kGates * hidden_ + 1),
        column(columns, columns + entries_), column_start(hidden_ + 1, 0), row(entries_), origin(entries_) {
    for (const int32_t c : column) column_start[c + 1]++;
    for (int64_t c = 0; c < hidden; c++) column_start[c + 1] += column_start[c];
    std::vector<int32_t> next(column_start.begin(), column_start.end() - 1);
    for (int64_t r = 0; r < kGates * hidden; r++)
      for (int64_t k = row_start[r]; k < row_start[r + 1]; k++) {
        const int32_t place = next[column[k]]++;
        row[place] = static_cast<int32_t>(r);
        origin[place] = static_cast<int32_t>(k);
      }
  }

  // Where the units of thread `part` of `parts` begin: each part has about the same work.
  int64_t first_unit(int part, int parts) const {
    constexpr int64_t kPointwise = 64;  // a unit's gates cost about as much as so many weights
    const int64_t total = 2 * entries + kPointwise * hidden, wanted = total * part / parts;
    int64_t low = 0, high = hidden;
    while (low < high) {
      const int64_t unit = (low + high) / 2;
      int64_t work = column_start[unit] + kPointwise * unit;
      for (int g = 0; g < kGates; g++) work += row_start[g * hidden + unit] - row_start[g * hidden];
      if (work < wanted) low = unit + 1;
      else high = unit;
    }
    return part == parts ? hidden : low;
  }
};

template <class S>
using Buffer = std::unique_ptr<S[], void (*)(void*)>;

template <class S>
Buffer<S> allocate(int64_t count) {
  const std::size_t bytes = (count * sizeof(S) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<std::size_t>(64, bytes));
  if (!memory) throw std::bad_alloc();
  return {static_cast<S*>(memory), std::free};
}

inline int team_size(int threads, int64_t hidden) {
#ifdef _OPENMP
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, hidden / kUnits)));
#else
  (void)threads, (void)hidden;
  return 1;
#endif
}

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

inline int thread_count() {  // of the running team, which may be smaller than what was asked for
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}

// sum[tile] += value * source[index, tile] over some entries.
template <int N, class S, class Value>
inline void add_products(const int32_t* index, int64_t begin, int64_t end, const Value& value, const S* source,
                         Vector<S>* sum) {
  constexpr int W = Simd<S>::width, T = N * W;
  for (int64_t k = begin; k < end; k++) {
    const S* p = source + int64_t(index[k]) * T;
    const Vector<S> v = broadcast(value(k));
    for (int i = 0; i < N; i++) sum[i] += load(p + i * W) * v;
  }
}

// ---- one tile of sequences through all time steps ----------------------------------------------------------------

// Sizes and strides of a call. Matrices of Python's are [steps, batch, features], contiguous.
struct Call {
  int64_t steps, batch, first;  // first sequence of the tile
  int valid;                    // sequences in it
};

template <int N, class S>
KERNEL void forward_units(const Recurrence& w, const Call& call, int64_t t, int64_t begin, int64_t end, const S* values,
                          const S* z, const S* h, S* h_next, S* c, S* saved, S* y, const S* zeros, S* dump) {
  constexpr int W = Simd<S>::width, T = N * W;
  const int64_t H = w.hidden, row = t * call.batch + call.first;
  const Rows<const S*> in(z + row * kGates * H, kGates * H, call.valid, T, zeros);
  const Rows<S*> out(y + row * H, H, call.valid, T, dump);
  alignas(64) S packed[kGates][kUnits * T];
  for (int64_t first = begin; first < end; first += kUnits) {
    const int64_t count = std::min<int64_t>(kUnits, end - first);
    for (int g = 0; g < kGates; g++) pack<N, false, S>(in, g * H + first, count, packed[g], nullptr);
    for (int64_t unit = first; unit < first + count; unit++) {
      Vector<S> gate[kGates][N];
      for (int g = 0; g < kGates; g++) {
        for (int i = 0; i < N; i++) gate[g][i] = load(packed[g] + (unit - first) * T + i * W);
        const int64_t r = g * H + unit;
        add_products<N, S>(w.column.data(), w.row_start[r], w.row_start[r + 1], [&](int64_t k) { return values[k]; }, h,
                           gate[g]);
      }
      S* kept = saved + unit * kSaved * T;
      for (int i = 0; i < N; i++) {
        const Vector<S> in_gate = sigmoid(gate[0][i]), forget = sigmoid(gate[1][i]);
        const Vector<S> candidate = hyperbolic_tangent(gate[2][i]), out_gate = sigmoid(gate[3][i]);
        const Vector<S> cell = forget * load(c + unit * T + i * W) + in_gate * candidate;
        store(c + unit * T + i * W, cell);
        store(h_next + unit * T + i * W, out_gate * hyperbolic_tangent(cell));
        store(kept + 0 * T + i * W, in_gate);
        store(kept + 1 * T + i * W, forget);
        store(kept + 2 * T + i * W, candidate);
        store(kept + 3 * T + i * W, out_gate);
        store(kept + 4 * T + i * W, cell);
      }
    }
    unpack<N, S>(h_next + first * T, first, count, out);
  }
}

// dh: gradient of h[t] that came from step t+1; replaced by nothing here. da_out: gradient of a[t], feature-major.
template <int N, class S>
KERNEL void backward_units(const Recurrence& w, const Call& call, int64_t t, int64_t begin, int64_t end, const S* gy,
                           const S* dh, S* dc, const S* saved, const S* c_before, int64_t c_stride, S* da, S* gz,
                           const S* zeros, S* dump) {
  constexpr int W = Simd<S>::width, T = N * W;
  const int64_t H = w.hidden, row = t * call.batch + call.first;
  const Rows<const S*> in(gy + row * H, H, call.valid, T, zeros);
  const Rows<S*> out(gz + row * kGates * H, kGates * H, call.valid, T, dump);
  alignas(64) S packed[kUnits * T];
  for (int64_t first = begin; first < end; first += kUnits) {
    const int64_t count = std::min<int64_t>(kUnits, end - first);
    pack<N, false, S>(in, first, count, packed, nullptr);
    for (int64_t unit = first; unit < first + count; unit++) {
      const S* kept = saved + unit * kSaved * T;
      for (int i = 0; i < N; i++) {
        const Vector<S> in_gate = load(kept + 0 * T + i * W), forget = load(kept + 1 * T + i * W);
        const Vector<S> candidate = load(kept + 2 * T + i * W), out_gate = load(kept + 3 * T + i * W);
        const Vector<S> squashed = hyperbolic_tangent(load(kept + 4 * T + i * W));
        const Vector<S> h_grad = load(packed + (unit - first) * T + i * W) + load(dh + unit * T + i * W);
        const Vector<S> c_grad = load(dc + unit * T + i * W) + h_grad * out_gate * (1 - squashed * squashed);
        store(dc + unit * T + i * W, c_grad * forget);
        store(da + (0 * H + unit) * T + i * W, c_grad * candidate * in_gate * (1 - in_gate));
        store(da + (1 * H + unit) * T + i * W,
              c_grad * load(c_before + unit * c_stride + i * W) * forget * (1 - forget));
        store(da + (2 * H + unit) * T + i * W, c_grad * in_gate * (1 - candidate * candidate));
        store(da + (3 * H + unit) * T + i * W, h_grad * squashed * out_gate * (1 - out_gate));
      }
    }
    for (int g = 0; g < kGates; g++) unpack<N, S>(da + (g * H + first) * T, g * H + first, count, out);
  }
}

// dh[unit] = sum over the unit's column of W of value * da[row].
template <int N, class S>
KERNEL void backward_columns(const Recurrence& w, int64_t begin, int64_t end, const S* arranged, const S* da, S* dh) {
  constexpr int W = Simd<S>::width, T = N * W;
  for (int64_t unit = begin; unit < end; unit++) {
    Vector<S> sum[N] = {};
    add_products<N, S>(w.row.data(), w.column_start[unit], w.column_start[unit + 1],
                       [&](int64_t k) { return arranged[k]; }, da, sum);
    for (int i = 0; i < N; i++) store(dh + unit * T + i * W, sum[i]);
  }
}

template <int N, class S>
void forward_tile(const Recurrence& w, const Call& call, const S* values, const S* z, const S* h0, const S* c0, S* y,
                  S* c_last, S* saved, int threads) {
  constexpr int T = N * Simd<S>::width;
  const int64_t H = w.hidden;
  const int team = team_size(threads, H);
  Buffer<S> states = allocate<S>(3 * H * T), spare = allocate<S>((1 + team) * kGates * H);
  S *h[2] = {states.get(), states.get() + H * T}, *c = states.get() + 2 * H * T, *zeros = spare.get();
  std::fill_n(zeros, kGates * H, S(0));
  pack<N, false, S>(Rows<const S*>(h0 + call.first * H, H, call.valid, T, zeros), 0, H, h[0], nullptr);
  pack<N, false, S>(Rows<const S*>(c0 + call.first * H, H, call.valid, T, zeros), 0, H, c, nullptr);
#pragma omp parallel num_threads(team)
  {
    const int part = thread_number(), parts = thread_count();
    const int64_t begin = w.first_unit(part, parts), end = w.first_unit(part + 1, parts);
    S* dump = zeros + (1 + part) * kGates * H;
    for (int64_t t = 0; t < call.steps; t++) {
      forward_units<N, S>(w, call, t, begin, end, values, z, h[t % 2], h[(t + 1) % 2], c, saved + t * kSaved * H * T, y,
                          zeros, dump);
#pragma omp barrier
    }
  }
  unpack<N, S>(c, 0, H, Rows<S*>(c_last + call.first * H, H, call.valid, T, zeros));
}

template <int N, class S>
void backward_tile(const Recurrence& w, const Call& call, const S* arranged, const S* saved, const S* c0, const S* gy,
                   const S* gc_last, S* gz, S* gh0, S* gc0, int threads) {
  constexpr int T = N * Simd<S>::width;
  const int64_t H = w.hidden;
  const int team = team_size(threads, H);
  Buffer<S> states = allocate<S>((3 + 2 * kGates) * H * T), spare = allocate<S>((1 + team) * kGates * H);
  S *dh = states.get(), *dc = dh + H * T, *c_first = dc + H * T;
  S* da[2] = {c_first + H * T, c_first + (1 + kGates) * H * T};
  S* zeros = spare.get();
  std::fill_n(zeros, kGates * H, S(0));
  std::fill_n(dh, H * T, S(0));
  pack<N, false, S>(Rows<const S*>(gc_last + call.first * H, H, call.valid, T, zeros), 0, H, dc, nullptr);
  pack<N, false, S>(Rows<const S*>(c0 + call.first * H, H, call.valid, T, zeros), 0, H, c_first, nullptr);
#pragma omp parallel num_threads(team)
  {
    const int part = thread_number(), parts = thread_count();
    const int64_t begin = w.first_unit(part, parts), end = w.first_unit(part + 1, parts);
    S* dump = zeros + (1 + part) * kGates * H;
    for (int64_t t = call.steps - 1; t >= 0; t--) {
      const S* before = t ? saved + (t - 1) * kSaved * H * T + 4 * T : c_first;
      // Gradients alternate between two buffers: a thread may begin step t - 1 while another still reads those of t.
      backward_units<N, S>(w, call, t, begin, end, gy, dh, dc, saved + t * kSaved * H * T, before,
                           t ? kSaved * T : T, da[t % 2], gz, zeros, dump);
#pragma omp barrier
      backward_columns<N, S>(w, begin, end, arranged, da[t % 2], dh);
    }
  }
  unpack<N, S>(dh, 0, H, Rows<S*>(gh0 + call.first * H, H, call.valid, T, zeros));
  unpack<N, S>(dc, 0, H, Rows<S*>(gc0 + call.first * H, H, call.valid, T, zeros + kGates * H));
}

// Vectors in the tiles of a batch: as few as hold it, at most kMostVectors.
template <class S>
int vectors_for(int64_t batch) {
  constexpr int W = Simd<S>::width;
  return static_cast<int>(std::min<int64_t>(kMostVectors, std::max<int64_t>(1, (batch + W - 1) / W)));
}

// Calls body(vectors as a constant, call, saved numbers before this tile) for each tile of sequences.
template <class S, class Body>
void for_sequences(const Recurrence& w, int64_t steps, int64_t batch, const Body& body) {
  const int n = vectors_for<S>(batch);
  const int64_t tile = n * Simd<S>::width;
  for (int64_t first = 0; first < batch; first += tile) {
    const Call call{steps, batch, first, static_cast<int>(std::min(tile, batch - first))};
    const int64_t before = first / tile * steps * kSaved * w.hidden * tile;
    if (n == 1) body(std::integral_constant<int, 1>{}, call, before);
    if (n == 2) body(std::integral_constant<int, 2>{}, call, before);
    if (n == 3) body(std::integral_constant<int, 3>{}, call, before);
    if (n == 4) body(std::integral_constant<int, 4>{}, call, before);
  }
}

template <class S>
int64_t saved_size(int64_t hidden, int64_t steps, int64_t batch) {
  const int64_t tile = vectors_for<S>(batch) * Simd<S>::width;
  return (batch + tile - 1) / tile * tile * steps * kSaved * hidden;
}

template <class S>
void forward(const Recurrence& w, int64_t steps, int64_t batch, const S* values, const S* z, const S* h0, const S* c0,
             S* y, S* c_last, S* saved, int threads) {
  for_sequences<S>(w, steps, batch, [&](auto n, const Call& call, int64_t before) {
    forward_tile<decltype(n)::value, S>(w, call, values, z, h0, c0, y, c_last, saved + before, threads);
  });
}

template <class S>
void backward(const Recurrence& w, int64_t steps, int64_t batch, const S* values, const S* saved, const S* c0,
              const S* gy, const S* gc_last, S* gz, S* gh0, S* gc0, int threads) {
  Buffer<S> arranged = allocate<S>(w.entries);
  for (int64_t k = 0; k < w.entries; k++) arranged[k] = values[w.origin[k]];
  for_sequences<S>(w, steps, batch, [&](auto n, const Call& call, int64_t before) {
    backward_tile<decltype(n)::value, S>(w, call, arranged.get(), saved + before, c0, gy, gc_last, gz, gh0, gc0,
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

#define EXPORT(S, NAME)                                                                                               \
  int64_t lstm_saved_##NAME(int64_t hidden, int64_t steps, int64_t batch) {                                           \
    return saved_size<S>(hidden, steps, batch);                                                                       \
  }                                                                                                                   \
  int lstm_forward_##NAME(const void* recurrence, int64_t steps, int64_t batch, const S* values, const S* z,          \
                          const S* h0, const S* c0, S* y, S* c_last, S* saved, int threads) {                         \
    const Recurrence& w = *static_cast<const Recurrence*>(recurrence);                                                \
    return finishes([&] { forward<S>(w, steps, batch, values, z, h0, c0, y, c_last, saved, threads); });              \
  }                                                                                                                   \
  int lstm_backward_##NAME(const void* recurrence, int64_t steps, int64_t batch, const S* values, const S* saved,     \
                           const S* c0, const S* gy, const S* gc_last, S* gz, S* gh0, S* gc0, int threads) {          \
    const Recurrence& w = *static_cast<const Recurrence*>(recurrence);                                                \
    return finishes(                                                                                                  \
        [&] { backward<S>(w, steps, batch, values, saved, c0, gy, gc_last, gz, gh0, gc0, threads); });                \
  }

EXPORT(float, f32)
EXPORT(double, f64)

}  // extern "C"

// Attention of short sequences in bfloat16, forward and backward: softmax(scale · QKᵀ + bias) V for each sentence and head.
//
// Torch's batched products of a few rows cost more in copies and calls than in arithmetic. Here a thread takes one head of
// one sentence, widens its rows to floats that stay in the first-level cache, and does everything to them there.
// Sums are floats. Every head is computed alone, so results have the same bits for any number of threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "bfloat.h"
#include "guard.h"
#include "squash.h"
#include "team.h"

namespace {

constexpr int64_t kGone = -80;  // a logit so far below the largest has weight 0

// Rows of sentence b: [start[b], start[b] + length[b]), or without arrays [b · longest, (b + 1) · longest).
struct Spans {
  const int64_t *starts, *lengths;
  int64_t longest;

  int64_t start(int64_t b) const { return starts ? starts[b] : b * longest; }
  int64_t length(int64_t b) const { return lengths ? lengths[b] : longest; }
};

struct Problem {
  int64_t sentences, heads, depth;
  Spans queries, keys;
  const float* bias;       // or null
  const int64_t* strides;  // of the bias: sentence, head, query, key
  float scale;
  const uint8_t* keep;  // of each weight [sentence, head, query, key], or null
  float factor;         // of kept weights
};

int64_t padded(int64_t count) { return (count + kFloats - 1) / kFloats * kFloats; }

// One thread's arrays for one head.
struct Scratch {
  Buffer<float> memory;
  float *query, *key, *value, *grad, *packed, *weights, *grads, *out;

  explicit Scratch(const Problem& p) : memory(nullptr, std::free) {
    const int64_t most = padded(std::max(p.queries.longest, p.keys.longest)), rows = most * p.depth;
    memory = allocate<float>(6 * rows + 2 * most * most);
    float* next = memory.get();
    for (float** part : {&query, &key, &value, &grad, &packed, &out}) *part = next, next += rows;
    weights = next, grads = next + most * most;
  }
};

inline void widen(const BFloat* from, int64_t stride, int64_t rows, int64_t depth, float* to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t d = 0; d < depth; d += kFloats) {
      Halves halves;
      std::memcpy(&halves, from + r * stride + d, sizeof halves);
      store(to + r * depth + d, reinterpret<Floats>(__builtin_convertvector(halves, Words) << 16));
    }
}

inline void narrow(const float* from, int64_t rows, int64_t depth, BFloat* to, int64_t stride) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t d = 0; d < depth; d += kFloats) store_rounded(load(from + r * depth + d), kFloats, to + r * stride + d);
}

// to[depth, padded rows] = from[rows, depth], with zeros.
void pack_columns(const float* from, int64_t rows, int64_t depth, float* to) {
  const int64_t width = padded(rows);
  for (int64_t r = 0; r < width; r += kFloats)
    for (int64_t d = 0; d < depth; d += kFloats) {
      Floats v[kFloats];
      for (int i = 0; i < kFloats; i++) v[i] = r + i < rows ? load(from + (r + i) * depth + d) : Floats{};
      transpose(v);
      for (int i = 0; i < kFloats; i++) store(to + (d + i) * width + r, v[i]);
    }
}

template <int R>
inline void some_dots(const float* x, const float* columns, int64_t depth, int64_t width, float* to) {
  for (int64_t n = 0; n < width; n += kFloats) {
    Floats total[R] = {};
    for (int64_t d = 0; d < depth; d++) {
      const Floats y = load(columns + d * width + n);
      for (int i = 0; i < R; i++) total[i] += x[i * depth + d] * y;
    }
    for (int i = 0; i < R; i++) store(to + i * width + n, total[i]);
  }
}

// to[rows, width] = x[rows, depth] · columns[depth, width]
KERNEL void dots(const float* x, int64_t rows, const float* columns, int64_t depth, int64_t width, float* to) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) some_dots<8>(x + r * depth, columns, depth, width, to + r * width);
  for (; r < rows; r++) some_dots<1>(x + r * depth, columns, depth, width, to + r * width);
}

template <int R, int C>
inline void some_sums(const float* a, int64_t down, int64_t across, int64_t terms, const float* x, int64_t depth,
                      float* to) {
  Floats total[R][C] = {};
  for (int64_t n = 0; n < terms; n++)
    for (int c = 0; c < C; c++) {
      const Floats v = load(x + n * depth + c * kFloats);
      for (int i = 0; i < R; i++) total[i][c] += a[i * down + n * across] * v;
    }
  for (int i = 0; i < R; i++)
    for (int c = 0; c < C; c++) store(to + i * depth + c * kFloats, total[i][c]);
}

template <int R>
inline void some_rows(const float* a, int64_t down, int64_t across, int64_t terms, const float* x, int64_t depth,
                      float* to) {
  int64_t d = 0;
  for (; d + 4 * kFloats <= depth; d += 4 * kFloats) some_sums<R, 4>(a, down, across, terms, x + d, depth, to + d);
  for (; d < depth; d += kFloats) some_sums<R, 1>(a, down, across, terms, x + d, depth, to + d);
}

// to[rows, depth] = a[rows, terms] · x[terms, depth]; `down` and `across` are the strides of a.
KERNEL void sums(const float* a, int64_t down, int64_t across, int64_t rows, int64_t terms, const float* x, int64_t depth,
                 float* to) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) some_rows<4>(a + r * down, down, across, terms, x, depth, to + r * depth);
  for (; r < rows; r++) some_rows<1>(a + r * down, down, across, terms, x, depth, to + r * depth);
}

inline float largest(Floats v) {
  float most = v[0];
  for (int i = 1; i < kFloats; i++) most = std::max(most, v[i]);
  return most;
}

inline float total(Floats v) {
  float sum = 0;
  for (int i = 0; i < kFloats; i++) sum += v[i];
  return sum;
}

// A row of logits [width] becomes weights; beyond `count` it becomes zero.
inline void softmax(float* row, int64_t count, int64_t width) {
  for (int64_t s = count; s < width; s++) row[s] = -3e38f;
  Floats most = load(row);
  for (int64_t s = kFloats; s < width; s += kFloats) {
    const Floats v = load(row + s);
    most = v > most ? v : most;
  }
  const Floats base = broadcast(largest(most)), least = broadcast(float(kGone));
  Floats sum{};
  for (int64_t s = 0; s < width; s += kFloats) {
    const Floats x = load(row + s) - base;
    const auto e = exponential(x);
    const Floats power = x > least ? (e.rest + 1) * e.scale : Floats{};
    store(row + s, power);
    sum += power;
  }
  const Floats inverse = broadcast(1 / total(sum));
  for (int64_t s = 0; s < width; s += kFloats) store(row + s, load(row + s) * inverse);
}

// Calls body(scratch, sentence, head) for all, on several threads.
template <class Body>
void each_head(const Problem& p, int threads, const Body& body) {
  const int64_t all = p.sentences * p.heads;
  threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, all / 16)));

  std::vector<Scratch> own;
  own.reserve(threads);
  for (int t = 0; t < threads; t++) own.emplace_back(p);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t number = thread_number(), team = thread_count();
    for (int64_t i = all * number / team; i < all * (number + 1) / team; i++) body(own[number], i / p.heads, i % p.heads);
  }
}

struct Place {  // of one head's arrays
  int64_t stride, query, key, queries, keys, width, weight;
};

Place place(const Problem& p, int64_t b, int64_t h) {
  const int64_t stride = p.heads * p.depth, keys = p.keys.length(b);
  return {stride,
          p.queries.start(b) * stride + h * p.depth,
          p.keys.start(b) * stride + h * p.depth,
          p.queries.length(b),
          keys,
          padded(keys),
          (b * p.heads + h) * p.queries.longest * p.keys.longest};
}

void forward(const Problem& p, const BFloat* q, const BFloat* k, const BFloat* v, BFloat* weights, BFloat* out,
             int threads) {
  each_head(p, threads, [&](Scratch& own, int64_t b, int64_t h) {
    const Place at = place(p, b, h);
    widen(q + at.query, at.stride, at.queries, p.depth, own.query);
    widen(k + at.key, at.stride, at.keys, p.depth, own.key);
    widen(v + at.key, at.stride, at.keys, p.depth, own.value);
    pack_columns(own.key, at.keys, p.depth, own.packed);
    dots(own.query, at.queries, own.packed, p.depth, at.width, own.weights);
    for (int64_t t = 0; t < at.queries; t++) {
      float* row = own.weights + t * at.width;
      for (int64_t s = 0; s < at.width; s += kFloats) store(row + s, load(row + s) * p.scale);
      if (p.bias) {
        const float* bias = p.bias + b * p.strides[0] + h * p.strides[1] + t * p.strides[2];
        for (int64_t s = 0; s < at.keys; s++) row[s] += bias[s * p.strides[3]];
      }
      softmax(row, at.keys, at.width);
      const int64_t first = at.weight + t * p.keys.longest;
      for (int64_t s = 0; s < at.keys; s += kFloats)
        store_rounded(load(row + s), std::min<int64_t>(kFloats, at.keys - s), weights + first + s);
      if (p.keep)
        for (int64_t s = 0; s < at.keys; s++) row[s] *= p.keep[first + s] ? p.factor : 0.0f;
    }
    sums(own.weights, at.width, 1, at.queries, at.keys, own.value, p.depth, own.out);
    narrow(own.out, at.queries, p.depth, out + at.query, at.stride);
  });
}

void backward(const Problem& p, const BFloat* q, const BFloat* k, const BFloat* v, const BFloat* weights,
              const BFloat* grad, BFloat* gq, BFloat* gk, BFloat* gv, int threads) {
  each_head(p, threads, [&](Scratch& own, int64_t b, int64_t h) {
    const Place at = place(p, b, h);
    widen(q + at.query, at.stride, at.queries, p.depth, own.query);
    widen(k + at.key, at.stride, at.keys, p.depth, own.key);
    widen(v + at.key, at.stride, at.keys, p.depth, own.value);
    widen(grad + at.query, at.stride, at.queries, p.depth, own.grad);
    pack_columns(own.value, at.keys, p.depth, own.packed);
    dots(own.grad, at.queries, own.packed, p.depth, at.width, own.grads);
    for (int64_t t = 0; t < at.queries; t++) {
      const int64_t first = at.weight + t * p.keys.longest;
      float *row = own.weights + t * at.width, *gradient = own.grads + t * at.width;
      float product = 0;
      for (int64_t s = 0; s < at.keys; s++) {
        const float weight = widened(weights[first + s]), kept = !p.keep ? 1.0f : p.keep[first + s] ? p.factor : 0.0f;
        gradient[s] *= kept;
        product += gradient[s] * weight;
        row[s] = weight;
      }
      for (int64_t s = 0; s < at.keys; s++) {
        const float weight = row[s], kept = !p.keep ? 1.0f : p.keep[first + s] ? p.factor : 0.0f;
        gradient[s] = weight * (gradient[s] - product) * p.scale;
        row[s] = weight * kept;
      }
    }
    sums(own.weights, 1, at.width, at.keys, at.queries, own.grad, p.depth, own.out);
    narrow(own.out, at.keys, p.depth, gv + at.key, at.stride);
    sums(own.grads, at.width, 1, at.queries, at.keys, own.key, p.depth, own.out);
    narrow(own.out, at.queries, p.depth, gq + at.query, at.stride);
    sums(own.grads, 1, at.width, at.keys, at.queries, own.query, p.depth, own.out);
    narrow(own.out, at.keys, p.depth, gk + at.key, at.stride);
  });
}

}  // namespace

extern "C" {

// Arrays of rows are [rows, heads, depth]; the depth is a multiple of a vector's floats. Weights are as `keep` is. False
// where there is too little memory.
int attention_forward(const void* problem, const BFloat* q, const BFloat* k, const BFloat* v, BFloat* weights,
                      BFloat* out, int threads) {
  return finishes([&] { forward(*static_cast<const Problem*>(problem), q, k, v, weights, out, threads); });
}

int attention_backward(const void* problem, const BFloat* q, const BFloat* k, const BFloat* v, const BFloat* weights,
                       const BFloat* grad, BFloat* gq, BFloat* gk, BFloat* gv, int threads) {
  return finishes([&] { backward(*static_cast<const Problem*>(problem), q, k, v, weights, grad, gq, gk, gv, threads); });
}
}

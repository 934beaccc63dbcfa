// Softmax of rows narrower than a vector, with the bits of torch's own.
//
// Torch takes such rows one by one, and their numbers one by one where it adds them up: up to a hundred times as long as
// for wider rows. Here a vector holds one number of each of 16 rows. The order of the sums is torch's, and so is e^x: that
// of Sleef (Shibata and Petrogalli 2020; xexpf, at most 1.0 units in the last place), with its multiply-adds.

#include <algorithm>
#include <cstdint>

#include "simd.h"
#include "team.h"

#ifdef __AVX512F__
#include <immintrin.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#pragma clang fp contract(off)
#endif

namespace {

constexpr int kRows = 16;
constexpr int64_t kForOneThread = 1 << 12;  // rows that are not worth a second thread

inline Floats power(Floats d) {
  const __m512 x = reinterpret_cast<__m512>(d);
  const __m512 q = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.442695040888963407f)), 8);
  __m512 s = _mm512_fmadd_ps(q, _mm512_set1_ps(-0.693145751953125f), x);
  s = _mm512_fmadd_ps(q, _mm512_set1_ps(-1.428606765330187045e-06f), s);
  __m512 u = _mm512_set1_ps(0.000198527617612853646278381f);
  for (const float c : {0.00139304355252534151077271f, 0.00833336077630519866943359f, 0.0416664853692054748535156f,
                        0.166666671633720397949219f, 0.5f})
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(c));
  u = _mm512_add_ps(_mm512_set1_ps(1), _mm512_fmadd_ps(_mm512_mul_ps(s, s), u, s));
  u = _mm512_scalef_ps(u, q);
  return reinterpret_cast<Floats>(_mm512_mask_mov_ps(u, _mm512_cmp_ps_mask(x, _mm512_set1_ps(-104), 1), __m512{}));
}

// The numbers of up to 16 rows by column.
inline void load_columns(const float* x, int64_t rows, int width, Floats* columns) {
  const __mmask16 some = static_cast<__mmask16>((1u << width) - 1);
  for (int64_t r = 0; r < kRows; r++)
    columns[r] = r < rows ? reinterpret_cast<Floats>(_mm512_maskz_loadu_ps(some, x + r * width)) : Floats{};
  transpose(columns);
}

inline void store_columns(Floats* columns, int64_t rows, int width, float* to) {
  const __mmask16 some = static_cast<__mmask16>((1u << width) - 1);
  transpose(columns);
  for (int64_t r = 0; r < rows; r++) _mm512_mask_storeu_ps(to + r * width, some, reinterpret_cast<__m512>(columns[r]));
}

inline void forward(const float* x, int64_t rows, int width, float* y) {
  Floats v[kRows];
  load_columns(x, rows, width, v);
  Floats most = v[0];
  for (int i = 1; i < width; i++) most = v[i] > most ? v[i] : most;
  for (int i = 0; i < width; i++) v[i] = power(v[i] - most);
  Floats sum = v[0];
  for (int i = 1; i < width; i++) sum += v[i];
  const Floats inverse = 1 / sum;
  for (int i = 0; i < width; i++) v[i] *= inverse;
  store_columns(v, rows, width, y);
}

// (g - the sum of g y) y; products and sums are rounded one by one.
inline void backward(const float* g, const float* y, int64_t rows, int width, float* gx) {
  Floats grad[kRows], value[kRows], products[kRows];
  load_columns(g, rows, width, grad);
  load_columns(y, rows, width, value);
  for (int i = 0; i < width; i++)
    products[i] = grad[i] * value[i];
  Floats sum = products[0];
  for (int i = 1; i < width; i++) sum += products[i];
  for (int i = 0; i < width; i++) grad[i] = (grad[i] - sum) * value[i];
  store_columns(grad, rows, width, gx);
}

template <class Body>
void each_sixteen(int64_t rows, int threads, const Body& body) {
  threads = rows < kForOneThread ? 1 : std::max(threads, 1);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t first = 0; first < rows; first += kRows) body(first, std::min<int64_t>(kRows, rows - first));
}

}  // namespace

extern "C" {

// x, y [rows, width] with a width from 1 to 15. False: not for this processor.
int narrow_softmax(int64_t rows, int width, const float* x, float* y, int threads) {
  each_sixteen(rows, threads, [&](int64_t first, int64_t some) {
    forward(x + first * width, some, width, y + first * width);
  });
  return true;
}

int narrow_softmax_gradient(int64_t rows, int width, const float* g, const float* y, float* gx, int threads) {
  each_sixteen(rows, threads, [&](int64_t first, int64_t some) {
    backward(g + first * width, y + first * width, some, width, gx + first * width);
  });
  return true;
}
}

#else

extern "C" {
int narrow_softmax(int64_t, int, const float*, float*, int) { return false; }
int narrow_softmax_gradient(int64_t, int, const float*, const float*, float*, int) { return false; }
}

#endif

// The functions that an LSTM's gates and cell states go through, on vectors.

#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace {

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

}  // namespace

// Dropout with the random numbers of torch's default generator, drawn many at a time.
//
// The generator is a Mersenne twister (MT19937; Matsumoto and Nishimura 1998). Torch draws its numbers one by one. Here a
// block of 624 words follows from the block before in vectors. Words, their order and the state that is left behind are
// torch's, so the results are those of torch's own functions, bit by bit.
//
// A word gives two 16-bit numbers ("coins"). An element is kept if its coin is at least the threshold.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bfloat.h"
#include "simd.h"
#include "team.h"

namespace {

constexpr int kBlock = 624, kMiddle = 397;
constexpr int64_t kChunk = 2048;        // elements whose coins are held at a time
constexpr int64_t kForOneThread = 1 << 14;  // elements that are not worth a second thread

// The state of torch's generator, as `get_state` gives it; behind it come numbers of other distributions.
struct State {
  uint64_t seed;
  int32_t left, seeded;  // left: words until the block is used up, plus one
  uint64_t next;         // position in the block
  uint64_t block[kBlock];
};

class Twister {
 public:
  explicit Twister(const State& state) : next_(kBlock + 1 - state.left) {
    for (int i = 0; i < kBlock; i++) words_[i] = static_cast<uint32_t>(state.block[i]);
  }

  void write(State& state) const {
    state.left = kBlock + 1 - next_;
    state.next = next_;
    for (int i = 0; i < kBlock; i++) state.block[i] = words_[i];
  }

  void skip(int64_t count) {
    for (; count > kBlock - next_; next_ = 0) {
      count -= kBlock - next_;
      advance();
    }
    next_ += static_cast<int>(count);
  }

  // The next `count` words; writes up to a vector more.
  void take(int64_t count, uint32_t* to) {
    while (count > 0) {
      if (next_ == kBlock) {
        advance();
        next_ = 0;
      }
      const int some = static_cast<int>(std::min<int64_t>(count, kBlock - next_));
      for (int i = 0; i < some; i += kFloats) {
        Words y = load(words_ + next_ + i);
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        y ^= y >> 18;
        std::memcpy(to + i, &y, sizeof y);
      }
      next_ += some, to += some, count -= some;
    }
  }

 private:
  // The second half of the words from the first, which it then replaces.
  void advance() {
    for (int i = 0; i < kBlock; i += kFloats) {
      const Words own = load(words_ + i), after = load(words_ + i + 1), far = load(words_ + i + kMiddle);
      const Words joined = (own & 0x80000000u) | (after & 0x7fffffffu);
      const Words made = far ^ (joined >> 1) ^ (-(after & 1u) & 0x9908b0dfu);
      std::memcpy(words_ + i + kBlock, &made, sizeof made);
    }
    std::memcpy(words_, words_ + kBlock, kBlock * sizeof *words_);
  }

  int next_;
  uint32_t words_[2 * kBlock];
};

// Whether each of `count` elements is kept, as 0 or 1; writes up to a vector more.
KERNEL void flip(Twister& twister, int64_t count, int threshold, uint8_t* keep) {
  typedef uint64_t Draws __attribute__((vector_size(VECTOR_BYTES)));
  typedef int16_t Coins __attribute__((vector_size(VECTOR_BYTES)));
  typedef uint8_t Bits __attribute__((vector_size(VECTOR_BYTES / 2)));
  alignas(VECTOR_BYTES) uint32_t words[kChunk / 2 + 2 * kFloats];
  twister.take((count + 3) / 4 * 2, words);
  const Coins least = static_cast<int16_t>(threshold) - Coins{};
  for (int64_t i = 0; i < count; i += kShorts) {
    const Draws draws = reinterpret<Draws>(load(words + i / 2));
    const Coins coins = reinterpret<Coins>((draws >> 32) | (draws << 32));  // a draw's first word is its high one
    const Bits bits = __builtin_convertvector((coins >= least) & int16_t(1), Bits);
    std::memcpy(keep + i, &bits, sizeof bits);
  }
}

// Small unsigned numbers as ones of twice the size, step by step: GCC converts in one step number by number.
template <class To, class From>
inline To enlarged(From from) {
  if constexpr (sizeof(To) == 2 * sizeof(From)) {
    return __builtin_convertvector(from, To);
  } else {
    constexpr int count = sizeof(From) / sizeof(from[0]);
    using Next = std::conditional_t<sizeof(from[0]) == 1, uint16_t, uint32_t>;
    typedef Next Twice __attribute__((vector_size(count * sizeof(Next))));
    return enlarged<To>(__builtin_convertvector(from, Twice));
  }
}

// The factor where an element is kept, else 0.
template <class S>
inline Vector<S> factors(const uint8_t* keep, S factor) {
  using Bits = std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t>;
  typedef uint8_t Bytes __attribute__((vector_size(Simd<S>::width)));
  Bytes bytes;
  std::memcpy(&bytes, keep, sizeof bytes);
  const Vector<Bits> kept = -enlarged<Vector<Bits>>(bytes);  // all ones, or zero
  return reinterpret<Vector<S>>(kept & reinterpret<Vector<Bits>>(broadcast(factor)));
}

// y = x · factor where an element is kept, else x · 0.
template <class S>
KERNEL void scale(int64_t count, S factor, const S* x, const uint8_t* keep, S* y) {
  constexpr int W = Simd<S>::width;
  int64_t i = 0;
  for (; i + W <= count; i += W) store(y + i, load(x + i) * factors(keep + i, factor));
  for (; i < count; i++) y[i] = x[i] * (keep[i] ? factor : S(0));
}

KERNEL void scale(int64_t count, BFloat factor, const BFloat* x, const uint8_t* keep, BFloat* y) {
  int64_t i = 0;
  for (; i + kFloats <= count; i += kFloats) {
    Halves halves;
    std::memcpy(&halves, x + i, sizeof halves);
    const Floats numbers = reinterpret<Floats>(__builtin_convertvector(halves, Words) << 16);
    store_rounded(numbers * factors(keep + i, widened(factor)), kFloats, y + i);
  }
  if (i == count) return;
  BFloat last[kFloats] = {};
  uint8_t kept[kFloats] = {};
  std::memcpy(last, x + i, (count - i) * sizeof *x);
  std::memcpy(kept, keep + i, count - i);
  scale(kFloats, factor, last, kept, last);
  std::memcpy(y + i, last, (count - i) * sizeof *y);
}

template <class S>
inline S converted(double number) {
  if constexpr (std::is_same_v<S, BFloat>) {
    const Words words = rounded(static_cast<float>(number) - Floats{});
    return {static_cast<uint16_t>(words[0] >> 16)};
  } else {
    return static_cast<S>(number);
  }
}

// Calls body(begin, end) on each thread's share of `count` elements; shares begin at multiples of a chunk.
template <class Body>
void share(int64_t count, int threads, const Body& body) {
  const int64_t chunks = (count + kChunk - 1) / kChunk;
  threads = count < kForOneThread ? 1 : std::max(threads, 1);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t number = thread_number(), team = thread_count();
    const int64_t begin = chunks * number / team * kChunk, end = std::min(count, chunks * (number + 1) / team * kChunk);
    if (begin < end) body(begin, end);
  }
}

// Draws for `count` elements; then does(begin, end, keep) gets chunk by chunk whether each is kept.
template <class Does>
void draw(State& state, int64_t count, int threshold, int threads, const Does& does) {
  const Twister first(state);
  share(count, threads, [&](int64_t begin, int64_t end) {
    Twister twister = first;
    twister.skip(begin / 2);
    uint8_t keep[kChunk + kShorts];
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t some = std::min(kChunk, end - i);
      flip(twister, some, threshold, keep);
      does(i, some, keep);
    }
    if (end == count) twister.write(state);
  });
}

template <class S>
void drop(State& state, int64_t count, int threshold, double factor, const S* x, uint8_t* kept, S* y, int threads) {
  draw(state, count, threshold, threads, [&](int64_t begin, int64_t some, const uint8_t* keep) {
    scale(some, converted<S>(factor), x + begin, keep, y + begin);
    std::memcpy(kept + begin, keep, some);
  });
}

template <class S>
void rescale(int64_t count, double factor, const S* x, const uint8_t* keep, S* y, int threads) {
  share(count, threads, [&](int64_t begin, int64_t end) {
    scale(end - begin, converted<S>(factor), x + begin, keep + begin, y + begin);
  });
}

}  // namespace

extern "C" {

// Of `count` elements, which are kept [count]. The state moves on.
void draw_keep(void* state, int64_t count, int threshold, uint8_t* keep, int threads) {
  draw(*static_cast<State*>(state), count, threshold, threads, [&](int64_t begin, int64_t some, const uint8_t* found) {
    std::memcpy(keep + begin, found, some);
  });
}

#define DROPOUT(TYPE, SUFFIX)                                                                                       \
  void drop_##SUFFIX(void* state, int64_t count, int threshold, double factor, const TYPE* x, uint8_t* keep, TYPE* y, \
                     int threads) {                                                                                  \
    drop(*static_cast<State*>(state), count, threshold, factor, x, keep, y, threads);                                \
  }                                                                                                                  \
  void rescale_##SUFFIX(int64_t count, double factor, const TYPE* x, const uint8_t* keep, TYPE* y, int threads) {    \
    rescale(count, factor, x, keep, y, threads);                                                                     \
  }

DROPOUT(float, f32)
DROPOUT(double, f64)
DROPOUT(BFloat, bf16)
}

// Dividing the work of a pass among threads. Results have the same bits for any number of threads: what is added to
// what, and in which order, follows from shapes and from the structure alone.

#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <type_traits>

#include "guard.h"
#include "layout.h"

namespace {

constexpr int64_t kWorthThreads = 1 << 17;  // multiply-adds; below it, waking threads costs more than they save
constexpr int64_t kWorthThreadsToCopy = 1 << 15;
constexpr int64_t kFeatureWork = 8;     // a feature's packing costs about as much as so many entries
constexpr int64_t kTokensOfASum = 512;  // each sum costs a pass over the values
constexpr int64_t kMostSums = 8;        // and the memory for them

// Calls body(part) for each part, each on a thread of its own.
template <class Body>
void on_threads(int64_t parts, int threads, const Body& body) {
  if (parts <= 1) {
    if (parts == 1) body(int64_t(0));
    return;
  }
  bool done = true;
  // The team always has all threads: a runtime that shrinks its pool would pay for growing it again.
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(&& : done)
  for (int64_t part = 0; part < parts; part++) done = finishes([&] { body(part); }) && done;
  if (!done) throw std::bad_alloc();
}

// Calls body(begin, end) for one contiguous range of whole groups a thread. For numbers that do not depend on others.
template <class Body>
void for_ranges(int64_t size, int threads, const Body& body) {
  const int64_t step = std::max<int64_t>(1, ((size + threads - 1) / threads + kGroup - 1) / kGroup) * kGroup;
  on_threads((size + step - 1) / step, threads,
             [&](int64_t part) { body(part * step, std::min(size, (part + 1) * step)); });
}

// Some panels of outer features for the tokens of one piece.
struct Share {
  int64_t piece, begin, end;  // and its tokens
  int64_t first, last;        // outer features
};

// The tokens are cut into pieces of `step`, and each thread gets a contiguous range of (piece, panel of outer
// features) with about the same work. Where a range begins or ends within a piece, two threads pack the same tokens:
// that costs time and changes no number.
struct Division {
  const Layout& layout;
  int64_t outer, tokens, step, unit;  // unit: tokens of a packed vector, which divide `step`

  int64_t pieces() const { return (tokens + step - 1) / step; }

  template <class Body>
  void run(int threads, const Body& body) const {
    const int64_t parts = std::min<int64_t>(threads, pieces() * panels());
    on_threads(parts, threads, [&](int64_t part) {
      const Place begin = place(part, parts), end = place(part + 1, parts);
      for (int64_t piece = begin.piece; piece <= end.piece; piece++) {
        const int64_t first = piece == begin.piece ? begin.panel : 0;
        const int64_t last = piece == end.piece ? end.panel : panels();
        if (first < last)
          body(Share{piece, piece * step, std::min(tokens, (piece + 1) * step), first * kPanel,
                     std::min(outer, last * kPanel)});
      }
    });
  }

 private:
  struct Place {
    int64_t piece, panel;
  };

  int64_t panels() const { return std::max<int64_t>(1, (outer + kPanel - 1) / kPanel); }  // one that may be empty

  // Of the panels before this one, for one vector of tokens.
  int64_t work(int64_t panel) const {
    const int64_t features = std::min(outer, panel * kPanel);
    return layout.start[features * layout.blocks] + kFeatureWork * features + panel;
  }

  Place place(int64_t part, int64_t parts) const {
    const int64_t vectors = (tokens + unit - 1) / unit, most = step / unit, whole = work(panels());
    const int64_t before = vectors * whole * part / parts, piece = before / (most * whole);
    if (piece == pieces()) return {piece, 0};
    const int64_t rest = before % (most * whole), here = std::min(most, vectors - piece * most);
    int64_t low = 0, high = panels();
    while (low < high) {
      const int64_t panel = (low + high) / 2;
      if (work(panel) * here < rest) low = panel + 1;
      else high = panel;
    }
    return low == panels() ? Place{piece + 1, 0} : Place{piece, low};
  }
};

// Tokens over which one sum for each value runs: whole tiles, in an even number of pieces that two threads can share.
inline int64_t tokens_of_a_sum(int64_t tokens, int64_t tile) {
  if (tokens <= tile) return tile;
  const int64_t pieces = std::min(kMostSums, (tokens + 2 * kTokensOfASum - 1) / (2 * kTokensOfASum) * 2);
  return ((tokens + pieces - 1) / pieces + tile - 1) / tile * tile;
}

// Calls body(vectors as a constant, first token, valid tokens) over [begin, end): tiles of the given number of
// vectors of W tokens, then the narrowest tile that holds the rest.
template <int W, int Most, class Body>
void for_tiles(int64_t begin, int64_t end, int vectors, const Body& body) {
  while (begin < end) {
    const int64_t left = end - begin;
    int n = std::min(vectors, Most);
    while (n > 1 && left <= n / 2 * W) n /= 2;
    const int valid = static_cast<int>(std::min<int64_t>(left, n * W));
    if constexpr (Most >= 8)
      if (n == 8) body(std::integral_constant<int, 8>{}, begin, valid);
    if constexpr (Most >= 4)
      if (n == 4) body(std::integral_constant<int, 4>{}, begin, valid);
    if (n == 2) body(std::integral_constant<int, 2>{}, begin, valid);
    if (n == 1) body(std::integral_constant<int, 1>{}, begin, valid);
    begin += valid;
  }
}

}  // namespace

// The order in which the stored entries of a weight matrix are walked through.

#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "simd.h"

namespace {

constexpr int kPanel = 32;  // outer features whose accumulators stay in the first-level cache
constexpr int kGroup = 4;   // entries whose dot products are summed together
constexpr int kMostIndices = 1 << 16;  // that 16 bits can tell apart
constexpr int kAhead = 64;  // entries between asking for a value's cache line and using it

inline int64_t cache_bytes(int name, int64_t fallback) {
  const int64_t reported = sysconf(name);
  return reported > 0 ? reported : fallback;
}

#ifdef _SC_LEVEL1_DCACHE_SIZE
inline int64_t first_level_cache() { return cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10); }
inline int64_t second_level_cache() { return cache_bytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10); }
#else
inline int64_t first_level_cache() { return 32 << 10; }
inline int64_t second_level_cache() { return 512 << 10; }
#endif

// Entries in segments: all entries of one outer feature within one block of inner features. Segments are ordered by
// panel of outer features and block, so that one block of the packed tile is used by a whole panel while it lies in
// the first-level cache; among the segments of a panel and block, short ones come first, so that the processor
// guesses right when one ends. With few entries a segment, the cost of starting one exceeds what the nearer cache
// saves: then there is a single block, and the segments of a panel are in the order of the values.
struct Layout {
  int vectors = 1;              // of tokens in a full tile
  int64_t blocks = 1;
  int64_t block = 1;            // inner features of a block; the last may have fewer
  std::vector<int32_t> start;   // [segments + 1], segments = outer * blocks
  std::vector<int32_t> feature; // outer feature of each segment, counted from the first of its panel
  std::vector<uint16_t> index;  // inner feature of each entry, counted from the first of its block
  std::vector<int32_t> origin;  // its place in the order of the values; kAhead more follow, for prefetching
  std::vector<int32_t> padding; // entries that repeat the one before them and whose value counts as zero

  // outer and inner: the two coordinates of each entry in the order of the values. Segments are padded to multiples
  // of `group` with copies of their last entry, so that padding touches no number that the result does not depend on
  // anyway (zero times infinity is not zero) and its own dot product is that entry's once more. Blocks are made where
  // segments hold `least_entries` on average; the two passes' numbers for it are measured.
  void build(int64_t outer_size, int64_t inner_size, int64_t entries, const int32_t* outer, const int32_t* inner,
             int group, int blocked_vectors, int least_entries) {
    choose_blocks(outer_size, inner_size, entries, blocked_vectors, least_entries);
    std::vector<int32_t> block_of(inner_size);
    for (int64_t i = 0; i < inner_size; i++) block_of[i] = static_cast<int32_t>(i / block);
    // Before sorting, a segment is known by its place in (panel, block, outer feature).
    const auto unsorted = [&](int64_t k) {
      const int64_t first = outer[k] / kPanel * kPanel;
      return first * blocks + block_of[inner[k]] * std::min<int64_t>(kPanel, outer_size - first) + outer[k] % kPanel;
    };
    const int64_t segments = outer_size * blocks;
    std::vector<int32_t> length(segments, 0), next(segments);
    for (int64_t k = 0; k < entries; k++) length[unsorted(k)]++;
    for (int32_t& n : length) n = (n + group - 1) / group * group;

    start.assign(segments + 1, 0);
    feature.resize(segments);
    for (int64_t first = 0, s = 0; first < outer_size; first += kPanel) {
      const int64_t count = std::min<int64_t>(kPanel, outer_size - first);
      for (int64_t b = 0; b < blocks; b++, s += count) {
        std::iota(&feature[s], &feature[s] + count, 0);
        if (blocks > 1)
          std::stable_sort(&feature[s], &feature[s] + count,
                           [&](int i, int j) { return length[s + i] < length[s + j]; });
        for (int64_t i = 0; i < count; i++) {
          next[s + feature[s + i]] = start[s + i];
          start[s + i + 1] = start[s + i] + length[s + feature[s + i]];
        }
      }
    }
    index.resize(start.back());
    origin.assign(start.back(), -1);
    padding.clear();
    for (int64_t k = 0; k < entries; k++) {
      const int32_t place = next[unsorted(k)]++;
      index[place] = static_cast<uint16_t>(inner[k] - block_of[inner[k]] * block);
      origin[place] = static_cast<int32_t>(k);
    }
    for (std::size_t k = 1; k < index.size(); k++)
      if (origin[k] < 0) {
        index[k] = index[k - 1];
        origin[k] = origin[k - 1];
        padding.push_back(static_cast<int32_t>(k));
      }
    origin.resize(origin.size() + kAhead, 0);
  }

 private:
  // Sets the tile's width and the blocks.
  void choose_blocks(int64_t outer_size, int64_t inner_size, int64_t entries, int blocked_vectors,
                     int least_entries) {
    const auto widest = [&](int n, int64_t room) {  // tile whose packed inner features fit
      while (n > 1 && inner_size * n * VECTOR_BYTES > room) n /= 2;
      return n;
    };
    vectors = widest(blocked_vectors, second_level_cache() / 2);
    const int64_t room = std::max<int64_t>(1, first_level_cache() * 3 / 4 / (vectors * VECTOR_BYTES));
    const int64_t fewest = std::max<int64_t>(1, (inner_size + kMostIndices - 1) / kMostIndices);
    blocks = std::max(fewest, (inner_size + room - 1) / room);
    if (entries < least_entries * outer_size * blocks) {
      blocks = fewest;
      vectors = widest(std::min(blocked_vectors, 4), second_level_cache());
    }
    block = std::max<int64_t>(1, (inner_size + blocks - 1) / blocks);
  }
};

// Both passes' orders of one weight matrix [rows, columns] given in CSR form.
struct Plan {
  int64_t rows, columns, entries;
  bool in_order;     // the forward pass walks through the values as they are stored
  Layout by_row;     // outer: rows
  Layout by_column;  // outer: columns

  Plan(int64_t rows_, int64_t columns_, int64_t entries_, const int32_t* row_start, const int32_t* column)
      : rows(rows_), columns(columns_), entries(entries_) {
    std::vector<int32_t> row(entries);
    for (int64_t r = 0; r < rows; r++) std::fill(row.begin() + row_start[r], row.begin() + row_start[r + 1], r);
    by_row.build(rows, columns, entries, row.data(), column, 1, VECTOR_BYTES < 64 ? 8 : 4, 11);
    by_column.build(columns, rows, entries, column, row.data(), kGroup, 4, 22);
    in_order = by_row.blocks == 1;
    if (in_order) by_row.origin = {};
  }
};

}  // namespace

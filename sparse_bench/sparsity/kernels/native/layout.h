// The order in which the stored entries of a weight matrix are walked through.

#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "simd.h"

namespace {

constexpr int kPanel = 32;  // outer features whose accumulators stay in the first-level cache
constexpr int kGroup = 4;   // entries whose dot products are summed together

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
// (panel of outer features, block, outer feature), so that one block of the packed tile is used by a whole panel
// while it lies in the first-level cache. With few entries a segment, the cost of starting one exceeds what the
// nearer cache saves: then there is a single block.
struct Layout {
  int vectors = 1;             // of tokens in a full tile
  int64_t blocks = 1;
  std::vector<int32_t> start;  // [outer * blocks + 1]
  std::vector<int32_t> index;  // inner feature of each entry
  std::vector<int32_t> origin; // its place in the order of the values; -1 for padding, which counts as zero

  // outer and inner: the two coordinates of each entry in the order of the values. Segments are padded to multiples
  // of `group` with copies of their last index, so that padding touches no number that the result does not depend on
  // anyway (zero times infinity is not zero). Blocks are made where segments hold `least_entries` on average; the
  // two passes' numbers for it are measured.
  void build(int64_t outer_size, int64_t inner_size, int64_t entries, const int32_t* outer, const int32_t* inner,
             int group, int blocked_vectors, int least_entries) {
    const int64_t vector_bytes = VECTOR_BYTES;
    const auto widest = [&](int n, int64_t room) {  // tile whose packed inner features fit
      while (n > 1 && inner_size * n * vector_bytes > room) n /= 2;
      return n;
    };
    vectors = widest(blocked_vectors, second_level_cache() / 2);
    const int64_t block_room = std::max<int64_t>(1, first_level_cache() * 3 / 4 / (vectors * vector_bytes));
    blocks = std::max<int64_t>(1, (inner_size + block_room - 1) / block_room);
    if (entries < least_entries * outer_size * blocks) {
      blocks = 1;
      vectors = widest(std::min(blocked_vectors, 4), second_level_cache());
    }
    const int64_t block = (inner_size + blocks - 1) / std::max<int64_t>(1, blocks);

    const auto segment = [&](int32_t o, int64_t b) {
      const int64_t first = o / kPanel * kPanel;
      return first * blocks + b * std::min<int64_t>(kPanel, outer_size - first) + o % kPanel;
    };
    std::vector<int32_t> block_of(inner_size);
    for (int64_t i = 0; i < inner_size; i++) block_of[i] = static_cast<int32_t>(i / block);
    start.assign(outer_size * blocks + 1, 0);
    for (int64_t k = 0; k < entries; k++) start[segment(outer[k], block_of[inner[k]]) + 1]++;
    for (int64_t s = 0; s < outer_size * blocks; s++) start[s + 1] = start[s] + (start[s + 1] + group - 1) / group * group;
    std::vector<int32_t> next(start.begin(), start.end() - 1);
    index.resize(start.back());
    origin.assign(start.back(), -1);
    for (int64_t k = 0; k < entries; k++) {
      const int32_t place = next[segment(outer[k], block_of[inner[k]])]++;
      index[place] = inner[k];
      origin[place] = static_cast<int32_t>(k);
    }
    for (int64_t s = 0; s < outer_size * blocks; s++)
      for (int32_t k = next[s]; k < start[s + 1]; k++) index[k] = index[k - 1];
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
    by_row.build(rows, columns, entries, row.data(), column, 1, VECTOR_BYTES < 64 ? 8 : 4, 16);
    by_column.build(columns, rows, entries, column, row.data(), kGroup, 4, 28);
    in_order = by_row.blocks == 1;
    if (in_order) by_row.origin = {};
  }
};

}  // namespace

// The order in which an LSTM's recurrent weight W [4 hidden, hidden] is walked through.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layout.h"

namespace {

constexpr int kGates = 4;

// A position of each entry. All are read in every time step, so that they take 16 bits where that is enough.
class Indices {
 public:
  Indices(int64_t entries, int64_t size) {
    if (size <= kMostIndices) narrow_.resize(entries);
    else wide_.resize(entries);
  }

  void set(int64_t k, int64_t index) {
    if (wide_.empty()) narrow_[k] = static_cast<uint16_t>(index);
    else wide_[k] = static_cast<int32_t>(index);
  }

  template <class Body>
  void visit(const Body& body) const {
    if (wide_.empty()) body(narrow_.data());
    else body(wide_.data());
  }

 private:
  std::vector<uint16_t> narrow_;
  std::vector<int32_t> wide_;
};

struct Recurrence {
  int64_t hidden, entries;
  std::vector<int32_t> row_start, column_start;
  std::vector<int32_t> origin;  // by column: values[origin[k]] is the k-th value
  Indices column, row;          // the columns of W in the order of rows, the rows in that of columns

  Recurrence(int64_t hidden_, int64_t entries_, const int32_t* start, const int32_t* columns)
      : hidden(hidden_), entries(entries_), row_start(start, start + kGates * hidden_ + 1),
        column_start(hidden_ + 1, 0), origin(entries_), column(entries_, hidden_), row(entries_, kGates * hidden_) {
    for (int64_t k = 0; k < entries; k++) {
      column.set(k, columns[k]);
      column_start[columns[k] + 1]++;
    }
    for (int64_t c = 0; c < hidden; c++) column_start[c + 1] += column_start[c];
    std::vector<int32_t> next(column_start.begin(), column_start.end() - 1);
    for (int64_t r = 0; r < kGates * hidden; r++)
      for (int64_t k = row_start[r]; k < row_start[r + 1]; k++) {
        const int32_t place = next[columns[k]]++;
        row.set(place, r);
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

}  // namespace

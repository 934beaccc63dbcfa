// Rows of large tables: taking them, putting them back, adding to them, and bringing those of a table trained by Adam up
// to date over steps in which they had no gradient. All wait for memory more than they compute, so the rows to come are
// fetched ahead.
//
// What the numbers of a row are is said where they are computed (AdamDeferral): bar, shrink, decay of the first moment,
// decay of the second one, then the coefficients of a polynomial. The loop over a row is simple enough for the
// compiler's own vector code once the number of coefficients is a constant.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("tree-vectorize")
#endif

namespace {

constexpr int most_terms = 24;
constexpr int64_t line = 64;   // bytes that are fetched at once
constexpr int64_t ahead = 4;   // rows

void fetch(const void *start, int64_t bytes, bool to_write) {
    const char *byte = static_cast<const char *>(start);
    for (int64_t i = 0; i < bytes; i += line) {
        if (to_write)
            __builtin_prefetch(byte + i, 1);
        else
            __builtin_prefetch(byte + i, 0);
    }
}

template <typename T, int terms>
void catch_up_row(int64_t width, const T *weight, const T *first, const T *second, T *new_weight, T *new_first,
                  T *new_second, const T *numbers, T eps) {
    const T bar = numbers[0], shrink = numbers[1], first_decay = numbers[2], second_decay = numbers[3];
    T coefficient[terms];
    for (int n = 0; n < terms; ++n) coefficient[n] = numbers[4 + n];
    // The new row is either the old one or somewhere else.
#pragma GCC ivdep
    for (int64_t i = 0; i < width; ++i) {
        const T inverse = T(1) / (std::sqrt(second[i]) * bar + eps);
        const T share = T(1) - eps * inverse;
        T total = coefficient[terms - 1];
#pragma GCC unroll 24
        for (int n = terms - 2; n >= 0; --n) total = total * share + coefficient[n];
        new_weight[i] = weight[i] * shrink - first[i] * inverse * total;
        new_first[i] = first[i] * first_decay;
        new_second[i] = second[i] * second_decay;
    }
}

template <typename T>
using Row = void (*)(int64_t, const T *, const T *, const T *, T *, T *, T *, const T *, T);

template <typename T, std::size_t... n>
constexpr std::array<Row<T>, most_terms> by_terms(std::index_sequence<n...>) {
    return {&catch_up_row<T, int(n) + 1>...};
}

template <typename T>
void catch_up(int64_t count, int64_t width, const int64_t *rows, T *weight, T *first, T *second, T *copies,
              const T *numbers, int64_t terms, T eps, int threads) {
    static constexpr auto functions = by_terms<T>(std::make_index_sequence<most_terms>());
    const Row<T> row_function = functions[terms - 1];
    const int64_t bytes = width * int64_t(sizeof(T)), size = count * width;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && size > 1 << 15)
    for (int64_t i = 0; i < count; ++i) {
        const int64_t start = (rows ? rows[i] : i) * width;
        const T *own = numbers + i * (4 + terms);
        if (!copies) {
            row_function(width, weight + start, first + start, second + start, weight + start, first + start,
                         second + start, own, eps);
            continue;
        }
        if (rows && i + ahead < count) {
            const int64_t next = rows[i + ahead] * width;
            fetch(weight + next, bytes, true);
            fetch(first + next, bytes, false);
            fetch(second + next, bytes, false);
        }
        T *copy = copies + i * width;
        row_function(width, weight + start, first + start, second + start, copy, copy + size, copy + 2 * size, own,
                     eps);
        std::memcpy(weight + start, copy, bytes);
    }
}

template <typename T>
void add(int64_t count, int64_t width, const int64_t *rows, const T *values, T *table, T scale) {
    for (int64_t i = 0; i < count; ++i) {
        if (i + ahead < count) fetch(table + rows[i + ahead] * width, width * int64_t(sizeof(T)), true);
        const T *value = values + i * width;
        T *row = table + rows[i] * width;
#pragma GCC ivdep
        for (int64_t j = 0; j < width; ++j) row[j] += scale * value[j];
    }
}

}  // namespace

extern "C" {

// rows: distinct, `count` of them; null for the first `count` rows of the table. copies: null, and the tables are
// changed; or [3, count, width], and the new weights and moments go there, the weights into their table as well.
void adam_rows_f32(int64_t count, int64_t width, const int64_t *rows, float *weight, float *first, float *second,
                   float *copies, const float *numbers, int64_t terms, float eps, int threads) {
    catch_up(count, width, rows, weight, first, second, copies, numbers, terms, eps, threads);
}

void adam_rows_f64(int64_t count, int64_t width, const int64_t *rows, double *weight, double *first, double *second,
                   double *copies, const double *numbers, int64_t terms, double eps, int threads) {
    catch_up(count, width, rows, weight, first, second, copies, numbers, terms, eps, threads);
}

// values [count, bytes] → the distinct rows of the table.
void put_rows(int64_t count, int64_t bytes, const int64_t *rows, const char *values, char *table) {
    for (int64_t i = 0; i < count; ++i) {
        if (i + ahead < count) fetch(table + rows[i + ahead] * bytes, bytes, true);
        std::memcpy(table + rows[i] * bytes, values + i * bytes, bytes);
    }
}

// The rows of the table → values [count, bytes].
void take_rows(int64_t count, int64_t bytes, const int64_t *rows, const char *table, char *values) {
    for (int64_t i = 0; i < count; ++i) {
        if (i + ahead < count) fetch(table + rows[i + ahead] * bytes, bytes, false);
        std::memcpy(values + i * bytes, table + rows[i] * bytes, bytes);
    }
}

// scale * values [count, width] is added to the rows of the table.
void add_rows_f32(int64_t count, int64_t width, const int64_t *rows, const float *values, float *table, float scale) {
    add(count, width, rows, values, table, scale);
}

void add_rows_f64(int64_t count, int64_t width, const int64_t *rows, const double *values, double *table,
                  double scale) {
    add(count, width, rows, values, table, scale);
}
}

// A fuzzer's bytes as arguments: the same bytes give the same arguments; after the last come zeros.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

namespace fuzz {

class Reader {
public:
    Reader(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}

    std::uint8_t byte() { return data_ == end_ ? std::uint8_t{0} : *data_++; }

    bool one_in(int cases) { return byte() % cases == cases - 1; }

    template <typename Number>
    Number number() {
        Number value{};
        const std::size_t size =
            std::min(sizeof(Number), static_cast<std::size_t>(end_ - data_));
        if (size > 0) std::memcpy(&value, data_, size);
        data_ += size;
        return value;
    }

    std::int64_t within(std::int64_t low, std::int64_t high) {
        return low + number<std::uint16_t>() % (high - low + 1);
    }

    template <typename Choice, std::size_t Count>
    Choice choice(const std::array<Choice, Count>& choices) {
        return choices[byte() % Count];
    }

    // No size of an image or an output.
    std::int64_t no_size() {
        return choice(std::array<std::int64_t, 8>{
            0, -1, 65536, std::int64_t{1} << 31, std::int64_t{1} << 32, std::int64_t{1} << 62,
            std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()});
    }

    // Mostly a position or a length that could be meant; at times any at all.
    std::int64_t any_integer(std::int64_t likely) {
        if (one_in(8)) return number<std::int64_t>();
        if (one_in(8)) return no_size();
        return within(0, likely);
    }

    // Mostly within 0 to likely; at times any bit pattern, NaN and the infinities among them.
    double any_real(double likely) {
        if (one_in(8)) return number<double>();
        if (one_in(8)) {
            return choice(std::array<double, 6>{std::numeric_limits<double>::quiet_NaN(),
                                                std::numeric_limits<double>::infinity(),
                                                -std::numeric_limits<double>::infinity(),
                                                std::numeric_limits<double>::denorm_min(), -0.0,
                                                std::numeric_limits<double>::max()});
        }
        return static_cast<double>(number<std::uint16_t>()) / 65535.0 * likely;
    }

    // Exactly as many as asked for, so that a sanitizer sees the first one beyond: the bytes that
    // are left, over and over.
    template <typename Number>
    std::vector<Number> all_that_is_left(std::size_t count) {
        std::vector<Number> numbers(count, Number{0});
        const std::vector<std::uint8_t> bytes(data_, end_);
        if (bytes.empty()) return numbers;
        std::size_t next = 0;
        for (Number& number : numbers) {
            std::array<std::uint8_t, sizeof(Number)> parts{};
            for (std::uint8_t& part : parts) part = bytes[next++ % bytes.size()];
            std::memcpy(&number, parts.data(), sizeof(Number));
        }
        return numbers;
    }

private:
    const std::uint8_t* data_;
    const std::uint8_t* end_;
};

// What no input may break; a fuzzer takes the abort for a finding.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
}

}  // namespace fuzz

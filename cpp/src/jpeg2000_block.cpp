#include "jpeg2000_block.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <utility>

#include "jpeg2000_codestream.hpp"

namespace mammoclip::jpeg2000 {
namespace {

// An encoder may cut a codeword a few bytes behind what its passes need, and many before where the
// ones that a decoder goes on with (C.3.4) do as well, as they do while nothing new is found.
constexpr std::ptrdiff_t most_left = 16;
constexpr int most_missing = 128;

constexpr std::size_t first_sign = 9, first_magnitude = 14, run_length = 17, uniform = 18;

struct Estimate {  // table C.2
    std::uint16_t probability;
    std::uint8_t more, less, exchange;
};

constexpr std::array<Estimate, 47> estimates{{
    {0x5601, 1, 1, 1},    {0x3401, 2, 6, 0},    {0x1801, 3, 9, 0},    {0x0AC1, 4, 12, 0},
    {0x0521, 5, 29, 0},   {0x0221, 38, 33, 0},  {0x5601, 7, 6, 1},    {0x5401, 8, 14, 0},
    {0x4801, 9, 14, 0},   {0x3801, 10, 14, 0},  {0x3001, 11, 17, 0},  {0x2401, 12, 18, 0},
    {0x1C01, 13, 20, 0},  {0x1601, 29, 21, 0},  {0x5601, 15, 14, 1},  {0x5401, 16, 14, 0},
    {0x5101, 17, 15, 0},  {0x4801, 18, 16, 0},  {0x3801, 19, 17, 0},  {0x3401, 20, 18, 0},
    {0x3001, 21, 19, 0},  {0x2801, 22, 19, 0},  {0x2401, 23, 20, 0},  {0x2201, 24, 21, 0},
    {0x1C01, 25, 22, 0},  {0x1801, 26, 23, 0},  {0x1601, 27, 24, 0},  {0x1401, 28, 25, 0},
    {0x1201, 29, 26, 0},  {0x1101, 30, 27, 0},  {0x0AC1, 31, 28, 0},  {0x09C1, 32, 29, 0},
    {0x08A1, 33, 30, 0},  {0x0521, 34, 31, 0},  {0x0441, 35, 32, 0},  {0x02A1, 36, 33, 0},
    {0x0221, 37, 34, 0},  {0x0141, 38, 35, 0},  {0x0111, 39, 36, 0},  {0x0085, 40, 37, 0},
    {0x0049, 41, 38, 0},  {0x0025, 42, 39, 0},  {0x0015, 43, 40, 0},  {0x0009, 44, 41, 0},
    {0x0005, 45, 42, 0},  {0x0001, 45, 43, 0},  {0x5601, 46, 46, 0},
}};

// C.3; the bytes end with FF FF, which it never passes.
class Decoder {
public:
    explicit Decoder(const std::uint8_t* begin) : next_(begin), code_(unsigned{*begin} << 16) {
        feed();
        code_ <<= 7;
        shifts_ -= 7;
        reset();
    }

    void reset() {  // table D.7
        contexts_.fill({});
        contexts_[0].state = 4;
        contexts_[run_length].state = 3;
        contexts_[uniform].state = 46;
    }

    int decide(std::size_t context) {
        Context& used = contexts_[context];
        const Estimate& estimate = estimates[used.state];
        interval_ -= estimate.probability;
        const bool lower = (code_ >> 16) < estimate.probability;
        if (!lower) {
            code_ -= unsigned{estimate.probability} << 16;
            if ((interval_ & 0x8000) != 0) return used.symbol;
        }
        const bool likely = (interval_ < estimate.probability) == lower;
        if (lower) interval_ = estimate.probability;
        const int symbol = likely ? used.symbol : 1 - used.symbol;
        if (!likely && estimate.exchange) used.symbol = static_cast<std::uint8_t>(symbol);
        used.state = likely ? estimate.more : estimate.less;
        do {
            if (shifts_ == 0) feed();
            interval_ <<= 1;
            code_ <<= 1;
            --shifts_;
        } while ((interval_ & 0x8000) == 0);
        return symbol;
    }

    int missing() const { return missing_; }
    const std::uint8_t* next() const { return next_; }

private:
    struct Context {
        std::uint8_t state = 0, symbol = 0;
    };

    void feed() {
        shifts_ = 8;
        if (*next_ != 0xFF) {
            code_ += unsigned{*++next_} << 8;
        } else if (next_[1] > 0x8F) {
            code_ += 0xFF00;
            ++missing_;
        } else {
            code_ += unsigned{*++next_} << 9;
            shifts_ = 7;
        }
    }

    const std::uint8_t* next_;
    std::uint32_t code_, interval_ = 0x8000;
    int shifts_ = 0, missing_ = 0;
    std::array<Context, 19> contexts_{};
};

class Coefficients {
public:
    Coefficients(Decoder& decoder, int width, int height, Band band, int style)
        : decoder_(decoder), width_(width), height_(height), band_(band), style_(style),
          states_(static_cast<std::size_t>((width + 2) * (height + 2))) {}

    // D.3. The symbols that may end a bit-plane are wrong where a codeword was cut behind them, D.5.
    void decode(int passes) {
        for (int pass = 0; pass < passes; ++pass) {
            const int kind = (pass + 2) % 3;
            for (int top = 0; top < height_; top += 4) {
                for (int column = 0; column < width_; ++column) {
                    if (kind == 2) {
                        clean_up(column, top);
                    } else {
                        for (int row = top; row < std::min(top + 4, height_); ++row) {
                            kind == 0 ? propagate(column, row) : refine(column, row);
                        }
                    }
                }
            }
            if (kind == 2 && (style_ & segmentation) != 0) {
                for (int bit = 0; bit < 4; ++bit) decoder_.decide(uniform);
            }
            if ((style_ & reset_contexts) != 0) decoder_.reset();
        }
    }

private:
    enum : std::uint8_t { significant = 1, negative = 2, visited = 4, refined = 8 };

    struct Neighbours {
        int horizontal, vertical, diagonal;
        bool any() const { return horizontal + vertical + diagonal > 0; }
    };

    std::size_t place(int column, int row) const {
        return static_cast<std::size_t>((row + 1) * (width_ + 2) + column + 1);
    }

    // Of the row below a stripe nothing is known where contexts are causal, D.7.
    bool hidden(int row, int down) const {
        return down > 0 && (style_ & causal) != 0 && row % 4 == 3;
    }

    int is_significant(int column, int row, int right, int down) const {
        return hidden(row, down) ? 0 : states_[place(column + right, row + down)] & significant;
    }

    int sign(int column, int row, int right, int down) const {
        if (is_significant(column, row, right, down) == 0) return 0;
        return (states_[place(column + right, row + down)] & negative) != 0 ? -1 : 1;
    }

    Neighbours around(int column, int row) const {
        const auto at = [&](int right, int down) { return is_significant(column, row, right, down); };
        return {at(-1, 0) + at(1, 0), at(0, -1) + at(0, 1),
                at(-1, -1) + at(1, -1) + at(-1, 1) + at(1, 1)};
    }

    std::size_t significance_context(Neighbours near) const {  // table D.1
        if (band_ == Band::diagonal) {
            const int beside = near.horizontal + near.vertical;
            if (near.diagonal > 2) return 8;
            if (near.diagonal == 2) return beside > 0 ? 7 : 6;
            const int base = near.diagonal == 1 ? 3 : 0;
            return static_cast<std::size_t>(base + std::min(beside, 2));
        }
        if (band_ == Band::horizontal) std::swap(near.horizontal, near.vertical);
        if (near.horizontal == 2) return 8;
        if (near.horizontal == 1) return near.vertical > 0 ? 7 : near.diagonal > 0 ? 6 : 5;
        if (near.vertical > 0) return near.vertical == 2 ? 4 : 3;
        return static_cast<std::size_t>(std::min(near.diagonal, 2));
    }

    void become_significant(int column, int row) {  // tables D.2 and D.3
        const auto at = [&](int right, int down) { return sign(column, row, right, down); };
        const int across = std::clamp(at(-1, 0) + at(1, 0), -1, 1);
        const int along = std::clamp(at(0, -1) + at(0, 1), -1, 1);
        const int code = 3 * across + along;
        const int bit = decoder_.decide(first_sign + static_cast<std::size_t>(std::abs(code)));
        std::uint8_t& state = states_[place(column, row)];
        state |= significant;
        if ((bit ^ static_cast<int>(code < 0)) != 0) state |= negative;
    }

    void propagate(int column, int row) {
        std::uint8_t& state = states_[place(column, row)];
        const Neighbours near = around(column, row);
        if ((state & significant) != 0 || !near.any()) return;
        if (decoder_.decide(significance_context(near)) != 0) become_significant(column, row);
        state |= visited;
    }

    void refine(int column, int row) {
        std::uint8_t& state = states_[place(column, row)];
        if ((state & significant) == 0 || (state & visited) != 0) return;
        const bool again = (state & refined) != 0;
        decoder_.decide(first_magnitude + (again ? 2U : around(column, row).any() ? 1U : 0U));
        state |= refined;
    }

    void clean_up(int column, int top) {
        const int end = std::min(top + 4, height_);
        int row = top;
        bool found = false;
        if (is_quiet(column, top)) {
            if (decoder_.decide(run_length) == 0) return;
            row += 2 * decoder_.decide(uniform);
            row += decoder_.decide(uniform);
            found = true;
        }
        for (; row < end; ++row) {
            std::uint8_t& state = states_[place(column, row)];
            if ((state & (significant | visited)) == 0) {
                if (found || decoder_.decide(significance_context(around(column, row))) != 0) {
                    become_significant(column, row);
                }
            }
            found = false;
            state &= static_cast<std::uint8_t>(~visited);
        }
    }

    // Whether a run of four stands for the column of a stripe, D.3.4.
    bool is_quiet(int column, int top) const {
        if (top + 4 > height_) return false;
        for (int row = top; row < top + 4; ++row) {
            if ((states_[place(column, row)] & (significant | visited)) != 0) return false;
            if (around(column, row).any()) return false;
        }
        return true;
    }

    Decoder& decoder_;
    int width_, height_;
    Band band_;
    int style_;
    std::vector<std::uint8_t> states_;
};

}  // namespace

bool uses_its_bytes(std::vector<std::uint8_t>& bytes, int width, int height, Band band, int passes,
                    int style) {
    const auto size = static_cast<std::ptrdiff_t>(bytes.size());
    bytes.insert(bytes.end(), {0xFF, 0xFF});
    Decoder decoder(bytes.data());
    Coefficients coefficients(decoder, width, height, band, style);
    coefficients.decode(passes);
    return decoder.missing() <= most_missing && bytes.data() + size - decoder.next() <= most_left;
}

}  // namespace mammoclip::jpeg2000

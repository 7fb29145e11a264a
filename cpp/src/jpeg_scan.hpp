// What the readers of JPEG frames share, ISO 10918-1: the headers before the one scan (annex B),
// Huffman codes (annexes C and F.2.2.3), and the bits of entropy-coded data.
#pragma once

#include <array>
#include <cstdint>

namespace mammoclip::jpeg {

using Fault = const char*;  // the end of "a frame with ...", nullptr for none

constexpr Fault data_end_early = "entropy-coded data that end early or hold no code";
constexpr Fault data_go_on = "entropy-coded data that go on behind its last pixel";
constexpr Fault no_such_marker = "a marker out of place";
constexpr int first_restart = 0xD0;  // RST0, the first of eight
constexpr int end_of_image = 0xD9;

// Of one DHT: which symbol each code stands for. Codes are compared as the 16 bits they begin.
class HuffmanCodes {
public:
    struct Symbol {
        std::uint8_t length;  // of its code, 0 where there is none
        std::uint8_t value;
    };

    // False for lengths that no code has; `counts` holds 16 numbers of codes, then the symbols.
    bool define(const std::uint8_t* counts, int symbols);
    bool defined() const { return symbols_ > 0; }
    bool within(int most) const;  // whether no symbol is above

    Symbol find(unsigned bits) const {
        for (unsigned length = 1, first = 0; length <= 16; ++length) {
            if (bits < end_[length]) {
                const unsigned place = (bits - end_[length - 1]) >> (16 - length);
                return {static_cast<std::uint8_t>(length), values_[first + place]};
            }
            first += counts_[length];
        }
        return {0, 0};
    }

private:
    std::array<unsigned, 17> counts_{};  // by length
    std::array<unsigned, 17> end_{};     // by length: the 16 bits behind its last code
    std::array<std::uint8_t, 256> values_{};
    int symbols_ = 0;
};

// What is said before the scan's data.
struct Scan {
    int process = -1;  // n of SOFn
    int precision = 0;
    std::int64_t rows = 0, columns = 0;
    std::int64_t restart_interval = 0;  // in samples or blocks, 0 for none
    std::array<HuffmanCodes, 4> dc, ac;
    const HuffmanCodes *dc_codes = nullptr, *ac_codes = nullptr;  // of this scan
    int start = 0, end = 0;  // Ss, the predictor of JPEG Lossless, and Se
    int high = 0, low = 0;   // Ah, and Al, the point transform
    const std::uint8_t* data = nullptr;
};

// Reads all markers up to the data of the first scan of an image of one component.
Fault read_scan(const std::uint8_t* frame, std::int64_t size, Scan& scan);

// Entropy-coded data, whose bytes FF are followed by 00; a marker ends them.
class Bits {
public:
    Bits(const std::uint8_t* next, const std::uint8_t* end) : next_(next), end_(end) {}

    // Makes 56 bits ready, or all there are until the data end; zeros follow those.
    void refill() {
        if (end_ - next_ >= 8) {
            const std::uint64_t word = eight_bytes();
            if (!any_byte_is_ff(word)) {
                // Reading some bits twice sets them twice, to the same.
                ready_ |= word >> count_;
                next_ += (63 - count_) >> 3;
                count_ |= 56;
                return;
            }
        }
        *this = refilled_by_bytes(*this);
    }

    // One code and what follows it take 32 bits at most.
    void refill_for_one() {
        if (count_ < 32) refill();
    }

    // 1 to 16 bits.
    unsigned peek(int count) const { return static_cast<unsigned>(ready_ >> (64 - count)); }

    // At most 32 bits.
    void skip(int count) {
        ready_ <<= count;
        count_ -= count;
    }

    // For where no code begins: there are no more bits.
    void stop() {
        next_ = end_;
        count_ = -1;
    }

    // Whether more bits were skipped than there are.
    bool overrun() const { return count_ < 0; }

    // Goes on behind the marker, which must follow the byte of the last bit skipped.
    Fault pass(int marker);

    // Whether nothing but zeros is left; behind a marker.
    bool only_zeros_follow() const;

private:
    // By value, so that what calls it can keep all in registers.
    static Bits refilled_by_bytes(Bits bits);

    std::uint64_t eight_bytes() const {
        std::uint64_t word = 0;
        for (int i = 0; i < 8; ++i) word = word << 8 | next_[i];
        return word;
    }

    static bool any_byte_is_ff(std::uint64_t word) {
        return ((~word - 0x0101010101010101) & word & 0x8080808080808080) != 0;
    }

    const std::uint8_t* next_;
    const std::uint8_t* end_;
    std::uint64_t ready_ = 0;  // the next bit is the highest
    int count_ = 0;            // of the bits ready; negative once overrun, and then so for good
};

}  // namespace mammoclip::jpeg

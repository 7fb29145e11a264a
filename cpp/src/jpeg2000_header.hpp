// The header of one packet of JPEG 2000, ISO 15444-1 B.10: what comes of which code-block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg2000_layout.hpp"

namespace mammoclip::jpeg2000 {

// The bits of a packet header, B.10.1. Behind the end there are zeros.
class Bits {
public:
    explicit Bits(Span data) : next_(data.begin), end_(data.end) {}

    int next() {
        if (count_ == 0) load();
        return byte_ >> --count_ & 1;
    }

    std::uint32_t next(int count) {
        std::uint32_t value = 0;
        while (count-- > 0) value = value << 1 | static_cast<std::uint32_t>(next());
        return value;
    }

    // Where the header ends; nullptr where it is none.
    const std::uint8_t* finish() {
        if (byte_ == 0xFF) load();
        return broken_ ? nullptr : next_;
    }

    bool broken() const { return broken_; }

private:
    void load() {
        const bool stuffed = byte_ == 0xFF;
        broken_ = broken_ || next_ == end_ || (stuffed && *next_ > 0x7F);
        byte_ = broken_ ? 0 : *next_++;
        count_ = stuffed ? 7 : 8;
    }

    const std::uint8_t* next_;
    const std::uint8_t* end_;
    int byte_ = 0, count_ = 0;
    bool broken_ = false;
};

// Bytes of a code-block in the body of a packet, all of one codeword segment.
struct Part {
    std::size_t block;
    std::int64_t length;
    bool cleanup;  // of high-throughput coding
};

class HeaderReader {
public:
    HeaderReader(Bits& bits, std::vector<Block>& blocks, std::vector<Part>& parts, int style)
        : bits_(bits), blocks_(blocks), parts_(parts), style_(style) {}

    // False where there is no such header.
    bool read(Group& group, int layer);

private:
    bool read_zero_planes(Group& group, std::int64_t column, std::int64_t row);
    bool read_lengths(std::size_t index);
    bool read_high_throughput(std::size_t index, int passes);

    Bits& bits_;
    std::vector<Block>& blocks_;
    std::vector<Part>& parts_;
    int style_;
};

}  // namespace mammoclip::jpeg2000

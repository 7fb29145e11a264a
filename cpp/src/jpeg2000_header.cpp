#include "jpeg2000_header.hpp"

#include <algorithm>

namespace mammoclip::jpeg2000 {
namespace {

// A band has 37 bit-planes at most, and a region of interest moves them up by as many (E.1, H.1).
constexpr std::uint32_t most_planes = 2 * 37;
constexpr int most_passes = 3 * 74 - 2;
constexpr int most_length_bits = 31;

// Table B.4.
int read_passes(Bits& bits) {
    if (bits.next() == 0) return 1;
    if (bits.next() == 0) return 2;
    std::uint32_t more = bits.next(2);
    if (more < 3) return 3 + static_cast<int>(more);
    more = bits.next(5);
    if (more < 31) return 6 + static_cast<int>(more);
    return 37 + static_cast<int>(bits.next(7));
}

int whole_log(int value) {
    int log = 0;
    while (value >>= 1) ++log;
    return log;
}

// Of the codeword segment that holds a pass, how many passes there are from it on, D.4 to D.6.
int passes_left(int pass, int style) {
    if ((style & terminate_all) != 0) return 1;
    if ((style & bypass) == 0) return 1 << 20;
    if (pass < 10) return 10 - pass;
    const int kind = (pass - 10) % 3;
    return kind < 2 ? 2 - kind : 1;
}

}  // namespace

bool HeaderReader::read(Group& group, int layer) {
    for (std::int64_t row = 0; row < group.down; ++row) {
        for (std::int64_t column = 0; column < group.across; ++column) {
            const std::size_t index =
                group.first + static_cast<std::size_t>(row * group.across + column);
            const Block& block = blocks_[index];
            const bool first = block.passes == 0;
            const auto threshold = static_cast<std::uint32_t>(layer) + 1;
            const bool included = first
                                      ? group.inclusion.is_below(bits_, column, row, threshold)
                                      : bits_.next() != 0;
            if (bits_.broken()) return false;
            if (!included) continue;
            if (first && !read_zero_planes(group, column, row)) return false;
            if (!read_lengths(index) || bits_.broken()) return false;
        }
    }
    return true;
}

bool HeaderReader::read_zero_planes(Group& group, std::int64_t column, std::int64_t row) {
    for (std::uint32_t planes = 1; planes <= most_planes; ++planes) {
        if (group.zero_planes.is_below(bits_, column, row, planes)) return true;
    }
    return false;
}

bool HeaderReader::read_lengths(std::size_t index) {
    Block& block = blocks_[index];
    int passes = read_passes(bits_);
    while (bits_.next() != 0) {
        if (++block.length_bits > most_length_bits) return false;
    }
    if ((style_ & high_throughput) != 0) {
        return read_high_throughput(index, passes);
    }
    while (passes > 0) {
        const int together = std::min(passes, passes_left(block.passes, style_));
        const int count = block.length_bits + whole_log(together);
        if (count > most_length_bits) return false;
        parts_.push_back({index, bits_.next(count), false});
        block.passes += together;
        passes -= together;
    }
    return block.passes <= most_passes;
}

// ISO 15444-15 B.3: whole sets that are left out, a cleanup pass, and up to two refinements.
bool HeaderReader::read_high_throughput(std::size_t index, int passes) {
    Block& block = blocks_[index];
    const int left_out = (passes - 1) / 3, refinements = (passes - 1) % 3;
    const int count = block.length_bits + whole_log(3 * left_out + 1);
    if (count > most_length_bits) return false;
    parts_.push_back({index, bits_.next(count), true});
    if (refinements > 0) {
        parts_.push_back({index, bits_.next(block.length_bits + refinements - 1), false});
    }
    block.passes = passes;
    return true;
}

}  // namespace mammoclip::jpeg2000

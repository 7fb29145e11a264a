#include <algorithm>
#include <array>

#include "jpeg_scan.hpp"
#include "mammoclip/jpeg.hpp"

namespace mammoclip {
namespace {

using jpeg::Bits;
using jpeg::Fault;
using jpeg::HuffmanCodes;

constexpr int looked_up = 10;  // bits; two tables of 2 KiB
constexpr int most_dc_category = 15;
constexpr int block_side = 8, block_coefficients = 64;
constexpr int end_of_block = 0x00, sixteen_zeros = 0xF0;

class Symbols {
public:
    explicit Symbols(const HuffmanCodes& codes) : codes_(codes) {
        for (unsigned bits = 0; bits < table_.size(); ++bits) {
            const HuffmanCodes::Symbol symbol = codes.find(bits << (16 - looked_up));
            if (symbol.length <= looked_up) table_[bits] = symbol;
        }
    }

    // Skips the code, and the bits that the low half of its symbol says will follow.
    int next(Bits& bits) const {
        bits.refill_for_one();
        HuffmanCodes::Symbol symbol = table_[bits.peek(looked_up)];
        if (symbol.length == 0) symbol = codes_.find(bits.peek(16));
        if (symbol.length == 0) bits.stop();
        bits.skip(symbol.length + (symbol.value & 15));
        return symbol.value;
    }

private:
    const HuffmanCodes& codes_;
    std::array<HuffmanCodes::Symbol, 1 << looked_up> table_{};
};

// F.2.2; false where a run goes beyond the block.
bool skip_block(const Symbols& dc, const Symbols& ac, Bits& bits) {
    dc.next(bits);
    int coefficient = 1;
    while (coefficient < block_coefficients) {
        const int symbol = ac.next(bits);
        if (symbol == end_of_block) return true;
        if ((symbol & 15) == 0 && symbol != sixteen_zeros) return false;
        coefficient += (symbol >> 4) + 1;
    }
    return coefficient == block_coefficients;
}

Fault skip_blocks(const jpeg::Scan& scan, Bits& bits) {
    const Symbols dc(*scan.dc_codes), ac(*scan.ac_codes);
    const std::int64_t across = (scan.columns + block_side - 1) / block_side;
    const std::int64_t down = (scan.rows + block_side - 1) / block_side;
    const std::int64_t blocks = across * down;
    const std::int64_t interval = scan.restart_interval > 0 ? scan.restart_interval : blocks;
    int restarts = 0;
    for (std::int64_t begin = 0; begin < blocks; begin += interval) {
        if (begin > 0) {
            if (Fault fault = bits.pass(jpeg::first_restart + restarts++ % 8)) return fault;
        }
        const std::int64_t end = std::min(begin + interval, blocks);
        for (std::int64_t block = begin; block < end; ++block) {
            if (!skip_block(dc, ac, bits)) return "a block of more than 64 coefficients";
            if (bits.overrun()) return jpeg::data_end_early;
        }
    }
    return bits.pass(jpeg::end_of_image);
}

Fault fault_of_headers(const jpeg::Scan& scan, std::int64_t rows, std::int64_t columns) {
    if (scan.process != 0 && scan.process != 1) return "another process than sequential DCT";
    if (scan.rows != rows || scan.columns != columns) return "another size than its image";
    if (scan.start != 0 || scan.end != block_coefficients - 1 || scan.high != 0 || scan.low != 0) {
        return "a scan header that is not sequential DCT";
    }
    if (!scan.dc_codes->defined() || !scan.dc_codes->within(most_dc_category) ||
        !scan.ac_codes->defined()) {
        return "no Huffman codes of its coefficients";
    }
    return nullptr;
}

}  // namespace

const char* jpeg_blocks_fault(const std::uint8_t* frame, std::int64_t size, std::int64_t rows,
                              std::int64_t columns) {
    jpeg::Scan scan;
    if (rows < 1 || columns < 1) return "no pixels";
    if (Fault fault = jpeg::read_scan(frame, size, scan)) return fault;
    if (Fault fault = fault_of_headers(scan, rows, columns)) return fault;
    Bits bits(scan.data, frame + size);
    if (Fault fault = skip_blocks(scan, bits)) return fault;
    return bits.only_zeros_follow() ? nullptr : "bytes behind its end";
}

}  // namespace mammoclip

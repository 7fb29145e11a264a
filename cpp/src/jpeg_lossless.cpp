#include <algorithm>
#include <array>

#include "jpeg_scan.hpp"
#include "mammoclip/jpeg.hpp"

namespace mammoclip {
namespace {

using jpeg::Bits;
using jpeg::Fault;
using jpeg::HuffmanCodes;

constexpr int most_category = 16;
constexpr int looked_up = 12;  // bits; a table of 16 KiB stays in the first cache

// The differences of H.1.2.2: a code for their category, then as many bits.
class Differences {
public:
    explicit Differences(const HuffmanCodes& codes) : codes_(codes) {
        for (unsigned bits = 0; bits < table_.size(); ++bits) {
            const HuffmanCodes::Symbol symbol = codes.find(bits << (16 - looked_up));
            Entry& entry = table_[bits];
            if (symbol.length == 0 || symbol.length > looked_up) continue;
            const int category = symbol.value, rest = looked_up - symbol.length - category;
            entry.length = symbol.length;
            entry.more = symbol.value;
            if (category != 0 && category != most_category && rest < 0) continue;
            entry.difference = static_cast<std::int16_t>(
                difference_of(category, category == most_category ? 0 : bits >> std::max(rest, 0)));
            entry.length = static_cast<std::uint8_t>(
                symbol.length + (category == most_category ? 0 : category));
            entry.more = 0;
        }
    }

    // Modulo 65536.
    int next(Bits& bits) const {
        bits.refill_for_one();
        const Entry entry = table_[bits.peek(looked_up)];
        bits.skip(entry.length);
        if (entry.more == 0) return entry.difference;
        int category = entry.more;
        if (category == long_code) {
            const HuffmanCodes::Symbol symbol = codes_.find(bits.peek(16));
            bits.skip(symbol.length);
            if (symbol.length == 0) bits.stop();
            category = symbol.value;
        }
        if (category == 0 || category == most_category) return difference_of(category, 0);
        const unsigned value = bits.peek(category);
        bits.skip(category);
        return difference_of(category, value);
    }

private:
    static constexpr std::uint8_t long_code = 255;

    struct Entry {
        std::int16_t difference = 0;
        std::uint8_t length = 0;        // of what to skip
        std::uint8_t more = long_code;  // bits that follow: the difference is not here
    };

    // Table H.2; `bits` may hold others above the category's.
    static int difference_of(int category, unsigned bits) {
        if (category == 0) return 0;
        if (category == most_category) return 32768;
        const int half = 1 << (category - 1);
        const int value = static_cast<int>(bits) & (2 * half - 1);
        return value >= half ? value : value - 2 * half + 1;
    }

    const HuffmanCodes& codes_;
    std::array<Entry, 1 << looked_up> table_{};
};

// Table H.1, from the samples to the left, above, and above to the left.
int left_of(int left, int, int) { return left; }
int above_it(int, int above, int) { return above; }
int diagonal(int, int, int corner) { return corner; }
int plane(int left, int above, int corner) { return left + above - corner; }
int left_and_slope(int left, int above, int corner) { return left + ((above - corner) >> 1); }
int above_and_slope(int left, int above, int corner) { return above + ((left - corner) >> 1); }
int mean(int left, int above, int) { return (left + above) >> 1; }

using Predictor = int (*)(int, int, int);

// Returns all bits that any sample has. `start` is what predicts the first one.
template <Predictor predict, typename Pixel>
int decode_row(const Differences& differences, Bits& all_bits, int start, const Pixel* above,
               Pixel* row, std::int64_t columns) {
    Bits bits = all_bits;
    int sample = (start + differences.next(bits)) & 0xFFFF;
    int seen = sample;
    row[0] = static_cast<Pixel>(sample);
    for (std::int64_t i = 1; i < columns; ++i) {
        sample = (predict(sample, above[i], above[i - 1]) + differences.next(bits)) & 0xFFFF;
        seen |= sample;
        row[i] = static_cast<Pixel>(sample);
    }
    all_bits = bits;
    return seen;
}

template <Predictor predict, typename Pixel>
Fault decode_rows(const jpeg::Scan& scan, Bits& bits, Pixel* pixels) {
    const Differences differences(*scan.dc_codes);
    const std::int64_t interval = scan.restart_interval / scan.columns;  // in rows
    const int sample_bits = scan.precision - scan.low;
    int restarts = 0;
    for (std::int64_t row = 0; row < scan.rows; ++row) {
        Pixel* here = pixels + row * scan.columns;
        const bool restarted = interval > 0 && row > 0 && row % interval == 0;
        if (restarted) {
            if (Fault fault = bits.pass(jpeg::first_restart + restarts++ % 8)) return fault;
        }
        int seen = 0;
        if (row == 0 || restarted) {  // nothing above counts, H.1.2.1
            const int start = 1 << (sample_bits - 1);
            seen = decode_row<left_of>(differences, bits, start, here, here, scan.columns);
        } else {
            const Pixel* above = here - scan.columns;
            seen = decode_row<predict>(differences, bits, above[0], above, here, scan.columns);
        }
        if (bits.overrun()) return jpeg::data_end_early;
        if (seen >> sample_bits != 0) return "samples beyond its precision";
    }
    return bits.pass(jpeg::end_of_image);
}

template <typename Pixel>
Fault decode_scan(const jpeg::Scan& scan, Bits& bits, Pixel* pixels) {
    switch (scan.start) {
        case 1: return decode_rows<left_of>(scan, bits, pixels);
        case 2: return decode_rows<above_it>(scan, bits, pixels);
        case 3: return decode_rows<diagonal>(scan, bits, pixels);
        case 4: return decode_rows<plane>(scan, bits, pixels);
        case 5: return decode_rows<left_and_slope>(scan, bits, pixels);
        case 6: return decode_rows<above_and_slope>(scan, bits, pixels);
        case 7: return decode_rows<mean>(scan, bits, pixels);
        default: return "a predictor that JPEG Lossless does not have";
    }
}

template <typename Pixel>
Fault fault_of_headers(const jpeg::Scan& scan, std::int64_t rows, std::int64_t columns) {
    constexpr int pixel_bits = 8 * sizeof(Pixel);
    if (scan.process != 3) return "another process than JPEG Lossless";
    if (scan.rows != rows || scan.columns != columns) return "another size than its image";
    if (scan.precision < 2 || scan.precision > pixel_bits) {
        return "another precision than its image";
    }
    if (scan.end != 0 || scan.high != 0 || scan.low >= scan.precision) {
        return "a scan header that is not JPEG Lossless";
    }
    if (!scan.dc_codes->defined() || !scan.dc_codes->within(most_category)) {
        return "no Huffman codes of its differences";
    }
    // Of whole rows, H.1.1.
    if (scan.restart_interval % scan.columns != 0) return "restarts within rows";
    return nullptr;
}

}  // namespace

template <typename Pixel>
const char* decode_jpeg_lossless(const std::uint8_t* frame, std::int64_t size, Pixel* pixels,
                                 std::int64_t rows, std::int64_t columns) {
    jpeg::Scan scan;
    if (rows < 1 || columns < 1) return "no pixels";
    if (Fault fault = jpeg::read_scan(frame, size, scan)) return fault;
    if (Fault fault = fault_of_headers<Pixel>(scan, rows, columns)) return fault;
    Bits bits(scan.data, frame + size);
    if (Fault fault = decode_scan(scan, bits, pixels)) return fault;
    if (!bits.only_zeros_follow()) return "bytes behind its end";
    if (scan.low > 0) {
        std::transform(pixels, pixels + rows * columns, pixels, [&scan](Pixel sample) {
            return static_cast<Pixel>(sample << scan.low);
        });
    }
    return nullptr;
}

template const char* decode_jpeg_lossless(const std::uint8_t*, std::int64_t, std::uint8_t*,
                                          std::int64_t, std::int64_t);
template const char* decode_jpeg_lossless(const std::uint8_t*, std::int64_t, std::uint16_t*,
                                          std::int64_t, std::int64_t);

}  // namespace mammoclip

#include "jpeg_scan.hpp"

#include <algorithm>

namespace mammoclip::jpeg {
namespace {

constexpr Fault header_ends_early = "a header that ends early";
constexpr Fault no_frame_header = "no frame header of one component";
constexpr Fault no_codes = "a table of Huffman codes that is none";
constexpr Fault no_scan_header = "no scan header of its component";

struct Segment {
    const std::uint8_t* body;
    int length;
};

int two_bytes(const std::uint8_t* place) { return place[0] << 8 | place[1]; }

Fault read_frame_header(Segment segment, int process, Scan& scan, int& component) {
    if (scan.process >= 0 || segment.length != 9 || segment.body[5] != 1) return no_frame_header;
    scan.process = process;
    scan.precision = segment.body[0];
    scan.rows = two_bytes(segment.body + 1);
    scan.columns = two_bytes(segment.body + 3);
    component = segment.body[6];
    return nullptr;
}

Fault read_codes(Segment segment, Scan& scan) {
    while (segment.length > 0) {
        if (segment.length < 17) return no_codes;
        const int kind = segment.body[0] >> 4, place = segment.body[0] & 15;
        int symbols = 0;
        for (int i = 1; i <= 16; ++i) symbols += segment.body[i];
        if (kind > 1 || place > 3 || symbols > 256) return no_codes;
        if (segment.length < 17 + symbols) return no_codes;
        auto& tables = kind == 0 ? scan.dc : scan.ac;
        if (!tables[static_cast<std::size_t>(place)].define(segment.body + 1, symbols)) {
            return no_codes;
        }
        segment.body += 17 + symbols;
        segment.length -= 17 + symbols;
    }
    return nullptr;
}

Fault read_scan_header(Segment segment, Scan& scan, int component) {
    if (scan.process < 0) return no_frame_header;
    const std::uint8_t* body = segment.body;
    if (segment.length != 6 || body[0] != 1 || body[1] != component) return no_scan_header;
    if ((body[2] >> 4) > 3 || (body[2] & 15) > 3) return no_scan_header;
    scan.dc_codes = &scan.dc[static_cast<std::size_t>(body[2] >> 4)];
    scan.ac_codes = &scan.ac[static_cast<std::size_t>(body[2] & 15)];
    scan.start = body[3];
    scan.end = body[4];
    scan.high = body[5] >> 4;
    scan.low = body[5] & 15;
    scan.data = body + segment.length;
    return nullptr;
}

Fault read_segment(int marker, Segment segment, Scan& scan, int& component) {
    switch (marker) {
        case 0xC0:  // SOF0, baseline
        case 0xC1:  // SOF1, extended
        case 0xC3:  // SOF3, lossless
            return read_frame_header(segment, marker - 0xC0, scan, component);
        case 0xC4:  // DHT
            return read_codes(segment, scan);
        case 0xDA:  // SOS
            return read_scan_header(segment, scan, component);
        case 0xDD:  // DRI
            if (segment.length != 2) return "a restart interval that is none";
            scan.restart_interval = two_bytes(segment.body);
            return nullptr;
        case 0xDB:  // DQT
        case 0xFE:  // COM
            return nullptr;
        default:
            return marker >= 0xE0 && marker <= 0xEF ? nullptr : no_such_marker;  // APPn
    }
}

}  // namespace

bool HuffmanCodes::define(const std::uint8_t* counts, int symbols) {
    unsigned end = 0;
    for (unsigned length = 1; length <= 16; ++length) {
        counts_[length] = counts[length - 1];
        end += counts_[length] << (16 - length);
        end_[length] = end;
    }
    std::copy_n(counts + 16, symbols, values_.begin());
    symbols_ = symbols;
    return end < 0x10000;  // no code consists of ones alone, C.2
}

bool HuffmanCodes::within(int most) const {
    return std::all_of(values_.begin(), values_.begin() + symbols_,
                       [most](std::uint8_t value) { return value <= most; });
}

Fault read_scan(const std::uint8_t* frame, std::int64_t size, Scan& scan) {
    if (size < 2 || frame[0] != 0xFF || frame[1] != 0xD8) return "no start of an image";
    int component = -1;
    for (std::int64_t at = 2; scan.data == nullptr;) {
        while (at + 1 < size && frame[at] == 0xFF && frame[at + 1] == 0xFF) ++at;  // fill, B.1.1.2
        if (at + 4 > size) return header_ends_early;
        if (frame[at] != 0xFF) return no_such_marker;
        const int length = two_bytes(frame + at + 2);
        if (length < 2 || at + 2 + length > size) return header_ends_early;
        const Segment segment{frame + at + 4, length - 2};
        if (Fault fault = read_segment(frame[at + 1], segment, scan, component)) return fault;
        at += 2 + length;
    }
    return nullptr;
}

Bits Bits::refilled_by_bytes(Bits bits) {
    while (bits.count_ <= 56 && bits.next_ != bits.end_) {
        const std::uint64_t byte = *bits.next_;
        if (byte == 0xFF) {
            if (bits.end_ - bits.next_ < 2 || bits.next_[1] != 0) break;
            ++bits.next_;
        }
        ++bits.next_;
        bits.ready_ |= byte << (56 - bits.count_);
        bits.count_ += 8;
    }
    return bits;
}

Fault Bits::pass(int marker) {
    if (overrun()) return data_end_early;
    *this = refilled_by_bytes(*this);
    if (count_ >= 8) return data_go_on;
    while (end_ - next_ >= 2 && next_[0] == 0xFF && next_[1] == 0xFF) ++next_;  // fill
    if (end_ - next_ < 2 || next_[0] != 0xFF || next_[1] != marker) return no_such_marker;
    next_ += 2;
    ready_ = 0;
    count_ = 0;
    return nullptr;
}

bool Bits::only_zeros_follow() const {
    return std::all_of(next_, end_, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace mammoclip::jpeg

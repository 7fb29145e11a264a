#include "mammoclip/run_lengths.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace mammoclip {
namespace {

constexpr std::int64_t header_bytes = 64;  // how many segments, and where up to 15 of them begin
constexpr std::int64_t block = 2048;       // pixels put together at a time, in the first cache
constexpr int no_operation = 128;

// The PackBits of one segment, PS3.5 section G.3.1, unpacked piece by piece.
class Segment {
public:
    Segment() = default;
    Segment(const std::uint8_t* begin, const std::uint8_t* end) : next_(begin), end_(end) {}

    // Unpacks the next `count` bytes; false where the segment does not hold as many.
    bool read(std::uint8_t* to, std::int64_t count) {
        while (count > 0) {
            if (left_ == 0 && !begin_run()) return false;
            const std::int64_t length = std::min(left_, count);
            if (literal_) {
                std::memcpy(to, next_, static_cast<std::size_t>(length));
                next_ += length;
            } else {
                std::memset(to, value_, static_cast<std::size_t>(length));
            }
            left_ -= length;
            to += length;
            count -= length;
        }
        return true;
    }

    // Whether nothing is left but what stands for no bytes.
    bool ended() const {
        const std::uint8_t* rest = std::find_if(
            next_, end_, [](std::uint8_t code) { return code != no_operation; });
        return left_ == 0 && (rest == end_ || (end_ - rest == 1 && *rest == 0));
    }

private:
    bool begin_run() {
        while (next_ != end_) {
            const int code = *next_++;
            if (code == no_operation) continue;
            literal_ = code < no_operation;
            const std::int64_t needed = literal_ ? code + 1 : 1;
            if (end_ - next_ < needed) return false;
            if (!literal_) value_ = *next_++;
            left_ = literal_ ? needed : 257 - code;
            return true;
        }
        return false;
    }

    const std::uint8_t* next_ = nullptr;
    const std::uint8_t* end_ = nullptr;
    std::int64_t left_ = 0;  // bytes of the run that begin_run began
    bool literal_ = false;
    std::uint8_t value_ = 0;
};

std::int64_t number_at(const std::uint8_t* place) {
    return place[0] | place[1] << 8 | place[2] << 16 | static_cast<std::int64_t>(place[3]) << 24;
}

template <std::size_t Planes>
bool find_segments(const std::uint8_t* frame, std::int64_t size,
                   std::array<Segment, Planes>& segments) {
    if (size < header_bytes || number_at(frame) != Planes || number_at(frame + 4) != header_bytes) {
        return false;
    }
    std::int64_t begin = header_bytes;
    for (std::size_t plane = 0; plane < Planes; ++plane) {
        const bool last = plane + 1 == Planes;
        const std::int64_t end = last ? size : number_at(frame + 4 * (plane + 2));
        if (end < begin || end > size) return false;
        segments[plane] = Segment(frame + begin, frame + end);
        begin = end;
    }
    return true;
}

}  // namespace

template <typename Pixel>
bool decode_run_lengths(const std::uint8_t* frame, std::int64_t size, Pixel* pixels,
                        std::int64_t count) {
    constexpr std::size_t planes = sizeof(Pixel);
    std::array<Segment, planes> segments;
    if (!find_segments(frame, size, segments)) return false;
    std::array<std::array<std::uint8_t, block>, planes> bytes;
    for (std::int64_t done = 0; done < count; done += block) {
        const std::int64_t length = std::min(block, count - done);
        for (std::size_t plane = 0; plane < planes; ++plane) {
            if (!segments[plane].read(bytes[plane].data(), length)) return false;
        }
        for (std::int64_t i = 0; i < length; ++i) {
            const auto place = static_cast<std::size_t>(i);
            std::uint32_t value = bytes[0][place];
            if constexpr (planes == 2) value = value << 8 | bytes[1][place];
            pixels[done + i] = static_cast<Pixel>(value);
        }
    }
    return std::all_of(segments.begin(), segments.end(),
                       [](const Segment& segment) { return segment.ended(); });
}

template bool decode_run_lengths(const std::uint8_t*, std::int64_t, std::uint8_t*, std::int64_t);
template bool decode_run_lengths(const std::uint8_t*, std::int64_t, std::uint16_t*, std::int64_t);

}  // namespace mammoclip

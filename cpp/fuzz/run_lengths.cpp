// Frames of run lengths, whatever their bytes: no report of a sanitizer, a whole frame fills every
// pixel with what was packed into it, and any other is refused.
#include <algorithm>

#include "mammoclip/run_lengths.hpp"
#include "reader.hpp"

namespace {

using namespace mammoclip;
using fuzz::Reader;
using fuzz::require;
using Bytes = std::vector<std::uint8_t>;

void append_number(Bytes& bytes, std::size_t number) {
    for (int shift = 0; shift < 32; shift += 8) {
        bytes.push_back(static_cast<std::uint8_t>(number >> shift));
    }
}

// Packs bytes in runs of any kind and length, and adds what stands for no bytes.
Bytes packed(Reader& reader, const Bytes& plain) {
    Bytes segment;
    for (std::size_t at = 0; at < plain.size();) {
        if (reader.one_in(16)) segment.push_back(128);
        const auto left = static_cast<std::int64_t>(plain.size() - at);
        const auto first = plain.begin() + static_cast<std::ptrdiff_t>(at);
        const auto same = std::find_if(first, plain.end(), [&](auto byte) { return byte != *first; });
        const auto run = std::min<std::int64_t>(same - first, 128);
        std::int64_t length = reader.within(1, std::min<std::int64_t>(left, 128));
        if (run >= 2) {
            length = reader.within(2, run);
            segment.push_back(static_cast<std::uint8_t>(257 - length));
            segment.push_back(*first);
        } else {
            segment.push_back(static_cast<std::uint8_t>(length - 1));
            segment.insert(segment.end(), first, first + length);
        }
        at += static_cast<std::size_t>(length);
    }
    if (reader.one_in(4)) segment.push_back(128);
    if (segment.size() % 2 != 0) segment.push_back(0);
    return segment;
}

template <typename Pixel>
Bytes framed(Reader& reader, const std::vector<Pixel>& pixels) {
    Bytes header, body;
    append_number(header, sizeof(Pixel));
    for (std::size_t plane = sizeof(Pixel); plane-- > 0;) {
        Bytes plain;
        for (const Pixel pixel : pixels) {
            plain.push_back(static_cast<std::uint8_t>(pixel >> (8 * plane)));
        }
        append_number(header, 64 + body.size());
        const Bytes segment = packed(reader, plain);
        body.insert(body.end(), segment.begin(), segment.end());
    }
    header.resize(64);
    header.insert(header.end(), body.begin(), body.end());
    return header;
}

void damage(Reader& reader, Bytes& frame) {
    for (int i = reader.byte() % 4; i >= 0; --i) {
        const auto place = static_cast<std::size_t>(
            reader.within(0, reader.one_in(2) ? 15 : static_cast<std::int64_t>(frame.size()) - 1));
        if (place < frame.size()) frame[place] = reader.byte();
    }
    if (reader.one_in(4)) {
        frame.resize(static_cast<std::size_t>(
            reader.within(0, static_cast<std::int64_t>(frame.size()))));
    }
    if (reader.one_in(8)) frame.push_back(reader.byte());
    frame.shrink_to_fit();  // so that a sanitizer sees the first byte beyond
}

template <typename Pixel>
void run(Reader& reader) {
    // Around 2048 pixels, where a second block begins, as well as few.
    const std::int64_t count = reader.one_in(4) ? reader.within(2040, 2060) : reader.within(1, 300);
    const bool damaged = reader.one_in(2);
    Reader later = reader;
    for (int i = 0; i < 400; ++i) reader.byte();
    std::vector<Pixel> pixels = reader.all_that_is_left<Pixel>(static_cast<std::size_t>(count));
    if (later.one_in(2)) {
        for (Pixel& pixel : pixels) pixel = static_cast<Pixel>(pixel & 0x0101);  // long runs
    }
    Bytes frame = framed(later, pixels);
    if (damaged) damage(later, frame);
    std::vector<Pixel> decoded(static_cast<std::size_t>(count));
    const bool whole = decode_run_lengths(frame.data(), static_cast<std::int64_t>(frame.size()),
                                          decoded.data(), count);
    require(damaged || (whole && decoded == pixels), "a whole frame is decoded to its pixels");
    std::vector<Pixel> longer(static_cast<std::size_t>(count) + 1);
    require(!whole || !decode_run_lengths(frame.data(), static_cast<std::int64_t>(frame.size()),
                                          longer.data(), count + 1),
            "a frame is whole for one number of pixels");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Reader reader(data, size);
    if (reader.one_in(2)) {
        run<std::uint8_t>(reader);
    } else {
        run<std::uint16_t>(reader);
    }
    return 0;
}

// Codestreams of JPEG 2000, whatever their bytes: no report of a sanitizer, no more memory than
// their code-blocks need, and one that is whole is so with its data only.
#include <initializer_list>
#include <utility>

#include "mammoclip/jpeg2000.hpp"
#include "reader.hpp"

namespace {

using fuzz::Reader;
using fuzz::require;
using Bytes = std::vector<std::uint8_t>;

void append(Bytes& frame, std::initializer_list<std::int64_t> bytes) {
    for (const std::int64_t byte : bytes) frame.push_back(static_cast<std::uint8_t>(byte));
}

void append_size(Bytes& frame, Reader& reader) {
    const bool large = reader.one_in(16);
    const auto side = [&] { return large ? reader.number<std::uint32_t>() : reader.within(1, 90); };
    const std::int64_t left = reader.one_in(2) ? reader.byte() : 0;
    const std::int64_t top = reader.one_in(2) ? reader.byte() : 0;
    const std::int64_t width = side(), height = side();
    const std::int64_t tile_width = reader.one_in(2) ? reader.within(1, 60) : left + width;
    const std::int64_t tile_height = reader.one_in(2) ? reader.within(1, 60) : top + height;
    append(frame, {0xFF, 0x51, 0, 41, 0, 0});
    for (const std::int64_t value : {left + width, top + height, left, top, tile_width, tile_height,
                                     std::min<std::int64_t>(left, reader.byte()),
                                     std::min<std::int64_t>(top, reader.byte())}) {
        append(frame, {value >> 24, value >> 16, value >> 8, value});
    }
    append(frame, {0, 1, 11, 1, 1});
}

void append_coding(Bytes& frame, Reader& reader) {
    const int levels = reader.byte() % 6, flags = reader.byte() & 7;
    const int style = reader.one_in(2) ? reader.byte() & 0x7F : 0;
    const bool plain = (style & 64) == 0;  // high-throughput coding is read in one layer
    const std::int64_t layers = plain && reader.one_in(3) ? reader.within(1, 300) : 1;
    const bool precincts = (flags & 1) != 0;
    append(frame, {0xFF, 0x52, 0, 12 + (precincts ? levels + 1 : 0), flags, reader.byte() % 5,
                   layers >> 8, layers, 0, levels, reader.byte() % 5, reader.byte() % 5, style, 1});
    for (int i = 0; precincts && i <= levels; ++i) append(frame, {reader.byte()});
    if (reader.one_in(4)) {
        append(frame, {0xFF, 0x5F, 0, 9, reader.byte() % 3, 0, layers >> 8, layers,
                       reader.byte() % 8, 1, reader.byte() % 5});
    }
}

bool is_whole(Bytes frame) {
    frame.shrink_to_fit();  // so that a sanitizer sees the first byte beyond
    return mammoclip::jpeg2000_fault(frame.data(), static_cast<std::int64_t>(frame.size())) ==
           nullptr;
}

Bytes ended(Bytes frame) {
    append(frame, {0xFF, 0xD9});
    return frame;
}

// One tile-part up to the end, whose packets are the reader's bytes: as they come, or mostly empty.
void run_packets(Reader& reader) {
    Bytes frame{0xFF, 0x4F};
    append_size(frame, reader);
    append_coding(frame, reader);
    append(frame, {0xFF, 0x90, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0x93});
    const bool sparse = reader.one_in(2);
    const auto count = static_cast<std::size_t>(reader.within(1, sparse ? 60 : 3000));
    const std::size_t data = frame.size();
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t byte = reader.byte();
        append(frame, {sparse && byte < 0xC0 ? 0 : byte});
        if (frame.size() - data == 1 && frame.back() == 0xFF) frame.back() = 0;
    }
    const bool whole = is_whole(ended(frame));
    require(whole == is_whole(ended(frame)), "the same bytes have the same fault");
    if (!whole) return;
    Bytes longer = frame;
    append(longer, {reader.byte() % 0xFF});
    require(!is_whole(ended(std::move(longer))), "a frame is whole with its data only");
    frame.pop_back();
    require(!is_whole(ended(std::move(frame))), "no part of a whole frame is whole");
}

void run_raw(Reader& reader) {
    Bytes frame{0xFF, 0x4F};
    if (reader.one_in(2)) append_size(frame, reader);
    if (reader.one_in(2)) append_coding(frame, reader);
    const Bytes rest = reader.all_that_is_left<std::uint8_t>(
        static_cast<std::size_t>(reader.within(0, 2000)));
    frame.insert(frame.end(), rest.begin(), rest.end());
    is_whole(reader.one_in(2) ? frame : ended(frame));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Reader reader(data, size);
    if (reader.byte() % 4 == 0) {
        run_raw(reader);
    } else {
        run_packets(reader);
    }
    return 0;
}

#include "jpeg2000_codestream.hpp"

#include <algorithm>

namespace mammoclip::jpeg2000 {
namespace {

constexpr int siz = 0x51, cod = 0x52, coc = 0x53, poc = 0x5F, ppm = 0x60, ppt = 0x61;
constexpr int start_of_tile = 0x90, start_of_data = 0x93, end_of_codestream = 0xD9;
constexpr std::size_t most_volumes = 64;
constexpr std::int64_t most_tiles = 65535;

int two_bytes(const std::uint8_t* place) { return place[0] << 8 | place[1]; }

std::int64_t four_bytes(const std::uint8_t* place) {
    return static_cast<std::int64_t>(two_bytes(place)) << 16 | two_bytes(place + 2);
}

bool is_marker(const std::uint8_t* place, int code) { return place[0] == 0xFF && place[1] == code; }

struct Segment {
    const std::uint8_t* body;
    std::int64_t length;
};

bool read_size(Segment segment, Codestream& codestream) {
    if (segment.length != 39 || two_bytes(segment.body + 34) != 1) return false;  // components
    std::array<std::int64_t, 8> sides{};
    for (std::size_t i = 0; i < sides.size(); ++i) sides[i] = four_bytes(segment.body + 2 + 4 * i);
    const auto [right, bottom, left, top, width, height, tile_left, tile_top] = sides;
    codestream.image = {left, top, right, bottom};
    codestream.first_tile = {tile_left, tile_top, tile_left + width, tile_top + height};
    const bool within = tile_left <= left && tile_top <= top;
    const bool holds = codestream.first_tile.right > left && codestream.first_tile.bottom > top;
    const bool plain = segment.body[37] == 1 && segment.body[38] == 1;  // subsampling
    if (!within || !holds || !plain || codestream.image.empty()) return false;
    // Their product has 66 bits; Isot has 16.
    const std::int64_t across = (right - tile_left + width - 1) / width;
    const std::int64_t down = (bottom - tile_top + height - 1) / height;
    return across <= most_tiles && down <= most_tiles && across * down <= most_tiles;
}

std::optional<Blocks> read_blocks(Segment segment, bool own_precincts) {
    if (segment.length < 5) return std::nullopt;
    Blocks blocks;
    blocks.levels = segment.body[0];
    blocks.width = segment.body[1] + 2;
    blocks.height = segment.body[2] + 2;
    blocks.style = segment.body[3];
    const int resolutions = blocks.levels + 1;
    if (blocks.levels > most_levels || blocks.width > 10 || blocks.height > 10 ||
        blocks.width + blocks.height > 12 || segment.length != 5 + (own_precincts ? resolutions : 0)) {
        return std::nullopt;
    }
    blocks.precincts.fill(0xFF);
    for (int i = 0; own_precincts && i < resolutions; ++i) {
        const std::uint8_t size = segment.body[5 + i];
        if (i > 0 && ((size & 15) == 0 || size >> 4 == 0)) return std::nullopt;
        blocks.precincts[static_cast<std::size_t>(i)] = size;
    }
    return blocks;
}

bool read_coding(Segment segment, Coding& coding) {
    if (coding.packets || segment.length < 5) return false;
    const std::uint8_t* body = segment.body;
    Packets packets;
    packets.progression = body[1];
    packets.layers = two_bytes(body + 2);
    packets.start_markers = (body[0] & 2) != 0;
    packets.end_markers = (body[0] & 4) != 0;
    coding.packets = packets;
    coding.blocks = read_blocks({body + 5, segment.length - 5}, (body[0] & 1) != 0);
    return packets.progression <= 4 && packets.layers > 0 && coding.blocks.has_value();
}

bool read_component(Segment segment, Coding& coding) {
    if (coding.component || segment.length < 2 || segment.body[0] != 0) return false;
    coding.component =
        read_blocks({segment.body + 2, segment.length - 2}, (segment.body[1] & 1) != 0);
    return coding.component.has_value();
}

bool read_volumes(Segment segment, Coding& coding) {
    constexpr std::int64_t entry = 7;
    if (segment.length == 0 || segment.length % entry != 0) return false;
    for (std::int64_t at = 0; at < segment.length; at += entry) {
        const std::uint8_t* body = segment.body + at;
        coding.volumes.push_back({body[0], two_bytes(body + 2), body[4], body[6]});
        if (body[1] != 0 || body[6] > 4) return false;
    }
    return coding.volumes.size() <= most_volumes;
}

bool read_segment(int marker, Segment segment, Coding& coding) {
    switch (marker) {
        case cod: return read_coding(segment, coding);
        case coc: return read_component(segment, coding);
        case poc: return read_volumes(segment, coding);
        case ppm:
        case ppt: coding.packed_headers = true; return true;
        default: return true;
    }
}

// Reads segments from `at` up to the marker that ends them; returns where it stands, or -1.
std::int64_t read_segments(const std::uint8_t* frame, std::int64_t at, std::int64_t end, int last,
                           Coding& coding) {
    while (at + 4 <= end) {
        if (is_marker(frame + at, last)) return at;
        const std::int64_t length = two_bytes(frame + at + 2);
        if (frame[at] != 0xFF || length < 2 || at + 2 + length > end) return -1;
        if (!read_segment(frame[at + 1], {frame + at + 4, length - 2}, coding)) return -1;
        at += 2 + length;
    }
    return at + 2 <= end && is_marker(frame + at, last) ? at : -1;
}

struct Reader {
    const std::uint8_t* frame;
    std::int64_t end;  // where EOC stands
    Codestream& codestream;
    std::map<int, int> parts{};  // of each tile, so far

    // Returns where the next tile-part begins, or -1.
    std::int64_t read_tile_part(std::int64_t at) {
        if (at + 14 > end || !is_marker(frame + at, start_of_tile)) return -1;
        const int index = two_bytes(frame + at + 4);
        const std::int64_t length = four_bytes(frame + at + 6);
        const std::int64_t last = length == 0 ? end : at + length;
        if (two_bytes(frame + at + 2) != 10 || last > end || index >= codestream.tile_count() ||
            frame[at + 10] != parts[index]++ % 256) {
            return -1;
        }
        Tile& tile = codestream.tiles[index];
        const std::int64_t data = read_segments(frame, at + 12, last, start_of_data, tile.coding);
        if (data < 0) return -1;
        tile.data.push_back({frame + data + 2, frame + last});
        return last;
    }
};

}  // namespace

std::int64_t Codestream::tile_count() const {
    const std::int64_t width = first_tile.right - first_tile.left;
    const std::int64_t height = first_tile.bottom - first_tile.top;
    return ((image.right - first_tile.left + width - 1) / width) *
           ((image.bottom - first_tile.top + height - 1) / height);
}

Rectangle Codestream::area_of(int tile) const {
    const std::int64_t width = first_tile.right - first_tile.left;
    const std::int64_t height = first_tile.bottom - first_tile.top;
    const std::int64_t across = (image.right - first_tile.left + width - 1) / width;
    const std::int64_t left = first_tile.left + tile % across * width;
    const std::int64_t top = first_tile.top + tile / across * height;
    return {std::max(left, image.left), std::max(top, image.top),
            std::min(left + width, image.right), std::min(top + height, image.bottom)};
}

Fault read_codestream(const std::uint8_t* frame, std::int64_t size, Codestream& codestream) {
    while (size > 0 && frame[size - 1] == 0) --size;
    const std::int64_t end = size - 2;
    if (end < 45 || !is_marker(frame + end, end_of_codestream)) return "no end of its codestream";
    const bool starts = is_marker(frame, 0x4F) && is_marker(frame + 2, siz);
    const std::int64_t after = 4 + two_bytes(frame + 4);
    if (!starts || !read_size({frame + 6, after - 6}, codestream)) return bad_header;
    std::int64_t at = read_segments(frame, after, end, start_of_tile, codestream.coding);
    if (at < 0 || !codestream.coding.packets) return bad_header;
    Reader reader{frame, end, codestream};
    while (at < end) {
        at = reader.read_tile_part(at);
        if (at < 0) return "tile-parts that do not follow each other";
    }
    const auto tiles = static_cast<std::int64_t>(codestream.tiles.size());
    return tiles == codestream.tile_count() ? nullptr : "tiles that are not there";
}

}  // namespace mammoclip::jpeg2000

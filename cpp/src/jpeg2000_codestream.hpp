// The main header and the tile-parts of a JPEG 2000 codestream, ISO 15444-1 annex A.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace mammoclip::jpeg2000 {

using Fault = const char*;  // the end of "a frame with ...", nullptr for none

constexpr Fault data_end_early = "packets that end early";
constexpr Fault bad_header = "headers that are damaged";
constexpr int most_levels = 32;
constexpr std::int64_t most_parts = std::int64_t{1} << 17;  // code-blocks and precincts of a tile

// Half open, on the reference grid or on that of a resolution or band.
struct Rectangle {
    std::int64_t left, top, right, bottom;
    bool empty() const { return left >= right || top >= bottom; }
};

// How a component's code-blocks and precincts lie and are coded, table A.20; exponents of 2.
struct Blocks {
    int levels = 0, width = 0, height = 0, style = 0;
    std::array<std::uint8_t, most_levels + 1> precincts{};  // height * 16 + width, by resolution
};

// Bits of a style, table A.19 and ISO 15444-15 table A.4.
constexpr int bypass = 1, reset_contexts = 2, terminate_all = 4, causal = 8, segmentation = 32,
              high_throughput = 64, mixed = 128;

// How a tile's packets follow each other, table A.14.
struct Packets {
    int progression = 0, layers = 0;
    bool start_markers = false, end_markers = false;
};

// One change of the progression, table A.32; ends are those of half open ranges.
struct Volume {
    int first_resolution, end_layer, end_resolution, progression;
};

struct Span {
    const std::uint8_t* begin;
    const std::uint8_t* end;
};

// What the main header, or the headers of a tile's parts, say of its coding.
struct Coding {
    std::optional<Packets> packets;
    std::optional<Blocks> blocks;     // of COD
    std::optional<Blocks> component;  // of COC, which goes before COD
    std::vector<Volume> volumes;
    bool packed_headers = false;
};

struct Tile {
    Coding coding;
    std::vector<Span> data;  // of its parts
};

struct Codestream {
    Rectangle image{}, first_tile{};
    Coding coding;
    std::map<int, Tile> tiles;

    Rectangle area_of(int tile) const;
    std::int64_t tile_count() const;
};

Fault read_codestream(const std::uint8_t* frame, std::int64_t size, Codestream& codestream);

inline std::int64_t over(std::int64_t side, int exponent) {  // rounding up
    return (side + (std::int64_t{1} << exponent) - 1) >> exponent;
}

}  // namespace mammoclip::jpeg2000

// Where the precincts and code-blocks of a tile lie, ISO 15444-1 B.5 to B.7.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg2000_block.hpp"
#include "jpeg2000_codestream.hpp"

namespace mammoclip::jpeg2000 {

// Values of leaves, told a bit at a time, B.10.2.
class TagTree {
public:
    TagTree() = default;
    TagTree(std::int64_t width, std::int64_t height);

    // Reads on until it is known whether the value of a leaf is below the threshold.
    template <typename Bits>
    bool is_below(Bits& bits, std::int64_t column, std::int64_t row, std::uint32_t threshold) {
        std::uint32_t least = 0;
        for (std::size_t depth = levels_.size(); depth-- > 0;) {
            const Level& level = levels_[depth];
            const std::int64_t at = level.first + (row >> depth) * level.width + (column >> depth);
            Node& node = nodes_[static_cast<std::size_t>(at)];
            node.least = std::max(node.least, least);
            while (node.known == 0 && node.least < threshold && !bits.broken()) {
                if (bits.next() != 0) {
                    node.known = 1;
                } else {
                    ++node.least;
                }
            }
            least = node.least;
            if (depth == 0) return node.known != 0 && least < threshold;
        }
        return false;
    }

private:
    struct Node {
        std::uint32_t least, known;
    };
    struct Level {
        std::int64_t width, first;
    };

    std::vector<Level> levels_;  // the leaves first
    std::vector<Node> nodes_;
};

struct Block {
    int width = 0, height = 0;
    int length_bits = 3, passes = 0;
    bool suspect = false;             // whether its bytes look like a lost part
    std::vector<std::uint8_t> bytes;  // of a suspect, when the tile is read again
};

// The code-blocks of a precinct in one band.
struct Group {
    Band band = Band::low;
    std::int64_t across = 0, down = 0;
    std::size_t first = 0;  // of Geometry::blocks
    TagTree inclusion, zero_planes;
};

struct Precinct {
    int resolution = 0;
    std::int64_t left = 0, top = 0;  // on the reference grid, where its packets' turn comes
    int layers = 0;                  // that were read
    std::vector<Group> groups;
};

struct Geometry {
    std::vector<Precinct> precincts;  // by resolution, then in raster order
    std::vector<Block> blocks;
};

// False where there are more parts than `most_parts`.
bool lay_out(const Rectangle& tile, const Blocks& how, Geometry& geometry);

}  // namespace mammoclip::jpeg2000

#include "jpeg2000_layout.hpp"

#include <algorithm>
#include <utility>

namespace mammoclip::jpeg2000 {
namespace {

// The cells of a grid of squares of 2^width x 2^height that a rectangle touches.
Rectangle cells(const Rectangle& area, int width, int height) {
    if (area.empty()) return {0, 0, 0, 0};
    return {area.left >> width, area.top >> height, over(area.right, width),
            over(area.bottom, height)};
}

// More than `most_parts` where there are, though perhaps not how many.
std::int64_t count(const Rectangle& cells) {
    if (cells.empty()) return 0;
    return std::min(cells.right - cells.left, most_parts + 1) *
           std::min(cells.bottom - cells.top, most_parts + 1);
}

Rectangle reduced(const Rectangle& area, int levels) {
    return {over(area.left, levels), over(area.top, levels), over(area.right, levels),
            over(area.bottom, levels)};
}

// Equation B-15.
Rectangle band_of(const Rectangle& tile, Band band, int level) {
    if (band == Band::low) return reduced(tile, level);
    const std::int64_t half = std::int64_t{1} << (level - 1);
    const std::int64_t right = band == Band::vertical ? 0 : half;
    const std::int64_t down = band == Band::horizontal ? 0 : half;
    return reduced({tile.left - right, tile.top - down, tile.right - right, tile.bottom - down},
                   level);
}

Rectangle common(const Rectangle& one, const Rectangle& other) {
    return {std::max(one.left, other.left), std::max(one.top, other.top),
            std::min(one.right, other.right), std::min(one.bottom, other.bottom)};
}

class Layout {
public:
    Layout(const Rectangle& tile, const Blocks& how, Geometry& geometry)
        : tile_(tile), how_(how), geometry_(geometry) {}

    bool add_resolution(int resolution) {
        const std::uint8_t size = how_.precincts[static_cast<std::size_t>(resolution)];
        const int width = size & 15, height = size >> 4, levels = how_.levels - resolution;
        const Rectangle grid = cells(reduced(tile_, levels), width, height);
        const std::int64_t left = most_parts - static_cast<std::int64_t>(geometry_.precincts.size());
        if (count(grid) > left) return false;
        for (std::int64_t row = grid.top; row < grid.bottom; ++row) {
            for (std::int64_t column = grid.left; column < grid.right; ++column) {
                Precinct precinct;
                precinct.resolution = resolution;
                precinct.left = std::max(tile_.left, column << (width + levels));
                precinct.top = std::max(tile_.top, row << (height + levels));
                if (!add_groups(precinct, column, row, width, height)) return false;
                geometry_.precincts.push_back(std::move(precinct));
            }
        }
        return true;
    }

private:
    bool add_groups(Precinct& precinct, std::int64_t column, std::int64_t row, int width,
                    int height) {
        if (precinct.resolution == 0) {
            return add_group(precinct, Band::low, how_.levels, column, row, width, height);
        }
        const int level = how_.levels - precinct.resolution + 1;
        for (const Band band : {Band::horizontal, Band::vertical, Band::diagonal}) {
            if (!add_group(precinct, band, level, column, row, width - 1, height - 1)) return false;
        }
        return true;
    }

    bool add_group(Precinct& precinct, Band band, int level, std::int64_t column, std::int64_t row,
                   int width, int height) {
        const Rectangle own{column << width, row << height, (column + 1) << width,
                            (row + 1) << height};
        const Rectangle area = common(band_of(tile_, band, level), own);
        const int block_width = std::min(how_.width, width);
        const int block_height = std::min(how_.height, height);
        const Rectangle grid = cells(area, block_width, block_height);
        const std::int64_t left = most_parts - static_cast<std::int64_t>(geometry_.blocks.size());
        if (count(grid) > left) return false;
        if (count(grid) == 0) return true;
        Group group;
        group.band = band;
        group.across = grid.right - grid.left;
        group.down = grid.bottom - grid.top;
        group.first = geometry_.blocks.size();
        group.inclusion = TagTree(group.across, group.down);
        group.zero_planes = TagTree(group.across, group.down);
        for (std::int64_t y = grid.top; y < grid.bottom; ++y) {
            for (std::int64_t x = grid.left; x < grid.right; ++x) {
                const Rectangle cell =
                    common(area, {x << block_width, y << block_height, (x + 1) << block_width,
                                  (y + 1) << block_height});
                Block block;
                block.width = static_cast<int>(cell.right - cell.left);
                block.height = static_cast<int>(cell.bottom - cell.top);
                geometry_.blocks.push_back(std::move(block));
            }
        }
        precinct.groups.push_back(std::move(group));
        return true;
    }

    const Rectangle& tile_;
    const Blocks& how_;
    Geometry& geometry_;
};

}  // namespace

TagTree::TagTree(std::int64_t width, std::int64_t height) {
    std::int64_t nodes = 0;
    for (;; width = (width + 1) / 2, height = (height + 1) / 2) {
        levels_.push_back({width, nodes});
        nodes += width * height;
        if (width * height == 1) break;
    }
    nodes_.resize(static_cast<std::size_t>(nodes), {0, 0});
}

bool lay_out(const Rectangle& tile, const Blocks& how, Geometry& geometry) {
    Layout layout(tile, how, geometry);
    for (int resolution = 0; resolution <= how.levels; ++resolution) {
        if (!layout.add_resolution(resolution)) return false;
    }
    return true;
}

}  // namespace mammoclip::jpeg2000

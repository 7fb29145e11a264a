#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "averaging.hpp"

namespace mammoclip {
namespace {

constexpr std::int64_t blocks_per_side = 256;

// By how much of a sample an edge may lie elsewhere than a reduced image shows it. Measured: 0.1
// tells all images whose box is another one than in full; see benchmarks/reduction.py.
constexpr double sample_error = 0.15;

template <typename Pixel>
BlockMask empty_mask(const Image<Pixel>& image) {
    BlockMask mask;
    const std::int64_t rows = image.source_rows(), columns = image.source_columns();
    const std::int64_t longer = std::max(rows, columns);
    mask.side = std::max<std::int64_t>(1, (longer + blocks_per_side / 2) / blocks_per_side);
    mask.rows = (rows + mask.side - 1) / mask.side;
    mask.columns = (columns + mask.side - 1) / mask.side;
    mask.inside.assign(static_cast<std::size_t>(mask.rows * mask.columns), 0);
    return mask;
}

// Edges of the blocks along one axis; the last block may be cut off.
std::vector<double> edges_of(std::int64_t blocks, std::int64_t side, std::int64_t pixels) {
    std::vector<double> edges;
    for (std::int64_t block = 0; block <= blocks; ++block) {
        edges.push_back(static_cast<double>(std::min(block * side, pixels)));
    }
    return edges;
}

// What a reduced image tells of the blocks of its source, row-major.
struct BlockMeans {
    std::vector<float> means;
    std::vector<float> spans;  // largest less smallest sample that a block's mean is made of
};

template <typename Pixel>
std::vector<float> spans_of(const Image<Pixel>& image, const Coverage& down,
                            const Coverage& across) {
    std::vector<float> spans;
    for (std::int64_t i = 0; i < down.outputs(); ++i) {
        const std::int64_t top = down.first[static_cast<std::size_t>(i)];
        for (std::int64_t j = 0; j < across.outputs(); ++j) {
            const std::int64_t left = across.first[static_cast<std::size_t>(j)];
            float low = 1.0F, high = 0.0F;
            for (std::int64_t row = top; row < top + down.count(i); ++row) {
                const Pixel* pixels = image.pixels + row * image.columns;
                for (std::int64_t column = left; column < left + across.count(j); ++column) {
                    low = std::min(low, image.values[pixels[column]]);
                    high = std::max(high, image.values[pixels[column]]);
                }
            }
            spans.push_back(std::max(high - low, 0.0F));
        }
    }
    return spans;
}

template <typename Pixel>
BlockMeans block_means(const Image<Pixel>& image) {
    const BlockMask mask = empty_mask(image);
    const std::int64_t rows = image.source_rows(), columns = image.source_columns();
    const Coverage down = cover(edges_of(mask.rows, mask.side, rows), rows, image.reduction);
    const Coverage across =
        cover(edges_of(mask.columns, mask.side, columns), columns, image.reduction);
    return {average(image, down, across, nullptr), spans_of(image, down, across)};
}

// Blocks whose mean, raised by `error` of their span, is above the threshold.
BlockMask brighter_blocks(BlockMask mask, const BlockMeans& blocks, double threshold,
                          double error) {
    for (std::size_t block = 0; block < mask.inside.size(); ++block) {
        mask.inside[block] = blocks.means[block] + error * blocks.spans[block] > threshold ? 1 : 0;
    }
    return mask;
}

template <typename Pixel>
BlockMask bright_blocks(const Image<Pixel>& image, double threshold) {
    BlockMask mask = empty_mask(image);
    std::vector<double> sums(static_cast<std::size_t>(mask.columns));
    for (std::int64_t block_row = 0; block_row < mask.rows; ++block_row) {
        std::fill(sums.begin(), sums.end(), 0.0);
        const std::int64_t first = block_row * mask.side;
        const std::int64_t last = std::min(first + mask.side, image.rows);
        for (std::int64_t row = first; row < last; ++row) {
            const Pixel* pixel = image.pixels + row * image.columns;
            for (std::int64_t block = 0; block < mask.columns; ++block) {
                const std::int64_t end = std::min((block + 1) * mask.side, image.columns);
                double sum = 0.0;
                for (std::int64_t column = block * mask.side; column < end; ++column) {
                    sum += image.values[pixel[column]];
                }
                sums[static_cast<std::size_t>(block)] += sum;
            }
        }
        for (std::int64_t block = 0; block < mask.columns; ++block) {
            const std::int64_t end = std::min((block + 1) * mask.side, image.columns);
            const double area = static_cast<double>((last - first) * (end - block * mask.side));
            mask.inside[static_cast<std::size_t>(block_row * mask.columns + block)] =
                sums[static_cast<std::size_t>(block)] / area > threshold ? 1 : 0;
        }
    }
    return mask;
}

// Takes the component that holds `start` out of `remaining` and returns its blocks.
std::vector<std::int64_t> take_component(BlockMask& remaining, std::int64_t start) {
    std::vector<std::int64_t> component{start};
    remaining.inside[static_cast<std::size_t>(start)] = 0;
    const auto visit = [&](std::int64_t block) {
        auto& inside = remaining.inside[static_cast<std::size_t>(block)];
        if (inside != 0) {
            inside = 0;
            component.push_back(block);
        }
    };
    for (std::size_t next = 0; next < component.size(); ++next) {
        const std::int64_t block = component[next];
        const std::int64_t row = block / remaining.columns;
        const std::int64_t column = block % remaining.columns;
        if (row > 0) visit(block - remaining.columns);
        if (row + 1 < remaining.rows) visit(block + remaining.columns);
        if (column > 0) visit(block - 1);
        if (column + 1 < remaining.columns) visit(block + 1);
    }
    return component;
}

std::vector<std::int64_t> largest_component(BlockMask bright) {
    std::vector<std::int64_t> largest;
    for (std::size_t start = 0; start < bright.inside.size(); ++start) {
        if (bright.inside[start] == 0) continue;
        auto component = take_component(bright, static_cast<std::int64_t>(start));
        if (component.size() > largest.size()) largest = std::move(component);
    }
    return largest;
}

void mark_with_neighbours(BlockMask& mask, std::int64_t row, std::int64_t column) {
    const std::int64_t bottom = std::min(row + 1, mask.rows - 1);
    const std::int64_t right = std::min(column + 1, mask.columns - 1);
    for (std::int64_t r = std::max<std::int64_t>(row - 1, 0); r <= bottom; ++r) {
        for (std::int64_t c = std::max<std::int64_t>(column - 1, 0); c <= right; ++c) {
            mask.inside[static_cast<std::size_t>(r * mask.columns + c)] = 1;
        }
    }
}

Breast breast_of(const BlockMask& bright, std::int64_t rows, std::int64_t columns) {
    Breast breast;
    breast.mask = bright;
    std::fill(breast.mask.inside.begin(), breast.mask.inside.end(), 0);
    const std::int64_t side = bright.side;
    std::int64_t top = rows, left = columns, bottom = 0, right = 0;
    std::int64_t balance = 0;  // twice the pixels right of the middle less those left of it
    for (const std::int64_t block : largest_component(bright)) {
        const std::int64_t row = block / bright.columns;
        const std::int64_t column = block % bright.columns;
        const std::int64_t row_end = std::min((row + 1) * side, rows);
        const std::int64_t column_end = std::min((column + 1) * side, columns);
        top = std::min(top, row * side);
        left = std::min(left, column * side);
        bottom = std::max(bottom, row_end);
        right = std::max(right, column_end);
        const std::int64_t middle = std::clamp(columns, 2 * column * side, 2 * column_end);
        balance += (row_end - row * side) * (2 * column_end + 2 * column * side - 2 * middle);
        mark_with_neighbours(breast.mask, row, column);
        ++breast.blocks;
    }
    if (breast.blocks > 0) breast.box = {top, left, bottom - top, right - left};
    breast.chest_wall_right = balance > 0;
    return breast;
}

bool same_place(const Breast& one, const Breast& other) {
    return one.box.top == other.box.top && one.box.left == other.box.left &&
           one.box.height == other.box.height && one.box.width == other.box.width &&
           one.chest_wall_right == other.chest_wall_right;
}

// Whether every block that is bright in any case is kept by both masks, or by none: two regions that
// only just touch, or do not, make one breast or two without moving its box.
bool same_tissue(const BlockMask& bright, const Breast& one, const Breast& other) {
    for (std::size_t block = 0; block < bright.inside.size(); ++block) {
        if (bright.inside[block] != 0 && one.mask.inside[block] != other.mask.inside[block]) {
            return false;
        }
    }
    return true;
}

}  // namespace

template <typename Pixel>
Breast find_breast(const Image<Pixel>& image, double threshold) {
    check(image);
    if (!std::isfinite(threshold)) throw std::invalid_argument("threshold must be finite");
    const std::int64_t rows = image.source_rows(), columns = image.source_columns();
    if (image.reduction.levels == 0) {
        return breast_of(bright_blocks(image, threshold), rows, columns);
    }
    const BlockMeans blocks = block_means(image);
    const BlockMask mask = empty_mask(image);
    const auto bright = [&](double error) {
        return brighter_blocks(mask, blocks, threshold, error);
    };
    const double error = sample_error * static_cast<double>(std::int64_t{1} << image.reduction.levels) /
                         static_cast<double>(mask.side);
    const BlockMask surely_bright = bright(-error);
    const Breast least = breast_of(surely_bright, rows, columns);
    const Breast most = breast_of(bright(error), rows, columns);
    Breast breast = breast_of(bright(0.0), rows, columns);
    breast.certain = same_place(most, least) && same_tissue(surely_bright, most, least);
    return breast;
}

template Breast find_breast(const Image<std::uint8_t>&, double);
template Breast find_breast(const Image<std::uint16_t>&, double);

}  // namespace mammoclip

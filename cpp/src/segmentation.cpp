#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "mammoclip/tensor.hpp"

namespace mammoclip {
namespace {

constexpr std::int64_t blocks_per_side = 256;

template <typename Pixel>
BlockMask empty_mask(const Image<Pixel>& image) {
    BlockMask mask;
    const std::int64_t longer = std::max(image.rows, image.columns);
    mask.side = std::max<std::int64_t>(1, (longer + blocks_per_side / 2) / blocks_per_side);
    mask.rows = (image.rows + mask.side - 1) / mask.side;
    mask.columns = (image.columns + mask.side - 1) / mask.side;
    mask.inside.assign(static_cast<std::size_t>(mask.rows * mask.columns), 0);
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

}  // namespace

template <typename Pixel>
Breast find_breast(const Image<Pixel>& image, double threshold) {
    if (image.rows < 1 || image.columns < 1 || image.rows > max_side || image.columns > max_side) {
        throw std::invalid_argument("rows and columns must be 1 to 65535");
    }
    if (!std::isfinite(threshold)) throw std::invalid_argument("threshold must be finite");
    Breast breast;
    breast.mask = empty_mask(image);
    const std::int64_t side = breast.mask.side;
    std::int64_t top = image.rows, left = image.columns, bottom = 0, right = 0;
    std::int64_t balance = 0;  // twice the pixels right of the middle less those left of it
    for (const std::int64_t block : largest_component(bright_blocks(image, threshold))) {
        const std::int64_t row = block / breast.mask.columns;
        const std::int64_t column = block % breast.mask.columns;
        const std::int64_t row_end = std::min((row + 1) * side, image.rows);
        const std::int64_t column_end = std::min((column + 1) * side, image.columns);
        top = std::min(top, row * side);
        left = std::min(left, column * side);
        bottom = std::max(bottom, row_end);
        right = std::max(right, column_end);
        const std::int64_t middle = std::clamp(image.columns, 2 * column * side, 2 * column_end);
        balance += (row_end - row * side) * (2 * column_end + 2 * column * side - 2 * middle);
        mark_with_neighbours(breast.mask, row, column);
        ++breast.blocks;
    }
    if (breast.blocks > 0) breast.box = {top, left, bottom - top, right - left};
    breast.chest_wall_right = balance > 0;
    return breast;
}

template Breast find_breast(const Image<std::uint8_t>&, double);
template Breast find_breast(const Image<std::uint16_t>&, double);

}  // namespace mammoclip

#include <algorithm>
#include <stdexcept>

#include "averaging.hpp"

namespace mammoclip {
namespace {

struct Run {
    std::int64_t first;
    std::int64_t end;
};

// The stretches of one row of blocks, in samples first to end of the columns, inside the mask.
// Sample i of a reduced axis lies in the block that holds pixel 2^levels * i.
std::vector<Run> runs_of(const BlockMask& mask, std::int64_t block_row, Run columns, int levels) {
    const auto first_sample = [&](std::int64_t block) {
        const std::int64_t spacing = std::int64_t{1} << levels;
        return (block * mask.side + spacing - 1) / spacing;
    };
    std::vector<Run> runs;
    for (std::int64_t block = 0; block < mask.columns; ++block) {
        if (mask.inside[static_cast<std::size_t>(block_row * mask.columns + block)] == 0) continue;
        const std::int64_t first = std::max(first_sample(block), columns.first);
        const std::int64_t end = std::min(first_sample(block + 1), columns.end);
        if (first >= end) continue;
        if (!runs.empty() && runs.back().end == first) {
            runs.back().end = end;
        } else {
            runs.push_back({first, end});
        }
    }
    return runs;
}

bool holds(std::int64_t height, std::int64_t width, const Rectangle& inner) {
    return inner.top >= 0 && inner.left >= 0 && inner.height >= 1 && inner.width >= 1 &&
           inner.height <= height && inner.width <= width && inner.top <= height - inner.height &&
           inner.left <= width - inner.width;
}

bool is_side(std::int64_t length, std::int64_t largest) {
    return length >= 1 && length <= largest;
}

template <typename Pixel>
void check(const Image<Pixel>& image, const Placement& placement) {
    const std::int64_t rows = image.source_rows(), columns = image.source_columns();
    if (!is_side(placement.height, max_output_side) || !is_side(placement.width, max_output_side)) {
        throw std::invalid_argument("output height and width must be 1 to 8192");
    }
    if (!holds(rows, columns, placement.crop)) {
        throw std::invalid_argument("crop must be a non-empty rectangle of the image");
    }
    if (!holds(placement.height, placement.width, placement.placed)) {
        throw std::invalid_argument("placed must be a non-empty rectangle of the output");
    }
}

std::vector<double> edges_of(std::int64_t start, std::int64_t length, std::int64_t outputs) {
    std::vector<double> edges;
    for (std::int64_t index = 0; index <= outputs; ++index) {
        edges.push_back(static_cast<double>(start) +
                        static_cast<double>(index * length) / static_cast<double>(outputs));
    }
    return edges;
}

}  // namespace

template <typename Pixel>
void check(const Image<Pixel>& image) {
    const Reduction& reduction = image.reduction;
    if (reduction.levels < 0 || reduction.levels > max_levels) {
        throw std::invalid_argument("levels must be 0 to 5");
    }
    if (!is_side(image.rows, max_side) || !is_side(image.columns, max_side) ||
        !is_side(image.source_rows(), max_side) || !is_side(image.source_columns(), max_side)) {
        throw std::invalid_argument("rows and columns must be 1 to 65535");
    }
    const auto samples = [&](std::int64_t side) {
        return (side + (std::int64_t{1} << reduction.levels) - 1) >> reduction.levels;
    };
    if (image.rows != samples(image.source_rows()) ||
        image.columns != samples(image.source_columns())) {
        throw std::invalid_argument("a reduced image must have one sample for 2^levels pixels");
    }
}

template <typename Pixel>
void check(const Image<Pixel>& image, const BlockMask* mask) {
    check(image);
    if (mask == nullptr) return;
    const std::int64_t rows = image.source_rows(), columns = image.source_columns();
    if (!is_side(mask->side, max_side) || mask->rows != (rows + mask->side - 1) / mask->side ||
        mask->columns != (columns + mask->side - 1) / mask->side ||
        mask->inside.size() != static_cast<std::size_t>(mask->rows * mask->columns)) {
        throw std::invalid_argument("mask must have one entry for each block of the image");
    }
}

template <typename Pixel>
std::vector<float> average(const Image<Pixel>& image, const Coverage& down, const Coverage& across,
                           const BlockMask* mask) {
    const std::int64_t wide = across.outputs();
    Run columns{image.columns, 0};
    for (std::int64_t j = 0; j < wide; ++j) {
        const std::int64_t first = across.first[static_cast<std::size_t>(j)];
        columns.first = std::min(columns.first, first);
        columns.end = std::max(columns.end, first + across.count(j));
    }
    const int levels = image.reduction.levels;
    std::vector<std::vector<Run>> runs(1, {columns});
    if (mask != nullptr) {
        runs.clear();
        for (std::int64_t row = 0; row < mask->rows; ++row) {
            runs.push_back(runs_of(*mask, row, columns, levels));
        }
    }
    std::vector<float> output(static_cast<std::size_t>(down.outputs() * wide));
    std::vector<float> sums(static_cast<std::size_t>(image.columns));
    for (std::int64_t i = 0; i < down.outputs(); ++i) {
        // The rows first: one weighted sum for each column.
        std::fill(sums.begin() + columns.first, sums.begin() + columns.end, 0.0F);
        const auto output_row = static_cast<std::size_t>(i);
        for (std::int64_t k = 0; k < down.count(i); ++k) {
            const std::int64_t row = down.first[output_row] + k;
            const auto weight =
                static_cast<float>(down.weights[static_cast<std::size_t>(down.begin[output_row] + k)]);
            const Pixel* pixels = image.pixels + row * image.columns;
            const float* values = image.values;
            const std::int64_t block_row = mask == nullptr ? 0 : (row << levels) / mask->side;
            for (const Run& run : runs[static_cast<std::size_t>(block_row)]) {
                float* sum = sums.data();
                for (std::int64_t column = run.first; column < run.end; ++column) {
                    sum[column] += weight * values[pixels[column]];
                }
            }
        }
        float* line = output.data() + i * wide;
        for (std::int64_t j = 0; j < wide; ++j) {
            const auto output_column = static_cast<std::size_t>(j);
            double value = 0.0;
            for (std::int64_t k = 0; k < across.count(j); ++k) {
                value += across.weights[static_cast<std::size_t>(across.begin[output_column] + k)] *
                         sums[static_cast<std::size_t>(across.first[output_column] + k)];
            }
            line[j] = static_cast<float>(value);
        }
    }
    return output;
}

template <typename Pixel>
std::vector<float> resample(const Image<Pixel>& image, const Placement& placement,
                            const BlockMask* mask) {
    check(image, mask);
    check(image, placement);
    const Rectangle& crop = placement.crop;
    const Rectangle& placed = placement.placed;
    const std::vector<float> averages = average(
        image,
        cover(edges_of(crop.top, crop.height, placed.height), image.source_rows(), image.reduction),
        cover(edges_of(crop.left, crop.width, placed.width), image.source_columns(),
              image.reduction),
        mask);
    std::vector<float> output(static_cast<std::size_t>(placement.height * placement.width), 0.0F);
    for (std::int64_t i = 0; i < placed.height; ++i) {
        const float* from = averages.data() + i * placed.width;
        float* to = output.data() + (placed.top + i) * placement.width + placed.left;
        if (placement.mirrored) {
            std::reverse_copy(from, from + placed.width, to);
        } else {
            std::copy(from, from + placed.width, to);
        }
    }
    return output;
}

template void check(const Image<std::uint8_t>&);
template void check(const Image<std::uint16_t>&);
template void check(const Image<std::uint8_t>&, const BlockMask*);
template void check(const Image<std::uint16_t>&, const BlockMask*);
template std::vector<float> average(const Image<std::uint8_t>&, const Coverage&, const Coverage&,
                                    const BlockMask*);
template std::vector<float> average(const Image<std::uint16_t>&, const Coverage&, const Coverage&,
                                    const BlockMask*);
template std::vector<float> resample(const Image<std::uint8_t>&, const Placement&,
                                     const BlockMask*);
template std::vector<float> resample(const Image<std::uint16_t>&, const Placement&,
                                     const BlockMask*);

}  // namespace mammoclip

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "mammoclip/tensor.hpp"

namespace mammoclip {
namespace {

// Which samples of one axis make up each output pixel: output i is the sum of
// weights[begin[i] .. begin[i + 1]) times the samples from first[i] on.
struct Coverage {
    std::vector<std::int64_t> first;
    std::vector<std::int64_t> begin{0};
    std::vector<double> weights;

    std::int64_t count(std::size_t output) const { return begin[output + 1] - begin[output]; }
};

struct Run {
    std::int64_t first;
    std::int64_t end;
};

Coverage cover(std::int64_t start, std::int64_t length, std::int64_t outputs, std::int64_t samples,
               double offset) {
    Coverage coverage;
    for (std::int64_t output = 0; output < outputs; ++output) {
        const auto edge = [&](std::int64_t index) {
            return static_cast<double>(start) - offset +
                   static_cast<double>(index * length) / static_cast<double>(outputs);
        };
        const double from = edge(output);
        const double to = edge(output + 1);
        const auto clamped = [&](std::int64_t sample) {
            return std::clamp<std::int64_t>(sample, 0, samples - 1);
        };
        const auto nearest = static_cast<std::int64_t>(std::floor(from));
        const auto farthest = static_cast<std::int64_t>(std::ceil(to));
        const std::int64_t first = clamped(nearest);
        coverage.first.push_back(first);
        const auto begin = static_cast<std::size_t>(coverage.begin.back());
        coverage.weights.resize(begin + static_cast<std::size_t>(clamped(farthest - 1) - first + 1));
        for (std::int64_t sample = nearest; sample < farthest; ++sample) {
            const double overlap = std::min(to, static_cast<double>(sample + 1)) -
                                   std::max(from, static_cast<double>(sample));
            coverage.weights[begin + static_cast<std::size_t>(clamped(sample) - first)] +=
                overlap / (to - from);
        }
        coverage.begin.push_back(static_cast<std::int64_t>(coverage.weights.size()));
    }
    return coverage;
}

// The stretches of one row of blocks, in columns first to end, that are inside the mask.
std::vector<Run> runs_of(const BlockMask& mask, std::int64_t block_row, Run columns) {
    std::vector<Run> runs;
    for (std::int64_t block = columns.first / mask.side; block * mask.side < columns.end; ++block) {
        if (mask.inside[static_cast<std::size_t>(block_row * mask.columns + block)] == 0) continue;
        const std::int64_t first = std::max(block * mask.side, columns.first);
        const std::int64_t end = std::min((block + 1) * mask.side, columns.end);
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
void check(const Image<Pixel>& image, const Placement& placement, const BlockMask* mask) {
    if (!is_side(image.rows, max_side) || !is_side(image.columns, max_side)) {
        throw std::invalid_argument("rows and columns must be 1 to 65535");
    }
    if (!is_side(placement.height, max_output_side) || !is_side(placement.width, max_output_side)) {
        throw std::invalid_argument("output height and width must be 1 to 8192");
    }
    if (!holds(image.rows, image.columns, placement.crop)) {
        throw std::invalid_argument("crop must be a non-empty rectangle of the image");
    }
    if (!holds(placement.height, placement.width, placement.placed)) {
        throw std::invalid_argument("placed must be a non-empty rectangle of the output");
    }
    // A NaN fails both comparisons, so they are written to be true for what is accepted.
    if (!(std::abs(placement.row_offset) <= 1.0 && std::abs(placement.column_offset) <= 1.0)) {
        throw std::invalid_argument("offsets must be -1 to 1 source pixel");
    }
    if (mask == nullptr) return;
    if (mask->side < 1 || mask->rows != (image.rows + mask->side - 1) / mask->side ||
        mask->columns != (image.columns + mask->side - 1) / mask->side ||
        mask->inside.size() != static_cast<std::size_t>(mask->rows * mask->columns)) {
        throw std::invalid_argument("mask must have one entry for each block of the image");
    }
}

}  // namespace

template <typename Pixel>
std::vector<float> resample(const Image<Pixel>& image, const Placement& placement,
                            const BlockMask* mask) {
    check(image, placement, mask);
    const Rectangle& crop = placement.crop;
    const Rectangle& placed = placement.placed;
    const Coverage down =
        cover(crop.top, crop.height, placed.height, image.rows, placement.row_offset);
    const Coverage across =
        cover(crop.left, crop.width, placed.width, image.columns, placement.column_offset);
    const auto outputs = static_cast<std::size_t>(placed.width);
    const Run columns{across.first.front(), across.first.back() + across.count(outputs - 1)};

    std::vector<std::vector<Run>> runs(1, {columns});
    if (mask != nullptr) {
        runs.clear();
        for (std::int64_t row = 0; row < mask->rows; ++row) {
            runs.push_back(runs_of(*mask, row, columns));
        }
    }

    std::vector<float> output(static_cast<std::size_t>(placement.height * placement.width), 0.0F);
    std::vector<float> sums(static_cast<std::size_t>(image.columns));
    for (std::int64_t i = 0; i < placed.height; ++i) {
        // The rows first: one weighted sum for each source column.
        std::fill(sums.begin() + columns.first, sums.begin() + columns.end, 0.0F);
        const auto row_index = static_cast<std::size_t>(i);
        for (std::int64_t k = 0; k < down.count(row_index); ++k) {
            const std::int64_t row = down.first[row_index] + k;
            const auto weight =
                static_cast<float>(down.weights[static_cast<std::size_t>(down.begin[row_index] + k)]);
            const Pixel* pixel = image.pixels + row * image.columns;
            const std::int64_t block_row = mask == nullptr ? 0 : row / mask->side;
            for (const Run& run : runs[static_cast<std::size_t>(block_row)]) {
                for (std::int64_t column = run.first; column < run.end; ++column) {
                    sums[static_cast<std::size_t>(column)] += weight * image.values[pixel[column]];
                }
            }
        }
        float* line = output.data() + (placed.top + i) * placement.width + placed.left;
        for (std::size_t j = 0; j < outputs; ++j) {
            double value = 0.0;
            for (std::int64_t k = 0; k < across.count(j); ++k) {
                value += across.weights[static_cast<std::size_t>(across.begin[j] + k)] *
                         sums[static_cast<std::size_t>(across.first[j] + k)];
            }
            line[placement.mirrored ? outputs - 1 - j : j] = static_cast<float>(value);
        }
    }
    return output;
}

template std::vector<float> resample(const Image<std::uint8_t>&, const Placement&,
                                     const BlockMask*);
template std::vector<float> resample(const Image<std::uint16_t>&, const Placement&,
                                     const BlockMask*);

}  // namespace mammoclip

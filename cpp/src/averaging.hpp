// Area averages of displayed values: which samples make up each output, and the pass over them.
#pragma once

#include <cstdint>
#include <vector>

#include "mammoclip/tensor.hpp"

namespace mammoclip {

// Which samples of one axis make up each output: output i is the sum of weights[begin[i] ..
// begin[i + 1]) times the samples from first[i] on.
struct Coverage {
    std::vector<std::int64_t> first;
    std::vector<std::int64_t> begin{0};
    std::vector<double> weights;

    std::int64_t outputs() const { return static_cast<std::int64_t>(first.size()); }
    std::int64_t count(std::int64_t output) const {
        return begin[static_cast<std::size_t>(output) + 1] - begin[static_cast<std::size_t>(output)];
    }
};

// Output i is the mean over edges[i] .. edges[i + 1], which rise and lie within the axis, 0 ..
// pixels. Where the finest resolution levels are missing, it is the mean of what a JPEG 2000
// decoder would have made of the axis with their detail at 0.
Coverage cover(const std::vector<double>& edges, std::int64_t pixels, const Reduction& reduction);

// The averages, down.outputs() * across.outputs(), row-major. Samples of blocks outside the mask,
// when there is one, count as 0.
template <typename Pixel>
std::vector<float> average(const Image<Pixel>& image, const Coverage& down, const Coverage& across,
                           const BlockMask* mask);

// Throw std::invalid_argument unless the sizes are within limits and belong to each other.
template <typename Pixel>
void check(const Image<Pixel>& image);
template <typename Pixel>
void check(const Image<Pixel>& image, const BlockMask* mask);

}  // namespace mammoclip

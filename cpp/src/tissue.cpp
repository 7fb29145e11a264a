#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "averaging.hpp"

namespace mammoclip {
namespace {

constexpr auto white = static_cast<float>(254.0 / 255.0);  // from here on 8-bit screens show white

// The displayed values in the middle of the breast's blocks that are above the threshold. A block
// that is cut off before its middle has none.
template <typename Pixel>
std::vector<float> samples_of(const Image<Pixel>& image, const BlockMask& mask, float threshold) {
    const auto middle = [&](std::int64_t block) { return block * mask.side + mask.side / 2; };
    const int levels = image.reduction.levels;
    std::vector<float> samples;
    for (std::int64_t i = 0; i < mask.rows && middle(i) < image.source_rows(); ++i) {
        const Pixel* row = image.pixels + (middle(i) >> levels) * image.columns;
        for (std::int64_t j = 0; j < mask.columns && middle(j) < image.source_columns(); ++j) {
            if (mask.inside[static_cast<std::size_t>(i * mask.columns + j)] == 0) continue;
            const float value = image.values[row[middle(j) >> levels]];
            if (value > threshold) samples.push_back(value);
        }
    }
    return samples;
}

// The value below which a share of the samples lies, between two of them in proportion.
double quantile(std::vector<float>& samples, double share) {
    const double place = share * static_cast<double>(samples.size() - 1);
    const auto low = samples.begin() + static_cast<std::ptrdiff_t>(std::floor(place));
    std::nth_element(samples.begin(), low, samples.end());
    if (low + 1 == samples.end()) return *low;
    const double above = *std::min_element(low + 1, samples.end());
    return *low + (above - *low) * (place - std::floor(place));
}

}  // namespace

template <typename Pixel>
Tissue measure_tissue(const Image<Pixel>& image, const Breast& breast, double threshold) {
    check(image, &breast.mask);
    if (!std::isfinite(threshold)) throw std::invalid_argument("threshold must be finite");
    std::vector<float> samples = samples_of(image, breast.mask, static_cast<float>(threshold));
    if (samples.empty()) return {};
    const auto whites = std::count_if(samples.begin(), samples.end(),
                                      [](float value) { return value >= white; });
    Tissue tissue;
    tissue.spread = quantile(samples, 0.95) - quantile(samples, 0.05);
    tissue.saturated = static_cast<double>(whites) / static_cast<double>(samples.size());
    return tissue;
}

template Tissue measure_tissue(const Image<std::uint8_t>&, const Breast&, double);
template Tissue measure_tissue(const Image<std::uint16_t>&, const Breast&, double);

}  // namespace mammoclip

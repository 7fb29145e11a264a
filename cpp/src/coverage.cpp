#include <algorithm>
#include <array>
#include <cmath>

#include "averaging.hpp"

namespace mammoclip {
namespace {

// Low-pass synthesis filters, ISO 15444-1 Annex F: what one coarse sample adds to the fine samples
// around it. The middle is the fine sample at the same place.
constexpr std::array<double, 3> synthesis_5_3{0.5, 1.0, 0.5};
constexpr std::array<double, 7> synthesis_9_7{
    -0.09127176311424948, -0.05754352622849957, 0.5912717631142470, 1.115087052456994,
    0.5912717631142470,   -0.05754352622849957, -0.09127176311424948};

Coverage cover_pixels(const std::vector<double>& edges, std::int64_t pixels) {
    Coverage coverage;
    for (std::size_t output = 0; output + 1 < edges.size(); ++output) {
        const double from = edges[output];
        const double to = edges[output + 1];
        const auto first = static_cast<std::int64_t>(std::floor(from));
        const std::int64_t end = std::min(static_cast<std::int64_t>(std::ceil(to)), pixels);
        coverage.first.push_back(first);
        for (std::int64_t pixel = first; pixel < end; ++pixel) {
            const double overlap = std::min(to, static_cast<double>(pixel + 1)) -
                                   std::max(from, static_cast<double>(pixel));
            coverage.weights.push_back(overlap / (to - from));
        }
        coverage.begin.push_back(static_cast<std::int64_t>(coverage.weights.size()));
    }
    return coverage;
}

// The transform mirrors an axis at its first and last sample.
std::int64_t mirrored(std::int64_t sample, std::int64_t samples) {
    const std::int64_t period = 2 * (samples - 1);
    const std::int64_t place = std::abs(sample) % period;
    return place < samples ? place : period - place;
}

// Weights of `samples` fine samples become weights of the coarse samples they are made from when
// the detail between those is 0: the transpose of one level of the inverse transform.
template <std::size_t Taps>
Coverage coarsened(const Coverage& fine, std::int64_t samples,
                   const std::array<double, Taps>& filter) {
    constexpr auto reach = static_cast<std::int64_t>(Taps / 2);
    const std::int64_t coarse_samples = (samples + 1) / 2;
    if (samples == 1) return fine;  // the transform leaves a single sample as it is
    Coverage coarse;
    for (std::size_t output = 0; output < fine.first.size(); ++output) {
        const std::int64_t count = fine.begin[output + 1] - fine.begin[output];
        const std::int64_t last = fine.first[output] + count - 1;
        const std::int64_t first = std::max<std::int64_t>(fine.first[output] - reach, 0) / 2;
        const std::int64_t end = std::min((last + reach) / 2 + 1, coarse_samples);
        const auto begin = coarse.weights.size();
        coarse.first.push_back(first);
        coarse.weights.resize(begin + static_cast<std::size_t>(end - first));
        for (std::int64_t k = 0; k < count; ++k) {
            const std::int64_t sample = fine.first[output] + k;
            const double weight = fine.weights[static_cast<std::size_t>(fine.begin[output] + k)];
            for (std::int64_t tap = -reach; tap <= reach; ++tap) {
                if ((sample + tap) % 2 != 0) continue;  // detail lies there
                const std::int64_t place = mirrored(sample + tap, samples) / 2 - first;
                coarse.weights[begin + static_cast<std::size_t>(place)] +=
                    filter[static_cast<std::size_t>(tap + reach)] * weight;
            }
        }
        coarse.begin.push_back(static_cast<std::int64_t>(coarse.weights.size()));
    }
    return coarse;
}

}  // namespace

Coverage cover(const std::vector<double>& edges, std::int64_t pixels, const Reduction& reduction) {
    Coverage coverage = cover_pixels(edges, pixels);
    std::int64_t samples = pixels;
    for (int level = 0; level < reduction.levels; ++level) {
        coverage = reduction.reversible ? coarsened(coverage, samples, synthesis_5_3)
                                        : coarsened(coverage, samples, synthesis_9_7);
        samples = (samples + 1) / 2;
    }
    return coverage;
}

}  // namespace mammoclip

#include "mammoclip/grey_values.hpp"

#include <algorithm>
#include <cmath>
#include <locale>
#include <sstream>

#include "mammoclip/tensor.hpp"

namespace mammoclip {
namespace {

using Values = std::vector<double>;  // one for every code of bits_stored bits

template <typename... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream stream;
    stream.imbue(std::locale::classic());
    (stream << ... << parts);
    return stream.str();
}

// Stored values in the order of their codes.
std::vector<std::int64_t> stored_values(const DisplayAttributes& display,
                                        std::int64_t container_bits) {
    if ((container_bits != 8 && container_bits != 16) || display.bits_stored < 1 ||
        display.bits_stored > container_bits) {
        throw UndefinedGreyValues(
            "Bits Stored (0028,0101)",
            text(display.bits_stored, " bits in pixels of ", container_bits),
            "1 to 8 bits in 8, or 1 to 16 bits in 16", "Send the image with a consistent header.");
    }
    const std::int64_t codes = std::int64_t{1} << display.bits_stored;
    std::vector<std::int64_t> stored(static_cast<std::size_t>(codes));
    for (std::int64_t code = 0; code < codes; ++code) {
        const bool negative = display.is_signed && code >= codes / 2;
        stored[static_cast<std::size_t>(code)] = negative ? code - codes : code;
    }
    return stored;
}

void look_up(const LookupTable& lut, Values& values, const char* subject) {
    if (lut.data.empty()) {
        throw UndefinedGreyValues(subject, "no entries in LUT Data (0028,3006)", "at least one",
                                  "Send the image with its whole LUT, or with a window.");
    }
    const auto first = static_cast<double>(lut.first);
    const auto last = static_cast<double>(lut.data.size() - 1);
    for (double& value : values) {
        const double index = std::clamp(std::nearbyint(value - first), 0.0, last);
        value = static_cast<double>(lut.data[static_cast<std::size_t>(index)]);
    }
}

Values modality_values(const DisplayAttributes& display, const std::vector<std::int64_t>& stored) {
    Values values(stored.begin(), stored.end());
    if (display.modality_lut) {
        look_up(*display.modality_lut, values, "Modality LUT Sequence (0028,3000)");
        return values;
    }
    bool within = true;
    for (double& value : values) {
        value = value * display.slope + display.intercept;
        within = within && std::abs(value) <= largest_grey_value;  // false for NaN
    }
    if (!within) {
        throw UndefinedGreyValues(
            "Rescale Slope and Intercept (0028,1053), (0028,1052)",
            text("slope ", display.slope, ", intercept ", display.intercept),
            text("finite numbers that keep grey values within ", largest_grey_value),
            "Send the image with its real rescale.");
    }
    return values;
}

void ramp(Values& values, double low, double high) {
    if (!(low < high)) {
        throw UndefinedGreyValues(
            "grey values", text("one value (", low, ") from the darkest to the brightest"),
            "a range",
            "The image is constant, or its header maps all of it to one value; resend it.");
    }
    for (double& value : values) value = std::clamp((value - low) / (high - low), 0.0, 1.0);
}

void check_window(const Window& window, const std::string& function) {
    if (function != "LINEAR" && function != "LINEAR_EXACT" && function != "SIGMOID") {
        throw UndefinedGreyValues("VOI LUT Function (0028,1056)", text("'", function, "'"),
                                  "LINEAR, LINEAR_EXACT or SIGMOID",
                                  "Send the image with a defined VOI LUT Function.");
    }
    const bool linear = function == "LINEAR";
    const bool wide_enough = linear ? window.width >= 1.0 : window.width > 0.0;
    if (!wide_enough || !std::isfinite(window.width) || !std::isfinite(window.center)) {
        throw UndefinedGreyValues(
            "Window Center and Width (0028,1050), (0028,1051)",
            text("center ", window.center, ", width ", window.width),
            text("finite numbers, width ", linear ? ">= 1" : "> 0"),
            text("Correct the window; ", function, " is not defined for this one."));
    }
}

// PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
void apply_window(Values& values, Window window, const std::string& function) {
    check_window(window, function);
    if (function == "LINEAR") {
        window.center -= 0.5;
        window.width -= 1.0;
    }
    if (window.width == 0.0) {
        for (double& value : values) value = value <= window.center ? 0.0 : 1.0;
        return;
    }
    // Where the division overflows, infinity is black or white, as it should be.
    for (double& value : values) value = (value - window.center) / window.width;
    if (function == "SIGMOID") {
        // 1 / (1 + exp(-4 distance))
        for (double& value : values) value = 0.5 + 0.5 * std::tanh(2.0 * value);
    } else {
        for (double& value : values) value = std::clamp(value + 0.5, 0.0, 1.0);
    }
}

void apply_voi_lut(Values& values, const LookupTable& lut) {
    constexpr const char* subject = "VOI LUT Sequence (0028,3010)";
    look_up(lut, values, subject);
    const double highest = *std::max_element(lut.data.begin(), lut.data.end());
    if (highest == 0.0) {
        throw UndefinedGreyValues(subject, "nothing but zeros in LUT Data (0028,3006)",
                                  "a table that shows the image",
                                  "Send the image with its real LUT, or with a window.");
    }
    for (double& value : values) value /= highest;
}

struct Counted {
    double value;
    std::int64_t pixels;
};

// The values that the image's own pixels have, rising, padding left out.
std::vector<Counted> counted_values(const Values& values, const std::vector<char>& is_image,
                                    const std::vector<std::uint32_t>& counts) {
    std::vector<Counted> counted;
    for (std::size_t code = 0; code < values.size(); ++code) {
        if (!is_image[code]) continue;
        std::int64_t pixels = 0;
        for (std::size_t same = code; same < counts.size(); same += values.size()) {
            pixels += counts[same];
        }
        if (pixels > 0) counted.push_back({values[code], pixels});
    }
    std::sort(counted.begin(), counted.end(),
              [](const Counted& a, const Counted& b) { return a.value < b.value; });
    return counted;
}

double percentile(const std::vector<Counted>& counted, double share) {
    std::int64_t total = 0;
    for (const Counted& entry : counted) total += entry.pixels;
    const double wanted = static_cast<double>(total) * share / 100.0;
    std::int64_t reached = 0;
    for (const Counted& entry : counted) {
        reached += entry.pixels;
        if (static_cast<double>(reached) >= wanted) return entry.value;
    }
    return counted.back().value;
}

void stretch_percentiles(Values& values, const VoiPolicy& policy, const std::vector<char>& is_image,
                         std::int64_t container_bits, const std::vector<std::uint32_t>* counts) {
    const auto [low, high] = policy.percentiles;
    if (!(0.0 <= low && low < high && high <= 100.0)) {
        throw UndefinedGreyValues("percentiles", text(low, " and ", high),
                                  "two that rise within 0 to 100",
                                  "Correct the preprocessing's percentiles.");
    }
    if (counts == nullptr || counts->size() != std::size_t{1} << container_bits) {
        throw UndefinedGreyValues("percentiles", "no pixels, or pixels of another type",
                                  "the image's pixels, since voi is percentile",
                                  "Hand over the stored pixels.");
    }
    const std::vector<Counted> counted = counted_values(values, is_image, *counts);
    if (counted.empty()) {
        throw UndefinedGreyValues(
            "pixels", "padding only", "an image",
            "Check Pixel Padding Value (0028,0120) and Range Limit (0028,0121).");
    }
    ramp(values, percentile(counted, low), percentile(counted, high));
}

void stretch_whole_range(Values& values) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    ramp(values, *low, *high);
}

void apply_voi(Values& values, const DisplayAttributes& display, const VoiPolicy& policy,
               const std::vector<char>& is_image, std::int64_t container_bits,
               const std::vector<std::uint32_t>* counts) {
    const std::string& voi = policy.voi;
    if (voi == "percentile") {
        stretch_percentiles(values, policy, is_image, container_bits, counts);
    } else if (voi == "stored") {
        stretch_whole_range(values);
    } else if (voi != "header_window" && voi != "header_lut") {
        throw UndefinedGreyValues("voi", text("'", voi, "'"),
                                  "header_window, header_lut, stored or percentile",
                                  "Correct the preprocessing's voi.");
    } else if (display.window && (voi == "header_window" || !display.voi_lut)) {
        apply_window(values, *display.window, display.voi_function);
    } else if (display.voi_lut) {
        apply_voi_lut(values, *display.voi_lut);
    } else {
        stretch_whole_range(values);
    }
}

void apply_polarity(Values& values, const std::string& photometric) {
    if (photometric == "MONOCHROME1") {
        for (double& value : values) value = 1.0 - value;
    } else if (photometric != "MONOCHROME2") {
        throw UndefinedGreyValues("Photometric Interpretation (0028,0004)",
                                  text("'", photometric, "'"), "MONOCHROME1 or MONOCHROME2",
                                  "Send the grey-scale image the modality made.");
    }
}

// 1 for the codes that are image, 0 for those that are padding.
std::vector<char> image_codes(const DisplayAttributes& display,
                              const std::vector<std::int64_t>& stored) {
    std::vector<char> is_image(stored.size(), 1);
    if (!display.padding) return is_image;
    const auto [low, high] = std::minmax(display.padding->first, display.padding->second);
    for (std::size_t code = 0; code < stored.size(); ++code) {
        is_image[code] = stored[code] < low || stored[code] > high;
    }
    return is_image;
}

}  // namespace

UndefinedGreyValues::UndefinedGreyValues(std::string subject, std::string found,
                                         std::string expected, std::string remedy)
    : std::invalid_argument(subject + ": found " + found + "; expected " + expected + ". " + remedy),
      subject(std::move(subject)),
      found(std::move(found)),
      expected(std::move(expected)),
      remedy(std::move(remedy)) {}

template <typename Pixel>
std::vector<std::uint32_t> count_codes(const Pixel* pixels, std::int64_t rows,
                                       std::int64_t columns) {
    if (rows < 1 || columns < 1 || rows > max_side || columns > max_side) {
        throw std::invalid_argument("rows and columns must be 1 to 65535");
    }
    // Of neighbours one is counted apart, or equal ones would wait for each other's sum. No count
    // overflows: 65535 * 65535 pixels are fewer than 2^32.
    std::vector<std::uint32_t> counts(std::size_t{1} << (8 * sizeof(Pixel)), 0);
    std::vector<std::uint32_t> apart(counts.size(), 0);
    const std::int64_t size = rows * columns;
    for (std::int64_t i = 0; i + 1 < size; i += 2) {
        ++counts[pixels[i]];
        ++apart[pixels[i + 1]];
    }
    if (size % 2 != 0) ++counts[pixels[size - 1]];
    for (std::size_t code = 0; code < counts.size(); ++code) counts[code] += apart[code];
    return counts;
}

template std::vector<std::uint32_t> count_codes(const std::uint8_t*, std::int64_t, std::int64_t);
template std::vector<std::uint32_t> count_codes(const std::uint16_t*, std::int64_t, std::int64_t);

GreyScale grey_scale(const DisplayAttributes& display, const VoiPolicy& policy,
                     std::int64_t container_bits, const std::vector<std::uint32_t>* counts) {
    const std::vector<std::int64_t> stored = stored_values(display, container_bits);
    const std::vector<char> is_image = image_codes(display, stored);
    Values values = modality_values(display, stored);
    apply_voi(values, display, policy, is_image, container_bits, counts);
    apply_polarity(values, display.photometric);

    GreyScale scale;
    scale.values.assign(std::size_t{1} << container_bits, 0.0F);
    scale.darkest = 1.0;
    for (std::size_t code = 0; code < values.size(); ++code) {
        if (!is_image[code]) continue;
        scale.values[code] = static_cast<float>(values[code]);
        scale.darkest = std::min(scale.darkest, values[code]);
    }
    for (std::size_t code = values.size(); code < scale.values.size(); code += values.size()) {
        std::copy_n(scale.values.begin(), values.size(),
                    scale.values.begin() + static_cast<std::ptrdiff_t>(code));
    }
    return scale;
}

}  // namespace mammoclip

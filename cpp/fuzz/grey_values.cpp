// Grey values of any header: no report of a sanitizer, nothing but std::invalid_argument, every
// table of the right size, within 0 to 1, and 0 for padding.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "mammoclip/grey_values.hpp"
#include "reader.hpp"

namespace {

using namespace mammoclip;
using fuzz::Reader;
using fuzz::require;
using Counts = std::vector<std::uint32_t>;

std::optional<LookupTable> table_of(Reader& reader) {
    if (!reader.one_in(3)) return std::nullopt;
    LookupTable lut;
    lut.first = reader.one_in(2) ? reader.any_integer(65535) : reader.within(-300, 0);
    lut.data.resize(static_cast<std::size_t>(reader.within(0, 80)));
    for (std::uint16_t& entry : lut.data) entry = reader.number<std::uint16_t>();
    return lut;
}

DisplayAttributes display_of(Reader& reader) {
    DisplayAttributes display;
    display.bits_stored = reader.one_in(16) ? reader.any_integer(20) : reader.within(1, 16);
    display.is_signed = reader.one_in(2);
    display.photometric = reader.choice(std::array<const char*, 8>{
        "MONOCHROME2", "MONOCHROME2", "MONOCHROME2", "MONOCHROME2", "MONOCHROME1", "MONOCHROME1",
        "MONOCHROME1", "RGB"});
    display.slope = reader.one_in(2) ? 1.0 : reader.any_real(10.0) - 5.0;
    display.intercept = reader.one_in(2) ? 0.0 : reader.any_real(5000.0) - 2500.0;
    display.modality_lut = table_of(reader);
    if (reader.one_in(2)) {
        const double center = reader.any_real(65535.0);
        display.window = Window{center, reader.any_real(65535.0)};
    }
    display.voi_function = reader.choice(std::array<const char*, 8>{
        "LINEAR", "LINEAR", "LINEAR", "LINEAR_EXACT", "LINEAR_EXACT", "SIGMOID", "SIGMOID", ""});
    display.voi_lut = table_of(reader);
    if (reader.one_in(2)) {
        const std::int64_t first = reader.any_integer(65535);
        display.padding = {first, reader.any_integer(65535)};
    }
    return display;
}

template <typename Pixel>
Counts counts_of(Reader& reader) {
    const std::int64_t rows = reader.within(1, 40), columns = reader.within(1, 40);
    const auto pixels = reader.all_that_is_left<Pixel>(static_cast<std::size_t>(rows * columns));
    const bool wild = reader.one_in(64);
    const Counts counts = count_codes(pixels.data(), wild ? reader.no_size() : rows, columns);
    std::int64_t counted = 0;
    for (const std::uint32_t count : counts) counted += count;
    require(counted == rows * columns, "every pixel is counted once");
    return counts;
}

void check(const GreyScale& scale, const DisplayAttributes& display, std::int64_t container_bits) {
    require(scale.values.size() == std::size_t{1} << container_bits, "one value for each code");
    require(scale.darkest >= 0.0 && scale.darkest <= 1.0, "the darkest value is within 0 to 1");
    const std::int64_t codes = std::int64_t{1} << display.bits_stored;
    for (std::size_t code = 0; code < scale.values.size(); ++code) {
        const float value = scale.values[code];
        require(value >= 0.0F && value <= 1.0F, "grey values are within 0 to 1");
        if (!display.padding) continue;
        std::int64_t stored = static_cast<std::int64_t>(code) % codes;
        if (display.is_signed && stored >= codes / 2) stored -= codes;
        const auto [low, high] = std::minmax(display.padding->first, display.padding->second);
        require(stored < low || stored > high || value == 0.0F, "padding is 0");
    }
}

void run(Reader& reader) {
    const DisplayAttributes display = display_of(reader);
    VoiPolicy policy;
    policy.voi = reader.choice(std::array<const char*, 8>{"header_window", "header_window",
                                                          "header_lut", "header_lut", "stored",
                                                          "percentile", "percentile", "auto"});
    const double low = reader.any_real(50.0);
    policy.percentiles = {low, 50.0 + reader.any_real(50.0)};
    std::int64_t container_bits = display.bits_stored <= 8 && reader.one_in(2) ? 8 : 16;
    if (reader.one_in(32)) container_bits = reader.any_integer(20);
    std::optional<Counts> counts;
    if (policy.voi == "percentile" && !reader.one_in(16)) {
        const bool eight = (container_bits == 8) != reader.one_in(16);
        counts = eight ? counts_of<std::uint8_t>(reader) : counts_of<std::uint16_t>(reader);
    }
    check(grey_scale(display, policy, container_bits, counts ? &*counts : nullptr), display,
          container_bits);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Reader reader(data, size);
    try {
        run(reader);
    } catch (const std::invalid_argument&) {
        // The one way out for headers that are refused.
    }
    return 0;
}

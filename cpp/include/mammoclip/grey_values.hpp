// What stored codes are shown as: from the attributes of a DICOM header to one table of displayed
// values, 0 (air) to 1, through which tensor.hpp passes the pixels.
//
//     using namespace mammoclip;
//     DisplayAttributes display;
//     display.bits_stored = 12;
//     display.photometric = "MONOCHROME2";
//     display.window = Window{2000.0, 1500.0};
//     GreyScale scale = grey_scale(display, {"header_window", {}}, 16, nullptr);
//     Image<std::uint16_t> image{pixels, rows, columns, scale.values.data()};
//
// cpp/example/view.cpp goes on from there to one view of a model's input.
//
// Order, PS3.3 C.11 and C.7.6.3.1.2: stored value (sign) -> Modality LUT or rescale -> VOI ->
// polarity -> padding. Composed in float64; `tests/oracle.py` is the specification.
// Thread rule and errors: as in tensor.hpp; what a header leaves undefined is UndefinedGreyValues.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mammoclip {

// In modality units; more comes from a damaged rescale, and would overflow further on.
constexpr double largest_grey_value = 1e12;

// Modality or VOI LUT, PS3.3 C.11.1 and C.11.2.1.1: smaller inputs than `first` map to the first
// entry, larger ones than the table holds to the last. The third value of LUT Descriptor
// (0028,3002) is not asked for, because it is wrong in some vendors' files.
struct LookupTable {
    std::int64_t first = 0;
    std::vector<std::uint16_t> data;
};

// In modality units, PS3.3 C.11.2.1.2.
struct Window {
    double center;
    double width;
};

struct DisplayAttributes {
    std::int64_t bits_stored = 0;
    bool is_signed = false;   // two's complement in bits_stored bits
    std::string photometric;  // "MONOCHROME1" or "MONOCHROME2"
    double slope = 1.0;
    double intercept = 0.0;
    std::optional<LookupTable> modality_lut;  // instead of slope and intercept
    std::optional<Window> window;
    std::string voi_function = "LINEAR";  // or "LINEAR_EXACT", "SIGMOID"
    std::optional<LookupTable> voi_lut;
    // Inclusive range of stored values that are not image, in any order, PS3.3 C.7.5.1.1.2.
    std::optional<std::pair<std::int64_t, std::int64_t>> padding;
};

// What decides the grey values where a header offers a choice.
struct VoiPolicy {
    // "header_window" (window before LUT), "header_lut" (LUT before window), "stored" (the full
    // stored range after the modality transformation, which is also what a header with neither
    // gets) or "percentile".
    std::string voi;
    std::pair<double, double> percentiles{0.0, 0.0};  // rising, within 0 to 100
};

struct GreyScale {
    std::vector<float> values;  // one for every code the container can hold; padding is 0
    double darkest = 0.0;       // of what is not padding; above 0 for SIGMOID windows
};

// The header asks for something undefined or unknown.
class UndefinedGreyValues : public std::invalid_argument {
public:
    UndefinedGreyValues(std::string subject, std::string found, std::string expected,
                        std::string remedy);

    std::string subject;  // the attribute and its tag
    std::string found;
    std::string expected;
    std::string remedy;
};

// How many pixels hold each code: 256 or 65536 counts.
template <typename Pixel>
std::vector<std::uint32_t> count_codes(const Pixel* pixels, std::int64_t rows,
                                       std::int64_t columns);

// The displayed value of every code of 8 or 16 bits; those above bits_stored are ignored. `counts`,
// the image's own, is needed for percentiles alone: the lowest values that reach each, over pixels
// that are not padding. MONOCHROME1 is inverted by the full range after VOI, so that a marker in
// one image does not change its grey values.
GreyScale grey_scale(const DisplayAttributes& display, const VoiPolicy& policy,
                     std::int64_t container_bits, const std::vector<std::uint32_t>* counts);

}  // namespace mammoclip

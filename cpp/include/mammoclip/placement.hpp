// Where a view's breast goes in the model's input: crop, margin, orientation and geometry.
#pragma once

#include <cstdint>

#include "mammoclip/tensor.hpp"

namespace mammoclip {

// The keys of a bundle's preprocessing that decide it.
struct Layout {
    std::int64_t height = 0;   // of the model's input, 1 to max_output_side
    std::int64_t width = 0;    // likewise
    double crop_margin = 0.0;  // kept round the breast, as a share of its box's longer side
    bool letterbox = true;     // keeps the aspect; else the crop is stretched to the whole input
};

// The breast's box and its margin, as far as an image of rows x columns source pixels has it,
// mirrored so that the chest wall is at the left; a letterbox has its crop at the left edge, centred
// top to bottom. Halves are rounded to even. std::invalid_argument where there is no breast.
Placement place(const Breast& breast, std::int64_t rows, std::int64_t columns,
                const Layout& layout);

}  // namespace mammoclip

#include "mammoclip/placement.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace mammoclip {
namespace {

void check(const Rectangle& box, std::int64_t rows, std::int64_t columns, const Layout& layout) {
    if (rows < 1 || columns < 1 || rows > max_side || columns > max_side) {
        throw std::invalid_argument("rows and columns must be 1 to 65535");
    }
    if (box.top < 0 || box.left < 0 || box.height < 1 || box.width < 1 || box.height > rows ||
        box.width > columns || box.top > rows - box.height || box.left > columns - box.width) {
        throw std::invalid_argument("a breast must be a non-empty rectangle of the image");
    }
    if (layout.height < 1 || layout.width < 1 || layout.height > max_output_side ||
        layout.width > max_output_side) {
        throw std::invalid_argument("output height and width must be 1 to 8192");
    }
    if (!(layout.crop_margin >= 0.0 && layout.crop_margin <= 1.0)) {  // false for NaN
        throw std::invalid_argument("crop margin must be 0 to 1");
    }
}

Rectangle with_margin(const Rectangle& box, std::int64_t rows, std::int64_t columns, double share) {
    const auto longer = static_cast<double>(std::max(box.height, box.width));
    const std::int64_t margin = std::llrint(share * longer);
    const std::int64_t top = std::max<std::int64_t>(box.top - margin, 0);
    const std::int64_t left = std::max<std::int64_t>(box.left - margin, 0);
    return {top, left, std::min(box.top + box.height + margin, rows) - top,
            std::min(box.left + box.width + margin, columns) - left};
}

Rectangle letterbox(const Rectangle& crop, const Layout& layout) {
    const auto height = static_cast<double>(crop.height), width = static_cast<double>(crop.width);
    const double scale = std::min(static_cast<double>(layout.height) / height,
                                  static_cast<double>(layout.width) / width);
    const auto scaled = [&](double length, std::int64_t largest) {
        return std::clamp<std::int64_t>(std::llrint(length * scale), 1, largest);
    };
    const std::int64_t placed_height = scaled(height, layout.height);
    return {(layout.height - placed_height) / 2, 0, placed_height, scaled(width, layout.width)};
}

}  // namespace

Placement place(const Breast& breast, std::int64_t rows, std::int64_t columns,
                const Layout& layout) {
    check(breast.box, rows, columns, layout);
    Placement placement;
    placement.crop = with_margin(breast.box, rows, columns, layout.crop_margin);
    placement.placed = layout.letterbox ? letterbox(placement.crop, layout)
                                        : Rectangle{0, 0, layout.height, layout.width};
    placement.height = layout.height;
    placement.width = layout.width;
    placement.mirrored = breast.chest_wall_right;
    return placement;
}

}  // namespace mammoclip

// From stored pixels to one view of the model's input: breast segmentation and area resampling.
//
//     using namespace mammoclip;
//     Image<std::uint16_t> image{pixels, rows, columns, values};   // values[65536], 0 (air) to 1
//     Breast breast = find_breast(image, 0.05);
//     Placement placement;
//     placement.crop = breast.box;
//     placement.placed = {0, 0, 448, 224};
//     placement.height = 448;
//     placement.width = 224;
//     placement.mirrored = breast.chest_wall_right;
//     std::vector<float> view = resample(image, placement, &breast.mask);
//
// Thread rule: the functions keep no state and may run on any number of threads at once, as long as
// nobody writes to the pixels or the table meanwhile.
// Errors: std::invalid_argument, thrown before any memory is reserved by the number that is wrong.
#pragma once

#include <cstdint>
#include <vector>

namespace mammoclip {

// Raised together with PREPROCESSING_VERSION of the Python package.
constexpr int preprocessing_version = 1;

// Rows (0028,0010) and Columns (0028,0011) are 16-bit numbers.
constexpr std::int64_t max_side = 65535;

// Rows and columns of an output: no model takes more, and the largest is still 256 MiB.
constexpr std::int64_t max_output_side = 8192;

// In whole pixels; covers top <= row < top + height and left <= column < left + width.
struct Rectangle {
    std::int64_t top = 0;
    std::int64_t left = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;
};

// Stored codes and what each is shown as; Pixel is std::uint8_t or std::uint16_t. Owns nothing.
template <typename Pixel>
struct Image {
    const Pixel* pixels;  // row-major, rows * columns
    std::int64_t rows;
    std::int64_t columns;
    const float* values;  // one for every code a Pixel can hold: 256 or 65536
};

// A grid of square blocks laid over an image from its top left corner; the blocks at the bottom
// and right edges may be cut off.
struct BlockMask {
    std::int64_t side = 0;  // pixels
    std::int64_t rows = 0;  // blocks
    std::int64_t columns = 0;
    std::vector<std::uint8_t> inside;  // 0 or 1, row-major
};

struct Breast {
    std::int64_t blocks = 0;        // in the breast; 0 when nothing was bright enough
    Rectangle box;                  // smallest rectangle of source pixels that holds those blocks
    bool chest_wall_right = false;  // more of its pixels lie in the right half than in the left
    BlockMask mask;                 // those blocks and their eight neighbours, to keep the skin line
};

// Largest bright region: of the blocks whose mean displayed value is above the threshold, the
// 4-connected component with most blocks (of equals, the one met first from the top left). Block
// side: the longer side of the image over 256, rounded, at least 1. A lead marker is a component
// of its own and therefore neither wins nor widens the box.
template <typename Pixel>
Breast find_breast(const Image<Pixel>& image, double threshold);

struct Placement {
    Rectangle crop;           // of the source
    Rectangle placed;         // of the output: where the crop goes
    std::int64_t height = 0;  // of the output
    std::int64_t width = 0;
    bool mirrored = false;  // left to right
    // Where the samples really sit, in source pixels: sample i covers i + offset to
    // i + 1 + offset. A JPEG 2000 image decoded without its r finest levels has
    // offset = 0.5 / 2^r - 0.5 in both directions.
    double row_offset = 0.0;
    double column_offset = 0.0;
};

// Area average of the displayed values: each output pixel is the mean over the source area it
// covers, partly covered pixels counting by their share; beyond the image its edge is repeated.
// Blocks outside the mask, when there is one, count as 0. The output, height * width, is 0 outside
// the placed rectangle.
template <typename Pixel>
std::vector<float> resample(const Image<Pixel>& image, const Placement& placement,
                            const BlockMask* mask);

}  // namespace mammoclip

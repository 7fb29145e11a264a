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

// JPEG 2000 makes five decomposition levels by itself; more would leave nothing to segment.
constexpr int max_levels = 5;

// That an image was decoded without JPEG 2000's finest resolution levels: sample i lies at pixel
// 2^levels * i of the source, and is what the wavelet's low-pass filter makes of its surroundings.
struct Reduction {
    int levels = 0;          // none: the samples are the source's pixels
    bool reversible = true;  // the 5-3 wavelet; else the 9-7
    std::int64_t source_rows = 0;
    std::int64_t source_columns = 0;
};

// Stored codes and what each is shown as; Pixel is std::uint8_t or std::uint16_t. Owns nothing.
// Every rectangle, block and mask is in pixels of the source, whatever was left out.
template <typename Pixel>
struct Image {
    const Pixel* pixels;  // row-major, rows * columns
    std::int64_t rows;
    std::int64_t columns;
    const float* values;  // one for every code a Pixel can hold: 256 or 65536
    Reduction reduction{};

    std::int64_t source_rows() const {
        return reduction.levels == 0 ? rows : reduction.source_rows;
    }
    std::int64_t source_columns() const {
        return reduction.levels == 0 ? columns : reduction.source_columns;
    }
};

// A grid of square blocks laid over an image from its top left corner; the blocks at the bottom
// and right edges may be cut off.
struct BlockMask {
    std::int64_t side = 0;  // pixels of the source
    std::int64_t rows = 0;  // blocks
    std::int64_t columns = 0;
    std::vector<std::uint8_t> inside;  // 0 or 1, row-major
};

struct Breast {
    std::int64_t blocks = 0;        // in the breast; 0 when nothing was bright enough
    Rectangle box;                  // smallest rectangle of source pixels that holds those blocks
    bool chest_wall_right = false;  // more of its pixels lie in the right half than in the left
    BlockMask mask;                 // those blocks and their eight neighbours, to keep the skin line
    bool certain = true;            // no other breast fits a reduced image; see find_breast
};

// Largest bright region: of the blocks whose mean displayed value is above the threshold, the
// 4-connected component with most blocks (of equals, the one met first from the top left). Block
// side: the longer side of the image over 256, rounded, at least 1. A lead marker is a component
// of its own and therefore neither wins nor widens the box. Of a reduced image the blocks' means are
// known up to the place of an edge between two samples; where that could move the box, change the
// side, or join or part bright regions, the breast is not certain.
template <typename Pixel>
Breast find_breast(const Image<Pixel>& image, double threshold);

struct Tissue {
    double spread = 0.0;     // of displayed values, their 95th percentile less their 5th
    double saturated = 0.0;  // share of them that is shown as white
};

// What a breast looks like, by one pixel from the middle of each of the mask's blocks that is above
// the threshold; all 0 where none is.
template <typename Pixel>
Tissue measure_tissue(const Image<Pixel>& image, const Breast& breast, double threshold);

struct Placement {
    Rectangle crop;           // of the source
    Rectangle placed;         // of the output: where the crop goes
    std::int64_t height = 0;  // of the output
    std::int64_t width = 0;
    bool mirrored = false;  // left to right
};

// Area average of the displayed values: each output pixel is the mean over the source area it
// covers, partly covered pixels counting by their share. Of a reduced image it is the mean of what
// the inverse wavelet transform would make of the samples with the missing detail at 0, which
// undoes the shift of their grid and the low-pass filter's lift of middle frequencies.
// Blocks outside the mask, when there is one, count as 0. The output, height * width, is 0 outside
// the placed rectangle.
template <typename Pixel>
std::vector<float> resample(const Image<Pixel>& image, const Placement& placement,
                            const BlockMask* mask);

}  // namespace mammoclip

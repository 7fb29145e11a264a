// From a frame of JPEG Lossless to its pixels, and whether a frame of JPEG's DCT is whole.
//
//     std::vector<std::uint16_t> pixels(rows * columns);
//     const char* fault =
//         mammoclip::decode_jpeg_lossless(frame, size, pixels.data(), rows, columns);
//
// Where a frame lost a part, other decoders make up the pixels that it does not hold; here it has
// a fault. Both functions return it as the end of "a frame with ...", and nullptr for a whole
// frame: one image of one component, as DICOM has it (PS3.5 A.4.1 and A.4.2), in one scan that
// holds what the image needs and nothing else, in restart intervals that follow each other, then
// EOI, and zeros behind it at most. They read nothing outside the frame, whatever it says, and
// take no memory that depends on it.
//
// Thread rule: the functions keep no state and may run on any number of threads at once.
#pragma once

#include <cstdint>

namespace mammoclip {

// Process 14 with Huffman coding, ISO 10918-1 annex H: any predictor, point transform, precision.
// Pixel is std::uint8_t or std::uint16_t; it writes nothing outside rows x columns of them, and
// where there is a fault what it wrote is of no use.
template <typename Pixel>
const char* decode_jpeg_lossless(const std::uint8_t* frame, std::int64_t size, Pixel* pixels,
                                 std::int64_t rows, std::int64_t columns);

// Processes 1, 2 and 4 with Huffman coding, annex F: walks over the code of every block, and leaves
// the pixels to a decoder.
const char* jpeg_blocks_fault(const std::uint8_t* frame, std::int64_t size, std::int64_t rows,
                              std::int64_t columns);

}  // namespace mammoclip

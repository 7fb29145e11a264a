// From a frame of RLE Lossless, PS3.5 annex G, to its pixels.
//
//     std::vector<std::uint16_t> pixels(rows * columns);
//     const bool whole = mammoclip::decode_run_lengths(frame, size, pixels.data(), rows * columns);
//
// Thread rule: the function keeps no state and may run on any number of threads at once.
#pragma once

#include <cstdint>

namespace mammoclip {

// Returns whether the frame, `size` bytes, is a header and one segment for each byte of a Pixel, the
// most significant first, each of exactly `count` bytes when unpacked; else what was written is of
// no use. A segment may end with no-operations and with one byte 0, which makes its length even.
// Reads nothing outside the frame and writes nothing outside the pixels, whatever the frame says;
// takes no memory that depends on it. Pixel is std::uint8_t or std::uint16_t.
template <typename Pixel>
bool decode_run_lengths(const std::uint8_t* frame, std::int64_t size, Pixel* pixels,
                        std::int64_t count);

}  // namespace mammoclip

// The MQ-coded bytes of one code-block of JPEG 2000, ISO 15444-1 annexes C and D.
#pragma once

#include <cstdint>
#include <vector>

namespace mammoclip::jpeg2000 {

enum class Band { low, horizontal, vertical, diagonal };  // LL, HL, LH, HH

// Decodes the passes of one codeword segment, and returns whether they need its bytes: no more
// than a few of its end are left, or are missing there. `bytes` gains an end.
bool uses_its_bytes(std::vector<std::uint8_t>& bytes, int width, int height, Band band, int passes,
                    int style);

}  // namespace mammoclip::jpeg2000

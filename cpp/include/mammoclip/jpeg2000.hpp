// Whether a codestream of JPEG 2000 is whole, ISO 15444-1 and ISO 15444-15.
//
//     const char* fault = mammoclip::jpeg2000_fault(frame, size);
//
// Where a frame lost a part, decoders make up the coefficients that it does not hold; here it has a
// fault, as the end of "a frame with ...", and nullptr where none was found. The tile-parts must
// follow each other to EOC, with zeros behind it at most, and hold the packets that the image
// needs, byte by byte: the header of every packet is read (annex B), and what it says of the
// code-blocks' bytes is held against them. A code-block whose bytes look like a lost part is
// decoded, and must need the bytes that it has. One component, as DICOM has it for mammograms.
//
// It reads nothing outside the frame, whatever it says, and takes memory for the code-blocks of
// one tile, 2^17 at most, and for the bytes of those that are decoded.
//
// Not seen are other bytes of the same code-block or of another image in the place of good ones,
// where no marker, packet header or long run of zeros gives them away; and, of these, the headers
// of packets are not read where they are packed (PPM, PPT), nor where high-throughput coding comes
// in several layers or mixed with the other one.
//
// Thread rule: the function keeps no state and may run on any number of threads at once.
#pragma once

#include <cstdint>

namespace mammoclip {

const char* jpeg2000_fault(const std::uint8_t* frame, std::int64_t size);

}  // namespace mammoclip

// Python binding of the readers of JPEG and JPEG 2000 frames; the decoder writes to the caller's
// array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings.hpp"
#include "mammoclip/jpeg.hpp"
#include "mammoclip/jpeg2000.hpp"

namespace py = pybind11;

namespace {

template <typename Pixel>
const char* decode(const py::buffer_info& frame, py::array& pixels) {
    const auto* first = static_cast<const std::uint8_t*>(frame.ptr);
    auto* to = static_cast<Pixel*>(pixels.mutable_data());  // ValueError where it is read-only
    const std::int64_t rows = pixels.shape(0), columns = pixels.shape(1);
    py::gil_scoped_release released;
    return mammoclip::decode_jpeg_lossless(first, frame.size, to, rows, columns);
}

// A fault, or None.
const char* decode_jpeg_lossless(const py::buffer& frame, py::array pixels) {
    const py::buffer_info bytes = bytes_of(frame);
    check_array(pixels, "pixels", 2);
    if (py::isinstance<py::array_t<std::uint8_t>>(pixels)) {
        return decode<std::uint8_t>(bytes, pixels);
    }
    if (py::isinstance<py::array_t<std::uint16_t>>(pixels)) {
        return decode<std::uint16_t>(bytes, pixels);
    }
    throw py::type_error("pixels must be uint8 or uint16 in the machine's byte order");
}

const char* jpeg_blocks_fault(const py::buffer& frame, std::int64_t rows, std::int64_t columns) {
    const py::buffer_info bytes = bytes_of(frame);
    py::gil_scoped_release released;
    return mammoclip::jpeg_blocks_fault(static_cast<const std::uint8_t*>(bytes.ptr), bytes.size,
                                        rows, columns);
}

const char* jpeg2000_fault(const py::buffer& frame) {
    const py::buffer_info bytes = bytes_of(frame);
    py::gil_scoped_release released;
    return mammoclip::jpeg2000_fault(static_cast<const std::uint8_t*>(bytes.ptr), bytes.size);
}

}  // namespace

void bind_jpeg(py::module_& module) {
    module.def("decode_jpeg_lossless", &decode_jpeg_lossless, py::arg("frame"), py::arg("pixels"));
    module.def("jpeg_blocks_fault", &jpeg_blocks_fault, py::arg("frame"), py::arg("rows"),
               py::arg("columns"));
    module.def("jpeg2000_fault", &jpeg2000_fault, py::arg("frame"));
}

// Python binding of the decoder of run lengths; writes to the caller's array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings.hpp"
#include "mammoclip/run_lengths.hpp"

namespace py = pybind11;

namespace {

template <typename Pixel>
bool decode(const py::buffer_info& frame, py::array& pixels) {
    const auto* first = static_cast<const std::uint8_t*>(frame.ptr);
    auto* to = static_cast<Pixel*>(pixels.mutable_data());  // ValueError where it is read-only
    const std::int64_t size = frame.size, count = pixels.size();
    py::gil_scoped_release released;
    return mammoclip::decode_run_lengths(first, size, to, count);
}

bool decode_run_lengths(const py::buffer& frame, py::array pixels) {
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

}  // namespace

void bind_run_lengths(py::module_& module) {
    module.def("decode_run_lengths", &decode_run_lengths, py::arg("frame"), py::arg("pixels"));
}

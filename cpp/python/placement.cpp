// Python binding of where a breast goes in the model's input.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>
#include <utility>

#include "bindings.hpp"
#include "mammoclip/placement.hpp"

namespace py = pybind11;

namespace {

using Sides = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

Sides sides_of(const mammoclip::Rectangle& rectangle) {
    return {rectangle.top, rectangle.left, rectangle.height, rectangle.width};
}

std::pair<Sides, Sides> place(const mammoclip::Breast& breast,
                              std::pair<std::int64_t, std::int64_t> shape, std::int64_t height,
                              std::int64_t width, double crop_margin, bool letterbox) {
    const mammoclip::Placement placement = mammoclip::place(
        breast, shape.first, shape.second, {height, width, crop_margin, letterbox});
    return {sides_of(placement.crop), sides_of(placement.placed)};
}

}  // namespace

void bind_placement(py::module_& module) {
    module.def("place", &place, py::arg("breast"), py::kw_only(), py::arg("shape"),
               py::arg("height"), py::arg("width"), py::arg("crop_margin"), py::arg("letterbox"));
}

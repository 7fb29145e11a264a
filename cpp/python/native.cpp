// Python binding of the core: checks arrays, releases the GIL, converts nothing silently.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "bindings.hpp"
#include "mammoclip/tensor.hpp"

namespace py = pybind11;

namespace {

using mammoclip::BlockMask;
using mammoclip::Breast;
using mammoclip::Image;
using mammoclip::Placement;
using mammoclip::Rectangle;
using Sides = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
// Levels, whether reversible, and the source's rows and columns.
using OptionalReduction = std::optional<std::tuple<int, bool, std::int64_t, std::int64_t>>;

template <typename Pixel>
Image<Pixel> image_of(const py::array& pixels, const py::array& values,
                      const OptionalReduction& reduction) {
    check_array(pixels, "pixels", 2);
    check_array(values, "values", 1);
    if (!py::isinstance<py::array_t<float>>(values)) {
        throw py::type_error("values must be float32");
    }
    constexpr py::ssize_t codes = py::ssize_t{1} << (8 * sizeof(Pixel));
    if (values.size() != codes) {
        throw py::value_error("values must have " + std::to_string(codes) + " entries, not " +
                              std::to_string(values.size()));
    }
    Image<Pixel> image{static_cast<const Pixel*>(pixels.data()), pixels.shape(0), pixels.shape(1),
                       static_cast<const float*>(values.data())};
    if (reduction) {
        std::tie(image.reduction.levels, image.reduction.reversible, image.reduction.source_rows,
                 image.reduction.source_columns) = *reduction;
        if (image.reduction.levels == 0) throw py::value_error("reduction has at least one level");
    }
    return image;
}

// Calls `function` with the image as what it is, uint8 or uint16.
template <typename Function>
auto with_image(const py::array& pixels, const py::array& values,
                const OptionalReduction& reduction, const Function& function) {
    if (py::isinstance<py::array_t<std::uint8_t>>(pixels)) {
        return function(image_of<std::uint8_t>(pixels, values, reduction));
    }
    if (py::isinstance<py::array_t<std::uint16_t>>(pixels)) {
        return function(image_of<std::uint16_t>(pixels, values, reduction));
    }
    throw py::type_error("pixels must be uint8 or uint16 in the machine's byte order");
}

Rectangle rectangle_of(const Sides& sides) {
    return {std::get<0>(sides), std::get<1>(sides), std::get<2>(sides), std::get<3>(sides)};
}

py::array_t<bool> mask_array(const Breast& breast) {
    py::array_t<bool> array({breast.mask.rows, breast.mask.columns});
    std::copy(breast.mask.inside.begin(), breast.mask.inside.end(), array.mutable_data());
    return array;
}

BlockMask mask_of(const py::array& array, std::int64_t side) {
    check_array(array, "mask", 2);
    if (!py::isinstance<py::array_t<bool>>(array)) throw py::type_error("mask must be bool");
    BlockMask mask;
    mask.side = side;
    mask.rows = array.shape(0);
    mask.columns = array.shape(1);
    const auto* inside = static_cast<const bool*>(array.data());
    mask.inside.assign(inside, inside + array.size());
    return mask;
}

py::array_t<float> array_of(std::vector<float> values, std::int64_t height, std::int64_t width) {
    auto owned = std::make_unique<std::vector<float>>(std::move(values));
    float* data = owned->data();
    py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<float>*>(p); });
    owned.release();
    return py::array_t<float>({height, width}, data, owner);
}

Breast find_breast(const py::array& pixels, const py::array& values, double threshold,
                   const OptionalReduction& reduction) {
    return with_image(pixels, values, reduction, [&](const auto& image) {
        py::gil_scoped_release released;
        return mammoclip::find_breast(image, threshold);
    });
}

std::pair<double, double> measure_tissue(const py::array& pixels, const py::array& values,
                                         const Breast& breast, double threshold,
                                         const OptionalReduction& reduction) {
    return with_image(pixels, values, reduction, [&](const auto& image) {
        py::gil_scoped_release released;
        const mammoclip::Tissue tissue = mammoclip::measure_tissue(image, breast, threshold);
        return std::pair{tissue.spread, tissue.saturated};
    });
}

py::array_t<float> resample(const py::array& pixels, const py::array& values, const Sides& crop,
                            const Sides& placed, std::pair<std::int64_t, std::int64_t> shape,
                            bool mirrored, const std::optional<py::array>& mask,
                            std::int64_t block_side, const OptionalReduction& reduction) {
    Placement placement;
    placement.crop = rectangle_of(crop);
    placement.placed = rectangle_of(placed);
    placement.height = shape.first;
    placement.width = shape.second;
    placement.mirrored = mirrored;
    std::optional<BlockMask> blocks;
    if (mask) blocks = mask_of(*mask, block_side);
    std::vector<float> view = with_image(pixels, values, reduction, [&](const auto& image) {
        py::gil_scoped_release released;
        return mammoclip::resample(image, placement, blocks ? &*blocks : nullptr);
    });
    return array_of(std::move(view), placement.height, placement.width);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Frames of JPEG and run lengths, grey values, breast segmentation and area "
                   "resampling of stored pixels.";
    module.attr("PREPROCESSING_VERSION") = mammoclip::preprocessing_version;
    bind_grey_values(module);
    py::class_<Breast>(module, "Breast")
        .def_readonly("blocks", &Breast::blocks)
        .def_readonly("chest_wall_right", &Breast::chest_wall_right)
        .def_readonly("certain", &Breast::certain)
        .def_property_readonly("box",
                               [](const Breast& breast) {
                                   return Sides{breast.box.top, breast.box.left, breast.box.height,
                                                breast.box.width};
                               })
        .def_property_readonly("block_side", [](const Breast& breast) { return breast.mask.side; })
        .def_property_readonly("mask", &mask_array);
    bind_image_memory(module);
    bind_jpeg(module);
    bind_placement(module);
    bind_run_lengths(module);
    module.def("find_breast", &find_breast, py::arg("pixels"), py::arg("values"),
               py::arg("threshold"), py::kw_only(), py::arg("reduction") = py::none());
    module.def("measure_tissue", &measure_tissue, py::arg("pixels"), py::arg("values"),
               py::arg("breast"), py::arg("threshold"), py::kw_only(),
               py::arg("reduction") = py::none());
    module.def("resample", &resample, py::arg("pixels"), py::arg("values"), py::kw_only(),
               py::arg("crop"), py::arg("placed"), py::arg("shape"), py::arg("mirrored") = false,
               py::arg("mask") = py::none(), py::arg("block_side") = 0,
               py::arg("reduction") = py::none());
}

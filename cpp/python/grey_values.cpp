// Python binding of the grey values; what a header leaves undefined arrives with its four parts.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "bindings.hpp"
#include "mammoclip/grey_values.hpp"

namespace py = pybind11;

namespace {

using mammoclip::UndefinedGreyValues;
using Counts = std::vector<std::uint32_t>;
using Lut = std::optional<std::pair<std::int64_t, py::array>>;

PYBIND11_CONSTINIT py::gil_safe_call_once_and_store<py::object> undefined_type;

std::optional<mammoclip::LookupTable> table_of(const Lut& lut, const std::string& name) {
    if (!lut) return std::nullopt;
    const py::array& data = lut->second;
    check_array(data, name, 1);
    if (!py::isinstance<py::array_t<std::uint16_t>>(data)) {
        throw py::type_error(name + " must be uint16 in the machine's byte order");
    }
    const auto* first = static_cast<const std::uint16_t*>(data.data());
    return mammoclip::LookupTable{lut->first, {first, first + data.size()}};
}

template <typename Pixel>
Counts counts_of(const py::array& pixels) {
    const auto* first = static_cast<const Pixel*>(pixels.data());
    const std::int64_t rows = pixels.shape(0), columns = pixels.shape(1);
    py::gil_scoped_release released;
    return mammoclip::count_codes(first, rows, columns);
}

Counts count_codes(const py::array& pixels) {
    check_array(pixels, "pixels", 2);
    if (py::isinstance<py::array_t<std::uint8_t>>(pixels)) return counts_of<std::uint8_t>(pixels);
    if (py::isinstance<py::array_t<std::uint16_t>>(pixels)) return counts_of<std::uint16_t>(pixels);
    throw py::type_error("pixels must be uint8 or uint16 in the machine's byte order");
}

std::pair<py::array_t<float>, double> grey_scale(
    std::int64_t container_bits, std::int64_t bits_stored, bool is_signed,
    const std::string& photometric, double slope, double intercept, const Lut& modality_lut,
    const std::optional<std::pair<double, double>>& window, const std::string& voi_function,
    const Lut& voi_lut, const std::optional<std::pair<std::int64_t, std::int64_t>>& padding,
    const std::string& voi, std::pair<double, double> percentiles,
    const std::optional<py::array>& pixels) {
    mammoclip::DisplayAttributes display;
    display.bits_stored = bits_stored;
    display.is_signed = is_signed;
    display.photometric = photometric;
    display.slope = slope;
    display.intercept = intercept;
    display.modality_lut = table_of(modality_lut, "modality_lut");
    if (window) display.window = mammoclip::Window{window->first, window->second};
    display.voi_function = voi_function;
    display.voi_lut = table_of(voi_lut, "voi_lut");
    display.padding = padding;
    std::optional<Counts> counts;
    if (pixels) counts = count_codes(*pixels);
    mammoclip::GreyScale scale;
    {
        py::gil_scoped_release released;
        scale = mammoclip::grey_scale(display, {voi, percentiles}, container_bits,
                                      counts ? &*counts : nullptr);
    }
    const auto size = static_cast<py::ssize_t>(scale.values.size());
    return {py::array_t<float>(size, scale.values.data()), scale.darkest};
}

}  // namespace

void bind_grey_values(py::module_& module) {
    undefined_type.call_once_and_store_result([&]() -> py::object {
        return py::exception<UndefinedGreyValues>(module, "UndefinedGreyValuesError", PyExc_ValueError);
    });
    py::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const UndefinedGreyValues& error) {
            py::set_error(undefined_type.get_stored(),
                          py::make_tuple(error.subject, error.found, error.expected, error.remedy));
        }
    });
    module.def("grey_scale", &grey_scale, py::kw_only(), py::arg("container_bits"),
               py::arg("bits_stored"), py::arg("signed"), py::arg("photometric"), py::arg("slope"),
               py::arg("intercept"), py::arg("modality_lut"), py::arg("window"),
               py::arg("voi_function"), py::arg("voi_lut"), py::arg("padding"), py::arg("voi"),
               py::arg("percentiles"), py::arg("pixels"));
}

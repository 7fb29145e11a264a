// What the binding files share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

inline pybind11::buffer_info bytes_of(const pybind11::buffer& frame) {
    pybind11::buffer_info bytes = frame.request();
    if (bytes.ndim != 1 || bytes.itemsize != 1 || bytes.strides[0] != 1) {
        throw pybind11::type_error("frame must be contiguous bytes");
    }
    return bytes;
}

inline void check_array(const pybind11::array& array, const std::string& name,
                        pybind11::ssize_t dimensions) {
    if (array.ndim() != dimensions) {
        throw pybind11::value_error(name + " must have " + std::to_string(dimensions) +
                                    " dimensions, not " + std::to_string(array.ndim()));
    }
    if ((array.flags() & pybind11::array::c_style) == 0) {
        throw pybind11::value_error(name + " must be C-contiguous");
    }
}

void bind_grey_values(pybind11::module_& module);
void bind_image_memory(pybind11::module_& module);
void bind_jpeg(pybind11::module_& module);
void bind_placement(pybind11::module_& module);
void bind_run_lengths(pybind11::module_& module);

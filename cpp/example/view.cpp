// Stored pixels and what their header says -> one view of a model's input, without Python.
//
//     mammoclip_view ROWS COLUMNS CENTER WIDTH PADDING < pixels > view
//
// Reads 12-bit MONOCHROME1 pixels as little-endian uint16 from the standard input and writes 96x64
// float32 to the standard output. A program of its own fills in what its header and bundle say.
// Built by: cmake -S cpp -B build/cpp -DMAMMOCLIP_EXAMPLE=ON && cmake --build build/cpp
// A program links the core by add_subdirectory(cpp) and target_link_libraries(... mammoclip_core).
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "mammoclip/grey_values.hpp"
#include "mammoclip/placement.hpp"
#include "mammoclip/tensor.hpp"

namespace {

using namespace mammoclip;

std::vector<float> view_of(const std::vector<std::uint16_t>& pixels, std::int64_t rows,
                           std::int64_t columns, const DisplayAttributes& display) {
    const VoiPolicy policy{"header_window", {}};
    const Layout layout{96, 64, 0.02, true};
    const double segmentation_threshold = 0.05;

    // For the policy "percentile" the fourth argument is the address of
    // count_codes(pixels.data(), rows, columns).
    const GreyScale scale = grey_scale(display, policy, 16, nullptr);
    const Image<std::uint16_t> image{pixels.data(), rows, columns, scale.values.data()};
    // A SIGMOID window never reaches 0: the threshold counts from the darkest value there is.
    const double threshold = scale.darkest + segmentation_threshold * (1.0 - scale.darkest);
    const Breast breast = find_breast(image, threshold);
    // To set everything outside the breast to air, hand &breast.mask over instead of nullptr.
    return resample(image, place(breast, rows, columns, layout), nullptr);
}

int run(const std::vector<std::string>& arguments) {
    if (arguments.size() != 5) {
        std::cerr << "usage: mammoclip_view ROWS COLUMNS CENTER WIDTH PADDING < pixels > view\n";
        return 2;
    }
    const std::int64_t rows = std::stoll(arguments[0]), columns = std::stoll(arguments[1]);
    if (rows < 1 || columns < 1 || rows > max_side || columns > max_side) {
        std::cerr << "rows and columns must be 1 to 65535\n";
        return 2;
    }
    DisplayAttributes display;
    display.bits_stored = 12;
    display.photometric = "MONOCHROME1";
    display.window = Window{std::stod(arguments[2]), std::stod(arguments[3])};
    const std::int64_t padding = std::stoll(arguments[4]);
    display.padding = {padding, padding};

    std::vector<std::uint16_t> pixels(static_cast<std::size_t>(rows * columns));
    const auto bytes = static_cast<std::streamsize>(pixels.size() * sizeof(pixels[0]));
    if (!std::cin.read(reinterpret_cast<char*>(pixels.data()), bytes)) {
        std::cerr << "the standard input ends before the image does\n";
        return 1;
    }
    const std::vector<float> view = view_of(pixels, rows, columns, display);
    std::cout.write(reinterpret_cast<const char*>(view.data()),
                    static_cast<std::streamsize>(view.size() * sizeof(view[0])));
    return std::cout.flush() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run({arguments + 1, arguments + count});
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}

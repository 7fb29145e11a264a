// Segmentation, measuring, placement and resampling under any arguments: no report of a sanitizer, nothing
// but std::invalid_argument, every result finite, in range and zero where nothing was placed.
#include <cmath>
#include <stdexcept>

#include "mammoclip/placement.hpp"
#include "mammoclip/tensor.hpp"
#include "reader.hpp"

namespace {

using namespace mammoclip;
using fuzz::Reader;
using fuzz::require;

// Mostly small, for speed; from 384 on a block of the segmentation has more than one pixel.
std::int64_t image_side(Reader& reader) {
    return reader.within(1, reader.one_in(8) ? 1000 : 80);
}

struct Table {
    std::vector<float> values;
    bool proper;  // all of it 0 to 1
};

Table table_of(Reader& reader, std::size_t codes) {
    const std::uint8_t kind = reader.byte();
    Table table{std::vector<float>(codes), true};
    for (std::size_t code = 0; code < codes; ++code) {
        const auto share = static_cast<float>(code) / static_cast<float>(codes - 1);
        table.values[code] = kind % 4 == 0   ? 0.0F
                             : kind % 4 == 1 ? static_cast<float>(code % 7 != 0)
                                             : share;
    }
    for (int i = kind % 8 == 7 ? reader.byte() : 0; i > 0; --i) {
        table.values[static_cast<std::size_t>(reader.within(0, 65535)) % codes] =
            reader.number<float>();
        table.proper = false;
    }
    return table;
}

Reduction reduction_of(Reader& reader, std::int64_t rows, std::int64_t columns) {
    Reduction reduction;
    if (reader.one_in(2)) return reduction;
    reduction.levels = static_cast<int>(reader.within(0, max_levels));
    reduction.reversible = reader.one_in(2);
    // Sizes that decoders give: halved and rounded up, once a level.
    const auto source = [&](std::int64_t side) {
        const std::int64_t spacing = std::int64_t{1} << reduction.levels;
        return side * spacing - reader.within(0, spacing - 1);
    };
    reduction.source_rows = reader.one_in(16) ? reader.any_integer(2000) : source(rows);
    reduction.source_columns = reader.one_in(16) ? reader.no_size() : source(columns);
    if (reader.one_in(32)) reduction.levels = reader.number<int>();
    return reduction;
}

Rectangle rectangle_of(Reader& reader, std::int64_t height, std::int64_t width) {
    if (reader.one_in(4)) {
        return {reader.any_integer(height), reader.any_integer(width), reader.any_integer(height),
                reader.any_integer(width)};
    }
    Rectangle inner;
    inner.top = reader.within(0, height - 1);
    inner.left = reader.within(0, width - 1);
    inner.height = reader.within(1, height - inner.top);
    inner.width = reader.within(1, width - inner.left);
    return inner;
}

std::int64_t output_side(Reader& reader) {
    if (reader.one_in(16)) return reader.no_size();
    return reader.within(1, 96);
}

Placement placement_of(Reader& reader, const Breast& breast, std::int64_t rows,
                       std::int64_t columns) {
    Layout layout;
    layout.height = reader.one_in(32) ? max_output_side : output_side(reader);
    layout.width = output_side(reader);
    if (reader.one_in(2)) {
        layout.crop_margin = reader.any_real(1.0);
        layout.letterbox = reader.one_in(2);
        return place(breast, rows, columns, layout);
    }
    Placement placement;
    placement.height = layout.height;
    placement.width = layout.width;
    placement.mirrored = reader.one_in(2);
    placement.crop = rectangle_of(reader, rows, columns);
    const bool sized = layout.height >= 1 && layout.width >= 1 &&
                       layout.height <= max_output_side && layout.width <= max_output_side;
    placement.placed = sized ? rectangle_of(reader, layout.height, layout.width) : Rectangle{};
    return placement;
}

void check_breast(const Breast& breast, std::int64_t rows, std::int64_t columns) {
    const BlockMask& mask = breast.mask;
    require(mask.side >= 1 && mask.rows == (rows + mask.side - 1) / mask.side &&
                mask.columns == (columns + mask.side - 1) / mask.side &&
                mask.inside.size() == static_cast<std::size_t>(mask.rows * mask.columns),
            "a mask has one entry for each block");
    const Rectangle& box = breast.box;
    require(breast.blocks == 0 || (box.top >= 0 && box.left >= 0 && box.height >= 1 &&
                                   box.width >= 1 && box.top + box.height <= rows &&
                                   box.left + box.width <= columns),
            "a breast lies within its image");
}

void check_view(const std::vector<float>& view, const Placement& placement, bool proper,
                bool reduced) {
    require(view.size() == static_cast<std::size_t>(placement.height * placement.width),
            "a view has the size that was asked for");
    const Rectangle& placed = placement.placed;
    for (std::int64_t row = 0; row < placement.height; ++row) {
        for (std::int64_t column = 0; column < placement.width; ++column) {
            const float value = view[static_cast<std::size_t>(row * placement.width + column)];
            const bool inside = row >= placed.top && row < placed.top + placed.height &&
                                column >= placed.left && column < placed.left + placed.width;
            require(inside || value == 0.0F, "a view is 0 where nothing was placed");
            require(!proper || std::isfinite(value), "a view of finite values is finite");
            // An inverse wavelet transform without its detail may swing beyond the range.
            const float beyond = reduced ? 4.0F : 1e-4F;
            require(!proper || (value >= -beyond && value <= 1.0F + beyond),
                    "a view of values in 0 to 1 is within it");
        }
    }
}

template <typename Pixel>
void run(Reader& reader) {
    std::int64_t rows = image_side(reader), columns = image_side(reader);
    if (reader.one_in(32)) {
        const bool tall = reader.one_in(2);
        rows = tall ? reader.within(1, max_side) : 1;
        columns = tall ? 1 : reader.within(1, max_side);
    }
    const Table table = table_of(reader, std::size_t{1} << (8 * sizeof(Pixel)));
    const Reduction reduction = reduction_of(reader, rows, columns);
    const double threshold = reader.any_real(1.0);
    // The other arguments are read before the pixels, which take all that is left.
    Reader later = reader;
    for (int i = 0; i < 96; ++i) reader.byte();
    const std::vector<Pixel> pixels =
        reader.all_that_is_left<Pixel>(static_cast<std::size_t>(rows * columns));
    Image<Pixel> image{pixels.data(), rows, columns, table.values.data(), reduction};
    if (later.one_in(32)) image.rows = later.no_size();

    const Breast breast = find_breast(image, threshold);
    check_breast(breast, image.source_rows(), image.source_columns());
    const Placement placement =
        placement_of(later, breast, image.source_rows(), image.source_columns());
    BlockMask mask = breast.mask;
    if (later.one_in(16)) mask.side = later.any_integer(20);
    if (later.one_in(16)) mask.inside.pop_back();
    Breast measured = breast;
    measured.mask = mask;
    const Tissue tissue = measure_tissue(image, measured, threshold);
    require(tissue.saturated >= 0.0 && tissue.saturated <= 1.0, "a share is 0 to 1");
    require(!table.proper || (tissue.spread >= 0.0 && tissue.spread <= 1.0),
            "values in 0 to 1 spread no further");
    const std::vector<float> view =
        resample(image, placement, later.one_in(2) ? &mask : nullptr);
    check_view(view, placement, table.proper, reduction.levels != 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Reader reader(data, size);
    try {
        if (reader.one_in(2)) {
            run<std::uint8_t>(reader);
        } else {
            run<std::uint16_t>(reader);
        }
    } catch (const std::invalid_argument&) {
        // The one way out for arguments that are refused.
    }
    return 0;
}

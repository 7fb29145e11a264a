// Frames of JPEG Lossless and of JPEG's DCT, whatever their bytes: no report of a sanitizer, a
// whole frame is decoded to the samples that were coded, one that lost or gained data is refused.
#include <cstdlib>
#include <utility>

#include "mammoclip/jpeg.hpp"
#include "reader.hpp"

namespace {

using namespace mammoclip;
using fuzz::Reader;
using fuzz::require;
using Bytes = std::vector<std::uint8_t>;

void append(Bytes& frame, std::initializer_list<std::int64_t> bytes) {
    for (const std::int64_t byte : bytes) frame.push_back(static_cast<std::uint8_t>(byte));
}

// The codes of annex C for symbols 0 to one less than `symbols`, in an order of the reader's.
class Codes {
public:
    // Even codes are of one length; others grow to 16 bits, which no table looks up at once.
    Codes(Reader& reader, int symbols) : codes_(static_cast<std::size_t>(symbols)) {
        const int even = symbols > 31 ? 9 : 5;
        const int growing = reader.one_in(2) ? std::min(symbols, 8) : 0;
        for (int length = 1; length <= growing; ++length) counts_[at(length)] = 1;
        counts_[at(growing > 0 ? 16 : even)] += static_cast<std::uint8_t>(symbols - growing - 1);
        counts_[16] += 1;
        std::size_t turn = reader.byte();
        for (int i = 0; i < symbols; ++i) {
            values_.push_back(static_cast<std::uint8_t>((at(i) + turn) % at(symbols)));
        }
        unsigned code = 0;
        std::size_t next = 0;
        for (int length = 1; length <= 16; ++length, code <<= 1) {
            for (int i = 0; i < counts_[at(length)]; ++i) {
                codes_[values_[next++]] = {code++, length};
            }
        }
    }

    void append_table(Bytes& frame, int place) const {
        const auto length = static_cast<std::int64_t>(19 + values_.size());
        append(frame, {0xFF, 0xC4, length >> 8, length & 255, place});
        frame.insert(frame.end(), counts_.begin() + 1, counts_.end());
        frame.insert(frame.end(), values_.begin(), values_.end());
    }

    std::pair<unsigned, int> operator[](int symbol) const { return codes_[at(symbol)]; }

private:
    static std::size_t at(int place) { return static_cast<std::size_t>(place); }

    std::array<std::uint8_t, 17> counts_{};
    Bytes values_;
    std::vector<std::pair<unsigned, int>> codes_;
};

// Entropy-coded data, F.1.2.3.
class Writer {
public:
    explicit Writer(Bytes& frame) : frame_(frame) {}

    void put(unsigned bits, int count) {
        for (int i = count - 1; i >= 0; --i) {
            byte_ = byte_ << 1 | (bits >> i & 1);
            if (++filled_ == 8) flush();
        }
    }

    void put(std::pair<unsigned, int> code) { put(code.first, code.second); }

    void pad(bool ones) {
        while (filled_ > 0) put(ones ? 1 : 0, 1);
    }

private:
    void flush() {
        append(frame_, {byte_});
        if (byte_ == 0xFF) append(frame_, {0});
        byte_ = 0;
        filled_ = 0;
    }

    Bytes& frame_;
    unsigned byte_ = 0;
    int filled_ = 0;
};

struct Size {
    std::int64_t rows, columns;
};

void append_headers(Bytes& frame, int process, int precision, Size size, std::int64_t interval) {
    append(frame, {0xFF, 0xC0 + process, 0, 11, precision, size.rows >> 8, size.rows & 255,
                   size.columns >> 8, size.columns & 255, 1, 1, 0x11, 0});
    if (interval > 0) append(frame, {0xFF, 0xDD, 0, 4, interval >> 8, interval & 255});
}

// Between two units of a scan: pads, and a marker where an interval ends.
void restart(Bytes& frame, Writer& writer, std::int64_t units, std::int64_t interval, bool ones) {
    if (interval == 0 || units == 0 || units % interval != 0) return;
    writer.pad(ones);
    append(frame, {0xFF, 0xD0 + (units / interval - 1) % 8});
}

int predicted(int predictor, int left, int above, int corner) {
    const std::array<int, 8> of{0,
                                left,
                                above,
                                corner,
                                left + above - corner,
                                left + ((above - corner) >> 1),
                                above + ((left - corner) >> 1),
                                (left + above) >> 1};
    return of[static_cast<std::size_t>(predictor)];
}

struct Lossless {
    Size size;
    int precision, predictor, transform;
    std::int64_t interval;  // in rows
};

template <typename Pixel>
void code_samples(Bytes& frame, Reader& reader, const Lossless& how,
                  const std::vector<Pixel>& pixels) {
    const Codes codes(reader, 17);
    const bool ones = reader.one_in(2);
    append_headers(frame, 3, how.precision, how.size, how.interval * how.size.columns);
    codes.append_table(frame, 0x02);
    append(frame, {0xFF, 0xDA, 0, 8, 1, 1, 0x20, how.predictor, 0, how.transform});
    Writer writer(frame);
    const auto sample = [&](std::int64_t row, std::int64_t column) {
        return pixels[static_cast<std::size_t>(row * how.size.columns + column)] >> how.transform;
    };
    for (std::int64_t row = 0; row < how.size.rows; ++row) {
        restart(frame, writer, row, how.interval, ones);
        const bool first = row == 0 || (how.interval > 0 && row % how.interval == 0);
        for (std::int64_t column = 0; column < how.size.columns; ++column) {
            int guess = 1 << (how.precision - how.transform - 1);
            if (first && column > 0) guess = sample(row, column - 1);
            if (!first && column == 0) guess = sample(row - 1, 0);
            if (!first && column > 0) {
                guess = predicted(how.predictor, sample(row, column - 1), sample(row - 1, column),
                                  sample(row - 1, column - 1));
            }
            const int difference = static_cast<std::int16_t>(sample(row, column) - guess);
            int category = 0;
            while (std::abs(difference) >> category != 0) ++category;
            writer.put(codes[category]);
            const int bits = difference < 0 ? difference - 1 : difference;
            if (category < 16) writer.put(static_cast<unsigned>(bits), category);
        }
    }
    writer.pad(ones);
}

// Blocks of anything: where a run would go beyond one, it ends.
void code_blocks(Bytes& frame, Reader& reader, Size size) {
    const Codes dc(reader, 16), ac(reader, 256);
    const bool ones = reader.one_in(2);
    const std::int64_t interval = reader.one_in(2) ? reader.within(1, 9) : 0;
    append_headers(frame, static_cast<int>(reader.within(0, 1)), 8, size, interval);
    dc.append_table(frame, 0x01);
    ac.append_table(frame, 0x13);
    append(frame, {0xFF, 0xDA, 0, 8, 1, 1, 0x13, 0, 63, 0});
    Writer writer(frame);
    const std::int64_t blocks = (size.rows + 7) / 8 * ((size.columns + 7) / 8);
    for (std::int64_t block = 0; block < blocks; ++block) {
        restart(frame, writer, block, interval, ones);
        const int category = reader.byte() & 15;
        writer.put(dc[category]);
        writer.put(reader.number<std::uint16_t>(), category);
        for (int coefficient = 1; coefficient < 64;) {
            const int symbol = reader.byte(), run = symbol >> 4, bits = symbol & 15;
            if ((bits == 0 && run != 15) || coefficient + run > 63) {
                writer.put(ac[0]);
                break;
            }
            writer.put(ac[symbol]);
            writer.put(reader.number<std::uint16_t>(), bits);
            coefficient += run + 1;
        }
    }
    writer.pad(ones);
}

enum class Harm { none, lost, gained, any };

// To a frame whose end of the image is not there yet.
Harm harm(Reader& reader, Bytes& frame, std::size_t data) {
    Harm done = Harm::none;
    if (reader.one_in(4)) {
        done = Harm::lost;
        const auto all = static_cast<std::int64_t>(frame.size() - data);
        frame.resize(frame.size() - static_cast<std::size_t>(reader.within(1, all)));
    } else if (reader.one_in(4)) {
        done = Harm::gained;
        append(frame, {std::min<int>(reader.byte(), 0xFE)});  // FF would fill up
    }
    append(frame, {0xFF, 0xD9});
    if (reader.one_in(2)) append(frame, {0});
    if (reader.one_in(2)) {
        done = Harm::any;
        for (int i = reader.byte() % 4; i >= 0; --i) {
            const std::int64_t near = reader.one_in(2) ? static_cast<std::int64_t>(data) : 1 << 15;
            const auto place = static_cast<std::size_t>(reader.within(0, near));
            if (place < frame.size()) frame[place] = reader.byte();
        }
        if (reader.one_in(4)) {
            frame.resize(static_cast<std::size_t>(
                reader.within(0, static_cast<std::int64_t>(frame.size()))));
        }
    }
    frame.shrink_to_fit();  // so that a sanitizer sees the first byte beyond
    return done;
}

std::size_t data_of(const Bytes& frame) {
    const std::array<std::uint8_t, 4> scan{0xFF, 0xDA, 0, 8};
    const auto found = std::search(frame.begin(), frame.end(), scan.begin(), scan.end());
    return static_cast<std::size_t>(found - frame.begin()) + 10;
}

void require_verdict(Harm done, bool whole) {
    require(done != Harm::none || whole, "a whole frame has no fault");
    const bool refused = done == Harm::lost || done == Harm::gained;
    require(!refused || !whole, "a frame is whole with its data only");
}

template <typename Pixel>
void run_lossless(Reader& reader) {
    Lossless how{};
    how.size = {reader.within(1, 30), reader.within(1, 30)};
    how.precision = static_cast<int>(reader.within(2, 8 * sizeof(Pixel)));
    how.predictor = static_cast<int>(reader.within(1, 7));
    how.transform = reader.one_in(4) ? static_cast<int>(reader.within(0, how.precision - 1)) : 0;
    how.interval = reader.one_in(2) ? reader.within(1, 6) : 0;
    Reader later = reader;
    for (int i = 0; i < 40; ++i) reader.byte();
    const auto count = static_cast<std::size_t>(how.size.rows * how.size.columns);
    std::vector<Pixel> pixels = reader.all_that_is_left<Pixel>(count);
    for (Pixel& pixel : pixels) {
        const int sample = pixel >> (8 * sizeof(Pixel) - static_cast<std::size_t>(how.precision));
        pixel = static_cast<Pixel>(sample >> how.transform << how.transform);
    }
    Bytes frame{0xFF, 0xD8};
    code_samples(frame, later, how, pixels);
    const Harm done = harm(later, frame, data_of(frame));
    std::vector<Pixel> decoded(count);
    const bool whole = decode_jpeg_lossless(frame.data(), static_cast<std::int64_t>(frame.size()),
                                            decoded.data(), how.size.rows,
                                            how.size.columns) == nullptr;
    require_verdict(done, whole);
    require(done != Harm::none || decoded == pixels, "a whole frame is decoded to its samples");
}

void run_blocks(Reader& reader) {
    const Size size{reader.within(1, 60), reader.within(1, 60)};
    Reader later = reader;
    for (int i = 0; i < 40; ++i) reader.byte();
    Bytes frame{0xFF, 0xD8};
    code_blocks(frame, reader, size);
    const Harm done = harm(later, frame, data_of(frame));
    require_verdict(done, jpeg_blocks_fault(frame.data(), static_cast<std::int64_t>(frame.size()),
                                            size.rows, size.columns) == nullptr);
}

// Bytes as they come, which a fuzzer makes more and more like frames.
void run_raw(Reader& reader) {
    const Size size{reader.byte(), reader.byte()};
    Bytes frame{0xFF, 0xD8};
    const Bytes rest = reader.all_that_is_left<std::uint8_t>(
        static_cast<std::size_t>(reader.within(0, 2000)));
    frame.insert(frame.end(), rest.begin(), rest.end());
    frame.shrink_to_fit();
    const auto length = static_cast<std::int64_t>(frame.size());
    std::vector<std::uint16_t> pixels(static_cast<std::size_t>(size.rows * size.columns));
    decode_jpeg_lossless(frame.data(), length, pixels.data(), size.rows, size.columns);
    jpeg_blocks_fault(frame.data(), length, size.rows, size.columns);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Reader reader(data, size);
    switch (reader.byte() % 4) {
        case 0: run_lossless<std::uint8_t>(reader); break;
        case 1: run_lossless<std::uint16_t>(reader); break;
        case 2: run_blocks(reader); break;
        default: run_raw(reader);
    }
    return 0;
}

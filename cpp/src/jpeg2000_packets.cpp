// The packets of a JPEG 2000 codestream, tile by tile, ISO 15444-1 B.9 to B.12.
#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <tuple>
#include <utility>

#include "jpeg2000_block.hpp"
#include "jpeg2000_codestream.hpp"
#include "jpeg2000_header.hpp"
#include "mammoclip/jpeg2000.hpp"

namespace mammoclip {
namespace jpeg2000 {
namespace {

constexpr Fault bad_packet = "the header of a packet that is damaged";
constexpr Fault bad_bytes = "bytes that no code-block has";
// Coefficients times passes that are decoded of a frame at most: some hundred code-blocks, where an
// image of stripes may have more that look like lost parts.
constexpr std::int64_t most_work = std::int64_t{1} << 24;

// An encoder that cuts a codeword between two layers may end the first part with FF.
bool has_marker(const std::uint8_t* at, const std::uint8_t* end) {
    while (at != end) {
        const void* found = std::memchr(at, 0xFF, static_cast<std::size_t>(end - at));
        if (found == nullptr) return false;
        at = static_cast<const std::uint8_t*>(found) + 1;
        if (at != end && *at > 0x8F) return true;
    }
    return false;
}

// 15 zeros hold one, as 8 of them do at times.
bool has_zero_word(const std::uint8_t* at, const std::uint8_t* end) {
    for (; end - at >= 8; at += 8) {
        std::uint64_t word;
        std::memcpy(&word, at, sizeof word);
        if (word == 0) return true;
    }
    return false;
}

// Scup, ISO 15444-15 7.1.2: how many bytes of a cleanup segment are not those of magnitudes.
bool has_suffix(const std::uint8_t* begin, std::int64_t length) {
    if (length == 0) return true;
    if (length < 2) return false;
    const std::uint8_t* last = begin + length - 1;
    const std::int64_t suffix = *last << 4 | (last[-1] & 15);
    return suffix >= 2 && suffix <= std::min<std::int64_t>(length, 4079);
}

class Walk {
public:
    Walk(const Codestream& codestream, const Tile& tile, std::int64_t& work)
        : tile_(tile), work_(work) {
        const Coding& all = codestream.coding;
        const Coding& own = tile.coding;
        packets_ = own.packets ? *own.packets : *all.packets;
        blocks_ = own.component   ? *own.component
                  : own.blocks    ? *own.blocks
                  : all.component ? *all.component
                                  : *all.blocks;
        volumes_ = own.volumes.empty() ? all.volumes : own.volumes;
        if (volumes_.empty()) {
            volumes_ = {{0, packets_.layers, most_levels + 1, packets_.progression}};
        }
        packed_ = all.packed_headers || own.packed_headers;
    }

    // Whether the packets are of a kind that is read here.
    bool reads() const {
        const int style = blocks_.style;
        const bool plain = (style & high_throughput) == 0;
        return !packed_ && (plain || ((style & mixed) == 0 && packets_.layers == 1));
    }

    Fault read(const Rectangle& area) {
        if (!lay_out(area, blocks_, geometry_)) return "too many code-blocks or precincts";
        if (Fault fault = read_all()) return fault;
        const auto suspect = [](const Block& block) { return block.suspect; };
        auto& blocks = geometry_.blocks;
        if (std::none_of(blocks.begin(), blocks.end(), suspect)) return nullptr;
        return read_suspects(area);
    }

private:
    Fault read_all() {
        part_ = 0;
        number_ = 0;
        data_ = {nullptr, nullptr};
        for (const Volume& volume : volumes_) {
            if (Fault fault = read_volume(volume)) return fault;
        }
        for (const Precinct& precinct : geometry_.precincts) {
            if (precinct.layers != packets_.layers) return "packets that are not there";
        }
        return next_data() ? "bytes behind its last packet" : nullptr;
    }

    // The tile once more, to put the bytes of the suspects together.
    Fault read_suspects(const Rectangle& area) {
        Geometry again;
        lay_out(area, blocks_, again);
        std::swap(again, geometry_);
        for (std::size_t i = 0; i < again.blocks.size(); ++i) {
            const Block& block = again.blocks[i];
            const auto work = std::int64_t{block.passes} * block.width * block.height;
            geometry_.blocks[i].suspect = block.suspect && work <= work_;
            if (geometry_.blocks[i].suspect) work_ -= work;
        }
        again = {};
        gathers_ = true;
        if (Fault fault = read_all()) return fault;
        for (const Precinct& precinct : geometry_.precincts) {
            for (const Group& group : precinct.groups) {
                const auto count = static_cast<std::size_t>(group.across * group.down);
                for (std::size_t i = group.first; i < group.first + count; ++i) {
                    Block& block = geometry_.blocks[i];
                    if (block.suspect && !uses_its_bytes(block.bytes, block.width, block.height,
                                                         group.band, block.passes, blocks_.style)) {
                        return "a code-block that lost a part";
                    }
                }
            }
        }
        return nullptr;
    }

    // B.12.
    Fault read_volume(const Volume& volume) {
        const int layers = std::min(volume.end_layer, packets_.layers);
        std::vector<Precinct*> turns;
        for (Precinct& precinct : geometry_.precincts) {
            const bool within = precinct.resolution >= volume.first_resolution &&
                                precinct.resolution < volume.end_resolution;
            if (within) turns.push_back(&precinct);
        }
        if (volume.progression == 0) return read_by_layer(turns.begin(), turns.end(), layers);
        if (volume.progression == 1) {
            for (auto begin = turns.begin(); begin != turns.end();) {
                const int resolution = (*begin)->resolution;
                const auto end = std::find_if(begin, turns.end(), [=](const Precinct* each) {
                    return each->resolution != resolution;
                });
                if (Fault fault = read_by_layer(begin, end, layers)) return fault;
                begin = end;
            }
            return nullptr;
        }
        if (volume.progression > 2) {  // by position; one component has its turn at each
            const auto turn = [](const Precinct* each) {
                return std::make_tuple(each->top, each->left, each->resolution);
            };
            std::stable_sort(turns.begin(), turns.end(), [&](const Precinct* a, const Precinct* b) {
                return turn(a) < turn(b);
            });
        }
        for (auto each = turns.begin(); each != turns.end(); ++each) {
            if (Fault fault = read_by_layer(each, each + 1, layers)) return fault;
        }
        return nullptr;
    }

    template <typename Turn>
    Fault read_by_layer(Turn begin, Turn end, int layers) {
        for (int layer = 0; layer < layers; ++layer) {
            for (Turn each = begin; each != end; ++each) {
                Precinct& precinct = **each;
                if (precinct.layers > layer) continue;  // came in an earlier volume
                if (precinct.layers < layer) return "packets out of order";
                if (!next_data()) return data_end_early;
                if (Fault fault = read_packet(precinct, layer)) return fault;
                ++precinct.layers;
                ++number_;
            }
        }
        return nullptr;
    }

    // Goes on to the next tile-part where one is used up; no packet lies in two.
    bool next_data() {
        while (data_.begin == data_.end && part_ < tile_.data.size()) data_ = tile_.data[part_++];
        return data_.begin != data_.end;
    }

    bool starts_with(std::initializer_list<int> bytes) const {
        return data_.end - data_.begin >= static_cast<std::ptrdiff_t>(bytes.size()) &&
               std::equal(bytes.begin(), bytes.end(), data_.begin);
    }

    Fault read_packet(Precinct& precinct, int layer) {
        if (packets_.start_markers && starts_with({0xFF, 0x91})) {  // SOP may be left out, A.8.1
            if (!starts_with({0xFF, 0x91, 0, 4, number_ >> 8 & 255, number_ & 255})) {
                return "packets that do not follow each other";
            }
            data_.begin += 6;
        }
        Bits bits(data_);
        parts_.clear();
        if (bits.next() != 0) {
            HeaderReader header(bits, geometry_.blocks, parts_, blocks_.style);
            for (Group& group : precinct.groups) {
                if (!header.read(group, layer)) return bad_packet;
            }
        }
        data_.begin = bits.finish();
        if (data_.begin == nullptr) return bad_packet;
        if (packets_.end_markers) {
            if (!starts_with({0xFF, 0x92})) return bad_packet;
            data_.begin += 2;
        }
        return read_body();
    }

    Fault read_body() {
        for (const Part& part : parts_) {
            if (part.length > data_.end - data_.begin) return data_end_early;
            const std::uint8_t* begin = data_.begin;
            data_.begin += part.length;
            if (has_marker(begin, data_.begin)) return bad_bytes;
            if (part.cleanup && !has_suffix(begin, part.length)) return bad_bytes;
            // Bits that no arithmetic coder wrote may be zeros for long, and those of several
            // codewords are not decoded here.
            if ((blocks_.style & (high_throughput | bypass | terminate_all)) != 0) continue;
            Block& block = geometry_.blocks[part.block];
            if (!gathers_) {
                block.suspect = block.suspect || has_zero_word(begin, data_.begin);
            } else if (block.suspect) {
                block.bytes.insert(block.bytes.end(), begin, data_.begin);
            }
        }
        return nullptr;
    }

    const Tile& tile_;
    std::int64_t& work_;  // that is left
    Packets packets_;
    Blocks blocks_;
    std::vector<Volume> volumes_;
    bool packed_ = false, gathers_ = false;
    Geometry geometry_;
    std::vector<Part> parts_;  // of the packet that is read
    Span data_{nullptr, nullptr};
    std::size_t part_ = 0;
    int number_ = 0;
};

}  // namespace
}  // namespace jpeg2000

const char* jpeg2000_fault(const std::uint8_t* frame, std::int64_t size) {
    jpeg2000::Codestream codestream;
    if (jpeg2000::Fault fault = jpeg2000::read_codestream(frame, size, codestream)) return fault;
    std::int64_t work = jpeg2000::most_work;
    for (const auto& [index, tile] : codestream.tiles) {
        jpeg2000::Walk walk(codestream, tile, work);
        if (!walk.reads()) continue;
        if (jpeg2000::Fault fault = walk.read(codestream.area_of(index))) return fault;
    }
    return nullptr;
}

}  // namespace mammoclip

// Python binding of memory for whole images that is used again. The kernel takes longer to clear
// fresh pages than to fill them from its cache, and keeps other threads waiting meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "bindings.hpp"

namespace py = pybind11;

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t most_idle = std::size_t{128} << 20;  // bytes: four views of 14 megapixels

// Memory of the system's own, aligned to huge pages; nothing of it is shared with another block.
class Block {
public:
    explicit Block(std::size_t size) : size_((size + huge_page - 1) / huge_page * huge_page) {
#ifdef __linux__
        void* place = mmap(nullptr, size_ + huge_page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) throw std::bad_alloc();
        auto* first = static_cast<std::uint8_t*>(place);
        const std::size_t before = huge_page - reinterpret_cast<std::uintptr_t>(place) % huge_page;
        munmap(first, before);
        data_ = first + before;
        if (before != huge_page) munmap(data_ + size_, huge_page - before);
        madvise(data_, size_, MADV_HUGEPAGE);
#else
        data_ = static_cast<std::uint8_t*>(::operator new(size_));
#endif
    }
    Block(Block&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    Block& operator=(Block&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Block() {
        if (data_ == nullptr) return;
#ifdef __linux__
        munmap(data_, size_);
#else
        ::operator delete(data_);
#endif
    }

    std::uint8_t* data() const { return data_; }
    std::size_t size() const { return size_; }

    // Lets the system have the pages whenever it needs them; false where it cannot be told so.
    bool lend() const {
#if defined(__linux__) && defined(MADV_FREE)
        return madvise(data_, size_, MADV_FREE) == 0;
#else
        return false;
#endif
    }

private:
    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

// Blocks that nobody looks at any more. Whoever takes or keeps one holds Python's lock.
class IdleBlocks {
public:
    Block take(std::size_t size) {
        const auto fits = [&](const Block& block) {
            return block.size() >= size && block.size() / 2 <= size;
        };
        const auto latest = std::find_if(blocks_.rbegin(), blocks_.rend(), fits);
        if (latest != blocks_.rend()) {
            Block block = std::move(*latest);
            blocks_.erase(std::next(latest).base());
            return block;
        }
        try {
            return Block(size);
        } catch (const std::bad_alloc&) {
            blocks_.clear();
            return Block(size);
        }
    }

    void keep(Block block) {
        if (block.size() > most_idle || !block.lend()) return;
        std::size_t idle = block.size();
        for (const Block& other : blocks_) idle += other.size();
        while (idle > most_idle) {
            idle -= blocks_.front().size();
            blocks_.erase(blocks_.begin());
        }
        blocks_.push_back(std::move(block));
    }

    void release() { blocks_.clear(); }

private:
    std::vector<Block> blocks_;
};

// Never destroyed: arrays may outlive the module.
IdleBlocks& idle() {
    static auto* blocks = new IdleBlocks;
    return *blocks;
}

// Of no particular content. The block is used again when the last view of the array is gone.
py::array_t<std::uint8_t> image_memory(std::size_t size) {
    if (size < huge_page) return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(size));
    auto block = std::make_unique<Block>(idle().take(size));
    std::uint8_t* data = block->data();
    py::capsule owner(block.get(), [](void* held) {
        const std::unique_ptr<Block> returned(static_cast<Block*>(held));
        try {
            idle().keep(std::move(*returned));
        } catch (const std::bad_alloc&) {  // then the system has it back now
        }
    });
    block.release();
    return py::array_t<std::uint8_t>({static_cast<py::ssize_t>(size)}, data, owner);
}

}  // namespace

void bind_image_memory(py::module_& module) {
    module.def("image_memory", &image_memory, py::arg("size"));
    module.def("release_idle_memory", [] { idle().release(); });
}

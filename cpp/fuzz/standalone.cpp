// Runs a fuzz target where there is no libFuzzer, with the same few options:
//
//     fuzz_tensor [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-artifact_prefix=FOLDER/] CORPUS
//
// Every file of the corpus folder first, then pseudo-random mutations of them, without feedback
// from coverage. FOLDER/crash is the input that is running: whatever ends the process leaves it there.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

constexpr std::size_t longest_input = 4096;

struct Options {
    std::uint64_t runs = 0;  // 0: no limit
    double seconds = 0.0;    // likewise
    std::uint64_t seed = 1;
    std::string crash = "crash";
    std::string corpus;
};

Options options_of(int count, char** arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        const auto value = argument.substr(argument.find('=') + 1);
        if (argument.rfind("-runs=", 0) == 0) {
            options.runs = std::stoull(value);
        } else if (argument.rfind("-max_total_time=", 0) == 0) {
            options.seconds = std::stod(value);
        } else if (argument.rfind("-seed=", 0) == 0) {
            options.seed = std::stoull(value);
        } else if (argument.rfind("-artifact_prefix=", 0) == 0) {
            options.crash = value + "crash";
        } else if (argument[0] != '-') {
            options.corpus = argument;
        }
    }
    return options;
}

std::vector<Input> read_corpus(const std::string& folder) {
    std::vector<std::filesystem::path> paths;
    if (!folder.empty()) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (entry.is_regular_file()) paths.push_back(entry.path());
        }
    }
    std::sort(paths.begin(), paths.end());
    std::vector<Input> corpus;
    for (const auto& path : paths) {
        std::ifstream file(path, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    if (corpus.empty()) corpus.emplace_back(256, std::uint8_t{0});
    return corpus;
}

std::size_t below(Random& random, std::size_t limit) {
    return static_cast<std::size_t>(random() % limit);
}

void mutate(Input& input, const Input& other, Random& random) {
    const std::size_t place = below(random, input.size() + 1);
    const auto at = input.begin() + static_cast<std::ptrdiff_t>(place);
    const std::size_t length = 1 + below(random, 16);
    switch (below(random, 5)) {
        case 0:  // one bit
            if (place < input.size()) input[place] ^= static_cast<std::uint8_t>(1U << (random() % 8));
            break;
        case 1:  // one byte
            if (place < input.size()) input[place] = static_cast<std::uint8_t>(random());
            break;
        case 2: {  // some bytes more
            Input more(length);
            for (std::uint8_t& byte : more) byte = static_cast<std::uint8_t>(random());
            input.insert(at, more.begin(), more.end());
            break;
        }
        case 3:  // some bytes fewer
            input.erase(at, at + static_cast<std::ptrdiff_t>(std::min(length, input.size() - place)));
            break;
        default:  // another input's end
            input.resize(place);
            if (place < other.size()) {
                input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(place),
                             other.end());
            }
    }
    if (input.size() > longest_input) input.resize(longest_input);
}

void run(const Input& input, const std::string& crash) {
    std::ofstream(crash, std::ios::binary)
        .write(reinterpret_cast<const char*>(input.data()),
               static_cast<std::streamsize>(input.size()));
    LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int count, char** arguments) {
    const Options options = options_of(count, arguments);
    const std::vector<Input> corpus = read_corpus(options.corpus);
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    std::uint64_t runs = 0;
    for (const Input& input : corpus) {
        run(input, options.crash);
        ++runs;
    }
    Random random(options.seed);
    while ((options.runs == 0 || runs < options.runs) &&
           (options.seconds == 0.0 || seconds() < options.seconds)) {
        Input input = corpus[below(random, corpus.size())];
        const Input& other = corpus[below(random, corpus.size())];
        for (std::size_t i = 1 + below(random, 8); i > 0; --i) mutate(input, other, random);
        run(input, options.crash);
        ++runs;
    }
    std::filesystem::remove(options.crash);
    std::fprintf(stderr, "stat::number_of_executed_units: %llu\n",
                 static_cast<unsigned long long>(runs));
    return 0;
}

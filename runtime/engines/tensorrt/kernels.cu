// Pictures before and after the network, on the device. scripts/ptx makes kernels.ptx of this file, which is what is
// shipped and loaded; the tests compile it as C++ and run it over every pixel.
//
// Pixels are numbered row by row. One thread does PIXELS_PER_THREAD of them, so that its bytes are whole words of
// memory whatever the width; the grid has one dimension, and the last thread may have fewer to do. Positions and
// weights come in tables that the host makes (tables.py), with the CPU's own rounding.

#define PIXELS_PER_THREAD 4
#define BYTES (3 * PIXELS_PER_THREAD)
#define PADDING 114   // geometry.PADDING_VALUE
#define UNKNOWN 255   // frame.UNKNOWN

static __device__ bool has_whole_words(const void *bytes, unsigned count)
{
    return count == PIXELS_PER_THREAD && (size_t)bytes % 4 == 0;
}

static __device__ void store(unsigned char *target, const unsigned char *levels, unsigned count)
{
    if (has_whole_words(target, count)) {
        unsigned *words = (unsigned *)target;
        for (int word = 0; word < BYTES / 4; ++word)
            words[word] = levels[4 * word] | levels[4 * word + 1] << 8 | levels[4 * word + 2] << 16 |
                          (unsigned)levels[4 * word + 3] << 24;
    } else {
        for (int byte = 0; byte < BYTES; ++byte)
            if (byte < 3 * count)
                target[byte] = levels[byte];
    }
}

static __device__ void load(unsigned char *levels, const unsigned char *source, unsigned count)
{
    if (has_whole_words(source, count)) {
        const unsigned *words = (const unsigned *)source;
        for (int word = 0; word < BYTES / 4; ++word)
            for (int byte = 0; byte < 4; ++byte)
                levels[4 * word + byte] = words[word] >> 8 * byte;
    } else {
        for (int byte = 0; byte < BYTES; ++byte)
            levels[byte] = byte < 3 * count ? source[byte] : 0;
    }
}

// A frame, (?, frame_width, 3) uint8, laid on the model's input, (height, width, 3) uint8: byte for byte what OpenCV's
// resize does with INTER_LINEAR on 8 bits (imgproc/src/resize.cpp: HResizeLinear and VResizeLinear), whose weights have
// 11 bits and whose shifts drop 4, 16 and 2 of them.
//
// columns, rows: for each column and row of the input the frame's two neighbours and their weights, x, y and z, w;
// x < 0 where there is padding.
extern "C" __global__ void fit(const unsigned char *__restrict__ frame, const int4 *__restrict__ columns,
                               const int4 *__restrict__ rows, unsigned char *__restrict__ input, int frame_width,
                               int width, int height)
{
    const unsigned pixels = (unsigned)width * height;
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS_PER_THREAD;
    if (first >= pixels)
        return;
    const unsigned count = min(pixels - first, (unsigned)PIXELS_PER_THREAD);
    unsigned row = first / width, column = first % width;
    unsigned char levels[BYTES];
    for (int pixel = 0; pixel < PIXELS_PER_THREAD; ++pixel) {
        if (pixel < count) {
            const int4 across = columns[column], down = rows[row];
            const bool inside = across.x >= 0 && down.x >= 0;
            const unsigned char *upper = frame + (size_t)(inside ? down.x : 0) * frame_width * 3;
            const unsigned char *lower = frame + (size_t)(inside ? down.y : 0) * frame_width * 3;
            const int left = inside ? across.x * 3 : 0, right = inside ? across.y * 3 : 0;
            for (int channel = 0; channel < 3; ++channel) {
                const int above = upper[left + channel] * across.z + upper[right + channel] * across.w;
                const int below = lower[left + channel] * across.z + lower[right + channel] * across.w;
                const int sum = ((above >> 4) * down.z >> 16) + ((below >> 4) * down.w >> 16);
                const int level = (sum + 2) >> 2;
                levels[3 * pixel + channel] = inside ? min(level, 255) : PADDING;
            }
        }
        if (++column == width) {
            column = 0;
            ++row;
        }
    }
    store(input + (size_t)first * 3, levels, count);
}

// A class map, (?, grid_width) uint8, drawn over a frame, (height, width, 3) uint8: each pixel has the nearest class.
//
// columns, rows: for each column and row of the frame that of the grid; < 0 where the grid does not reach.
// look: for each class id what its colour adds to each channel, x, y, z, and what is left of the frame, w, in 1/256.
extern "C" __global__ void blend(const unsigned char *__restrict__ frame, const unsigned char *__restrict__ class_map,
                                 const int *__restrict__ columns, const int *__restrict__ rows,
                                 const ushort4 *__restrict__ look, unsigned char *__restrict__ picture, int grid_width,
                                 int width, int height)
{
    const unsigned pixels = (unsigned)width * height;
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS_PER_THREAD;
    if (first >= pixels)
        return;
    const unsigned count = min(pixels - first, (unsigned)PIXELS_PER_THREAD);
    unsigned row = first / width, column = first % width;
    unsigned char levels[BYTES];
    load(levels, frame + (size_t)first * 3, count);
    for (int pixel = 0; pixel < PIXELS_PER_THREAD; ++pixel) {
        if (pixel < count) {
            const int across = columns[column], down = rows[row];
            const bool inside = across >= 0 && down >= 0;
            const ushort4 drawn = look[inside ? class_map[(size_t)down * grid_width + across] : UNKNOWN];
            levels[3 * pixel] = (levels[3 * pixel] * drawn.w + drawn.x) >> 8;
            levels[3 * pixel + 1] = (levels[3 * pixel + 1] * drawn.w + drawn.y) >> 8;
            levels[3 * pixel + 2] = (levels[3 * pixel + 2] * drawn.w + drawn.z) >> 8;
        }
        if (++column == width) {
            column = 0;
            ++row;
        }
    }
    store(picture + (size_t)first * 3, levels, count);
}

// A two-dimensional convolution of a padded image with a small filter.
//
// A block of BX x BY threads makes a tile of (BX * TX) x (BY * TY) results. Those of one thread are BX
// columns and BY rows apart, so that neighbouring threads always read neighbouring numbers.
//
//     BX, BY   threads of a block
//     TX, TY   results of a thread
//     SHMEM    whether the part of the image that a block needs is copied to shared memory first
//     PAD      whether rows in shared memory are one number longer, which puts columns in different banks
//     UNROLL   whether the loop over a row of the filter is unrolled
//
// WIDTH, HEIGHT, FILTER_WIDTH, FILTER_HEIGHT and FILTER (the numbers) are defined before this is compiled.

constexpr int kTileWidth = BX * TX;
constexpr int kTileHeight = BY * TY;
constexpr int kImageWidth = WIDTH + FILTER_WIDTH - 1;

static_assert(WIDTH % kTileWidth == 0 && HEIGHT % kTileHeight == 0, "tiles must not stick out");

// not const: the compiler would fold the numbers into the code, which a filter known only later cannot have
__constant__ float taps[FILTER_HEIGHT * FILTER_WIDTH] = FILTER;

#if UNROLL
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("unroll 1")
#endif

// image is (HEIGHT + FILTER_HEIGHT - 1, WIDTH + FILTER_WIDTH - 1), result is (HEIGHT, WIDTH).
extern "C" __global__ void convolve(const float *__restrict__ image, float *__restrict__ result) {
    const int tx = threadIdx.x;
    const int ty = threadIdx.y;
    const int x0 = blockIdx.x * kTileWidth;
    const int y0 = blockIdx.y * kTileHeight;

#if SHMEM
    __shared__ float tile[kTileHeight + FILTER_HEIGHT - 1][kTileWidth + FILTER_WIDTH - 1 + PAD];
    for (int y = ty; y < kTileHeight + FILTER_HEIGHT - 1; y += BY) {
        for (int x = tx; x < kTileWidth + FILTER_WIDTH - 1; x += BX) {
            tile[y][x] = image[(y0 + y) * kImageWidth + x0 + x];
        }
    }
    __syncthreads();
#define AT(y, x) tile[y][x]
#else
#define AT(y, x) image[(y0 + (y)) * kImageWidth + x0 + (x)]
#endif

    float sum[TY][TX] = {};
    for (int i = 0; i < FILTER_HEIGHT; ++i) {
        UNROLLED
        for (int j = 0; j < FILTER_WIDTH; ++j) {
#pragma unroll
            for (int b = 0; b < TY; ++b) {
#pragma unroll
                for (int a = 0; a < TX; ++a) {
                    sum[b][a] += AT(ty + b * BY + i, tx + a * BX + j) * taps[i * FILTER_WIDTH + j];
                }
            }
        }
    }

#pragma unroll
    for (int b = 0; b < TY; ++b) {
#pragma unroll
        for (int a = 0; a < TX; ++a) {
            result[(y0 + ty + b * BY) * WIDTH + x0 + tx + a * BX] = sum[b][a];
        }
    }
}

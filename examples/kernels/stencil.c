/* Heat spreads over a plate: 20 steps of a nine-point stencil with a sink in the middle. */
#include "bench.h"

enum { N = 96, STEPS = 20 };

static float first[N][N], plate[2][N][N];

static void setup(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) first[i][j] = (float)(next_random() % 1000) * 0.125f;
}

static void step(int height, int width, float (*restrict to)[N], float (*restrict from)[N]) {
    for (int i = 1; i < height - 1; i++) {
        for (int j = 1; j < width - 1; j++) {
            float edges = from[i - 1][j] + from[i + 1][j] + from[i][j - 1] + from[i][j + 1];
            float corners = from[i - 1][j - 1] + from[i - 1][j + 1] + from[i + 1][j - 1] + from[i + 1][j + 1];
            float value = 0.5f * from[i][j] + 0.1f * edges + 0.025f * corners;
            to[i][j] = value > 100.0f ? 100.0f : value;
        }
    }
}

static void run(void) {
    memcpy(plate[0], first, sizeof first);
    memcpy(plate[1], first, sizeof first);
    for (int i = 0; i < STEPS; i++) {
        step(N, N, plate[1 - i % 2], plate[i % 2]);
        plate[1 - i % 2][N / 2][N / 2] = 0.0f;
    }
}

static uint64_t checksum(void) { return hash_bytes(plate[STEPS % 2], sizeof plate[0]); }

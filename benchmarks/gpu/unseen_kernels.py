"""Five kernels for landscapes by which nothing is set: what is learnt elsewhere has to hold on them too.

A step of the heat equation on a grid of 256 x 256 x 256 points, the product of a matrix of 8192 x 8192 with a
vector, that of two matrices of 1024 x 1024 without tensor cores, the transpose of a matrix of 8192 x 8192,
and the accelerations of 8192 bodies with masses of both signs, all in single precision.
`benchmarks.gpu.record` times all their configurations.
"""

from __future__ import annotations

from typing import Any

from ciq_ray.kernels import CudaKernel, Tensor
from searchers import Choice, PowerOfTwo, Range

_POINTS = 256
_PADDED = _POINTS + 2
_ROWS = _COLUMNS = 8192
_ALPHA = 0.1
_SIZE = 1024
_SIDE = 8192
_BODIES = 8192
_SOFTENING = 0.1
"""Added to the square of each distance."""
_REFERENCE_ROWS = 512
"""Rows that the reference of the bodies makes at once, to need less memory."""

_HEAT = r"""
#if UNROLL
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("unroll 1")
#endif
constexpr int kPadded = POINTS + 2;
constexpr int kPlane = kPadded * kPadded;

// old is (POINTS + 2)^3, result is POINTS^3; a thread makes TX columns, BX apart, of TZ planes.
extern "C" __global__ void heat(const float *__restrict__ old, float *__restrict__ result) {
    const int x0 = blockIdx.x * BX * TX + threadIdx.x;
    const int y = blockIdx.y * BY + threadIdx.y;
    const int z0 = (blockIdx.z * BZ + threadIdx.z) * TZ;
#pragma unroll
    for (int i = 0; i < TX; i++) {
        const int x = x0 + i * BX;
        const float *at = old + (z0 + 1) * kPlane + (y + 1) * kPadded + x + 1;
        float *to = result + (z0 * POINTS + y) * POINTS + x;
#if REGISTERS
        float below = at[-kPlane], middle = at[0];
#endif
        UNROLLED
        for (int z = 0; z < TZ; z++, at += kPlane, to += POINTS * POINTS) {
#if REGISTERS
            const float above = at[kPlane];
#else
            const float below = at[-kPlane], middle = at[0], above = at[kPlane];
#endif
            const float around = below + above + at[-kPadded] + at[kPadded] + at[-1] + at[1];
            *to = middle + ALPHA * (around - 6 * middle);
#if REGISTERS
            below = middle;
            middle = above;
#endif
        }
    }
}
"""
_PRODUCT = r"""
#if VECTOR == 4
using Numbers = float4;
#elif VECTOR == 2
using Numbers = float2;
#else
using Numbers = float;
#endif
union Pack {
    Numbers all;
    float each[VECTOR];
};
constexpr int kPacks = COLUMNS / VECTOR;
constexpr int kWarps = THREADS / 32;
constexpr int kUnroll = UNROLL;

__device__ Numbers from_matrix(const Numbers *at) {
#if STREAM
    return __ldcs(at);
#else
    return *at;
#endif
}

// THREADS threads make ROWS_EACH results, GROUPS of them are a block.
extern "C" __global__ void matrix_vector(const float *__restrict__ matrix, const float *__restrict__ vector,
                                         float *__restrict__ result) {
    const Numbers *factors = reinterpret_cast<const Numbers *>(vector);
#if SHARED
    __shared__ Numbers copy[kPacks];
    for (int i = threadIdx.y * THREADS + threadIdx.x; i < kPacks; i += THREADS * GROUPS) copy[i] = factors[i];
    __syncthreads();
    factors = copy;
#endif
    __shared__ float parts[GROUPS][kWarps];
    const int first = (blockIdx.x * GROUPS + threadIdx.y) * ROWS_EACH;
    for (int r = 0; r < ROWS_EACH; r++) {
        const Numbers *row = reinterpret_cast<const Numbers *>(matrix) + (long long)(first + r) * kPacks;
        float sum = 0;
#pragma unroll kUnroll
        for (int i = threadIdx.x; i < kPacks; i += THREADS) {
            Pack a, b;
            a.all = from_matrix(row + i);
            b.all = factors[i];
#pragma unroll
            for (int k = 0; k < VECTOR; k++) sum += a.each[k] * b.each[k];
        }
        for (int away = 16; away; away /= 2) sum += __shfl_down_sync(0xffffffffu, sum, away);
        if (threadIdx.x % 32 == 0) parts[threadIdx.y][threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < kWarps; w++) sum += parts[threadIdx.y][w];
            result[first + r] = sum;
        }
        __syncthreads();
    }
}
"""
_SGEMM = r"""
constexpr int kColumns = BN / TN, kThreads = kColumns * (BM / TM);

// left, right and result are SIZE x SIZE; a block makes BM x BN results, a thread TM x TN of them: next to
// each other, or with SPREAD as far apart as the block has rows and columns of threads.
extern "C" __global__ void sgemm(const float *__restrict__ left, const float *__restrict__ right,
                                 float *__restrict__ result) {
    __shared__ float a[BK][BM + PAD];
    __shared__ float b[BK][BN];
    const int tx = threadIdx.x, ty = threadIdx.y, me = ty * kColumns + tx;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
#if SPREAD
#define ROW(i) ((i) * (BM / TM) + ty)
#define COLUMN(j) ((j) * kColumns + tx)
#else
#define ROW(i) (ty * TM + (i))
#define COLUMN(j) (tx * TN + (j))
#endif
    float sums[TM][TN] = {};
    for (int k0 = 0; k0 < SIZE; k0 += BK) {
        for (int i = me; i < BM * BK; i += kThreads)
            a[i % BK][i / BK] = left[(row0 + i / BK) * SIZE + k0 + i % BK];
        for (int i = me; i < BK * BN; i += kThreads)
            b[i / BN][i % BN] = right[(k0 + i / BN) * SIZE + column0 + i % BN];
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float of_a[TM], of_b[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) of_a[i] = a[k][ROW(i)];
#pragma unroll
            for (int j = 0; j < TN; j++) of_b[j] = b[k][COLUMN(j)];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sums[i][j] += of_a[i] * of_b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) result[(row0 + ROW(i)) * SIZE + column0 + COLUMN(j)] = sums[i][j];
}
"""
_TRANSPOSE = r"""
#define by_row 0
#define by_column 1
#define diagonal 2
#if STREAM
#define LOAD(at) __ldcs(at)
#define STORE(at, value) __stcs(at, value)
#else
#define LOAD(at) (*(at))
#define STORE(at, value) (*(at) = (value))
#endif
constexpr int kDown = SIDE / ROWS, kAcross = SIDE / COLUMNS;

// matrix and result are SIDE x SIDE; a block of TX x TY threads moves a tile of ROWS x COLUMNS.
extern "C" __global__ void transpose(const float *__restrict__ matrix, float *__restrict__ result) {
    __shared__ float tile[ROWS][COLUMNS + PAD];
#if ORDER == by_column
    const int r = blockIdx.x % kDown, c = blockIdx.x / kDown;
#elif ORDER == diagonal
    const int r = blockIdx.x / kAcross, c = (blockIdx.x + r) % kAcross;
#else
    const int r = blockIdx.x / kAcross, c = blockIdx.x % kAcross;
#endif
    const float *from = matrix + (long long)r * ROWS * SIDE + c * COLUMNS;
    float *to = result + (long long)c * COLUMNS * SIDE + r * ROWS;
    for (int i = threadIdx.y; i < ROWS; i += TY)
        for (int j = threadIdx.x; j < COLUMNS; j += TX) tile[i][j] = LOAD(from + i * SIDE + j);
    __syncthreads();
    for (int i = threadIdx.y; i < COLUMNS; i += TY)
        for (int j = threadIdx.x; j < ROWS; j += TX) STORE(to + i * SIDE + j, tile[j][i]);
}
"""
_NBODY = r"""
constexpr int kUnroll = UNROLL;

// those after the last have no mass, and so no pull: THREADS need not divide BODIES
__device__ float4 body(const float4 *all, int i) {
    if (i >= BODIES) return make_float4(0, 0, 0, 0);
#if PACKED
    return all[i];
#else
    const float *numbers = reinterpret_cast<const float *>(all + i);
    return make_float4(numbers[0], numbers[1], numbers[2], numbers[3]);
#endif
}

// bodies are x, y, z and mass; a thread finds the acceleration of EACH of them, THREADS apart.
extern "C" __global__ void nbody(const float4 *__restrict__ bodies, float4 *__restrict__ result) {
#if SHARED
    __shared__ float4 tile[THREADS];
#endif
    const int first = blockIdx.x * THREADS * EACH + threadIdx.x;
    float4 mine[EACH];
    float x[EACH] = {}, y[EACH] = {}, z[EACH] = {};
#pragma unroll
    for (int k = 0; k < EACH; k++) mine[k] = body(bodies, first + k * THREADS);
    for (int start = 0; start < BODIES; start += THREADS) {
#if SHARED
        tile[threadIdx.x] = body(bodies, start + threadIdx.x);
        __syncthreads();
#endif
#pragma unroll kUnroll
        for (int j = 0; j < THREADS; j++) {
#if SHARED
            const float4 other = tile[j];
#else
            const float4 other = body(bodies, start + j);
#endif
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                const float dx = other.x - mine[k].x, dy = other.y - mine[k].y, dz = other.z - mine[k].z;
                const float squared = dx * dx + dy * dy + dz * dz + SOFTENING;
#if FAST_ROOT
                const float inverse = rsqrtf(squared);
#else
                const float inverse = 1 / sqrtf(squared);
#endif
                const float pull = other.w * inverse * inverse * inverse;
                x[k] += pull * dx;
                y[k] += pull * dy;
                z[k] += pull * dz;
            }
        }
#if SHARED
        __syncthreads();
#endif
    }
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (first + k * THREADS < BODIES) result[first + k * THREADS] = make_float4(x[k], y[k], z[k], 0);
}
"""


def _heat_reference(arrays: dict[str, Any]) -> Any:
    old = arrays["old"]
    inside = slice(1, -1)
    middle = old[inside, inside, inside]
    around = old[:-2, inside, inside] + old[2:, inside, inside]
    around = around + old[inside, :-2, inside] + old[inside, 2:, inside]
    around = around + old[inside, inside, :-2] + old[inside, inside, 2:]
    return middle + _ALPHA * (around - 6 * middle)


def _heat_grid(meta: dict[str, Any]) -> tuple[int, int, int]:
    return (
        _POINTS // (meta["BX"] * meta["TX"]),
        _POINTS // meta["BY"],
        _POINTS // (meta["BZ"] * meta["TZ"]),
    )


def _heat_block(meta: dict[str, Any]) -> tuple[int, int, int]:
    return meta["BX"], meta["BY"], meta["BZ"]


HEAT = CudaKernel(
    f"#define POINTS {_POINTS}\n#define ALPHA {_ALPHA}f\n" + _HEAT,
    "heat",
    arguments={
        "old": Tensor((_PADDED, _PADDED, _PADDED), "float32"),
        "new": Tensor((_POINTS, _POINTS, _POINTS), "float32", role="out"),
    },
    grid=_heat_grid,
    block=_heat_block,
    space={
        "BX": PowerOfTwo(8, 256),
        "BY": PowerOfTwo(1, 16),
        "BZ": PowerOfTwo(1, 4),
        "TX": PowerOfTwo(1, 4),
        "TZ": PowerOfTwo(1, 16),
        "REGISTERS": Choice([0, 1]),
        "UNROLL": Choice([0, 1]),
    },
    constraints=["32 <= BX * BY * BZ <= 1024", "BX * TX <= 256"],
    default={"BX": 32, "BY": 8, "BZ": 1, "TX": 1, "TZ": 1, "REGISTERS": 0, "UNROLL": 0},
    reference=_heat_reference,
    rtol=1e-4,
    atol=1e-4,
)


def _product_reference(arrays: dict[str, Any]) -> Any:
    return arrays["matrix"] @ arrays["vector"]


def _product_grid(meta: dict[str, Any]) -> tuple[int]:
    return (_ROWS // (meta["GROUPS"] * meta["ROWS_EACH"]),)


def _product_block(meta: dict[str, Any]) -> tuple[int, int]:
    return meta["THREADS"], meta["GROUPS"]


PRODUCT = CudaKernel(
    f"#define ROWS {_ROWS}\n#define COLUMNS {_COLUMNS}\n" + _PRODUCT,
    "matrix_vector",
    arguments={
        "matrix": Tensor((_ROWS, _COLUMNS), "float32"),
        "vector": Tensor((_COLUMNS,), "float32"),
        "result": Tensor((_ROWS,), "float32", role="out"),
    },
    grid=_product_grid,
    block=_product_block,
    space={
        "THREADS": PowerOfTwo(32, 512),
        "GROUPS": PowerOfTwo(1, 8),
        "ROWS_EACH": PowerOfTwo(1, 8),
        "VECTOR": PowerOfTwo(1, 4),
        "UNROLL": PowerOfTwo(1, 8),
        "STREAM": Choice([0, 1]),
        "SHARED": Choice([0, 1]),
    },
    constraints=["THREADS * GROUPS <= 1024"],
    default={
        "THREADS": 128,
        "GROUPS": 1,
        "ROWS_EACH": 1,
        "VECTOR": 1,
        "UNROLL": 1,
        "STREAM": 0,
        "SHARED": 0,
    },
    reference=_product_reference,
    rtol=1e-3,
    atol=1e-2,
)


def _sgemm_reference(arrays: dict[str, Any]) -> Any:
    return arrays["left"] @ arrays["right"]


def _sgemm_grid(meta: dict[str, Any]) -> tuple[int, int]:
    return _SIZE // meta["BN"], _SIZE // meta["BM"]


def _sgemm_block(meta: dict[str, Any]) -> tuple[int, int]:
    return meta["BN"] // meta["TN"], meta["BM"] // meta["TM"]


SGEMM = CudaKernel(
    f"#define SIZE {_SIZE}\n{_SGEMM}",
    "sgemm",
    arguments={
        "left": Tensor((_SIZE, _SIZE), "float32"),
        "right": Tensor((_SIZE, _SIZE), "float32"),
        "result": Tensor((_SIZE, _SIZE), "float32", role="out"),
    },
    grid=_sgemm_grid,
    block=_sgemm_block,
    space={
        "BM": PowerOfTwo(16, 256),
        "BN": PowerOfTwo(16, 256),
        "BK": Choice([8, 32]),
        "TM": PowerOfTwo(1, 16),
        "TN": PowerOfTwo(1, 8),
        "PAD": Choice([0, 1]),
        "SPREAD": Choice([0, 1]),
    },
    constraints=["32 <= (BM // TM) * (BN // TN) <= 1024"],
    default={"BM": 32, "BN": 32, "BK": 8, "TM": 2, "TN": 2, "PAD": 0, "SPREAD": 0},
    reference=_sgemm_reference,
    rtol=1e-3,
    atol=1e-2,
)


def _transpose_reference(arrays: dict[str, Any]) -> Any:
    return arrays["matrix"].T


def _transpose_grid(meta: dict[str, Any]) -> tuple[int]:
    return ((_SIDE // meta["ROWS"]) * (_SIDE // meta["COLUMNS"]),)


def _transpose_block(meta: dict[str, Any]) -> tuple[int, int]:
    return meta["TX"], meta["TY"]


TRANSPOSE = CudaKernel(
    f"#define SIDE {_SIDE}\n{_TRANSPOSE}",
    "transpose",
    arguments={
        "matrix": Tensor((_SIDE, _SIDE), "float32"),
        "result": Tensor((_SIDE, _SIDE), "float32", role="out"),
    },
    grid=_transpose_grid,
    block=_transpose_block,
    space={
        "ROWS": PowerOfTwo(16, 128),
        "COLUMNS": PowerOfTwo(16, 128),
        "TX": PowerOfTwo(8, 64),
        "TY": PowerOfTwo(1, 32),
        "PAD": Range(0, 2),
        "ORDER": Choice(["by_row", "by_column", "diagonal"]),
        "STREAM": Choice([0, 1]),
    },
    constraints=[
        "TX <= ROWS and TX <= COLUMNS",
        "TY <= ROWS and TY <= COLUMNS",
        "32 <= TX * TY <= 1024",
        "ROWS * (COLUMNS + PAD) <= 12288",  # 48 KiB
    ],
    default={"ROWS": 32, "COLUMNS": 32, "TX": 32, "TY": 8, "PAD": 0, "ORDER": "by_row", "STREAM": 0},
    reference=_transpose_reference,
)


def _nbody_reference(arrays: dict[str, Any]) -> Any:
    bodies = arrays["bodies"].double()
    places, masses = bodies[:, :3], bodies[:, 3]
    squares = (places * places).sum(1)
    found = bodies.new_zeros(bodies.shape)
    for start in range(0, _BODIES, _REFERENCE_ROWS):
        some = slice(start, start + _REFERENCE_ROWS)
        squared = squares[some, None] + squares - 2 * places[some] @ places.T + _SOFTENING
        pull = masses / squared**1.5
        found[some, :3] = pull @ places - pull.sum(1)[:, None] * places[some]
    return found.float()


def _nbody_grid(meta: dict[str, Any]) -> tuple[int]:
    return (-(-_BODIES // (meta["THREADS"] * meta["EACH"])),)


def _nbody_block(meta: dict[str, Any]) -> tuple[int]:
    return (meta["THREADS"],)


NBODY = CudaKernel(
    f"#define BODIES {_BODIES}\n#define SOFTENING {_SOFTENING}f\n{_NBODY}",
    "nbody",
    arguments={
        "bodies": Tensor((_BODIES, 4), "float32"),
        "result": Tensor((_BODIES, 4), "float32", role="out"),
    },
    grid=_nbody_grid,
    block=_nbody_block,
    space={
        "THREADS": Range(32, 512, step=32),
        "EACH": PowerOfTwo(1, 8),
        "UNROLL": PowerOfTwo(1, 16),
        "SHARED": Choice([0, 1]),
        "PACKED": Choice([0, 1]),
        "FAST_ROOT": Choice([0, 1]),
    },
    default={"THREADS": 128, "EACH": 1, "UNROLL": 1, "SHARED": 0, "PACKED": 0, "FAST_ROOT": 0},
    reference=_nbody_reference,
    rtol=1e-3,
    atol=0.05,
)

KERNELS = {"heat": HEAT, "matrix_vector": PRODUCT, "sgemm": SGEMM, "transpose": TRANSPOSE, "nbody": NBODY}
"""By the names that `benchmarks.gpu.record` takes."""

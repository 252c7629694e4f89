// Spectra of many short signals, each multiplied by a frequency response.
//
// One thread transforms one column of 32 complex samples, all of it in registers: 64 values, and the
// partial results of the butterflies besides. The launch bounds ask for two blocks of 512 threads on a
// multiprocessor, which leaves 64 registers for each thread, so that the compiler has to spill, and its
// options decide how much.
//
// spectrum.sm_90.ptx beside this file was made from it with nvcc 13.3 (examples/kernels/build.sh):
//
//     nvcc -arch=sm_90 -ptx -o spectrum.sm_90.ptx spectrum.cu

constexpr int kPoints = 32;
constexpr int kStages = 5;

// cos(2 pi k / 32), folded into the instructions once the loops are unrolled
__device__ constexpr float cosine(int k) {
    const float quarter[9] = {1.0f,        0.98078528f, 0.92387953f, 0.83146961f, 0.70710678f,
                              0.55557023f, 0.38268343f, 0.19509032f, 0.0f};
    return k <= 8 ? quarter[k] : -quarter[16 - k];
}

__device__ constexpr float sine(int k) { return k <= 8 ? cosine(8 - k) : cosine(k - 8); }

__device__ constexpr int bit_reversed(int index) {
    int result = 0;
    for (int bit = 0; bit < kStages; ++bit) {
        result |= ((index >> bit) & 1) << (kStages - 1 - bit);
    }
    return result;
}

// The discrete Fourier transform, by decimation in frequency: frequency k is left at bit_reversed(k).
__device__ __forceinline__ void transform(float (&re)[kPoints], float (&im)[kPoints]) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
        const int half = kPoints >> (stage + 1);
#pragma unroll
        for (int k = 0; k < kPoints / 2; ++k) {
            const int a = (k / half) * 2 * half + k % half;
            const int b = a + half;
            const float wr = cosine((k % half) << stage);
            const float wi = -sine((k % half) << stage);
            const float dr = re[a] - re[b];
            const float di = im[a] - im[b];
            re[a] += re[b];
            im[a] += im[b];
            re[b] = dr * wr - di * wi;
            im[b] = dr * wi + di * wr;
        }
    }
}

// signal and filtered are (32, columns), response is (32).
extern "C" __global__ void __launch_bounds__(512, 2)
spectrum(const float2* __restrict__ signal, const float2* __restrict__ response,
         float2* __restrict__ filtered, int columns) {
    const int stride = gridDim.x * blockDim.x;
    for (int column = blockIdx.x * blockDim.x + threadIdx.x; column < columns; column += stride) {
        float re[kPoints];
        float im[kPoints];
#pragma unroll
        for (int i = 0; i < kPoints; ++i) {
            const float2 value = signal[i * columns + column];
            re[i] = value.x;
            im[i] = value.y;
        }
        transform(re, im);
#pragma unroll
        for (int i = 0; i < kPoints; ++i) {
            const float2 h = response[bit_reversed(i)];
            filtered[bit_reversed(i) * columns + column] =
                make_float2(re[i] * h.x - im[i] * h.y, re[i] * h.y + im[i] * h.x);
        }
    }
}

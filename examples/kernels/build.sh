#!/bin/sh
# Makes the PTX again; needs nvcc 13.3 (NVCC=/path/to/nvcc to name one) and a host compiler.
set -eu
cd "$(dirname "$0")"
"${NVCC:-nvcc}" -arch=sm_90 -ptx -o spectrum.sm_90.ptx spectrum.cu

"""GPUs: which ones there are, who holds them, what their clocks do, and timing that can be trusted.

`ciq_ray.gpu.devices` finds them, `ciq_ray.gpu.preflight` looks at one, `ciq_ray.gpu.hold` takes one and sets
its clocks, `ciq_ray.gpu.evidence` watches it. `ciq_ray.gpu.runtime` is what kernels see of a device, and
`ciq_ray.gpu.timing` measures on it. Importing this loads nothing of CUDA.
"""

"""The parts of `ciq_ray.cache`."""

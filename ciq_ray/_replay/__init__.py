"""The parts of `ciq_ray.replay`."""

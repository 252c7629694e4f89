"""The parts of `ciq_ray.types`, one subject a module."""

"""The trackers that come with the package; users import them from `ciq_ray.tracker`."""

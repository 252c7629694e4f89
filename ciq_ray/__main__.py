"""``python -m ciq_ray`` is the command ``ciq``."""

from ciq_ray.cli import main

if __name__ == "__main__":
    main()

"""The version, read by the build and by ``ciq --version``."""

__version__ = "0.1.0"

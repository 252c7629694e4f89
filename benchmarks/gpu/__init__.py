"""What is measured on a real GPU. Each module is a script: ``python -m benchmarks.gpu.NAME --output DIR``."""

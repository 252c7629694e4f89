"""What ciq-ray costs, each time next to something a reader knows. Run with ``python -m benchmarks``."""

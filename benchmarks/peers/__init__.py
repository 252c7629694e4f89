"""Other tuners on the recorded landscapes, each at its own defaults."""

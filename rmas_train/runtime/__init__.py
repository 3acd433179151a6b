"""Ranks and devices: the only files that know Accelerate."""

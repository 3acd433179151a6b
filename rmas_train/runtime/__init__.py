"""Ranks, devices and back ends of a run."""

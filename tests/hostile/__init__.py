"""Malformed inputs from a seeded generator, and what has to happen to each."""

"""What is measured: generation, text recursion, controls, statistics."""

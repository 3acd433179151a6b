"""Links: the small trainable adapters, their aligned start, and their file format. Tensors only."""

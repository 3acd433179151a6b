"""Links: the small trainable adapters, their start, and their file format. Tensors only."""

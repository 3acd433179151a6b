"""Tools that the decoder may call while it writes its answer: Python and search."""

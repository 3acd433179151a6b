"""What one run does: inner, outer, eval, report, and the pipeline of all four."""

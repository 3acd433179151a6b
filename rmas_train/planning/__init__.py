"""Memory, operations and traffic of a step, counted without weights."""

"""A trained system for other programs: an OpenAI-compatible server, lm_eval, inspect_ai."""

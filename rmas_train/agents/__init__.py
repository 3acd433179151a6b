"""Frozen LLM agents: the model with its tokenizer, its origin, and prompts with slots. No ranks."""

"""Frozen LLM agents: loading, prompts with slots, and the latent rollout. Tensors only, no ranks."""

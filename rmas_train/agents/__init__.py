"""Frozen LLM agents: loading, prompts with slots, the latent rollout. Tensors only, no ranks."""

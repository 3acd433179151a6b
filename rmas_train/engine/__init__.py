"""Frozen agents as functions of vectors: caches, rollouts, answers, ways back for gradients."""

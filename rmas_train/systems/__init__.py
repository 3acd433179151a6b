"""What answers a question: the latent system, text recursion, controls."""

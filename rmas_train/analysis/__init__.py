"""What a system costs, and what its gradients and links look like."""

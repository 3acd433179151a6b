"""The training loop and what watches it. Serves the stages; knows no agents, no links' insides."""

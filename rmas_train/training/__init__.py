"""The training loop and what watches it. Serves the stages; knows no agents and no links' insides."""

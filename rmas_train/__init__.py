"""rmas_train: train recursive multi-agent systems and judge them honestly.

python -m rmas_train                      # inner, outer, eval and report on the shipped relay
system = rmas_train.load("outputs/relay") # the trained system, ready to answer
"""

from rmas_train.api import load
from rmas_train.systems.latent import Answer, System

__all__ = ["Answer", "System", "load"]

"""A stored loss curve: a change of numbers needs a reason in the commit that stores a new one.

python tests/numerics/test_golden.py      # writes it again
"""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import TINY, make_agent, make_links, make_rows, make_team

from rmas_train.config import RuntimeConfig, TrainingConfig
from rmas_train.data.rows import Table
from rmas_train.data.sampling import Sampler, depth_at
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.loop import train

GOLDEN = Path(__file__).parent / "golden_outer.json"
STEPS = 30


def curve() -> list[float]:
    """Outer losses on tiny agents, CPU, float32: depth growing to 3, three latent steps."""
    team = make_team({n: make_agent(n) for n in TINY})
    objective = OuterObjective(team, make_links(team), Table(Path("rows"), make_rows(24)), 3, 3)
    config = TrainingConfig(steps=STEPS, batch_size=6, lr=5e-3, warmup_steps=3)
    depths = [depth_at(s, STEPS, 3, "growing", 0) for s in range(STEPS)]
    losses: list[float] = []
    train(
        objective,
        Sampler([None] * 24, depths, 6, seed=0),
        config,
        Runtime(RuntimeConfig(device="cpu")),
        [lambda step: losses.append(step.loss)],
    )
    return losses


def test_the_loss_curve_is_the_stored_one():
    stored = json.loads(GOLDEN.read_text())
    losses = curve()
    differences = [a - b for a, b in zip(losses, stored["losses"], strict=True)]
    # The largest and the mean difference: a one-sided drift shows in the second.
    assert losses == pytest.approx(stored["losses"], rel=2e-3)
    assert abs(sum(differences)) / STEPS < 5e-4 * losses[0]
    assert losses[-1] < 0.8 * losses[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "losses": curve(),
    }
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n")

"""How the outer objective is built: what the options of ``training.outer`` come to."""

from __future__ import annotations

from dataclasses import dataclass

from rmas_train.channels import TextChannel
from rmas_train.config import Config, OuterConfig
from rmas_train.engine.rollout import FULL, Gradient
from rmas_train.errors import ConfigError
from rmas_train.runs.load import Loaded


@dataclass(frozen=True)
class Backward:
    """How gradients go back through an unroll; the default is exact.

    Attributes:
        gradient: through each rollout.
        rounds: only this many of the last rounds keep a graph, see ``Recursion``.
        recompute: run each call again in backward, see ``LatentChannel``.
    """

    gradient: Gradient = FULL
    rounds: int | None = None
    recompute: bool = False


EXACT = Backward()


@dataclass(frozen=True)
class Aids:
    """What training has beside the answer's loss after the last round; nothing by default.

    Attributes:
        earlier_rounds: weight of the answer's mean loss in the rounds before, see
            ``training.outer.earlier_rounds``.
        self_distill: weight of ``own_answer_loss``, in unrolls of fewer than all rounds.
        text_messages: weight of ``TextTeacher.loss``.
        text: how text recursion sends, for ``text_messages``.
        message_noise: see ``MessageNoise``.
        seed: of the noise.
    """

    earlier_rounds: float = 0.0
    self_distill: float = 0.0
    text_messages: float = 0.0
    text: TextChannel | None = None
    message_noise: float = 0.0
    seed: int = 0


ALONE = Aids()


def backward_of(options: OuterConfig) -> Backward:
    """How the options say that gradients go back."""
    gradient = Gradient(options.gradient, options.gradient_steps or 1)
    return Backward(gradient, options.gradient_rounds, options.recompute == "agent")


def aids_of(config: Config) -> Aids:
    """What the options add to the answer's loss."""
    options = config.training.outer
    text = TextChannel(config.evaluation.max_new_tokens, translations=config.data.translations)
    return Aids(
        options.earlier_rounds,
        options.self_distill,
        options.text_messages,
        text if options.text_messages else None,
        options.message_noise,
        config.seed,
    )


def role_text_columns(config: Config, loaded: Loaded) -> dict[str, str]:
    """``latents: teacher_forced``: agent -> column of the text whose states it sends.

    Raises:
        ConfigError: an agent has no such column.
    """
    options, data = config.training.outer, config.data
    if options.latents == "rollout":
        return {}
    decoder, columns = loaded.team.topology.decoder, {}
    for name in loaded.team.topology.agents:
        if name != decoder:
            if name not in data.role_texts:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )
            columns[name] = data.role_texts[name]
    loaded.train.require(columns.values(), "for training.outer.latents=teacher_forced")
    return columns | ({decoder: "answer"} if options.feedback == "gold_answer" else {})

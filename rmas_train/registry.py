"""Names that a config may use, and what they stand for; a plugin adds its own.

Nothing heavy is imported here: a built-in is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Generic, TypeVar

from rmas_train.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> object of one kind.

    Args:
        what: the kind, for messages.
        option: the option that takes such a name.
        builtin: name -> "module:attribute".
    """

    def __init__(self, what: str, option: str, builtin: Mapping[str, str]) -> None:
        self._what, self._option = what, option
        self._paths, self._found = dict(builtin), dict[str, T]()

    def register(self, name: str, value: T | None = None) -> Any:
        """Add an object under a name; without a value, a decorator.

        What is defined a second time in the same place, as in a notebook's cell, is replaced.

        Raises:
            ConfigError: the name is taken.
        """

        def add(value: T) -> T:
            taken = self._paths.get(name) or _path(self._found.get(name))
            if name in self.names() and taken != _path(value):
                raise ConfigError(
                    f"{self._what} '{name}' is {taken} already, so it cannot be {_path(value)}; "
                    "rename the second."
                )
            self._found[name] = value
            return value

        return add if value is None else add(value)

    def names(self) -> list[str]:
        return list(dict.fromkeys((*self._paths, *self._found)))

    def check(self, name: str, option: str | None = None) -> None:
        """The name is known.

        Raises:
            ConfigError: it is not; names the option and the nearest name.
        """
        if name not in self.names():
            near = did_you_mean(name, self.names())
            if not near.startswith("Did"):
                near += " A plugin's needs plugins=[<its module>]; in Python, import it first."
            raise ConfigError(f"{option or self._option}={name}: no such {self._what}. {near}")

    def get(self, name: str) -> T:
        self.check(name)
        if name not in self._found:
            module, _, attribute = self._paths[name].partition(":")
            self._found[name] = attrgetter(attribute)(importlib.import_module(module))
        return self._found[name]


def _path(value: Any) -> str:
    """Where an object is defined; of one without a name, the object itself."""
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}:{name}" if name else repr(value)


_LINKS = "rmas_train.links.modules"
LINK_VARIANTS: Registry[Any] = Registry(
    "link variant",
    "links.variant",
    {
        "ln_res_2layer": f"{_LINKS}:LN_RES_2LAYER",
        "linear": f"{_LINKS}:LINEAR",
        "linear_res": f"{_LINKS}:LINEAR_RES",
        "2layer": f"{_LINKS}:TWO_LAYER",
        "res_2layer": f"{_LINKS}:RES_2LAYER",
    },
)
INNER_OBJECTIVES: Registry[Any] = Registry(
    "objective of the inner stage",
    "training.inner.objective",
    {"cosine": "rmas_train.objectives.inner:InnerObjective.from_config"},
)
OBJECTIVES: Registry[Any] = Registry(
    "objective of the outer stage",
    "training.outer.objective",
    {"answer": "rmas_train.objectives.outer:OuterObjective.from_config"},
)
CALLBACKS: Registry[Any] = Registry("callback", "training.<stage>.callbacks", {})
SYSTEMS: Registry[Any] = Registry(
    "system",
    "evaluation.systems",
    {
        "latent": "rmas_train.systems.latent:TRAINED",
        "start": "rmas_train.systems.controls:START",
        "untrained": "rmas_train.systems.controls:UNTRAINED",
        "null": "rmas_train.systems.controls:NULL",
        "shuffled": "rmas_train.systems.controls:SHUFFLED",
        "format": "rmas_train.systems.controls:FORMAT",
        "mean": "rmas_train.systems.changed:MEAN",
        "noise": "rmas_train.systems.changed:NOISE",
        "rotation": "rmas_train.systems.changed:ROTATION",
        "cross_task": "rmas_train.systems.changed:CROSS_TASK",
        "stop_agreement": "rmas_train.systems.stopping:STOP_AGREEMENT",
        "stop_entropy": "rmas_train.systems.stopping:STOP_ENTROPY",
        "stop_trained": "rmas_train.systems.stopping:STOP_TRAINED",
        "thinking": "rmas_train.systems.alone:THINKING",
        "text": "rmas_train.systems.text:TEXT",
        "text_capped": "rmas_train.systems.text:TEXT_CAPPED",
        "decoder_alone": "rmas_train.systems.alone:DECODER_ALONE",
        "single": "rmas_train.systems.alone:single_agents",
        "looplm": "rmas_train.systems.alone:looped_agents",
        "budget": "rmas_train.systems.budget:budget_agents",
        "latentmas": "rmas_train.systems.latentmas:LATENTMAS",
        "lora": "rmas_train.systems.finetuned:LORA",
        "sft": "rmas_train.systems.finetuned:SFT",
        "moa": "rmas_train.systems.mixture:MIXTURE_OF_AGENTS",
        "textgrad": "rmas_train.systems.text_gradients:textgrad_agents",
    },
)
BENCHMARKS: Registry[Any] = Registry(
    "benchmark", "evaluation.benchmarks", {"test": "rmas_train.evaluation.benchmark:test_rows"}
)
_GRADERS = "rmas_train.evaluation.graders"
GRADERS: Registry[Any] = Registry(
    "grader",
    "data.grader",
    {
        "pattern": f"{_GRADERS}:PatternGrader",
        "choices": f"{_GRADERS}:ChoicesGrader",
        "math": "rmas_train.evaluation.mathematics:MathGrader",
        "letter": "rmas_train.evaluation.short_answers:LetterGrader",
        "squad": "rmas_train.evaluation.short_answers:SquadGrader",
        "reasoning_gym": "rmas_train.evaluation.reasoning:ReasoningGrader",
        "code": "rmas_train.evaluation.programs:CodeGrader",
        "lenient_math": "rmas_train.evaluation.lenient:LenientMathGrader",
        "lenient_letter": "rmas_train.evaluation.lenient:LenientLetterGrader",
        "lenient_text": "rmas_train.evaluation.lenient:LenientTextGrader",
        "llm": "rmas_train.evaluation.asked:AskedGrader",
    },
)
ANALYSES: Registry[Any] = Registry(
    "analysis",
    "analyses",
    {
        "messages": "rmas_train.analysis.messages:MessageStatistics",
        "confidence": "rmas_train.analysis.confidence:Confidence",
        "health": "rmas_train.analysis.health:Health",
        "attribution": "rmas_train.analysis.attribution:Attribution",
        "text_attribution": "rmas_train.analysis.text_attribution:TextAttribution",
        "depth": "rmas_train.analysis.depth:Depth",
        "lens": "rmas_train.analysis.lens:Lens",
        "probes": "rmas_train.analysis.probes:Probes",
    },
)

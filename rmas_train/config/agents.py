"""Options of agents, topology and links: what a system is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rmas_train.config.options import check_choice, check_least, option
from rmas_train.errors import ConfigError
from rmas_train.registry import LINK_VARIANTS

WITHOUT_LAYERNORM = ("linear", "linear_res", "2layer", "res_2layer")


@dataclass(kw_only=True)
class AgentConfig:
    model: str = option("", "folder (Hugging Face format), or hub id")
    revision: str | None = option(None, "hub commit; pin it for results that you publish")
    dtype: str = option("float32", "float32 | bfloat16 | float64; the links stay float32")
    trust_remote_code: bool = option(False, "run Python that comes with the model")
    attention: str = option("sdpa", "sdpa | eager: attention implementation")

    def __post_init__(self) -> None:
        check_choice("agents.<name>.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        check_choice("agents.<name>.attention", self.attention, ("sdpa", "eager"))


def first_alike(agents: Mapping[str, AgentConfig], names: Iterable[str]) -> dict[str, str]:
    """Agent -> first agent with the same model, loaded in the same way: they share its weights."""
    chosen = list(names)
    return {n: next(m for m in chosen if agents[m] == agents[n]) for n in chosen}


@dataclass(kw_only=True)
class EdgeConfig:
    source: str = option("", "agent that sends")
    target: str = option("", "agent that receives, in a slot named after the source")
    next_round: bool = option(False, "the message arrives in the next round (feedback)")


@dataclass(kw_only=True)
class TopologyConfig:
    name: str = option("sequential", "name in files and tables")
    order: list[str] = option([], "agents in the order of a round")
    edges: list[EdgeConfig] = option([], "who sends to whom")
    decoder: str = option("", "agent that answers in text after the last round")


@dataclass(kw_only=True)
class LinksConfig:
    variant: str = option(
        "ln_res_2layer",
        "ln_res_2layer (release) | linear | linear_res | 2layer | res_2layer; or a plugin's",
    )
    norm: str = option(
        "match_embedding",
        "match_embedding | layernorm (release: 50 to 80 times louder than embeddings) | none",
    )
    edge_input: str = option("inner", "inner: outer(inner(h)) (release) | hidden: outer(h) (paper)")
    init: str = option("aligned", "aligned (closed form) | default (PyTorch's, as the release)")
    ridge: float = option(1e-2, "aligned start: ridge weight over the mean squared singular value")
    start_noise: float = option(
        0.0, "aligned start: Gaussian noise on W3, in standard deviations of its entries"
    )

    def __post_init__(self) -> None:
        LINK_VARIANTS.check(self.variant)
        check_choice("links.norm", self.norm, ("match_embedding", "layernorm", "none"))
        check_choice("links.edge_input", self.edge_input, ("inner", "hidden"))
        check_choice("links.init", self.init, ("aligned", "default"))
        check_least("links.ridge", self.ridge, 0)
        check_least("links.start_noise", self.start_noise, 0)
        if self.norm == "layernorm" and self.variant in WITHOUT_LAYERNORM:
            raise ConfigError(
                f"links.norm=layernorm needs the closing LayerNorm of ln_res_2layer, but "
                f"links.variant={self.variant}; use links.norm=match_embedding or none."
            )
        if self.init == "aligned" and self.variant == "2layer":
            raise ConfigError(
                "links.variant=2layer has no residual path that an aligned start could fill; "
                "use links.variant=res_2layer or links.init=default."
            )

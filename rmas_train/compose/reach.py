"""What a saved config may ask for: it may come from somebody else, unlike what is typed.

Every option stands in one of the tables below. One that stands in none, such as a new one, is
refused unless it has its default, until somebody has thought about what it can reach.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Set
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from rmas_train.compose.stamp import needs_recipe
from rmas_train.config import Config, shown
from rmas_train.errors import ConfigError


def _keys(**groups: str) -> set[str]:
    """``data__role="a b"``: the options ``data.role.a`` and ``data.role.b``."""
    return {
        f"{group.replace('__', '.')}.{name}"
        for group, names in groups.items()
        for name in names.split()
    }


def _agent(names: str) -> set[str]:
    return {f"agents.<name>.{name}" for name in names.split()}


STAGE = (
    "objective callbacks steps batch_size micro_batch_size lr warmup_steps weight_decay betas eps "
    "clip_norm clip_scope log_every save_every save_minutes keep"
)
# Numbers, and names that are looked up in our own tables. Other runs' folders, trackers and pins
# are here because an evaluation uses none of them; `small` is, because a saved config has the
# models' own paths.
FREE = (
    {"name", "stage", "rounds", "latent_length", "seed", "run_dir", "inner", "run", "resume"}
    | {"pins", "analyses", "tracking", "tracking_group", "small"}
    | _agent("revision dtype attention quantization adapter_revision template")
    | {f"topology.edges[i].{name}" for name in ("source", "target", "next_round")}
    | _keys(
        topology="name order edges decoder",
        links="variant norm edge_input message_update shared shared_space readout "
        "temperature top_k init start_pairs ridge start_noise",
        data="name allow_shared_rows task role_texts feedback_texts translations answer_pattern "
        "grader source_column max_length columns test_rows",
        training__inner=f"{STAGE} inner_states",
        training__outer=f"{STAGE} depth train_inner messages end_token recompute latents feedback "
        "gradient gradient_steps gradient_rounds prefix_cache_gib clip_message validate_every "
        "validate_rows select loss_mean earlier_rounds self_distill text_messages message_noise "
        "profile_every",
        evaluation="rounds batch_size max_new_tokens decoding temperature top_p top_k samples "
        "price_per_hour single_rows lenient retry_tokens retry_text "
        "max_rows beyond_reach benchmarks systems judge_model textgrad_tokens textgrad_model "
        "stop_entropy stop_chance",
        finetune="agent steps batch_size micro_batch_size lr warmup_steps rank alpha save_every",
        analysis="target alternatives examples top_k column",
        tools="names max_calls output_chars search_seconds search_hits search_chars",
        runtime="backend placement device processes threads timeout_minutes",
        plan="prefix_tokens suffix_tokens answer_tokens devices device_gib tflops gib_per_second",
    )
)
# Folders, files and hub ids that are read as data (safetensors, JSON lines, YAML); what is read
# stays in the run folder.
READ = _agent("model adapter") | _keys(
    data="folder prompts tasks",
    evaluation="cross_task format stop_rule",
    tools="search_index",
    training__outer="answers_of from_links",
)
# Files of `data.folder`, and of no other folder.
INSIDE = _keys(data="train test valid more_tests inner_files")
# Walls around programs: a saved config may make them narrower than the default only.
LIMITS = _keys(
    tools="python_seconds memory_mib processes file_mib", data="test_seconds problem_seconds"
)
# Only what is typed counts; why.
TYPED = {
    "agents.<name>.trust_remote_code": "runs Python that comes with the model",
    "allow_code_execution": "runs Python that the decoder writes",
    "plugins": "imports these Python modules",
    "evaluation.judge": "sends questions, answers and a key there",
    "evaluation.judge_key_variable": "sends the value of this environment variable to "
    "evaluation.judge",
    "evaluation.textgrad_url": "sends questions, answers and a key there",
    "evaluation.textgrad_key_variable": "sends the value of this environment variable to "
    "evaluation.textgrad_url",
    "tools.search_url": "sends searches and a key there",
    "tools.search_key_variable": "sends the value of this environment variable to tools.search_url",
    "tools.python_packages": "lets programs use installed packages",
}
RECIPE = _keys(data="hub recipe recipe_options")
# Options of recipes that reach nothing, if their value is plain; all others name files, addresses,
# hub ids or variables.
RECIPE_FREE = _keys(
    data__recipe_options="train test dialect topology style rows dataset inner answers test_share "
    "valid_share ngram candidates dimensions values rounds repeats refinements sample_temperature "
    "temperature max_new_tokens max_prompt_tokens batch_size parallel timeout retries dtype "
    "revision facts asked planner_sees unseen hops objects settings kind config split columns "
    "option_seed tests"
)
PLAIN = re.compile(r"[A-Za-z0-9][\w.,=@-]*")
SHELL_SAFE = re.compile(r"[\w@%+=:,./\[\]-]+")  # with brackets, as they are typed everywhere here
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

Asked = tuple[str, Any, str]  # key, value, what it does


def check_leaves(value: Any, key: str = "") -> None:
    """Check that a config as it was read holds plain values, and nothing that is resolved later.

    Raises:
        ConfigError: names the key.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            inner = f"{key}.{name}".lstrip(".")
            check_leaves(name, inner)
            check_leaves(part, inner)
    elif isinstance(value, list):
        for part in value:
            check_leaves(part, key)
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{key} holds '${{', but a run writes resolved values; remove it")
    elif value is not None and not isinstance(value, str | int | float):
        raise ConfigError(f"{key} is {value!r}, a {type(value).__name__}; a run writes none")


def asked_for(config: Config, typed: Set[str]) -> Iterator[Asked]:
    """What the config asks for and may not, unless it was typed.

    Args:
        config: the saved one, with what was typed on top.
        typed: full keys of the options that were typed.
    """
    for key, pattern, value, default in options(config):
        why = _reason(pattern, value, default) if value != default else None
        if why is not None and not _is_typed(key, value, typed):
            yield key, value, why
    yield from _recipe(config, typed)


def _is_typed(key: str, value: Any, typed: Set[str]) -> bool:
    """The option was typed, or each part of its value, as in ``key={a: 1, b: 2}``."""
    parts = [f"{key}.{name}" for name in value] if isinstance(value, dict) else []
    return key in typed or (parts != [] and set(parts) <= typed)


def options(value: Any, key: str = "", pattern: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """Key, key as in ``describe``, value and default of each option of a config."""
    for field in fields(value):
        here = getattr(value, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        names = key + field.name, pattern + field.name
        if is_dataclass(here):
            yield from options(here, f"{names[0]}.", f"{names[1]}.")
        elif isinstance(here, dict) and any(is_dataclass(one) for one in here.values()):
            for name, one in here.items():
                yield from options(one, f"{names[0]}.{name}.", f"{names[1]}.<name>.")
        else:
            yield (*names, here, default)
            if isinstance(here, list) and any(is_dataclass(one) for one in here):
                for i, one in enumerate(here):
                    yield from options(one, f"{names[0]}[{i}].", f"{names[1]}[i].")


def _reason(pattern: str, value: Any, default: Any) -> str | None:
    """Why a value that is not the default is refused; None: it is not."""
    if pattern in TYPED:
        return TYPED[pattern]
    if pattern in LIMITS:
        return f"is more than a program gets by default, {default}" if value > default else None
    if pattern in INSIDE:
        every = value.values() if isinstance(value, dict) else [value] if value else []
        out = any(PurePath(name).is_absolute() or ".." in PurePath(name).parts for name in every)
        return "reads a file outside of data.folder" if out else None
    if pattern in FREE | READ | RECIPE:
        return None
    return "is not among the options that a saved config may set"


def _recipe(config: Config, typed: Set[str]) -> Iterator[Asked]:
    """A recipe runs, and may ask strangers, unless the data are there already."""
    data = config.data
    if not needs_recipe(data, config.seed):
        return
    why = f"may make data_recipes/{data.recipe}/build.py reach files or hosts"
    for hub, commit in data.hub.items():
        key, is_plain = f"data.hub.{hub}", HUB_ID.fullmatch(hub) and _is_plain(commit)
        if key not in typed and not is_plain:
            yield key, commit, why
    for name, value in data.recipe_options.items():
        key = f"data.recipe_options.{name}"
        if key not in typed and not (key in RECIPE_FREE and _is_plain(value)):
            yield key, value, why
    if "data.recipe" not in typed:
        script = f"data_recipes/{data.recipe}/build.py"
        yield "data.recipe", data.recipe, f"runs {script} and writes {Path(data.folder)}"


def _is_plain(value: Any) -> bool:
    is_word = isinstance(value, str) and PLAIN.fullmatch(value) is not None
    return is_word or value is None or isinstance(value, bool | int | float)


def to_type(key: str, value: Any) -> str:
    """An option as it can be pasted into a shell."""
    text = f"{key}={shown(value)}"
    return text if SHELL_SAFE.fullmatch(text) else shlex.quote(text)

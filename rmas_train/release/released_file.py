"""One released ``.pt`` file: the state dict of one link.

PyTorch's own files are pickles. They are written here, and read by ``tensor_file``, which follows
the description of tensors in them, refuses everything else, and runs no code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rmas_train.errors import LinksError
from rmas_train.links.folder import check_finite
from rmas_train.links.modules import DTYPES, Link, make_link
from rmas_train.release.tensor_file import read_tensors

REMEDY = "copy or download the file again"
MOST_BYTES = 8 * 2**30  # of one file; a float32 link between widths of 16,384 has 5.4 GB
# Released name of each module -> ours (Link).
INNER = {"pre_ln": "pre_ln", "proj1": "proj1", "proj2": "proj2", "post_ln": "post_ln"}
OUTER = {
    "ln_source": "pre_ln",
    "proj1": "proj1",
    "proj2": "proj2",
    "residual_proj": "residual_proj",
    "ln_target": "post_ln",
}


@dataclass(frozen=True)
class ReleasedLink:
    """The content of one file.

    Attributes:
        path: path of the file.
        tensors: our parameter names -> float32 (exact, because narrower floats fit into it).
        dtype: dtype of every tensor in the file, a key of ``DTYPES``.
        sha256: sha256 of the file.
    """

    path: Path
    tensors: dict[str, Tensor]
    dtype: str
    sha256: str
    outer: bool

    @property
    def d_source(self) -> int:
        return len(self.tensors["pre_ln.weight"])

    @property
    def d_target(self) -> int:
        return len(self.tensors["post_ln.weight"])

    def link(self) -> Link:
        """The link itself, with the release's norm."""
        with torch.device("meta"):  # drawing parameters would cost time and random numbers
            link = make_link(self.d_source, self.d_target, outer=self.outer, norm="layernorm")
        link.load_state_dict(self.tensors | {"scale": torch.tensor(1.0)}, assign=True)
        return link


def read_link(path: Path, outer: bool) -> ReleasedLink:
    """Read a released link.

    Raises:
        LinksError: not a file of tensors, missing or unexpected key, a shape that does not fit
            the others, several or unknown dtypes, NaN; names file and key.
    """
    content = _content(path)
    state = _parse(path, content)
    names = OUTER if outer else INNER
    ours = {f"{theirs}.{p}": f"{n}.{p}" for theirs, n in names.items() for p in ("weight", "bias")}
    for key in sorted(ours.keys() | state.keys()):
        if key not in state or key not in ours:
            kind = "missing" if key not in state else "unexpected"
            raise LinksError(
                f"{path}: {kind} key {key!r}; the release's {'outer' if outer else 'inner'} link "
                f"({'outer_' if outer else ''}ln_res_adapter) has {sorted(ours)}; give a file of "
                "that type."
            )
    dtype = _one_dtype(path, state)
    _check_shapes(path, state, ours, outer)
    check_finite(path, state, REMEDY)
    tensors = {ours[k]: v.to(torch.float32).contiguous().clone() for k, v in state.items()}
    return ReleasedLink(path, tensors, dtype, hashlib.sha256(content).hexdigest(), outer)


def write_link(path: Path, link: Link, dtype: str) -> None:
    """Write a link with the release's keys; its norm is multiplied into the closing LayerNorm.

    Args:
        path: path of the new file.
        link: a link of variant ``ln_res_2layer``.
        dtype: dtype in which it was released; float32 is used if that dtype would round a value.
    """
    folded = fold_norm(link)
    wanted = DTYPES.get(dtype, torch.float32)
    is_exact = all(torch.equal(t.to(wanted).float(), t) for t in folded.values())
    names = {n: theirs for theirs, n in (OUTER if link.outer else INNER).items()}
    state = {}
    for key, tensor in folded.items():
        module, _, parameter = key.partition(".")
        state[f"{names[module]}.{parameter}"] = tensor.to(wanted if is_exact else torch.float32)
    torch.save(state, path)


def fold_norm(link: Link) -> dict[str, Tensor]:
    """Parameters of an equal link without a norm scalar, float32.

    ``scale * (gain * n + bias)`` is ``(scale * gain) * n + scale * bias``; rounded once.
    """
    scale = link.scale.detach().cpu().double()
    state = {k: v.detach().cpu() for k, v in link.named_parameters()}
    for key in ("post_ln.weight", "post_ln.bias"):
        state[key] = (state[key].double() * scale).float()
    return {k: v.contiguous().clone() for k, v in state.items()}


def _content(path: Path) -> bytes:
    """The file's bytes; a device, which has no end, and a file that no link needs are refused."""
    try:
        size = path.stat().st_size
        if path.exists() and not path.is_file():
            raise LinksError(f"{path}: not a file; check the path.")
        if size > MOST_BYTES:
            raise LinksError(f"{path}: {size} bytes, a link has at most {MOST_BYTES}; {REMEDY}.")
        return path.read_bytes()
    except OSError as error:
        raise LinksError(f"{path}: {error.strerror}; check the path.") from error


def _parse(path: Path, content: bytes) -> dict[str, Tensor]:
    """A dictionary of ordinary tensors; everything else is refused."""
    try:
        return read_tensors(content)
    except Exception as error:  # a damaged file may break the reader in more ways than one
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LinksError(
            f"{path}: not read: {reason[:300].rstrip('.')}; give the state dict of one link, or "
            f"{REMEDY}."
        ) from error


def _one_dtype(path: Path, state: Mapping[str, Tensor]) -> str:
    names = {dtype: name for name, dtype in DTYPES.items()}
    first_key, first = next(iter(state.items()))
    for key, tensor in state.items():
        if tensor.dtype not in names or tensor.dtype != first.dtype:
            raise LinksError(
                f"{path}: key {key!r} is {tensor.dtype}, {first_key!r} is {first.dtype}; a "
                f"released link is all {' or all '.join(DTYPES)}; {REMEDY}."
            )
    return names[first.dtype]


def _check_shapes(
    path: Path, state: Mapping[str, Tensor], ours: Mapping[str, str], outer: bool
) -> None:
    """Check every shape against the two widths, which the gains of the two LayerNorms give."""
    theirs = {n: t for t, n in ours.items()}
    gains = [state[theirs[f"{n}.weight"]] for n in ("pre_ln", "post_ln")]
    source, target = (max(1, math.prod(g.shape)) for g in gains)
    with torch.device("meta"):
        wanted = make_link(source, target, outer=outer, norm="layernorm").state_dict()
    if not outer and source != target:
        wanted["post_ln.weight"] = torch.empty(source, device="meta")
    for key, name in ours.items():
        if state[key].shape != wanted[name].shape:
            raise LinksError(
                f"{path}: key {key!r} has shape {tuple(state[key].shape)}, but widths {source} to "
                f"{target} need {tuple(wanted[name].shape)}; {REMEDY}."
            )

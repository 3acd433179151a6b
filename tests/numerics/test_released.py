"""The released layout both ways: equal outputs, equal bits, and what is refused."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from released import (
    EDGES,
    TOPOLOGY,
    WIDTHS,
    edit_json,
    inner_state,
    outer_state,
    save,
    write_released,
)
from tiny import SEQUENTIAL

from rmas_train.config import EdgeConfig, TopologyConfig
from rmas_train.errors import LinksError
from rmas_train.release.export import export_links
from rmas_train.release.families import FAMILIES
from rmas_train.release.released import find_repositories, read_released
from rmas_train.release.released_file import fold_norm, read_link, write_link
from rmas_train.topology import build_topology

OUTER = "Sequential-Light-Outerlinks"


def layer_norm(x, gain, bias):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5) * gain + bias


def released_formula(state, x, source_ln, target_ln, outer):
    """The released modules, written out on the file's own keys."""
    p = {k: v.double() for k, v in state.items()}
    h = layer_norm(x, p[f"{source_ln}.weight"], p[f"{source_ln}.bias"])
    h = h @ p["proj1.weight"].T + p["proj1.bias"]
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    h = h @ p["proj2.weight"].T + p["proj2.bias"]
    rest = x @ p["residual_proj.weight"].T + p["residual_proj.bias"] if outer else x
    return layer_norm(h + rest, p[f"{target_ln}.weight"], p[f"{target_ln}.bias"])


def load(root, task="math", topology=TOPOLOGY):
    return read_released(find_repositories(root, topology.agents), topology, task)


@pytest.mark.parametrize("form", ["tasks", "adapters", "local"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_imported_links_are_their_formulas(tmp_path, form, dtype):
    released = load(write_released(tmp_path, form, dtype))
    assert released.widths == WIDTHS
    for name, one in released.links.items():
        state = torch.load(one.path, weights_only=True)
        link = one.link().double()
        x = torch.randn(5, link.d_source, dtype=torch.float64)
        ends = ("ln_source", "ln_target") if name.startswith("outer") else ("pre_ln", "post_ln")
        wanted = released_formula(state, x, *ends, name.startswith("outer"))
        torch.testing.assert_close(link(x), wanted, rtol=1e-12, atol=1e-12)
        assert str(state["proj1.weight"].dtype) == f"torch.{one.dtype}"


def test_the_task_chooses_the_files(tmp_path):
    write_released(tmp_path)
    for task in ("math", "code"):
        for one in load(tmp_path, task).links.values():
            assert f"({task})" in one.path.name
    assert "(math)" in load(tmp_path, None).links["inner.planner"].path.name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_is_written_and_read(tmp_path, family):
    """Legacy keys, file names and manifests of all four; both layouts."""
    agents = sorted({a for edge in family.keys for a in edge.split("-")})
    widths = {a: 8 + 4 * i for i, a in enumerate(agents)}
    decoder = {"sequential": "solver", "mixture": "summarizer", "distillation": "learner"}
    config = TopologyConfig(
        name=family.name,
        order=agents,
        edges=[
            EdgeConfig(source=s, target=t, next_round=True)
            for s, t in (e.split("-") for e in family.keys)
        ],
        decoder=decoder.get(family.name, "toolcaller"),
    )
    topology = build_topology(config, agents)
    folder = save(tmp_path / "ours", topology, config, widths)
    for layout in ("hub", "local"):
        out = tmp_path / layout
        export_links(folder, out, None, layout)
        released = load(out, None, topology)
        assert released.family is family and released.widths == widths
        names = {p.name for p in (out / "outerlinks").iterdir()}
        first, key = next(iter(family.keys.items()))
        source, target = (a.capitalize() for a in first.split("-"))
        suffix = "(math)" if family.has_tasks else ""
        assert (f"{source}-{target}-Outerlink{suffix}.pt" in names) == (layout == "hub")
        assert (f"{key}.pt" in names) == (layout == "local")
        assert not list(out.rglob("*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("outer", [False, True])
def test_import_then_export_is_bit_equal(tmp_path, dtype, outer):
    state = outer_state(6, 10, dtype) if outer else inner_state(6, dtype)
    state["proj1.bias"][0] = -0.0
    torch.save(state, tmp_path / "theirs.pt")
    one = read_link(tmp_path / "theirs.pt", outer)
    write_link(tmp_path / "ours.pt", one.link(), one.dtype)
    back = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert set(back) == set(state)
    kind = torch.int32 if dtype == torch.float32 else torch.int16
    for key, tensor in state.items():
        assert back[key].dtype == dtype and torch.equal(back[key].view(kind), tensor.view(kind))


def test_links_trained_further_are_not_rounded(tmp_path):
    torch.save(inner_state(6, torch.bfloat16), tmp_path / "theirs.pt")
    link = read_link(tmp_path / "theirs.pt", False).link().requires_grad_(False)
    link.proj1.weight[0, 0] += 1e-5
    write_link(tmp_path / "ours.pt", link, "bfloat16")
    assert (
        torch.load(tmp_path / "ours.pt", weights_only=True)["proj1.weight"].dtype is torch.float32
    )


@pytest.mark.parametrize("scale", [0.013, 3.7])
def test_the_norm_scalar_is_folded_into_the_closing_layer_norm(tmp_path, scale):
    folder = save(tmp_path / "ours", TOPOLOGY, SEQUENTIAL, WIDTHS, scale=scale)
    notes = export_links(folder, tmp_path / "out", None, "hub")
    assert any("closing LayerNorm" in note for note in notes)
    from rmas_train.links.restore import restore_links

    ours = restore_links(folder)[2].links()
    for name, one in load(tmp_path / "out").links.items():
        assert ours[name].scale != 1
        x = torch.randn(20, one.d_source, dtype=torch.float64)
        wanted, seen = ours[name].double()(x), one.link().double()(x)
        torch.testing.assert_close(seen, wanted, rtol=1e-6, atol=1e-6 * scale)
        assert one.dtype == "float32"


def test_folding_leaves_the_link_alone():
    from rmas_train.links.modules import make_link

    link = make_link(6, 6, outer=False, target_norm=2.0)
    before = {k: v.clone() for k, v in link.state_dict().items()}
    fold_norm(link)["post_ln.weight"].zero_()
    assert all(torch.equal(v, before[k]) for k, v in link.state_dict().items())


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"edge_input": "hidden"}, "links.edge_input=hidden"),
        ({"shared_space": 24}, "links.shared_space=24 .* links.shared_space=null"),
        ({"variant": "res_2layer"}, "links.variant=res_2layer"),
    ],
)
def test_what_the_release_cannot_say_is_refused(tmp_path, options, needle):
    folder = save(tmp_path / "ours", TOPOLOGY, SEQUENTIAL, WIDTHS, **options)
    with pytest.raises(LinksError, match=needle):
        export_links(folder, tmp_path / "out", None, "hub")
    assert not (tmp_path / "out").exists()


def test_a_topology_without_released_names_is_refused(tmp_path):
    config = TopologyConfig(
        name="pair",
        order=["a", "b"],
        edges=[EdgeConfig(source="a", target="b")],
        decoder="b",
    )
    folder = save(tmp_path / "ours", build_topology(config, "ab"), config, {"a": 4, "b": 6})
    with pytest.raises(LinksError, match="edge a-b has no name in the release"):
        export_links(folder, tmp_path / "out", None, "hub")


def test_export_does_not_write_over_anything(tmp_path):
    folder = save(tmp_path / "ours", TOPOLOGY, SEQUENTIAL, WIDTHS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(LinksError, match="not empty"):
        export_links(folder, tmp_path / "out", None, "hub")
    assert (tmp_path / "out" / "mine").read_text() == "mine"


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


PLANNER = "Sequential-Light-Planner-Model-1.7B"
FIRST = "Planner-Critic-Outerlink(math).pt"


def change_state(edit):
    def apply(root):
        state = torch.load(root / OUTER / FIRST, weights_only=True)
        edit(state)
        torch.save(state, root / OUTER / FIRST)

    return apply


def change_manifest(edit):
    return lambda root: edit_json(
        root / OUTER / "outerlink_config.json", lambda m: edit(m["tasks"]["math"]["adapters"])
    )


def nan(state):
    state["proj1.bias"][0] = math.nan


def mix(state):
    state["proj1.bias"] = state["proj1.bias"].float()


def truncate(root):
    path = root / OUTER / FIRST
    path.write_bytes(path.read_bytes()[:-300])


def link_out(root):
    path = root / OUTER / FIRST
    path.rename(root.parent / "elsewhere.pt")
    path.symlink_to(root.parent / "elsewhere.pt")


DAMAGES = {
    "missing key": (
        change_state(lambda s: s.pop("ln_target.bias")),
        "missing key 'ln_target.bias'",
    ),
    "unexpected key": (change_state(lambda s: s.update(x=torch.ones(1))), "unexpected key 'x'"),
    "integers": (
        change_state(lambda s: s.update({k: v.long() for k, v in s.items()})),
        "torch.int64",
    ),
    "two dtypes": (change_state(mix), "'proj1.bias' is torch.float32"),
    "NaN": (change_state(nan), "key proj1.bias holds NaN"),
    "a list": (change_state(lambda s: s.update(x=[1.0])), "key 'x' holds list"),
    "inner shape": (
        change_state(lambda s: s.update({"proj1.weight": torch.ones(3, 3).bfloat16()})),
        "key 'proj1.weight' has shape (3, 3), but widths 24 to 32 need (64, 24)",
    ),
    "truncated": (truncate, "not read"),
    "garbage": (lambda r: (r / OUTER / FIRST).write_bytes(b"hello"), "not read"),
    "empty": (lambda r: (r / OUTER / FIRST).write_bytes(b""), "not read"),
    "a directory": (
        lambda r: ((r / OUTER / FIRST).unlink(), (r / OUTER / FIRST).mkdir()),
        "check the path",
    ),
    "other widths": (
        lambda r: torch.save(outer_state(24, 30, torch.bfloat16), r / OUTER / FIRST),
        "out_dim 32, but Planner-Critic-Outerlink(math).pt has width 30",
    ),
    "outside": (
        change_manifest(lambda a: a[0].update(filename="../elsewhere.pt")),
        "'../elsewhere.pt', which is no file of the folder itself",
    ),
    "absolute": (change_manifest(lambda a: a[0].update(filename="/etc/x.pt")), "'/etc/x.pt'"),
    "symbolic link": (link_out, "outside the folder"),
    "absent": (change_manifest(lambda a: a[0].update(filename="x.pt")), "'x.pt', which is not"),
    "twice": (change_manifest(lambda a: a.append(a[0])), "two files for outer_12"),
    "one less": (change_manifest(lambda a: a.pop()), "no file for outer_31 (solver-planner)"),
    "no file name": (change_manifest(lambda a: a[0].pop("filename")), "filename is missing"),
    "another type": (
        change_manifest(lambda a: a[0].update(adapter_type="outer_res_adapter")),
        "adapter_type 'outer_res_adapter'",
    ),
    "not JSON": (
        lambda r: (r / OUTER / "outerlink_config.json").write_text("{"),
        "outerlink_config.json: not JSON",
    ),
    "no list": (
        lambda r: (r / OUTER / "outerlink_config.json").write_text('{"adapters": 3}'),
        "key adapters is 3",
    ),
    "inner type": (
        lambda r: edit_json(
            r / PLANNER / "adapter_config.json", lambda c: c.update(adapter_type="res_adapter")
        ),
        "adapter_type 'res_adapter'",
    ),
    "no adapter": (
        lambda r: edit_json(
            r / PLANNER / "innerlink_config.json",
            lambda c: c["tasks"]["math"].update({"adapter.pt": "adapter(maths).pt"}),
        ),
        "'adapter(maths).pt', which is not there",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_releases_end_in_one_line(tmp_path, name):
    damage, needle = DAMAGES[name]
    root = write_released(tmp_path / "theirs")
    damage(root)
    with pytest.raises(LinksError) as error:
        load(root)
    text = str(error.value)
    assert needle in text and len(text.splitlines()) == 1 and str(root) in text


def test_a_link_of_other_agents_names_file_key_and_both_widths(tmp_path):
    root = write_released(tmp_path / "theirs")
    torch.save(outer_state(26, 32, torch.bfloat16), root / OUTER / FIRST)
    change_manifest(lambda a: a[0].update(in_dim=26))(root)
    with pytest.raises(LinksError, match=r"ln_source.weight' has shape \(26,\), .*\(24,\)"):
        load(root)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_in_it_is_refused_unread(tmp_path, old):
    root, trap = write_released(tmp_path / "theirs"), tmp_path / "sprung"
    path = root / OUTER / FIRST
    if old:
        path.write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save({"proj1.weight": Trap(trap)}, path)
    with pytest.raises(LinksError, match="could run code|not read"):
        load(root)
    assert not trap.exists()


def test_a_link_that_is_not_there_is_told_beside_one_that_is_not_read(tmp_path):
    root = write_released(tmp_path / "theirs")
    change_manifest(lambda a: a[0].update(legacy_key="outer_13"))(root)
    with (
        pytest.warns(UserWarning, match="'outer_13' is none of sequential's"),
        pytest.raises(LinksError, match="no file for outer_12"),
    ):
        load(root)


def test_what_the_release_loads_is_loaded(tmp_path):
    """The critic's folder has the release's name; an inner manifest need not name the task; the
    outer one may name more links."""
    root = write_released(tmp_path / "theirs")
    wanted = load(root).links
    critic = next(p for p in root.iterdir() if "critic" in p.name.lower())
    critic.rename(root / "refiner_math")
    edit_json(root / PLANNER / "innerlink_config.json", lambda m: m["tasks"].pop("math"))
    more = {"legacy_key": "outer_14", "filename": "nowhere.pt"}
    edit_json(
        root / OUTER / "outerlink_config.json",
        lambda m: m["tasks"]["math"]["adapters"].append(more),
    )
    with pytest.warns(UserWarning, match="legacy_key 'outer_14' is none of sequential's"):
        found = load(root).links
    assert found.keys() == wanted.keys()
    for name, link in found.items():
        for key, value in wanted[name].tensors.items():
            assert torch.equal(link.tensors[key], value), (name, key)


def test_the_wrong_task_is_told(tmp_path):
    with pytest.raises(LinksError, match=r"no inner link \(adapter\(code\).pt or adapter.pt\)"):
        load(write_released(tmp_path / "hub", tasks=("math",)), "code")
    with pytest.raises(LinksError, match="mas_task is 'math', not code"):
        load(write_released(tmp_path / "local", "local"), "code")


def test_missing_and_ambiguous_repositories_are_told(tmp_path):
    root = write_released(tmp_path / "theirs")
    twin = root / "My-Planner"
    twin.mkdir()
    (twin / "adapter.pt").write_bytes(b"")
    with pytest.raises(LinksError, match="several folders for planner"):
        load(root)
    (twin / "adapter.pt").unlink()
    for file in (root / PLANNER).iterdir():
        file.unlink()
    with pytest.raises(LinksError, match="no repository for agent planner.*--repo planner="):
        load(root)


def test_the_manifests_of_an_export_are_the_public_ones(tmp_path):
    folder = save(tmp_path / "ours", TOPOLOGY, SEQUENTIAL, WIDTHS)
    export_links(folder, tmp_path / "out", "code", "hub")
    inner = json.loads((tmp_path / "out" / "planner" / "innerlink_config.json").read_text())
    assert inner["tasks"] == {"code": {"adapter.pt": "adapter(code).pt"}}
    outer = json.loads((tmp_path / "out" / "outerlinks" / "outerlink_config.json").read_text())
    entries = {e["legacy_key"]: e for e in outer["tasks"]["code"]["adapters"]}
    for key, (source, target) in EDGES.items():
        assert entries[key]["filename"] == f"{source}-{target}-Outerlink(code).pt"
        assert entries[key]["out_dim"] == WIDTHS[target.lower()]

"""Sprint 08's milestones on other people's weights. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import shared
from course.oracles import check, doing, refusal, require
from shared import Tensor
from shared.models.gpt import GPT, GPTConfig
from shared.models.hugging_face import from_hugging_face, to_hugging_face

CONFIG = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, dropout=0.0)
GOLDEN = Path(__file__).parents[3] / "tests" / "models" / "golden" / "gpt2.json"  # what transformers gave
IDS = [[0, 3, 6, 1, 1], [5, 2, 2, 4, 0]]
INNER = {  # ours: theirs, and whether it is (in, out) there
    "norm1.weight": ("ln_1.weight", False),
    "norm1.bias": ("ln_1.bias", False),
    "self_attention.in_proj.weight": ("attn.c_attn.weight", True),
    "self_attention.in_proj.bias": ("attn.c_attn.bias", False),
    "self_attention.out_proj.weight": ("attn.c_proj.weight", True),
    "self_attention.out_proj.bias": ("attn.c_proj.bias", False),
    "norm2.weight": ("ln_2.weight", False),
    "norm2.bias": ("ln_2.bias", False),
    "feed_forward.linear1.weight": ("mlp.c_fc.weight", True),
    "feed_forward.linear1.bias": ("mlp.c_fc.bias", False),
    "feed_forward.linear2.weight": ("mlp.c_proj.weight", True),
    "feed_forward.linear2.bias": ("mlp.c_proj.bias", False),
}
OUTER = {"token_embedding.weight": "wte.weight", "positions.weight": "wpe.weight"}
OUTER |= {"norm.weight": "ln_f.weight", "norm.bias": "ln_f.bias"}
HELPERS = {
    "c_attn.weight (8, 24), expected (24, 8)": "Theirs are (in, out) unless conv1d is False: _check has to expect the "
    "shapes w.shape[::-1] where w.transposed, and weights_of to know conv1d.",
    "c_attn.weight (24, 8), expected (8, 24)": "With conv1d=False the file has our order: weights_of has to know it.",
    "missing: h.0.attn.c_attn.bias": "h.0.attn.c_attn.bias is a weight; the masks are h.0.attn.bias and "
    "h.0.attn.masked_bias, which MASK knows by their whole names.",
    "is there twice": "Two names became one: “transformer.” is cut off where it stands in front, and nothing else.",
    "t() expects": "A bias has one dimension: only what `transposed` says is turned around.",
    "not enough values": "A Weight has four parts: theirs, ours, shape and transposed.",
    "KeyError": "",
    "lm_head.weight": "_tie puts the head where tied weights leave it out, if it is given the name of the "
    "embedding's table in that dict.",
    "transformer.": "_without_prefix makes names without “transformer.”.",
}


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights behind the golden values, by the rule of tests/models/make_hugging_face_golden.py."""
    rng = np.random.default_rng(list(name.encode()))
    return (rng.normal(size=shape) * 0.4 + ("ln_" in name and name.endswith("weight"))).round(3)


def table(config: GPTConfig = CONFIG) -> dict[str, tuple[str, bool]]:
    """{our name: (theirs with its prefix, whether it is transposed)} of everything but the head."""
    names = {ours: (f"transformer.{theirs}", False) for ours, theirs in OUTER.items()}
    for i in range(config.n_layer):
        for ours, (theirs, turned) in INNER.items():
            names[f"blocks.{i}.{ours}"] = f"transformer.h.{i}.{theirs}", turned
    return names


def theirs_of(config: GPTConfig = CONFIG, conv1d: bool = True) -> dict[str, Tensor]:
    """A state dict as GPT2LMHeadModel has it, in float64; the head is the table itself if weights are tied."""
    with doing("GPT(config)"):
        shapes = {name: tuple(x.shape) for name, x in GPT(config).state_dict().items()}
    state = {}
    for ours, (theirs, turned) in table(config).items():
        shape = shapes[ours]
        state[theirs] = shared.tensor(numbers(theirs, shape[::-1] if turned and conv1d else shape))
    wte = state["transformer.wte.weight"]
    state["lm_head.weight"] = wte if config.tie_weights else shared.tensor(numbers("lm_head.weight", shapes[OWN]))
    return state


OWN = "token_embedding.weight"


def same_names(what: str, found: Any, expected: set[str]) -> None:
    require(isinstance(found, dict), f"{what} returns a {type(found).__name__}, and not a dict {{name: tensor}}")
    missing, extra = sorted(expected - set(found)), sorted(set(found) - expected)
    if not missing and not extra:
        return
    looks = ""
    if extra == ["transformer.lm_head.weight"]:
        looks = "a prefix before lm_head.weight, which stands beside the transformer and not in it"
    elif missing == ["lm_head.weight"]:
        looks = "the head left out: our state dict has it under its own name, tied or not"
    elif extra and all(f"transformer.{name}" in missing for name in extra):
        looks = "the prefix “transformer.” forgotten"
    elif any("#" in name for name in extra):
        looks = "# in place of the block's number: weights_of has the names with numbers"
    elif any(name.startswith(("h.", "transformer.h.")) for name in extra):
        looks = "their names kept"
    elif any(name.startswith(("blocks.", "transformer.blocks.")) for name in extra):
        looks = "our names kept"
    told = f": that is what one gets from {looks}" if looks else ""
    require(False, f"{what} has other names than it should{told}.\nmissing: {missing[:4]}\nunexpected: {extra[:4]}")


def check_tensor(what: str, found: Tensor, source: Tensor, turned: bool) -> None:
    """`found` is `source`, transposed or not, and the same memory."""
    given, got = source.detach().numpy(), found.detach().numpy()
    right = given.T if turned else given
    wrong = {}
    if turned:
        wrong["the matrix as it came: theirs are (in, out), ours (out, in)"] = given
        wrong["a reshape, which keeps the order in memory: rows have to become columns, .t()"] = given.reshape(
            given.shape[::-1]
        )
    elif given.ndim == 2 and "conv1d=False" in what:
        wrong["a transpose, where conv1d=False says that the order is ours"] = given.T
    elif given.ndim == 2:
        wrong["a table transposed: only the blocks' four matrices are"] = given.T
    if what.endswith("out_proj.weight") or what.endswith("c_proj.weight"):
        wrong = {"a square matrix taken as it is: no shape says so, but it is transposed too": given} | wrong
    check(what, got, right, wrong, source="expected")
    require(
        np.shares_memory(got, given),
        f"{what} is a copy: views and the same Tensors do, and the weights of a large model are there once",
    )


def check_from(config: GPTConfig, conv1d: bool = True) -> dict[str, Tensor]:
    """from_hugging_face of a whole state dict."""
    state = theirs_of(config, conv1d)
    before = list(state)
    name = f"from_hugging_face(state, config{'' if conv1d else ', conv1d=False'})"
    with doing(f"{name} with tie_weights={config.tie_weights}", HELPERS):
        ours = from_hugging_face(state, config) if conv1d else from_hugging_face(state, config, conv1d=False)
    require(list(state) == before, "from_hugging_face changed the dict that it was given: make one of your own")
    same_names(name, ours, {*table(config), "lm_head.weight"})
    for own, (theirs, turned) in table(config).items():
        check_tensor(f"{name}: {own}", ours[own], state[theirs], turned and conv1d)
    check_tensor(f"{name}: lm_head.weight", ours["lm_head.weight"], state["lm_head.weight"], False)
    return ours


def told(what: str, call: Callable[[], Any], part: str, why: str) -> None:
    """`call` raises a RuntimeError with `part` in it."""
    try:
        said = refusal(call)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        kind = f"{type(error).__name__} ({error})"
        message = f"{what} ends in {kind}, and not in a RuntimeError that names every tensor at fault: {why}. It has to"
        require(False, f"{message} be called before the tensors are looked up.")
    require(said, f"{what} raises no RuntimeError: {why}")
    require(part in said, f"{what}: the RuntimeError does not name {part}, but says: {said}")


def check_errors() -> None:
    state = theirs_of()
    short = {name: x for name, x in state.items() if name != "transformer.h.1.mlp.c_fc.weight"}
    told(
        "from_hugging_face without h.1.mlp.c_fc.weight",
        lambda: from_hugging_face(short, CONFIG),
        "h.1.mlp.c_fc.weight",
        "a model with a matrix that was never loaded computes nonsense in silence; _check finds it",
    )
    more = state | {"transformer.h.2.ln_1.weight": shared.ones(8)}
    told(
        "from_hugging_face with a third block's norm",
        lambda: from_hugging_face(more, CONFIG),
        "h.2.ln_1.weight",
        "a tensor that the config has no place for means that it is the wrong config; _check finds it",
    )
    wide = state | {"transformer.wpe.weight": shared.ones(9, 8)}
    told(
        "from_hugging_face with nine positions, where block_size is 6",
        lambda: from_hugging_face(wide, CONFIG),
        "wpe.weight",
        "shapes have to be those of the config; _check compares them",
    )
    turned = state | {"transformer.h.0.mlp.c_fc.weight": shared.ones(32, 8)}
    told(
        "from_hugging_face with an mlp.c_fc.weight of shape (32, 8), where theirs is (8, 32)",
        lambda: from_hugging_face(turned, CONFIG),
        "h.0.mlp.c_fc.weight",
        "theirs are (in, out), and _check wants the shapes that should be there, turned around where `transposed`",
    )
    twice = state | {"wpe.weight": state["transformer.wpe.weight"]}
    told(
        "from_hugging_face with wpe.weight and transformer.wpe.weight",
        lambda: from_hugging_face(twice, CONFIG),
        "wpe.weight",
        "which of the two is meant?",
    )
    other = state | {"lm_head.weight": state["lm_head.weight"] + 1}
    told(
        "from_hugging_face with a head that is not the table, where tie_weights is True",
        lambda: from_hugging_face(other, CONFIG),
        "lm_head.weight",
        "one of the two tables would be lost; _check compares them",
    )


def check_old_file(ours: dict[str, Tensor], prefix: str) -> None:
    """No head, and each block's mask as buffers; names with the prefix or without."""
    bare = {name.removeprefix("transformer."): x for name, x in theirs_of().items() if name != "lm_head.weight"}
    for i in range(2):
        bare[f"h.{i}.attn.bias"], bare[f"h.{i}.attn.masked_bias"] = shared.ones(1, 1, 6, 6), shared.tensor(-1e4)
    file = f"an old file, names {'with' if prefix else 'without'} “transformer.”"
    masks = {
        "attn.bias": "h.0.attn.bias is the causal mask as a buffer, which is passed over; MASK knows the names.",
        "masked_bias": "h.0.attn.masked_bias is the mask's −10,000, which is passed over; MASK knows the names.",
    }
    if prefix:  # the file without it came first: what is wrong now is wrong because of the prefix
        asked = "MASK knows the short names: first cut “transformer.” off, then ask whether it is a mask's buffer."
        masks = dict.fromkeys(masks, asked)
    with doing(
        f"from_hugging_face of {file}, no head, mask buffers",
        {
            **masks,
            "is there twice": HELPERS["is there twice"],
            "missing: lm_head.weight": "With tied weights the head may be absent: it is the table. _tie knows.",
            "missing: wte.weight": f"Names may come {'with' if prefix else 'without'} “transformer.”.",
            "KeyError": f"Names may come {'with' if prefix else 'without'} “transformer.”.",
        },
    ):
        found = from_hugging_face({prefix + name: x for name, x in bare.items()}, CONFIG)
    same_names(f"from_hugging_face of {file}", found, set(ours))
    for name, x in found.items():
        check(f"from_hugging_face of {file}: {name}", x.tolist(), ours[name].tolist(), source="of the whole file")


def test_hugging_faces_weights_give_hugging_faces_logits():
    ours = check_from(CONFIG)
    model = GPT(CONFIG).double()
    with doing("load_state_dict of what from_hugging_face returns"):
        model.load_state_dict(ours)
    with shared.no_grad():
        found = model.eval()(shared.tensor(IDS))
    wanted = json.loads(GOLDEN.read_text(encoding="utf-8"))["logits"]
    check("the logits of two texts with Hugging Face's weights", found.tolist(), wanted, source="transformers")
    require(model.lm_head.weight is model.token_embedding.weight, "after loading the tied weights are two Parameters")
    check_from(replace(CONFIG, tie_weights=False))
    check_from(CONFIG, conv1d=False)
    check_old_file(ours, "")
    check_old_file(ours, "transformer.")
    check_errors()


def test_the_names_lead_back_and_the_tie_stays():
    for config, conv1d in ((CONFIG, True), (replace(CONFIG, tie_weights=False), True), (CONFIG, False)):
        state = theirs_of(config, conv1d)
        ours = {own: state[theirs] for own, (theirs, _) in table(config).items()}
        if conv1d:
            ours = {own: x.t() if table(config)[own][1] else x for own, x in ours.items()}
        if not config.tie_weights:
            ours["lm_head.weight"] = state["lm_head.weight"]  # else it may be absent
        given, name = list(ours), f"to_hugging_face(state, config{'' if conv1d else ', conv1d=False'})"
        with doing(f"{name} with tie_weights={config.tie_weights}", HELPERS):
            back = to_hugging_face(ours, config) if conv1d else to_hugging_face(ours, config, conv1d=False)
        require(list(ours) == given, "to_hugging_face changed the dict that it was given: make one of your own")
        same_names(name, back, set(state))
        for own, (theirs, turned) in table(config).items():
            check_tensor(f"{name}: {theirs}", back[theirs], ours[own], turned and conv1d)
        check_tensor(f"{name}: lm_head.weight", back["lm_head.weight"], state["lm_head.weight"], False)
        with doing("there and back", HELPERS):
            again = from_hugging_face(back, config, conv1d)
        for own, x in ours.items():
            check(f"to_hugging_face and from_hugging_face: {own}", again[own].tolist(), x.tolist(), source="before")
    bare = {name: x for name, x in ours.items() if name != "norm.bias"}
    told(
        "to_hugging_face without norm.bias",
        lambda: to_hugging_face(bare, CONFIG, conv1d=False),
        "norm.bias",
        "what is missing would be missing there; _check finds it",
    )
    model = GPT(CONFIG)
    file = io.BytesIO()
    with doing("a model's weights saved under their names, and loaded into another model"):
        shared.save(to_hugging_face(model.state_dict(), CONFIG), file)
        file.seek(0)
        other = GPT(CONFIG)
        other.load_state_dict(from_hugging_face(shared.load(file), CONFIG))
    require(
        other.lm_head.weight is other.token_embedding.weight, "saved and loaded, the tied weights are two Parameters"
    )
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        check(f"saved and loaded: {name}", b.tolist(), a.tolist(), tolerance=0.0, source="before")

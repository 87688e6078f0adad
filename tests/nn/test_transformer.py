"""PyTorch's transformer layers: values, gradients, training and errors are PyTorch's; what must hold of them holds."""

import importlib.util

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import functional as F
from shared.nn.transformer import _is_causal_mask

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # PyTorch's, about its own fast path
SEQ, MEM, BATCH, WIDTH = 5, 4, 3, 8


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def hidden(*shape, seed=0):
    """A boolean mask, True where a key is hidden; no row hides everything."""
    mask = np.random.default_rng([seed, *shape]).random(shape) < 0.4
    mask[..., 0] = False
    return mask


CAUSAL = np.triu(np.ones((SEQ, SEQ), bool), 1)
ADDED = np.where(CAUSAL, -np.inf, 0.0)
PADDING, MEMORY_PADDING = hidden(BATCH, SEQ), hidden(BATCH, MEM)
PER_HEAD = hidden(BATCH * 2, SEQ, SEQ)

LAYERS = [
    "(8, 2, 16, 0.0)",
    "(8, 2, 16, 0.0, batch_first=True)",
    "(8, 2, 16, 0.0, norm_first=True, batch_first=True)",
    "(8, 4, 12, 0.0, 'gelu', 1e-3, True, True)",
    "(8, 1, 12, 0.0, activation=F.silu, bias=False, batch_first=True)",
    "(8, 2, 16, 0.0, activation=nn.GELU('tanh'), bias=False, norm_first=True)",
]
ENCODER_MASKS = {
    "none": {},
    "causal": {"src_mask": ADDED},
    "causal, boolean, with the hint": {"src_mask": CAUSAL, "is_causal": True},
    "added": {"src_mask": numbers(SEQ, SEQ)},
    "for each head": {"src_mask": PER_HEAD},
    "padding": {"src_key_padding_mask": PADDING},
    "padding, added": {"src_key_padding_mask": np.where(PADDING, -np.inf, 0.0)},
    "causal and padding": {"src_mask": CAUSAL, "src_key_padding_mask": PADDING, "is_causal": True},
    "added and padding, added": {"src_mask": ADDED, "src_key_padding_mask": np.where(PADDING, -np.inf, 0.0)},
}
DECODER_MASKS = {
    "none": {},
    "causal": {"tgt_mask": ADDED, "tgt_is_causal": True},
    "causal, boolean": {"tgt_mask": CAUSAL},
    "memory": {"memory_mask": hidden(SEQ, MEM)},
    "memory, added": {"memory_mask": numbers(SEQ, MEM)},
    "padding": {"tgt_key_padding_mask": PADDING, "memory_key_padding_mask": MEMORY_PADDING},
    "all": {
        "tgt_mask": CAUSAL,
        "memory_mask": hidden(SEQ, MEM),
        "tgt_key_padding_mask": PADDING,
        "memory_key_padding_mask": MEMORY_PADDING,
        "tgt_is_causal": True,
    },
}
TRANSFORMER_MASKS = {
    "none": {},
    "all": {
        "src_mask": hidden(MEM, MEM, seed=1),
        "tgt_mask": CAUSAL,
        "memory_mask": hidden(SEQ, MEM),
        "src_key_padding_mask": MEMORY_PADDING,
        "tgt_key_padding_mask": PADDING,
        "memory_key_padding_mask": MEMORY_PADDING,
    },
    "hints": {"tgt_mask": ADDED, "tgt_is_causal": True},
}


def build(library, expression):
    return eval(expression, {"nn": library.nn, "F": library.nn.functional}).double()


def outcome(library, module, inputs, masks):
    """The output, and the gradients by the inputs and by all parameters, as arrays."""
    tensors = [library.tensor(x, requires_grad=True) for x in inputs]
    masks = {k: library.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()}
    out = module(*tensors, **masks)
    (out * library.tensor(numbers(*out.shape, seed=2))).sum().backward()
    found = {"output": out, **{f"input {i}": x.grad for i, x in enumerate(tensors)}}
    found |= {name: p.grad for name, p in module.named_parameters()}
    return {name: x.detach().numpy() for name, x in found.items()}


def compare_with_pytorch(expression, inputs, masks):
    import torch

    torch.manual_seed(0)
    theirs, ours = build(torch, expression), build(shared, expression)
    for p in theirs.parameters():  # so that biases of 0 and weights of 1 hide nothing
        p.data += 0.1 * torch.from_numpy(numbers(*p.shape, seed=3))
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    wanted = outcome(torch, theirs, inputs, masks)
    found = outcome(shared, ours, inputs, masks)
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-11, err_msg=name)


def sequences(expression, *lengths):
    first = "batch_first=True" in expression or "True, True" in expression
    return [numbers(*((BATCH, n) if first else (n, BATCH)), WIDTH, seed=n) for n in lengths]


@needs_torch
@pytest.mark.parametrize("masks", ENCODER_MASKS.values(), ids=ENCODER_MASKS)
@pytest.mark.parametrize("options", LAYERS)
def test_encoder_layers_are_pytorchs(options, masks):
    if "src_mask" in masks and len(masks["src_mask"]) == len(PER_HEAD):
        heads = int(options[4])
        masks = {"src_mask": hidden(BATCH * heads, SEQ, SEQ)}
    compare_with_pytorch(f"nn.TransformerEncoderLayer{options}", sequences(options, SEQ), masks)


@needs_torch
@pytest.mark.parametrize("masks", DECODER_MASKS.values(), ids=DECODER_MASKS)
@pytest.mark.parametrize("options", LAYERS)
def test_decoder_layers_are_pytorchs(options, masks):
    compare_with_pytorch(f"nn.TransformerDecoderLayer{options}", sequences(options, SEQ, MEM), masks)


@needs_torch
@pytest.mark.parametrize("norm", ["None", "nn.LayerNorm(8)"])
@pytest.mark.parametrize("masks", ENCODER_MASKS.values(), ids=ENCODER_MASKS)
def test_stacks_are_pytorchs(masks, norm):
    layer = "(8, 2, 16, 0.0, batch_first=True)"
    named = {k.replace("src_mask", "mask"): v for k, v in masks.items()}
    stack = f"nn.TransformerEncoder(nn.TransformerEncoderLayer{layer}, 2, {norm})"
    compare_with_pytorch(stack, sequences(layer, SEQ), named)
    named = {f"tgt_{k.removeprefix('src_')}": v for k, v in masks.items()}
    stack = f"nn.TransformerDecoder(nn.TransformerDecoderLayer{layer}, 2, {norm})"
    compare_with_pytorch(stack, sequences(layer, SEQ, MEM), named)


@needs_torch
@pytest.mark.parametrize("masks", TRANSFORMER_MASKS.values(), ids=TRANSFORMER_MASKS)
@pytest.mark.parametrize("options", ["batch_first=True", "norm_first=True, activation='gelu'", "bias=False"])
def test_transformers_are_pytorchs(options, masks):
    expression = f"nn.Transformer(8, 2, 2, 2, 16, 0.0, {options})"
    compare_with_pytorch(expression, sequences(options, MEM, SEQ), masks)


@needs_torch
@pytest.mark.parametrize("options", LAYERS[1:3])
def test_one_sequence_without_a_batch_is_pytorchs(options):
    x, memory = numbers(SEQ, WIDTH), numbers(MEM, WIDTH)
    masks = {"src_mask": CAUSAL, "src_key_padding_mask": PADDING[0]}
    compare_with_pytorch(f"nn.TransformerEncoderLayer{options}", [x], masks)
    masks = {"tgt_mask": ADDED, "memory_key_padding_mask": MEMORY_PADDING[0]}
    compare_with_pytorch(f"nn.TransformerDecoderLayer{options}", [x, memory], masks)
    compare_with_pytorch("nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)", [memory, x], {"tgt_mask": ADDED})


# ---------------------------------------------------------------- training


def language_model(library):
    """Reads tokens, predicts each next one: an encoder with a causal mask."""
    nn = library.nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 16)
            layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True)
            self.stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False)
            self.head = nn.Linear(16, 11, bias=False)

        def forward(self, tokens):
            mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1] - 1)
            logits = self.head(self.stack(self.embed(tokens[:, :-1]), mask=mask, is_causal=True))
            return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return Model()


def translator(library):
    """Reads a padded source, predicts its target: the whole transformer, as in the paper."""
    nn = library.nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 16, padding_idx=0)
            self.transformer = nn.Transformer(16, 2, 1, 1, 32, 0.0, batch_first=True)
            self.head = nn.Linear(16, 11)

        def forward(self, tokens):
            padding = tokens == 0
            target = tokens.flip(1)
            mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]).bool()
            out = self.transformer(
                self.embed(tokens),
                self.embed(target),
                tgt_mask=mask,
                src_key_padding_mask=padding,
                memory_key_padding_mask=padding,
            )
            return nn.functional.cross_entropy(self.head(out).flatten(0, 1), target.flatten(), ignore_index=0)

    return Model()


def losses_of_training(library, program, state=None):
    model = program(library)
    if state is not None:
        model.load_state_dict(state)
    start = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.integers(1, 3, (16, 9)), axis=1) % 10 + 1
    tokens[np.arange(9) > rng.integers(4, 9, (16, 1))] = 0
    tokens = library.from_numpy(tokens)
    optimizer = library.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = model(tokens)
        loss.backward()
        library.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return start, np.array(losses)


@needs_torch
@pytest.mark.parametrize("program", [language_model, translator])
def test_losses_over_steps_of_adamw_are_pytorchs(program):
    import torch

    torch.manual_seed(0)
    state, theirs = losses_of_training(torch, program)
    _, ours = losses_of_training(shared, program, state)
    assert theirs[-1] < 0.7 * theirs[0], "the program learns something"
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


# ---------------------------------------------------------------- errors


def small(library, **options):
    return library.nn.Transformer(8, 2, 1, 1, 16, 0.0, **options)


ERRORS = {
    "another batch": (lambda t: small(t)(t.zeros(5, 3, 8), t.zeros(4, 2, 8)), "batch number of src and tgt"),
    "another batch, first": (
        lambda t: small(t, batch_first=True)(t.zeros(3, 5, 8), t.zeros(2, 5, 8)),
        "batch number of src and tgt",
    ),
    "another width of src": (lambda t: small(t)(t.zeros(5, 3, 7), t.zeros(4, 3, 8)), "feature number of src and tgt"),
    "another width of tgt": (lambda t: small(t)(t.zeros(5, 3, 8), t.zeros(4, 3, 9)), "feature number of src and tgt"),
    "activation": (lambda t: small(t, activation="tanh"), "activation should be relu/gelu, not tanh"),
    "width of a layer": (lambda t: t.nn.TransformerEncoderLayer(8, 2)(t.zeros(4, 3, 6)), "embed"),
    "hint without a mask": (
        lambda t: t.nn.TransformerEncoderLayer(8, 2)(t.zeros(4, 3, 8), is_causal=True),
        "Need attn_mask if specifying the is_causal hint",
    ),
    "shape of a mask": (
        lambda t: t.nn.TransformerEncoderLayer(8, 2)(t.zeros(4, 3, 8), t.zeros(5, 5)),
        r"The shape of the 2D attn_mask is .*5, 5.* but should be .*4, 4",
    ),
    "shape of a padding mask": (
        lambda t: t.nn.TransformerEncoderLayer(8, 2)(t.zeros(4, 3, 8), src_key_padding_mask=t.zeros(4, 3).bool()),
        "key_padd",
    ),
    "dtype of a mask": (
        lambda t: t.nn.TransformerEncoderLayer(8, 2)(t.zeros(4, 3, 8), t.zeros(4, 4).long()),
        "only bool and floating types of .*mask are supported",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_what_does_not_fit_is_refused_as_pytorch_does(call, message):
    with pytest.raises((RuntimeError, AssertionError, ValueError), match=message) as ours:
        call(shared)
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    with pytest.raises((RuntimeError, AssertionError, ValueError)) as theirs:
        call(torch)
    assert ours.type is theirs.type


def test_errors_name_the_shapes():
    with pytest.raises(RuntimeError, match=r"\(5, 3, 8\).*\(4, 2, 8\)"):
        small(shared)(shared.zeros(5, 3, 8), shared.zeros(4, 2, 8))
    with pytest.raises(RuntimeError, match=r"d_model=8.*\(5, 3, 7\).*\(4, 3, 8\)"):
        small(shared)(shared.zeros(5, 3, 7), shared.zeros(4, 3, 8))
    with pytest.raises(TypeError, match="'relu', 'gelu' or a function"):
        nn.TransformerEncoderLayer(8, 2, activation=3)


# ---------------------------------------------------------------- how they are built


def test_the_causal_mask():
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    assert mask.dtype == shared.float32 and np.array_equal(
        mask.numpy(), np.where(np.triu(np.ones((4, 4)), 1), -np.inf, 0)
    )
    assert (
        nn.Transformer(8, 2, 1, 1, 16).generate_square_subsequent_mask(2, dtype=shared.float64).dtype == shared.float64
    )


def test_a_causal_mask_is_recognised_and_no_other_is():
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    assert _is_causal_mask(causal) and _is_causal_mask(causal.double()) and _is_causal_mask(causal != 0)
    shifted = shared.triu(shared.full((4, 4), float("-inf")), 0)
    for mask in (None, causal[:3], causal[:, :3], causal[None], shifted, shared.zeros(4, 4), (causal == 0), causal.T):
        assert not _is_causal_mask(mask)


def test_copies_start_alike_and_are_their_own():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    stack = nn.TransformerEncoder(layer, 3)
    weights = [x.linear1.weight for x in (layer, *stack.layers)]
    assert len({id(w) for w in weights}) == 4 and all(shared.equal(w, weights[0]) for w in weights)
    stack.layers[0].linear1.weight.data.zero_()
    assert (weights[0] != 0).any() and (weights[2] != 0).any()


def test_matrices_of_a_transformer_start_xavier_uniform():
    shared.manual_seed(0)
    model = nn.Transformer(64, 4, 2, 2, 256)
    layers = [*model.encoder.layers, *model.decoder.layers]
    for layer in layers:
        values = layer.linear1.weight.numpy(force=True)
        bound = (6 / (64 + 256)) ** 0.5
        assert 0.97 * bound < abs(values).max() <= bound
        values = layer.self_attn.in_proj_weight.numpy(force=True)
        bound = (6 / (64 + 192)) ** 0.5
        assert 0.97 * bound < abs(values).max() <= bound
    first = [layer.linear1.weight for layer in layers]
    assert not any(shared.equal(a, b) for i, a in enumerate(first) for b in first[:i]), "layers start differently"


@pytest.mark.parametrize("norm_first", [False, True])
def test_dropping_everything_leaves_the_residual(norm_first):
    """With dropout 1 every part gives 0: what is left is the way around it, and the norms that stand in that way."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=1.0, norm_first=norm_first)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, dropout=1.0, norm_first=norm_first)
    x, memory = shared.tensor(numbers(5, 3, 8)).float(), shared.ones(4, 3, 8)
    ways = [(layer(x), [layer.norm1, layer.norm2])]
    ways.append((decoder(x, memory), [decoder.norm1, decoder.norm2, decoder.norm3]))
    for found, norms in ways:
        wanted = x
        for norm in [] if norm_first else norms:
            wanted = norm(wanted)
        assert np.array_equal(found.numpy(force=True), wanted.numpy(force=True))


ENCODER_PARTS = ["self_attn", "dropout", "dropout1", "dropout2"]
DECODER_PARTS = [*ENCODER_PARTS, "multihead_attn", "dropout3"]


@pytest.mark.parametrize(
    ("kind", "part"),
    [(nn.TransformerEncoderLayer, p) for p in ENCODER_PARTS] + [(nn.TransformerDecoderLayer, p) for p in DECODER_PARTS],
)
def test_dropout_is_in_every_part_and_off_in_evaluation(kind, part):
    shared.manual_seed(0)
    layer, x = kind(8, 2, 16, dropout=0.5), shared.tensor(numbers(5, 3, 8)).float()
    inputs = (x,) if kind is nn.TransformerEncoderLayer else (x, x)
    assert shared.equal(layer.eval()(*inputs), layer(*inputs))
    module = layer.get_submodule(part).train()
    assert not shared.equal(layer(*inputs), layer(*inputs)), f"{part} drops nothing in training"
    assert (module.dropout if part.endswith("attn") else module.p) == 0.5


def test_parts_can_be_replaced_and_watched():
    class Shouting(nn.TransformerEncoderLayer):
        def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
            return super()._sa_block(x, attn_mask, key_padding_mask, is_causal) * 0

        def _ff_block(self, x):
            return super()._ff_block(x) * 0

    layer, x = Shouting(8, 2, 16, norm_first=True), shared.ones(5, 3, 8)
    seen = []
    layer.linear1.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    assert shared.equal(layer(x), x) and seen == [(5, 3, 16)]


def test_stacks_take_layers_of_ones_own():
    class Half(nn.Module):
        def forward(self, x, **kwargs):
            return x / 2

    model = nn.Transformer(
        8, 2, custom_encoder=nn.TransformerEncoder(Half(), 3), custom_decoder=lambda tgt, memory, **masks: tgt + memory
    )
    assert model(shared.ones(5, 3, 8), shared.ones(5, 3, 8)).unique().tolist() == [1.125]
    assert list(model.parameters()) == []


@pytest.mark.parametrize("activation", ["relu", F.relu, nn.ReLU()])
def test_an_activation_is_a_name_a_function_or_a_module(activation):
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation)
    assert ("activation" in dict(layer.named_children())) == isinstance(activation, nn.Module)
    assert layer._feed_forward(shared.ones(2, 8)).shape == (2, 8)


def test_gradients_of_gradients():
    layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, F.gelu, batch_first=True, norm_first=True).double()
    x = shared.tensor(numbers(1, 3, 4), requires_grad=True)
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=shared.float64)
    assert shared.testing.gradcheck(lambda x: layer(x, mask, is_causal=True), (x,))
    assert shared.testing.gradgradcheck(lambda x: layer(x, mask, is_causal=True), (x,))


# ---------------------------------------------------------------- properties

pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

shapes = st.tuples(st.integers(1, 3), st.integers(2, 9), st.sampled_from([1, 2, 4]), st.integers(0, 99))
few = settings(max_examples=25)


def stack(heads, seed, norm_first=False):
    shared.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(8, heads, 16, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(8)).double().eval()


@few
@given(shapes, st.booleans(), st.data())
def test_a_later_token_does_not_change_an_earlier_output(drawn, norm_first, data):
    batch, length, heads, seed = drawn
    model, x = stack(heads, seed, norm_first), numbers(batch, length, 8, seed=seed)
    place = data.draw(st.integers(1, length - 1), "the first token that changes")
    changed = x.copy()
    changed[:, place:] += numbers(batch, length - place, 8, seed=seed + 1)
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    mask = data.draw(st.sampled_from([mask.double(), mask.bool()]), "the mask")
    before, after = (model(shared.tensor(a), mask=mask).numpy(force=True) for a in (x, changed))
    np.testing.assert_allclose(after[:, :place], before[:, :place], rtol=1e-12, atol=1e-13)
    assert (abs(after[:, place:] - before[:, place:]).max(axis=(0, 2)) > 1e-9).all(), (
        "but it changes its own and later ones"
    )


@few
@given(shapes, st.data())
def test_padding_changes_nothing(drawn, data):
    """A batch of sequences of different lengths gives what each gives by itself."""
    batch, length, heads, seed = drawn
    model, x = stack(heads, seed), numbers(batch, length, 8, seed=seed)
    lengths = data.draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch), "lengths")
    padding = np.arange(length) >= np.array(lengths)[:, None]
    together = model(shared.tensor(x), src_key_padding_mask=shared.tensor(padding)).numpy(force=True)
    for row, n in enumerate(lengths):
        alone = model(shared.tensor(x[row : row + 1, :n])).numpy(force=True)[0]
        np.testing.assert_allclose(together[row, :n], alone, rtol=1e-10, atol=1e-12)


@few
@given(shapes, st.data())
def test_without_positions_a_permutation_of_the_tokens_permutes_the_output(drawn, data):
    batch, length, heads, seed = drawn
    model, x = stack(heads, seed), numbers(batch, length, 8, seed=seed)
    order = data.draw(st.permutations(range(length)), "order")
    np.testing.assert_allclose(
        model(shared.tensor(x[:, order])).numpy(force=True),
        model(shared.tensor(x)).numpy(force=True)[:, order],
        rtol=1e-10,
        atol=1e-12,
    )


@few
@given(shapes, st.integers(1, 5))
def test_sequence_first_and_batch_first_are_the_same(drawn, other):
    batch, length, heads, seed = drawn
    shared.manual_seed(seed)
    first = nn.Transformer(8, heads, 1, 1, 16, 0.0, batch_first=True).double()
    second = nn.Transformer(8, heads, 1, 1, 16, 0.0).double()
    second.load_state_dict(first.state_dict())
    src, tgt = (shared.tensor(numbers(batch, n, 8, seed=seed)) for n in (other, length))
    found = second(src.transpose(0, 1), tgt.transpose(0, 1)).transpose(0, 1)
    np.testing.assert_allclose(found.numpy(force=True), first(src, tgt).numpy(force=True), rtol=1e-10, atol=1e-12)

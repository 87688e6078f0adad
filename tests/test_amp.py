"""Mixed precision: which dtype each operation computes in, and the scale of the loss; compared with PyTorch's."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import nn
from shared.autocast_mode import entered, mode
from shared.autograd import checkpoint
from shared.models import GPT, GPTConfig, next_token_loss
from shared.ops.autocast import AS_IS, FLOAT32, LOWER, POLICIES, REFUSED, WIDEST, follows_autocast
from tests.cuda.emulator import COMPILER
from tests.cuda.stand_in import in_place_of_cupy

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch to compare with")
SHORT = ("bfloat16", "float16")

# What `t` calls return, "lower" or "float32", on the CPU and on a GPU. x, w and v are float32 with values in (0, 1),
# h is of the region's dtype.
PRODUCTS = """x @ w|x[0] @ x[1]|x @ h.mT|h @ w|t.matmul(x, w)|t.mm(x, w)|t.bmm(x[None], w[None])|t.addmm(x, x, w)
    t.einsum('ij,jk->ik', x, w)|t.einsum('bij,kj->bik', x[None], h)|F.linear(x, w)|F.linear(x, w, w[0])|F.linear(h, w)
    F.conv1d(x[None], w[:, :4, None])|F.conv2d(x[None, None], w[None, None, :2, :2])
    F.conv3d(x[None, None, None], w[None, None, None, :2, :2])|F.conv_transpose1d(x[None], w[:4, :, None])
    F.conv_transpose2d(x[None, None], w[None, None, :2, :2])
    F.conv_transpose3d(x[None, None, None], w[None, None, None, :2, :2])|F.prelu(x, w[0, :1])
    F.scaled_dot_product_attention(x[None, None], x[None, None], h[None, None])
    F.scaled_dot_product_attention(x[None], x[None], x[None], attn_mask=x[:, :4])"""
LOSSES = """F.cross_entropy(h, c)|F.cross_entropy(h, h)|F.cross_entropy(h, c, label_smoothing=0.1)|F.nll_loss(h, c)
    F.mse_loss(h, x)|F.mse_loss(h, h)|F.l1_loss(h, h)|F.smooth_l1_loss(h, h)|F.huber_loss(h, h)
    F.binary_cross_entropy_with_logits(h, h)|F.kl_div(h, h, reduction='sum')"""
WIDENED_ON_A_GPU = """h.exp()|h.expm1()|h.log()|h.log2()|h.log10()|h.log1p()|h.reciprocal()|h.rsqrt()|h.tan()|h.pow(2)
    h ** 2|h ** h|2.0 ** h|F.softplus(h)|h.softmax(-1)|F.softmax(h, -1)|h.log_softmax(-1)|F.softmin(h, -1)|h.logsumexp(0)
    h.sum()|h.sum(0)|t.sum(h, 1)|h.cumsum(0)|h.norm()|F.normalize(h)|F.cosine_similarity(h, h)
    F.layer_norm(h, (8,))|F.layer_norm(h, (8,), w[0], w[1])|F.rms_norm(h, (8,))|F.group_norm(h, 2)
    F.group_norm(h, 2, w[0], w[1])|F.interpolate(h[None], scale_factor=2)
    F.interpolate(h[None], scale_factor=2, mode='linear')|F.local_response_norm(h[None], 3)"""
WIDENED_ON_THE_CPU = """h.trace()|F.avg_pool3d(h[None, None, None], 1)|F.adaptive_avg_pool3d(h[None, None, None], 1)
    F.max_pool3d(h[None, None, None], 1)|F.adaptive_max_pool3d(h[None, None, None], 1)"""
KEPT = """h + h|h - 1|h * 2.0|h / 2|-h|h.abs()|h.sqrt()|h.sigmoid()|h.tanh()|F.relu(h)|F.gelu(h)|F.silu(h)|F.mish(h)|h.mean()
    h.var()|h.max()|h.amax(0)|h.reshape(-1)|h[0]|F.dropout(h)|t.cat([h, h])|F.batch_norm(h, None, None, training=True)
    F.max_pool2d(h[None], 2)|F.avg_pool2d(h[None], 2)|F.pad(h, (1, 1))|h.clamp(0, 1)|h.masked_fill(h > 0, 0.0)"""
WIDE = """h + x|h * x|t.cat([h, x])|t.stack([h, x])|t.where(h > 0, h, x)|x + 1|x.sum()|F.embedding(c, w)|F.gelu(x)
    F.layer_norm(x, (8,))|x.softmax(-1)|h.prod()|t.dot(x[0], x[1])|t.outer(x[0], x[1])|t.atan2(x, x)
    F.bilinear(x, x, v)|x.scatter_add(0, i, x)"""


def cases(text):
    return [line.strip() for line in re.split(r"[|\n]", text)]


def expected():
    for text, cpu, cuda in (
        (PRODUCTS, "lower", "lower"),
        (LOSSES, "float32", "float32"),
        (WIDENED_ON_A_GPU, "lower", "float32"),
        (WIDENED_ON_THE_CPU, "float32", "lower"),
        (KEPT, "lower", "lower"),
        (WIDE, "float32", "float32"),
    ):
        yield from [(case, cpu, cuda) for case in cases(text)]
    yield "t.mv(x, w[0])", "float32", "lower"
    yield "F.binary_cross_entropy(h, h)", "float32", None


EXPECTED = list(expected())
FOLLOWING = follows_autocast(len).__code__


def tensors(t, dtype, device="cpu"):
    numbers = np.random.RandomState(0).uniform(0.1, 0.9, (3, 8, 8)).astype("float32")
    made = {name: t.tensor(n, device=device) for name, n in (("x", numbers[0, :4]), ("w", numbers[1]), ("v", numbers))}
    classes = t.tensor([0, 3, 7, 7], device=device)
    places = t.tensor(np.zeros((4, 8), np.int64), device=device)
    h = made["x"].to(getattr(t, dtype))
    return made | {"h": h, "c": classes, "i": places, "t": t, "F": t.nn.functional}


def run(case, t, dtype, device="cpu"):
    names = tensors(t, dtype, device)
    with t.autocast(device, dtype=getattr(t, dtype)):
        return eval(case, names)


def dtype_name(x):
    return str(x.dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize(("case", "kind"), [(case, cpu) for case, cpu, _ in EXPECTED])
def test_each_operation_chooses_its_dtype_on_the_cpu(case, kind, dtype):
    assert dtype_name(run(case, shared, dtype)) == (dtype if kind == "lower" else kind)


@needs_torch
@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize(("case", "kind"), [(case, cpu) for case, cpu, _ in EXPECTED])
def test_each_operation_has_pytorchs_dtype_and_value_on_the_cpu(case, kind, dtype):
    ours, theirs = run(case, shared, dtype), run(case, torch, dtype)
    assert dtype_name(ours) == dtype_name(theirs)
    if "dropout" not in case:
        tolerance = {"bfloat16": 2e-2, "float16": 3e-3}[dtype]
        a, b = ours.detach().float().numpy(), theirs.detach().float().numpy()
        np.testing.assert_allclose(a, b, tolerance, tolerance)


@pytest.fixture
def stand_in():
    """device="cuda" is NumPy under another name."""
    if COMPILER is None:
        pytest.skip("needs g++ on Linux, which stands in for CUDA's compiler")
    with np.errstate(all="ignore"), in_place_of_cupy():
        yield


ON_A_GPU = [(case, cuda, "bfloat16") for case, _, cuda in EXPECTED if cuda]
ON_A_GPU += [(case, "lower", "float16") for case in cases(PRODUCTS)]


@pytest.mark.parametrize(("case", "kind", "dtype"), ON_A_GPU)
def test_each_operation_chooses_its_dtype_on_a_gpu(case, kind, dtype, stand_in):
    out = run(case, shared, dtype, "cuda")
    assert out.is_cuda and dtype_name(out) == (dtype if kind == "lower" else kind)
    if "dropout" not in case:
        exact = {name: x.double() if name in "xwvh" else x for name, x in tensors(shared, dtype).items()}
        tolerance = {"bfloat16": 2e-2, "float16": 3e-3}[dtype]
        wanted = eval(case, exact).numpy()
        np.testing.assert_allclose(out.cpu().double().numpy(), wanted, tolerance, tolerance)


@needs_torch
def test_the_lists_for_a_gpu_are_pytorchs():
    """The CPU's are not in a header: there the operations themselves are compared, above."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    if not header.exists():
        pytest.skip("this PyTorch comes without its headers")
    macros = re.findall(r"#define AT_FORALL_(\w+)\(_\)((?:.*\\\n)+.*)", header.read_text())
    lists = {name: set(re.findall(r"_\((?:ADD_NS\()?(\w+)", body)) for name, body in macros}
    here = set(dir(shared)) | set(dir(nn.functional))
    ours = {
        kind: {op for op, policy in POLICIES["cuda"].items() if policy is kind} for kind in POLICIES["cuda"].values()
    }
    wide = lists["FP32"] | lists["FP32_SET_OPT_DTYPE"] | lists["DIFFERENT_REDISPATCH_SIGNATURE"]
    assert {"matmul", "linear"} < lists["LOWER_PRECISION_FP"] and {"exp", "sum", "norm"} < wide
    assert ours[LOWER] - {"attention", "packed_attention"} == lists["LOWER_PRECISION_FP"] & here - {"mm", "bmm"}
    assert ours[FLOAT32] - {"resized", "cross_entropy"} == wide & here
    assert ours[WIDEST] == lists["PROMOTE"] & here - {"atan2", "dot"}  # which promote by themselves
    assert set(ours) == {LOWER, FLOAT32, WIDEST, AS_IS, REFUSED}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_lists_name_operations_that_follow_them(device):
    files = [m for name, m in sys.modules.items() if name.startswith("shared.ops.") or name == "shared.nn.functional"]
    following = {n for m in files for n, f in vars(m).items() if getattr(f, "__code__", None) is FOLLOWING}
    following |= {"sum", "prod", "cumsum", "norm", "logsumexp"}  # inside `numpy_names`
    assert set(POLICIES[device]) <= following
    assert following == {name for lists in POLICIES.values() for name in lists}


# ---------------------------------------------------------------- regions


def test_float64_and_integers_stay():
    x, n = shared.ones(2, 2, dtype=shared.float64), shared.ones(2, 2, dtype=shared.int64)
    with shared.autocast("cpu"):
        assert (x @ x).dtype == shared.float64 and (n @ n).dtype == shared.int64
        with pytest.raises(RuntimeError, match="matmul: expected both matrices to have the same dtype"):
            x @ x.float()


def test_regions_nest_and_end():
    x = shared.ones(2, 2)
    with shared.autocast("cpu"):
        with shared.autocast("cpu", dtype=shared.float16):
            assert (x @ x).dtype == shared.float16 == shared.get_autocast_dtype("cpu")
            with shared.autocast("cpu", enabled=False):
                assert (x @ x).dtype == shared.float32 and not shared.is_autocast_enabled("cpu")
        assert (x @ x).dtype == shared.bfloat16 and shared.is_autocast_enabled("cpu")
        assert not shared.is_autocast_enabled("cuda") and not shared.is_autocast_enabled()
    assert (x @ x).dtype == shared.float32 and not entered


def test_an_error_ends_the_region():
    with pytest.raises(ZeroDivisionError), shared.autocast("cpu"):
        raise ZeroDivisionError
    assert not shared.is_autocast_enabled("cpu") and not entered
    with shared.autocast("cpu"):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            shared.ones(2, 3) @ shared.ones(2, 3)
        assert shared.is_autocast_enabled("cpu")


def test_a_decorated_function_and_its_calls_of_itself():
    @shared.autocast("cpu", dtype=shared.bfloat16)
    def power(x, n):
        return x if n == 1 else power(x, n - 1) @ x

    assert power(shared.ones(2, 2), 3).dtype == shared.bfloat16
    assert not shared.is_autocast_enabled("cpu") and not entered


def test_a_thread_has_a_state_of_its_own():
    found = []
    with shared.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append((shared.ones(1, 1) @ shared.ones(1, 1)).dtype))
        thread.start()
        thread.join()
    assert found == [shared.float32]


def test_the_other_device_is_not_touched(stand_in):
    x = shared.ones(2, 2)
    with shared.autocast("cuda", dtype=shared.bfloat16):
        assert (x @ x).dtype == shared.float32 and (x.cuda() @ x.cuda()).dtype == shared.bfloat16


def test_wrong_device_types_and_dtypes_are_refused():
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'.*'cuda' and 'cpu'"):
        shared.autocast("tpu")
    with pytest.raises(ValueError, match="`device_type` of type `str`"):
        shared.autocast(shared.device("cpu"))
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'"):
        shared.is_autocast_enabled("tpu")
    with pytest.raises(TypeError, match="unknown dtype 'bf16'; expected one of .*bfloat16"):
        shared.autocast("cpu", dtype="bf16")
    with pytest.raises(TypeError, match="requires a callable, but got int"):
        shared.autocast("cpu")(3)
    with pytest.warns(UserWarning, match="CPU autocast, but the target dtype float32 is not supported. Disabling"):
        region = shared.autocast("cpu", dtype=shared.float32)
    with region:
        assert (shared.ones(1, 1) @ shared.ones(1, 1)).dtype == shared.float32


def test_without_a_gpu_autocast_for_it_is_off():
    if shared.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="CUDA is not available. Disabling autocast."):
        region = shared.autocast("cuda")
    with region:
        assert not shared.is_autocast_enabled("cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared.autocast("cuda", enabled=False)


def test_binary_cross_entropy_is_refused_on_a_gpu(stand_in):
    x = shared.full((2,), 0.5).cuda()
    with shared.autocast("cuda"), pytest.raises(RuntimeError, match="binary_cross_entropy is unsafe to autocast"):
        nn.functional.binary_cross_entropy(x, x)


# ---------------------------------------------------------------- gradients, and the casts of weights


@pytest.mark.parametrize("dtype", SHORT)
def test_parameters_and_their_gradients_stay_float32(dtype):
    shared.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
    x, y = shared.rand(5, 6, requires_grad=True), shared.tensor([0, 1, 2, 0, 1])
    exact = grads_of(model, x, y)
    with shared.autocast("cpu", dtype=getattr(shared, dtype)):
        loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    assert loss.dtype == x.grad.dtype == shared.float32
    for parameter, wanted in zip(model.parameters(), exact, strict=True):
        assert parameter.dtype == parameter.grad.dtype == shared.float32
        assert not np.array_equal(parameter.grad.numpy(), wanted)
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, 0.1, 0.01)


def grads_of(model, x, y):
    nn.functional.cross_entropy(model(x), y).backward()
    grads = [parameter.grad.numpy().copy() for parameter in model.parameters()]
    model.zero_grad()
    x.grad = None
    return grads


@needs_torch
@pytest.mark.parametrize("dtype", SHORT)
def test_gradients_are_pytorchs(dtype):
    found = []
    rng = np.random.RandomState(0)
    numbers = [rng.standard_normal(s).astype("float32") for s in ((40, 6), (16, 6), (16,), (16,), (16,), (3, 16))]
    for t in (shared, torch):
        x, w, b, gain, shift, head = leaves = [t.tensor(n, requires_grad=True) for n in numbers]
        with t.autocast("cpu", dtype=getattr(t, dtype)):
            hidden = t.nn.functional.linear(x, w, b)
            hidden = t.nn.functional.gelu(t.nn.functional.layer_norm(hidden, (16,), gain, shift))
            loss = t.nn.functional.cross_entropy(hidden @ head.mT, t.tensor(np.arange(40) % 3))
        loss.backward()
        found.append([loss.item(), *[leaf.grad.numpy() for leaf in leaves]])
        assert all(leaf.grad.dtype == t.float32 for leaf in leaves)
    tolerance = {"bfloat16": 4e-3, "float16": 5e-4}[dtype]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, 5 * tolerance, tolerance)


def test_gradients_of_short_dtypes_are_summed_in_float32():
    """Ones are lost beside 256 in bfloat16."""
    bias, x = shared.zeros(4, requires_grad=True), shared.ones(3000, 4)
    gain = shared.ones(1, requires_grad=True)
    with shared.autocast("cpu"):
        out = nn.functional.linear(x, shared.eye(4), bias)
        out = out * gain.bfloat16()
    out.backward(shared.ones(3000, 4, dtype=shared.bfloat16))
    assert bias.grad.tolist() == [3008.0] * 4 and gain.grad.tolist() == [12032.0]  # 3000, 12000 rounded to 8 bits


def test_a_weight_is_cast_once_in_a_region():
    w, x = shared.ones(2, 2, requires_grad=True), shared.ones(2, 2)
    with shared.autocast("cpu"):
        first = x @ w
        with shared.autocast("cpu"):
            second = x @ w
        assert first.grad_fn.edges[1] is second.grad_fn.edges[1] and len(mode.casts) == 1
        with shared.autocast("cpu", cache_enabled=False):
            assert not shared.is_autocast_cache_enabled()
            assert (x @ w).grad_fn.edges[1] is not first.grad_fn.edges[1]
    assert not mode.casts
    (first + second).sum().backward()
    assert w.grad.tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_only_weights_are_kept():
    w = shared.ones(2, 2, requires_grad=True)
    with shared.autocast("cpu"):
        _ = shared.ones(2, 2) @ shared.ones(2, 2), (w * 1) @ shared.ones(2, 2), w[:1] @ shared.ones(2, 2)
        assert not mode.casts
        _ = w @ shared.ones(2, 2)
        assert len(mode.casts) == 1
        shared.clear_autocast_cache()
        assert not mode.casts


def test_a_changed_weight_is_cast_anew():
    w = shared.ones(2, 2, requires_grad=True)
    with shared.autocast("cpu"):
        _ = w @ w
        with shared.no_grad():
            w.add_(1)
        assert (shared.ones(2, 2) @ w).tolist() == [[4.0, 4.0], [4.0, 4.0]]
        w.data = shared.full((2, 2), 5.0)
        assert (shared.ones(2, 2) @ w).tolist() == [[10.0, 10.0], [10.0, 10.0]]
        with shared.autocast("cpu", dtype=shared.float16):
            assert (shared.ones(2, 2) @ w).dtype == shared.float16


def test_training_inside_one_region():
    """Backward frees the graph of the casts, the step changes the weights, and evaluation records nothing."""
    w = shared.full((1, 1), 2.0, requires_grad=True)
    optimizer, seen = shared.optim.SGD([w], lr=0.25), []
    with shared.autocast("cpu"):
        for _ in range(3):
            with shared.no_grad():
                _ = shared.ones(1, 1) @ w
            optimizer.zero_grad()
            loss = ((shared.ones(1, 1) @ w) ** 2).sum()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    assert seen == [4.0, 1.0, 0.25]


def test_gradients_add_up_inside_one_region():
    """The first backward frees the graph of the kept cast, though the weight is as it was."""
    w = shared.full((1, 1), 2.0, requires_grad=True)
    with shared.autocast("cpu"):
        for _ in range(3):
            (shared.ones(1, 1) @ w).sum().backward()
        (shared.ones(1, 1) @ w).sum().backward(retain_graph=True)
        assert shared.autograd.grad((shared.ones(1, 1) @ w).sum(), w)[0].item() == 1.0
    assert w.grad.item() == 4.0


def test_the_second_gradient_goes_through_the_casts():
    x = shared.tensor([[2.0]], requires_grad=True)
    with shared.autocast("cpu"):
        out = x @ x @ x
        (slope,) = shared.autograd.grad(out, x, shared.ones(1, 1, dtype=shared.bfloat16), create_graph=True)
    slope.backward()
    assert slope.item() == 12.0 and x.grad.item() == 12.0


# ---------------------------------------------------------------- recomputation


def test_a_checkpoint_recomputes_in_the_same_dtypes():
    w = shared.rand(8, 8, requires_grad=True)
    x, seen = shared.rand(4, 8, requires_grad=True), []

    def block(x):
        out = x @ w
        seen.append(out.dtype)
        return out

    with shared.autocast("cpu", dtype=shared.float16):
        out = checkpoint(block, x)
    with shared.autocast("cpu"):
        out.sum().backward()
        assert shared.get_autocast_dtype("cpu") == shared.bfloat16
    assert seen == [shared.float16] * 2 and out.dtype == shared.float16 and not mode.casts
    grads = w.grad.clone(), x.grad.clone()
    w.grad = x.grad = None
    with shared.autocast("cpu", dtype=shared.float16):
        out = block(x)
    out.sum().backward()
    assert np.array_equal(grads[0], w.grad) and np.array_equal(grads[1], x.grad)
    checkpoint(block, x).sum().backward()
    assert seen[-2:] == [shared.float32] * 2


@pytest.mark.parametrize("dtype", [None, *SHORT])
def test_a_gpt_that_recomputes_its_blocks_is_the_same_to_the_bit(dtype):
    model, ids = small_gpt(dropout=0.2), shared.randint(0, 30, (2, 16))
    found = []
    for recompute in (False, True):
        model.gradient_checkpointing = recompute
        shared.manual_seed(1)
        with shared.autocast("cpu", dtype=getattr(shared, dtype or "bfloat16"), enabled=dtype is not None):
            loss = next_token_loss(model(ids), ids)
        loss.backward()
        found.append([loss.item(), *[p.grad.numpy().copy() for p in model.parameters()], shared.rand(3).numpy()])
        model.zero_grad()
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_recomputed_blocks_keep_no_activations():
    import tracemalloc

    model, ids = small_gpt(dropout=0.1, n_layer=8, n_embd=64), shared.randint(0, 30, (8, 16))
    peaks = []
    for recompute in (True, False):
        model.gradient_checkpointing = recompute
        next_token_loss(model(ids), ids).backward()  # the gradients are there, and the kernels compiled
        tracemalloc.start()
        next_token_loss(model(ids), ids).backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 0.4 * peaks[1], peaks


def small_gpt(**changes):
    shared.manual_seed(0)
    sizes = {"vocab_size": 30, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}
    return GPT(GPTConfig(**sizes | changes))


def test_a_gpt_trains_in_bfloat16_as_in_float32():
    """Counting up modulo 30 from anywhere, by steps of 1 to 3: the second token tells the rest."""
    starts, steps = np.meshgrid(np.arange(30), [1, 2, 3])
    ids = shared.tensor((starts.reshape(-1, 1) + steps.reshape(-1, 1) * np.arange(17)) % 30)
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = small_gpt(dropout=0.0, n_embd=32)
        optimizer = model.configure_optimizers(lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            with shared.autocast("cpu", enabled=dtype == "bfloat16"):
                loss = next_token_loss(model(ids[:, :-1]), ids[:, 1:])
            loss.backward()
            optimizer.step()
            losses.setdefault(dtype, []).append(loss.item())
    assert losses["float32"][0] > 3.2 and losses["float32"][-1] < 1.0
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], 0.05, 0.02)

"""What all optimizers share: groups, gradients that are missing, state, closures, errors."""

import copy
import io

import numpy as np
import pytest

import shared
from shared import nn
from shared.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from shared.optim.optimizer import required
from shared.testing import assert_close

ALL = [SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta]
with_all = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def leaf(*values):
    return shared.tensor(list(values), requires_grad=True)


def with_grad(*values):
    p = leaf(*values)
    p.grad = shared.ones_like(p)
    return p


# ---------------------------------------------------------------- which parameters change


@with_all
def test_a_parameter_without_gradient_stays_and_gets_no_state(cls):
    used, unused = with_grad(1.0, 2.0), leaf(3.0)
    optimizer = cls([used, unused], lr=0.1)
    optimizer.step()
    assert unused.tolist() == [3.0]
    assert used.tolist() != [1.0, 2.0]
    assert unused not in optimizer.state


@with_all
def test_a_frozen_parameter_stays(cls):
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    before = layer.bias.tolist(), layer.weight.tolist()
    optimizer = cls(layer.parameters(), lr=0.1)
    layer(shared.ones(3, 2)).sum().backward()
    optimizer.step()
    assert layer.bias.tolist() == before[0]
    assert layer.weight.tolist() != before[1]


def test_a_tied_parameter_is_updated_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = Tied()
    before = model.a.weight.numpy(force=True).copy()
    optimizer = SGD(model.parameters(), lr=0.1)
    model(shared.ones(1, 2)).sum().backward()
    optimizer.step()
    assert len(optimizer.param_groups[0]["params"]) == 1
    assert_close(before - model.a.weight.numpy(force=True), 0.1 * model.a.weight.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_a_scalar_parameter_is_changed_in_place():
    for cls in ALL:
        p = shared.tensor(1.0, requires_grad=True)
        p.grad = shared.tensor(1.0)
        array = p.array
        optimizer = cls([p], lr=0.1)
        optimizer.step()
        optimizer.step()
        assert p.array is array and p.item() < 1.0, cls.__name__


@with_all
def test_a_strided_parameter_is_changed_in_place(cls):
    whole = np.ones((4, 6), np.float32)
    p = shared.from_numpy(whole[::2, ::3]).requires_grad_()
    p.grad = shared.ones(2, 2)
    cls([p], lr=0.1).step()
    assert (whole[::2, ::3] != 1).all()
    assert (whole[1::2] == 1).all() and (whole[:, 1::3] == 1).all()


@with_all
def test_the_gradient_is_not_written_to(cls):
    p = with_grad(1.0, 2.0)
    options = {"weight_decay": 0.1, "maximize": True}
    optimizer = cls([p], lr=0.1, **options)
    optimizer.step()
    optimizer.step()
    assert p.grad.tolist() == [1.0, 1.0]


@with_all
@pytest.mark.parametrize("dtype", [shared.float64, shared.float16, shared.bfloat16], ids=str)
def test_parameter_and_state_keep_their_dtype(cls, dtype):
    p = shared.ones(3, dtype=dtype, requires_grad=True)
    p.grad = shared.ones_like(p)
    options = {"momentum": 0.9} if cls in (SGD, RMSprop) else {}
    optimizer = cls([p], lr=100.0 if cls is Adadelta else 0.1, **options)
    optimizer.step()
    optimizer.step()
    assert p.dtype == dtype
    assert {v.dtype for k, v in optimizer.state[p].items() if k != "step"} == {dtype}
    assert (p.float() < 1).all()


def test_a_step_after_forward_makes_backward_fail():
    """A graph that saved the old weights must not use the new ones."""
    p = leaf(2.0)
    loss = (p * p).sum()
    p.grad = shared.ones(1)
    SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@with_all
def test_maximize_climbs(cls):
    p = with_grad(1.0)
    cls([p], lr=0.1, maximize=True, weight_decay=0).step()
    assert p.item() > 1.0


@with_all
def test_a_quadratic_is_minimized(cls):
    p = leaf(3.0, -2.0)
    optimizer = cls([p], lr={Adadelta: 100.0, Adagrad: 1.0}.get(cls, 0.1))
    first = None
    for _ in range(200):
        optimizer.zero_grad()
        loss = ((p - shared.tensor([1.0, 1.0])) ** 2).sum()
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first


# ---------------------------------------------------------------- groups


def test_groups_have_their_own_options():
    a, b = with_grad(1.0), with_grad(1.0)
    optimizer = SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.step()
    assert_close([a, b], [shared.tensor([0.9]), shared.tensor([0.5])], check_dtype=False)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]


def test_a_group_can_be_added_during_training():
    a, b = with_grad(1.0), with_grad(1.0)
    optimizer = Adam([a], lr=0.1)
    optimizer.step()
    optimizer.add_param_group({"params": [b], "lr": 0.2})
    optimizer.step()
    assert optimizer.state[a]["step"].item() == 2 and optimizer.state[b]["step"].item() == 1
    assert_close(b, shared.tensor([0.8]), rtol=1e-5, atol=1e-5)


def test_named_parameters_keep_their_names():
    model = nn.Linear(2, 1)
    optimizer = SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


ERRORS = [
    (lambda p: SGD([], lr=0.1), ValueError, "optimizer got an empty parameter list"),
    (lambda p: SGD(p, lr=0.1), TypeError, "params argument given to the optimizer should be an iterable"),
    (lambda p: SGD([1.0], lr=0.1), TypeError, "can only optimize Tensors, but one of the params is float"),
    (lambda p: SGD([p * 2], lr=0.1), ValueError, "can't optimize a non-leaf Tensor"),
    (lambda p: SGD([{"params": {p}}], lr=0.1), TypeError, "Please use a list instead"),
    (
        lambda p: SGD([{"params": [p]}, {"params": [p]}]),
        ValueError,
        "appear in more than one parameter group",
    ),
    (lambda p: SGD([p]).add_param_group([p]), TypeError, "param_group must be a dict"),
    (lambda p: SGD([("a", p), leaf(1.0)]), ValueError, "Some param names are missing"),
    (
        lambda p: SGD([{"params": [("a", p)]}, {"params": [leaf(1.0)]}]),
        ValueError,
        "all optimizer param groups should be with/without names",
    ),
    (lambda p: Optimizer([p], {"lr": required}), ValueError, "required optimization parameter lr"),
    (lambda p: SGD([p], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda p: SGD([p], lr=float("nan")), ValueError, "Invalid learning rate: nan"),
    (lambda p: SGD([p], lr=shared.ones(2)), ValueError, "Tensor lr must be 1-element"),
    (lambda p: SGD([p], momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda p: SGD([p], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
    (
        lambda p: SGD([p], nesterov=True),
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening",
    ),
    (
        lambda p: SGD([p], nesterov=True, momentum=0.9, dampening=0.1),
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening",
    ),
    (lambda p: Adam([p], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda p: Adam([p], betas=(0.9, -0.1)), ValueError, "Invalid beta parameter at index 1: -0.1"),
    (lambda p: Adam([p], eps=-1), ValueError, "Invalid epsilon value: -1"),
    (lambda p: AdamW([p], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
    (lambda p: RMSprop([p], alpha=-1), ValueError, "Invalid alpha value: -1"),
    (lambda p: RMSprop([p], momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda p: Adagrad([p], lr_decay=-1), ValueError, "Invalid lr_decay value: -1"),
    (
        lambda p: Adagrad([p], initial_accumulator_value=-1),
        ValueError,
        "Invalid initial_accumulator_value value",
    ),
    (lambda p: Adadelta([p], rho=1.5), ValueError, "Invalid rho value: 1.5"),
    (lambda p: SGD([p], differentiable=True), NotImplementedError, r"step\(\) is not recorded"),
]


@pytest.mark.parametrize(("make", "error", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(leaf(1.0))


def test_a_parameter_listed_twice_in_a_group_warns():
    p = leaf(1.0)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        SGD([p, p], lr=0.1)


# ---------------------------------------------------------------- gradients and closures


def test_zero_grad_forgets_or_fills_with_zeros():
    p = with_grad(1.0)
    optimizer, grad = SGD([p]), p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and p.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_closure_runs_with_gradients_and_its_loss_is_returned():
    p = leaf(1.0)
    optimizer = SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * 3).sum()
        loss.backward()
        return loss

    with shared.no_grad():
        assert optimizer.step(closure).item() == 3.0
    assert_close(p, shared.tensor([0.7]))
    assert optimizer.step() is None


def test_the_learning_rate_may_be_a_tensor():
    p, q = with_grad(1.0), with_grad(1.0)
    Adam([p], lr=shared.tensor(0.25)).step()
    Adam([q], lr=0.25).step()
    assert p.tolist() == q.tolist()


def test_step_hooks_run_until_removed():
    seen = []
    optimizer = SGD([with_grad(1.0)], lr=0.1)
    before = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    optimizer.step()
    before.remove()
    optimizer.step()
    assert seen == ["before", "after", "after"]


# ---------------------------------------------------------------- one's own


def test_an_optimizer_written_pytorchs_way_works():
    class Plain(Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, dict(lr=lr))

        @shared.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(p.grad, alpha=-group["lr"])

    p = with_grad(1.0)
    Plain([p], lr=0.25).step()
    assert p.tolist() == [0.75] and p.requires_grad


def test_an_optimizer_without_update_says_so():
    with pytest.raises(NotImplementedError, match=r"defines neither update\(\) nor step\(\)"):
        Optimizer([with_grad(1.0)], {}).step()


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW])
def test_an_update_of_one_s_own_is_used_for_every_parameter(cls):
    """SGD and Adam have a way to update all at once, which must not pass by a subclass's `update`."""
    seen = []

    class Loud(cls):
        def update(self, param, grad, state, group):
            seen.append(param)
            super().update(param, grad, state, group)

    params, same = [with_grad(1.0, 2.0), with_grad(3.0)], [with_grad(1.0, 2.0), with_grad(3.0)]
    Loud(params, lr=0.1).step()
    cls(same, lr=0.1).step()
    assert [id(p) for p in seen] == [id(p) for p in params]
    assert [p.tolist() for p in params] == [p.tolist() for p in same]


@pytest.mark.parametrize(("cls", "options"), [(SGD, {}), (SGD, {"momentum": 0.9}), (Adam, {}), (AdamW, {})])
def test_all_parameters_at_once_get_what_each_would_get_alone(cls, options):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype("float32") for s in [(3, 4), (), (0,), (300, 300), (2,)]]
    together = [shared.tensor(v, requires_grad=True) for v in values]
    alone = [shared.tensor(v, requires_grad=True) for v in values]
    optimizers = [cls(together, lr=0.1, **options), *[cls([p], lr=0.1, **options) for p in alone]]
    for turn in range(3):
        for i, (a, b) in enumerate(zip(together, alone, strict=True)):
            skipped = turn == 1 and i == 0  # without a gradient a parameter's steps are not counted on
            a.grad = b.grad = None if skipped else shared.tensor(np.cos(values[i] * (turn + 1)))
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        assert a.tolist() == b.tolist()
    if cls is not SGD:
        assert [optimizers[0].state[p]["step"].item() for p in together] == [2, 3, 3, 3, 3]


# ---------------------------------------------------------------- state


def run(optimizer, params, steps):
    for _ in range(steps):
        for p in params:
            p.grad = 2 * p.detach() - 1
        optimizer.step()


@with_all
def test_state_can_be_saved_and_loaded_in_between(cls):
    params, again = [leaf(1.0, -2.0), leaf(3.0)], None
    optimizer = cls(params, lr=0.1)
    run(optimizer, params, 3)
    file = io.BytesIO()
    shared.checkpoint.save({"optimizer": optimizer.state_dict(), "params": params}, file)
    loaded = shared.checkpoint.load(file)
    again = loaded["params"]
    other = cls(again, lr=99.0)
    other.load_state_dict(loaded["optimizer"])
    run(optimizer, params, 3)
    run(other, again, 3)
    assert [p.tolist() for p in again] == [p.tolist() for p in params]


def test_loading_copies_the_state():
    p, q = with_grad(1.0), with_grad(1.0)
    first, second = Adam([p]), Adam([q])
    first.step()
    second.load_state_dict(first.state_dict())
    second.step()
    assert first.state[p]["step"].item() == 1 and second.state[q]["step"].item() == 2
    assert first.state[p]["exp_avg"].tolist() != second.state[q]["exp_avg"].tolist()


def test_loading_casts_state_to_the_parameter_but_not_the_step():
    p, q = with_grad(1.0), shared.ones(1, dtype=shared.float64, requires_grad=True)
    first, second = Adam([p]), Adam([q])
    first.step()
    second.load_state_dict(first.state_dict())
    assert second.state[q]["exp_avg"].dtype == shared.float64
    assert second.state[q]["step"].dtype == shared.float32


def test_a_state_of_another_number_of_groups_or_parameters_is_refused():
    a, b = leaf(1.0), leaf(2.0)
    saved = SGD([a, b]).state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups: 1, the optimizer 2"):
        SGD([{"params": [a]}, {"params": [b]}]).load_state_dict(saved)
    with pytest.raises(ValueError, match="group 0 has 2 parameters there and 1 here"):
        SGD([a]).load_state_dict(saved)


def test_a_state_of_another_shape_is_refused_by_name():
    optimizer = Adam([with_grad(1.0)])
    optimizer.step()
    other = Adam([leaf(1.0, 2.0)])
    with pytest.raises(ValueError, match=r"'exp_avg' of parameter 0 has shape \(1,\), but the parameter has \(2,\)"):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state


def test_options_missing_from_an_old_file_get_their_defaults():
    p = with_grad(1.0)
    optimizer = AdamW([p])
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["amsgrad"], saved["param_groups"][0]["decoupled_weight_decay"]
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["amsgrad"] is False
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_a_step_count_that_is_a_number_is_taken():
    p = with_grad(1.0)
    optimizer = Adam([p])
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = 7
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 8


def test_a_cast_after_the_first_step_is_an_error_that_says_what_to_do():
    layer = nn.Linear(2, 1)
    optimizer = Adam(layer.parameters())
    layer(shared.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    layer.double()
    layer(shared.ones(1, 2, dtype=shared.float64)).sum().backward()
    with pytest.raises(RuntimeError, match="'exp_avg' is float32 .* its parameter is float64 .* before the first step"):
        optimizer.step()


def test_a_cast_before_the_first_step_is_followed():
    layer = nn.Linear(2, 1)
    optimizer = Adam(layer.parameters(), lr=0.1)
    layer.double()
    before = layer.weight.tolist()
    layer(shared.ones(1, 2, dtype=shared.float64)).sum().backward()
    optimizer.step()
    assert layer.weight.dtype == shared.float64 and layer.weight.tolist() != before


def test_a_copied_model_and_optimizer_are_independent():
    p = with_grad(1.0)
    optimizer = Adam([p], lr=0.1)
    optimizer.step()
    pair = copy.deepcopy((p, optimizer))
    pair[1].step()
    assert pair[1].state[pair[0]]["step"].item() == 2
    assert optimizer.state[p]["step"].item() == 1


def test_printed_form_lists_the_options_of_each_group():
    text = repr(SGD([leaf(1.0)], lr=0.5))
    assert (
        text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
        and "    lr: 0.5\n" in text
        and text.endswith(")")
    )


# ---------------------------------------------------------------- parameters that lie by columns


def matrices(turned):
    """Three parameters with gradients, the same numbers each time; the matrices lie by columns where `turned`."""
    rng = np.random.default_rng(0)
    params = []
    for shape in ((4, 6), (5,), (300, 2)):
        numbers = rng.normal(size=shape).astype("float32")
        params.append(nn.Parameter(shared.from_numpy(np.asfortranarray(numbers) if turned else numbers)))
        params[-1].grad = shared.from_numpy(rng.normal(size=shape).astype("float32"))
    return params


@pytest.mark.parametrize(
    "cls, options",
    [(cls, {}) for cls in ALL] + [(SGD, {"momentum": 0.9}), (AdamW, {"amsgrad": True}), (Adam, {"maximize": True})],
)
def test_matrices_that_lie_by_columns_get_the_same_steps_before_and_after_loading(cls, options):
    results = []
    for turned in (False, True):
        params = matrices(turned)
        memory = [p.array for p in params]
        optimizer = cls(params, lr=0.1, **options)
        optimizer.step()
        optimizer.step()
        fresh = cls(params, lr=0.1, **options)
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        fresh.step()
        assert all(p.array is before for p, before in zip(params, memory, strict=True))
        results.append([p.detach().numpy().copy() for p in params])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("cls, options", [(SGD, {"momentum": 0.9}), (SGD, {}), (AdamW, {})])
def test_matrices_that_lie_by_columns_are_served_by_the_fused_kernel(cls, options, monkeypatch):
    from shared.arrays.kernels import select
    from shared.arrays.kernels.optim import reference

    params = matrices(turned=True)
    if select("optim", *[p.array.T for p in params]) is reference:
        pytest.skip("there are no compiled kernels here")
    optimizer = cls(params, lr=0.1, **options)
    optimizer.step()  # SGD's first step with momentum is taken parameter by parameter
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    for name in ("adam", "sgd"):
        monkeypatch.setattr(reference, name, None)
    optimizer.step()

"""What a Module is: attributes, walking, state, moving, printing, and the mistakes that learners make."""

import copy
import gc
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import shared
from shared import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.scale = nn.Parameter(shared.ones(4))
        self.register_buffer("count", shared.tensor(0))
        self.register_buffer("mask", shared.ones(4), persistent=False)
        self.label = "net"

    def forward(self, x):
        return self.inner(x) * self.scale * self.mask


def names(pairs):
    return [name for name, _ in pairs]


# ---------------------------------------------------------------- attributes


def test_assigned_attributes_are_found_by_kind_and_in_order():
    net = Net()
    assert names(net.named_parameters()) == ["scale", "inner.weight", "inner.bias"]
    assert names(net.named_buffers()) == ["count", "mask"]
    assert names(net.named_children()) == ["inner"]
    assert names(net.named_modules()) == ["", "inner"]
    assert names(net.named_parameters(prefix="model", recurse=False)) == ["model.scale"]
    assert [p.shape for p in net.parameters()] == [(4,), (4, 3), (4,)]
    assert list(net.modules()) == [net, net.inner]
    assert list(net.buffers()) == [net.count, net.mask]
    assert "scale" not in net.__dict__ and net.label == "net"
    assert {"scale", "inner", "count", "label"} <= set(dir(net))


def test_a_name_belongs_to_the_kind_assigned_last():
    net = Net()
    net.thing = 3
    net.thing = nn.Parameter(shared.ones(1))
    assert "thing" not in net.__dict__ and "thing" in names(net.named_parameters())
    net.thing = None
    assert net.thing is None and "thing" not in names(net.named_parameters())
    del net.thing
    net.thing = nn.ReLU()
    assert names(net.named_children()) == ["inner", "thing"]
    net.thing = None
    assert net.thing is None and names(net.named_children()) == ["inner"] and list(net.children()) == [net.inner]
    net.thing = nn.ReLU()
    net.inner = nn.Parameter(shared.ones(2))
    assert names(net.named_children()) == ["thing"] and "inner" in names(net.named_parameters())
    net.mask = nn.ReLU()
    assert "mask" not in names(net.named_buffers())
    net.register_buffer("fresh", shared.ones(1))
    net.fresh = shared.zeros(2)
    assert net.fresh.shape == (2,) and "fresh" in net.state_dict()


def test_a_buffer_stays_out_of_the_state_when_assigned_anew():
    net = Net()
    net.mask = shared.zeros(4)
    assert "mask" not in net.state_dict() and "mask" in names(net.named_buffers())
    net.extra = nn.Buffer(shared.ones(2), persistent=False)
    net.kept = nn.Buffer(shared.ones(2))
    assert "extra" not in net.state_dict() and "kept" in net.state_dict()


def test_deleting_removes_the_name():
    net = Net()
    del net.scale, net.inner, net.mask, net.label
    assert names(net.named_parameters()) == [] and names(net.named_buffers()) == ["count"]
    for name in ("scale", "inner", "mask", "label"):
        assert not hasattr(net, name)
    with pytest.raises(AttributeError):
        del net.scale


@pytest.mark.parametrize(
    ("assign", "error", "message"),
    [
        (
            lambda m: setattr(m, "scale", shared.ones(4)),
            TypeError,
            "cannot assign 'shared.tensor.Tensor' as parameter 'scale'",
        ),
        (lambda m: setattr(m, "inner", 3), TypeError, "cannot assign 'int' as child module 'inner'"),
        (lambda m: setattr(m, "count", 3), TypeError, "cannot assign 'int' object to buffer 'count'"),
        (
            lambda m: m.register_parameter("w", shared.ones(1)),
            TypeError,
            "cannot assign 'shared.tensor.Tensor' object to parameter 'w'",
        ),
        (lambda m: m.register_parameter("a.b", None), KeyError, "parameter name can't contain"),
        (lambda m: m.register_parameter("", None), KeyError, "can't be empty string"),
        (lambda m: m.register_parameter(3, None), TypeError, "parameter name should be a string. Got int"),
        (lambda m: m.register_parameter("label", None), KeyError, "attribute 'label' already exists"),
        (lambda m: m.register_buffer("label", None), KeyError, "attribute 'label' already exists"),
        (lambda m: m.add_module("scale", nn.ReLU()), KeyError, "attribute 'scale' already exists"),
        (lambda m: m.add_module("x", 3), TypeError, "int is not a Module subclass"),
        (lambda m: m.add_module("x.y", nn.ReLU()), KeyError, "module name can't contain"),
        (lambda m: m.train("yes"), ValueError, "training mode is expected to be boolean"),
        (lambda m: m.nothing, AttributeError, "'Net' object has no attribute 'nothing'"),
        (lambda m: m.to(shared.int64), TypeError, "only accepts floating point dtypes, but got desired dtype=int64"),
        (lambda m: m.to("tpu"), RuntimeError, "Expected a device like 'cpu', 'cuda' or 'cuda:0', but got 'tpu'"),
    ],
)
def test_mistakes_are_named(assign, error, message):
    with pytest.raises(error) as raised:
        assign(Net())
    assert message in raised.value.args[0]


def test_a_parameter_that_was_computed_is_refused():
    weight = nn.Parameter(shared.ones(2))
    computed = nn.Parameter(shared.ones(2))
    computed._fn = (weight * 2).grad_fn
    with pytest.raises(ValueError, match="Cannot assign non-leaf Tensor to parameter 'w'"):
        nn.Module().w = computed


def test_forgetting_super_init_is_explained():
    class Forgetful(nn.Module):
        def __init__(self, value):
            self.part = value

    for value, kind in [
        (nn.Parameter(shared.ones(1)), "parameters"),
        (nn.ReLU(), "module"),
        (nn.Buffer(shared.ones(1)), "buffer"),
    ]:
        with pytest.raises(AttributeError) as raised:
            Forgetful(value)
        assert f"cannot assign {kind} before Module.__init__() call" in str(raised.value)
        assert "Forgetful.__init__ with super().__init__()" in str(raised.value)
    with pytest.raises(AttributeError, match=r"Forgetful.__init__ has to call super\(\).__init__\(\) first"):
        Forgetful(3)(shared.ones(1))
    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        list(Forgetful(3).parameters())
    for register in ("register_parameter", "register_buffer"):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            getattr(Forgetful(3), register)("x", None)


def test_a_missing_forward_is_explained():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError) as raised:
        Empty()(1)
    assert 'Module [Empty] is missing the required "forward" function' in str(raised.value)


# ---------------------------------------------------------------- the tree


def test_shared_modules_and_parameters_are_listed_once():
    layer = nn.Linear(2, 2)
    tied = nn.Linear(2, 2, bias=False)
    tied.weight = layer.weight
    model = nn.Sequential(layer, layer, tied)
    assert names(model.named_parameters()) == ["0.weight", "0.bias"]
    assert names(model.named_parameters(remove_duplicate=False)) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.weight",
    ]
    assert names(model.named_modules()) == ["", "0", "2"]
    assert names(model.named_children()) == ["0", "2"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]
    assert len(list(model.modules(remove_duplicate=False))) == 4


def test_a_tied_parameter_stays_tied_through_everything():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model.double()
    assert model[0].weight is model[1].weight and model[0].weight.dtype == shared.float64
    state = {k: shared.full_like(v, 2.0) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    assert model[0].weight is model[1].weight
    twin = copy.deepcopy(model)
    assert twin[0].weight is twin[1].weight and twin[0].weight is not model[0].weight
    model(shared.ones(1, 3, dtype=shared.float64)).sum().backward()
    # y = 1ᵀ W W x: both uses add to one gradient
    w, x = np.full((3, 3), 2.0), np.ones(3)
    assert np.allclose(model[0].weight.grad.numpy(), np.outer(w.T @ x, x) + np.outer(x, w @ x))


def test_members_are_reached_by_dotted_path():
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.Linear(2, 3), nn.ReLU()), head=Net()))
    assert model.get_submodule("body.0") is model.body[0]
    assert model.get_submodule("") is model
    assert model.get_parameter("head.inner.weight") is model.head.inner.weight
    assert model.get_buffer("head.count") is model.head.count
    model.set_submodule("body.1", nn.Tanh())
    assert isinstance(model.body[1], nn.Tanh)
    for call, message in [
        (lambda: model.get_submodule("body.7"), "Sequential has no attribute `7`"),
        (lambda: model.get_submodule("head.scale"), "`scale` is not an nn.Module"),
        (lambda: model.get_parameter("head.count"), "`count` is not an nn.Parameter"),
        (lambda: model.get_buffer("head.scale"), "`scale` is not a buffer"),
        (lambda: model.get_parameter("head.none"), "Net has no attribute `none`"),
    ]:
        with pytest.raises(AttributeError, match=message):
            call()
    with pytest.raises(ValueError, match="without a target name"):
        model.set_submodule("", nn.Tanh())


def test_apply_visits_children_before_parents():
    seen = []
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["Linear", "ReLU", "Sequential", "Sequential"]


def test_train_and_eval_reach_every_module():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    model.train()
    assert all(m.training for m in model.modules())
    model[1].eval()
    assert model.training and not model[1][0].training


def test_freezing_and_zeroing():
    net = Net()
    assert net.requires_grad_(False) is net
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(shared.ones(2, 3)).sum().backward()
    grads = [p.grad for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in net.parameters())
    assert all(p.grad.array is g.array for p, g in zip(net.parameters(), grads, strict=True))
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_zero_grad_cuts_a_gradient_off_its_graph():
    x = nn.Parameter(shared.tensor([2.0]))
    holder = nn.ParameterList([x])
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    holder.zero_grad(set_to_none=False)
    assert not x.grad.requires_grad and x.grad.item() == 0


# ---------------------------------------------------------------- dtype and device


def test_casting_changes_floating_tensors_only_and_keeps_the_objects():
    net = Net()
    net(shared.ones(1, 3)).sum().backward()
    before = list(net.parameters())
    for method, dtype in [("double", "float64"), ("half", "float16"), ("bfloat16", "bfloat16"), ("float", "float32")]:
        assert getattr(net, method)() is net
        assert {p.dtype.name for p in net.parameters()} == {dtype}
        assert {p.grad.dtype.name for p in net.parameters()} == {dtype}
        assert net.mask.dtype.name == dtype and net.count.dtype == shared.int64
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert all(isinstance(p, nn.Parameter) and p.is_leaf and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    "args",
    [
        ((), {"dtype": shared.float64}),
        ((shared.float64,), {}),
        (("cpu", shared.float64), {}),
        ((shared.zeros(1, dtype=shared.float64),), {}),
        (("cpu",), {"dtype": shared.float64, "non_blocking": True}),
        ((shared.device("cpu"), shared.float64, True), {}),
    ],
)
def test_to_understands_every_form(args):
    positional, named = args
    net = Net().to(*positional, **named)
    assert {p.dtype.name for p in net.parameters()} == {"float64"} and net.count.dtype == shared.int64


def test_to_the_same_place_shares_memory():
    net = Net()
    arrays = [p.array for p in net.parameters()]
    net.to("cpu").cpu().float()
    assert all(a is p.array for a, p in zip(arrays, net.parameters(), strict=True))
    assert net.type(shared.float64).scale.dtype == shared.float64


@pytest.mark.gpu
def test_a_model_moves_to_the_gpu_and_back():
    net = Net().cuda()
    assert all(p.is_cuda for p in net.parameters()) and net.mask.is_cuda
    net(shared.ones(2, 3).cuda()).sum().backward()
    net.cpu()
    assert not any(p.is_cuda or p.grad.is_cuda for p in net.parameters())


def test_copies_and_pickles_are_independent():
    net = Net()
    net(shared.ones(1, 3)).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert names(twin.named_parameters()) == names(net.named_parameters())
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in twin.parameters())
        assert shared.equal(twin.scale, net.scale)
        twin.scale.data.fill_(7.0)
        assert net.scale.data.tolist() == [1.0] * 4
        assert twin(shared.ones(1, 3)).shape == (1, 4)
    assert copy.deepcopy(net).scale.grad is not net.scale.grad


# ---------------------------------------------------------------- state


def test_state_shares_memory_and_carries_no_graph():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["scale", "count", "inner.weight", "inner.bias"]
    assert state["scale"].array is net.scale.array and not state["scale"].requires_grad
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert list(net.state_dict(prefix="net.")) == ["net." + k for k in state]


def test_loading_copies_values_in_place():
    source, target = Net(), Net()
    source.count.fill_(5)
    array = target.scale.array
    result = target.load_state_dict(source.state_dict())
    assert str(result) == "<All keys matched successfully>"
    assert target.scale.array is array and target.count.item() == 5
    assert shared.equal(target.inner.weight, source.inner.weight)
    source.scale.data.fill_(3.0)
    assert target.scale.data.tolist() == [1.0] * 4


def test_loading_converts_dtype_but_assign_takes_it():
    double = Net().double().state_dict()
    net = Net()
    net.load_state_dict(double)
    assert net.scale.dtype == shared.float32
    net.inner.weight.requires_grad_(False)
    net.load_state_dict(double, assign=True)
    assert net.scale.dtype == shared.float64 and net.scale.array is double["scale"].array
    assert isinstance(net.scale, nn.Parameter) and net.scale.requires_grad
    assert not net.inner.weight.requires_grad
    assert net.count.array is double["count"].array


def broken_state():
    state = Net().state_dict()
    del state["scale"], state["inner.bias"]
    state["inner.weight"] = shared.zeros(4, 5)
    state["head.weight"] = shared.zeros(1)
    state["inner.extra"] = shared.zeros(1)
    return state


def test_loading_names_every_missing_unexpected_and_misshaped_key_and_changes_nothing():
    net = Net()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    state = broken_state()
    state["count"] = shared.tensor(9)
    with pytest.raises(RuntimeError) as raised:
        net.load_state_dict(state)
    assert str(raised.value).split("\n\t") == [
        "Error(s) in loading state_dict for Net:",
        'Missing key(s) in state_dict: "scale", "inner.bias". ',
        'Unexpected key(s) in state_dict: "head.weight", "inner.extra". ',
        "size mismatch for inner.weight: copying a param with shape Size([4, 5]) from checkpoint, "
        "the shape in current model is Size([4, 3]).",
    ]
    assert all(np.array_equal(v.numpy(), before[k]) for k, v in net.state_dict().items()), "nothing is half loaded"


def test_without_strict_only_shapes_are_errors():
    state = broken_state()
    with pytest.raises(RuntimeError) as raised:
        Net().load_state_dict(state, strict=False)
    assert "size mismatch for inner.weight" in str(raised.value) and "Missing" not in str(raised.value)
    del state["inner.weight"]
    result = Net().load_state_dict(state, strict=False)
    assert result.missing_keys == ["scale", "inner.weight", "inner.bias"]
    assert result.unexpected_keys == ["head.weight", "inner.extra"]
    assert "missing_keys=['scale'" in str(result)


def test_loading_refuses_what_is_no_state():
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        Net().load_state_dict([1, 2])
    state = Net().state_dict()
    state["scale"] = "four ones"
    with pytest.raises(RuntimeError, match='While copying the parameter named "scale", expected a Tensor'):
        Net().load_state_dict(state)


def test_a_parameter_registered_as_none_is_unexpected_in_a_state():
    with pytest.raises(RuntimeError, match='Unexpected key.s. in state_dict: "bias"'):
        nn.Linear(2, 2, bias=False).load_state_dict(nn.Linear(2, 2).state_dict())


def test_numpy_arrays_and_one_element_vectors_load():
    net = Net()
    net.load_state_dict({k: v.numpy() for k, v in net.state_dict().items()} | {"count": np.array([4])})
    assert net.count.item() == 4 and net.count.shape == ()


class WithExtra(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = ["a"]

    def get_extra_state(self):
        return {"words": self.words}

    def set_extra_state(self, state):
        self.words = state["words"]


def test_extra_state_travels_with_the_tensors():
    source, target = nn.Sequential(WithExtra()), nn.Sequential(WithExtra())
    source[0].words = ["b", "c"]
    assert list(source.state_dict()) == ["0._extra_state"]
    target.load_state_dict(source.state_dict())
    assert target[0].words == ["b", "c"]
    with pytest.raises(RuntimeError, match='Missing key.s. in state_dict: "0._extra_state"'):
        target.load_state_dict({})
    with pytest.raises(RuntimeError, match='Unexpected key.s. in state_dict: "_extra_state"'):
        nn.ReLU().load_state_dict({"_extra_state": 1})
    for method in ("get_extra_state", "set_extra_state"):
        with pytest.raises(RuntimeError, match="has to define it"):
            getattr(nn.ReLU(), method)(*[None] * (method[0] == "s"))


def test_state_hooks_see_and_change_the_state():
    net = Net()
    calls = []
    net.register_state_dict_pre_hook(lambda module, prefix, keep_vars: calls.append(prefix))
    net.register_state_dict_post_hook(lambda module, state, prefix, local: state.__delitem__("count"))
    rename = net.register_load_state_dict_pre_hook(
        lambda module, state, prefix, *rest: state.update({"scale": state.pop("gain")})
    )
    forgive = net.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
    state = net.state_dict()
    assert calls == [""] and "count" not in state
    state["gain"] = state.pop("scale") * 0 + 6
    net.load_state_dict(state)
    assert net.scale.data.tolist() == [6.0] * 4 and "gain" in state, "the caller's dictionary is left alone"
    rename.remove()
    forgive.remove()
    with pytest.raises(RuntimeError, match='Missing key.s. in state_dict: "scale", "count"'):
        net.load_state_dict(state)
    net.register_state_dict_post_hook(lambda *args: {})
    with pytest.raises(RuntimeError, match="state_dict post-hook must return None"):
        net.state_dict()


# ---------------------------------------------------------------- printing


def test_a_model_of_ones_own_prints_as_a_tree():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.act = nn.ReLU()

        def extra_repr(self):
            return "noise=0.1\nseed=3"

    assert repr(Noisy()) == (
        "Noisy(\n  noise=0.1\n  seed=3\n  (net): Net(\n    (inner): Linear(in_features=3, out_features=4, bias=True)\n"
        "  )\n  (act): ReLU()\n)"
    )


def test_a_parameter_prints_as_one():
    assert repr(nn.Parameter(shared.ones(2))) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"


def test_parameters_share_memory_with_their_data():
    data = shared.ones(3)
    parameter = nn.Parameter(data, requires_grad=False)
    data.fill_(4.0)
    assert parameter.tolist() == [4.0] * 3 and not parameter.requires_grad
    assert nn.Parameter().shape == (0,)
    assert isinstance(nn.Parameter(data) * 2, shared.Tensor) and not isinstance(nn.Parameter(data) * 2, nn.Parameter)


def test_integers_cannot_be_learned():
    with pytest.raises(RuntimeError, match="floating point dtype can require gradients"):
        nn.Parameter(shared.tensor([1, 2]))
    assert nn.Parameter(shared.tensor([1, 2]), requires_grad=False).dtype == shared.int64


@pytest.mark.parametrize("assign", [False, True])
def test_what_was_loaded_goes_with_the_module(assign):
    source = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict()
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    gc.disable()  # what only a collection frees can be the size of a large model
    try:
        module.load_state_dict(source, assign=assign)
        kept = [weakref.ref(x) for x in (*source.values(), *module.parameters(), *module)]
        del module, source
        assert [x() for x in kept] == [None] * len(kept)
    finally:
        gc.enable()

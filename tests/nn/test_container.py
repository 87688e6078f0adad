"""Containers behave as the lists and dictionaries they look like, and their members are found."""

from collections import OrderedDict

import pytest

import shared
from shared import nn


def layers(n):
    return [nn.Linear(1, i + 1) for i in range(n)]


def widths(container):
    return [layer.out_features for layer in container]


def test_sequential_chains():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = shared.randn(4, 2)
    assert shared.equal(model(x), model[2](model[1](model[0](x))))
    assert nn.Sequential()(x) is x


def test_sequential_is_a_list():
    model = nn.Sequential(*layers(4))
    assert len(model) == 4 and widths(model) == [1, 2, 3, 4]
    assert model[-1].out_features == 4 and widths(model[1:3]) == [2, 3] and widths(model[::-2]) == [4, 2]
    assert list(model[1:3].state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"], "slices keep names"
    model[1] = nn.Linear(1, 20)
    del model[0]
    assert widths(model) == [20, 3, 4] and list(model._modules) == ["0", "1", "2"]
    assert model.pop(1).out_features == 3
    model.append(nn.Linear(1, 5)).extend(layers(2)).insert(0, nn.Linear(1, 9))
    assert widths(model) == [9, 20, 4, 5, 1, 2] and list(model._modules) == [str(i) for i in range(6)]
    model.insert(-1, nn.Linear(1, 8))
    assert widths(model) == [9, 20, 4, 5, 1, 8, 2]
    del model[1:5]
    assert widths(model) == [9, 8, 2]


def test_sequential_adds_and_multiplies():
    a, b = nn.Sequential(*layers(2)), nn.Sequential(*layers(1))
    assert widths(a + b) == [1, 2, 1] and widths(a * 2) == [1, 2, 1, 2] and widths(2 * b) == [1, 1]
    assert (a * 2)[0] is a[0], "the same modules, not copies"
    a += b
    b *= 3
    assert widths(a) == [1, 2, 1] and widths(b) == [1, 1, 1]
    with pytest.raises(ValueError, match="supports only objects of Sequential class"):
        a + layers(1)
    with pytest.raises(ValueError, match="Non-positive multiplication factor 0"):
        a * 0
    with pytest.raises(TypeError, match="unsupported operand"):
        a * 1.5


def test_sequential_takes_names():
    model = nn.Sequential(OrderedDict(first=nn.Linear(1, 2), act=nn.ReLU()))
    assert model.first.out_features == 2 and list(model.state_dict()) == ["first.weight", "first.bias"]
    model.add_module("last", nn.Linear(2, 3))
    assert model(shared.ones(1, 1)).shape == (1, 3)


@pytest.mark.parametrize("kind", [nn.Sequential, lambda *m: nn.ModuleList(m)])
@pytest.mark.parametrize("index", [3, -4])
def test_an_index_past_the_end_is_an_error(kind, index):
    container = kind(*layers(3))
    for act in (
        lambda: container[index],
        lambda: container.__setitem__(index, nn.ReLU()),
        lambda: container.__delitem__(index),
    ):
        with pytest.raises(IndexError, match=f"index {index} is out of range"):
            act()


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="function is not a Module subclass"):
        nn.Sequential(lambda x: x)
    with pytest.raises(TypeError, match="module should be of type"):
        nn.Sequential().insert(0, 3)
    with pytest.raises(IndexError, match="Index out of range: 5"):
        nn.Sequential().insert(5, nn.ReLU())


def test_module_list_is_a_list():
    modules = nn.ModuleList(layers(3))
    modules.append(nn.Linear(1, 4)).extend(layers(1))
    modules += [nn.Linear(1, 6)]
    assert widths(modules) == [1, 2, 3, 4, 1, 6] and len(modules) == 6
    modules.insert(1, nn.Linear(1, 9))
    assert widths(modules[:3]) == [1, 9, 2] and isinstance(modules[:3], nn.ModuleList)
    assert modules.pop(-1).out_features == 6
    modules[0] = nn.Linear(1, 7)
    del modules[1:3]
    assert widths(modules) == [7, 3, 4, 1] and list(modules._modules) == ["0", "1", "2", "3"]
    assert widths(modules + layers(1)) == [7, 3, 4, 1, 1]
    assert modules[-1] in modules
    with pytest.raises(TypeError, match="should be called with an iterable, but got int"):
        modules.extend(3)
    with pytest.raises(NotImplementedError, match=r"Module \[ModuleList\] is missing the required"):
        modules(shared.ones(1))


def test_module_dict_is_a_dictionary():
    modules = nn.ModuleDict({"a": nn.ReLU()})
    modules["b"] = nn.Linear(1, 2)
    modules.update([("c", nn.Tanh())])
    modules.update(nn.ModuleDict({"d": nn.Identity()}))
    assert list(modules) == list(modules.keys()) == ["a", "b", "c", "d"] and len(modules) == 4
    assert "b" in modules and modules.pop("b").out_features == 2 and "b" not in modules
    assert [type(m).__name__ for m in modules.values()] == ["ReLU", "Tanh", "Identity"]
    del modules["a"]
    assert [k for k, _ in modules.items()] == ["c", "d"]
    modules.clear()
    assert len(modules) == 0
    with pytest.raises(KeyError):
        modules["a"]
    for bad, error, message in [
        (3, TypeError, "iterable of key/value pairs, but got int"),
        ([3], TypeError, "element #0 should be Iterable; is int"),
        ([("a", nn.ReLU(), 1)], ValueError, "element #0 has length 3; 2 is required"),
    ]:
        with pytest.raises(error, match=message):
            modules.update(bad)


def test_parameter_list_makes_parameters_of_tensors():
    params = nn.ParameterList([shared.ones(2), nn.Parameter(shared.ones(3))])
    params.append(shared.zeros(1))
    params += [shared.zeros(4)]
    assert [p.shape[0] for p in params] == [2, 3, 1, 4] and all(isinstance(p, nn.Parameter) for p in params)
    assert [n for n, _ in params.named_parameters()] == ["0", "1", "2", "3"]
    params[0] = shared.ones(5)
    assert params[0].shape == (5,) and [p.shape[0] for p in params[1:3]] == [3, 1]
    params.append("a note")
    assert params[-1] == "a note" and len(list(params.parameters())) == 4
    assert repr(nn.ParameterList([shared.ones(2, 3), "x"])) == (
        "ParameterList(\n    (0): Parameter containing: [float32 of size 2x3]\n    (1): Object of type: str\n)"
    )
    with pytest.raises(TypeError, match="should be called with an iterable, but got Tensor"):
        params.extend(shared.ones(2))
    with pytest.raises(RuntimeError, match="should not be called"):
        params(1)
    with pytest.raises(IndexError, match="index 9 is out of range"):
        params[9]


def test_parameter_dict_is_a_dictionary_of_parameters():
    params = nn.ParameterDict({"a": shared.ones(2)})
    params["b"] = shared.ones(3)
    params.update({"c": nn.Parameter(shared.ones(4))})
    assert [(k, p.shape[0]) for k, p in params.items()] == [("a", 2), ("b", 3), ("c", 4)]
    assert list(reversed(params)) == ["c", "b", "a"] and params.get("z") is None
    assert params.setdefault("d", shared.ones(1)).shape == (1,) and len(params) == 4
    assert params.popitem()[0] == "d" and params.pop("a").shape == (2,) and "a" not in params
    assert list(params.copy().keys()) == ["b", "c"]
    assert list((params | nn.ParameterDict({"e": shared.ones(1)})).keys()) == ["b", "c", "e"]
    params |= nn.ParameterDict({"f": shared.ones(1)})
    assert [n for n, _ in params.named_parameters()] == ["b", "c", "f"] and len(list(params.values())) == 3
    assert list(params.fromkeys(["x"], 3).items()) == [("x", 3)]
    del params["b"]
    params.clear()
    assert len(params) == 0 and repr(params) == "ParameterDict()"
    with pytest.raises(KeyError):
        params["b"]
    with pytest.raises(TypeError, match="a key of a ParameterDict is a string, but got int"):
        params[3] = shared.ones(1)
    with pytest.raises(RuntimeError, match="should not be called"):
        params(1)
    assert repr(nn.ParameterDict({"w": shared.ones(2)})) == (
        "ParameterDict(  (w): Parameter containing: [float32 of size 2])"
    )

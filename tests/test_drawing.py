"""Pictures of graphs: what they show, that they are stable, and that boxes do not cover each other."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import shared
from shared import drawing
from shared.drawing import draw_graph


def leaf(value):
    return shared.tensor(value, requires_grad=True)


def small():
    w, x = leaf(2.0), leaf(3.0)
    e = w * x
    return {"w": w, "x": x, "e": e, "L": (e + 1).tanh()}


def draw(tensor, params=None, **options):
    return draw_graph(tensor, params, engine="matplotlib", **options)


def texts(svg):
    """The texts in a picture made by matplotlib, which keeps them beside their outlines as comments."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    return [c.text.strip() for c in ET.fromstring(svg, parser).iter() if c.tag is ET.Comment]


def test_names_values_and_operations_are_shown():
    tensors = small()
    found = texts(draw(tensors["L"], tensors))
    assert {"w", "x", "Mul → e", "= 6", "Add", "Tanh → L", "= 2", "= 3"} <= set(found)


def test_shapes_are_shown_and_values_can_be_left_out():
    x = leaf([1.0, 2.0])
    found = texts(draw((x * x).exp(), {"x": x}, values=False))
    assert found.count("shape (2,)") == 3
    assert not any(text.startswith("=") for text in found)


def test_gradients_are_shown_where_they_are():
    x, big = leaf([1.0, 2.0]), shared.ones(3, 2, requires_grad=True)
    y = (x * big).sum()
    assert not any("grad" in text for text in texts(draw(y)))
    y.backward(retain_graph=True)
    found = texts(draw(y, {"x": x, "big": big}))
    assert "grad [3, 3]" in found and "|grad| 3.873" in found


def test_a_retained_gradient_of_an_intermediate_result_is_shown():
    tensors = small()
    tensors["e"].retain_grad()
    tensors["L"].backward(retain_graph=True)
    slope = 1 - tensors["L"].item() ** 2
    assert f"grad {slope:.4g}" in texts(draw(tensors["L"], tensors))


def test_a_module_names_its_parameters():
    model = shared.nn.Linear(3, 2)
    found = texts(draw(model(shared.ones(1, 3)).sum(), model))
    assert {"weight", "bias", "shape (2, 3)"} <= set(found)


def test_a_tensor_used_twice_is_one_box():
    x = leaf(2.0)
    assert texts(draw(x * x + x, {"x": x})).count("x") == 1


def test_the_picture_says_in_words_what_it_shows():
    root = ET.fromstring(draw(small()["L"]))
    title = root.find("{http://www.w3.org/2000/svg}title").text
    assert title == "Computation graph from tensor, tensor through Mul, Add, Tanh"


def test_special_characters_in_names_are_escaped():
    x = leaf(2.0)
    svg = draw(x.exp(), {'<b>&"x"\\$a$': x})
    assert '<b>&"x"\\$a$' in ET.fromstring(svg).find("{http://www.w3.org/2000/svg}title").text
    source = drawing._dot_source(drawing._collect(x.exp(), drawing._names({'"<x>\\': x}), True), "LR")
    assert 'label="\\"<x>\\\\\\n= 2"' in source


def test_the_same_graph_gives_the_same_bytes_in_another_process():
    code = (
        "import shared; from shared.drawing import draw_graph\n"
        "x = shared.tensor([1.0, 2.0], requires_grad=True)\n"
        "print(draw_graph((x * x).exp().sum(), {'x': x}, engine='matplotlib'), end='')"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert runs[0] == runs[1] and runs[0].startswith("<svg")


def test_the_style_in_use_does_not_change_it():
    import matplotlib

    tensors = small()
    before = draw(tensors["L"], tensors)
    with matplotlib.rc_context({"font.size": 30, "figure.constrained_layout.use": True, "text.color": "red"}):
        assert draw(tensors["L"], tensors) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_notebooks_show_it_and_it_can_be_saved(tmp_path):
    picture = draw(small()["L"])
    assert picture._repr_svg_() == str(picture)
    assert len(repr(picture)) < 100
    picture.save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text() == picture


# ---------------------------------------------------------------- the layout


def tangle(depth):
    """Residual blocks: edges that skip layers, leaves everywhere."""
    x = shared.ones(2, 3, requires_grad=True)
    for _ in range(depth):
        x = (x.relu() @ shared.ones(3, 3, requires_grad=True)).tanh() * x + x
    return x.sum()


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("tensor", [small()["L"], tangle(1), tangle(5)], ids=["small", "one block", "five blocks"])
def test_boxes_do_not_overlap_and_edges_go_forward(tensor, direction, monkeypatch):
    placed = {}
    monkeypatch.setattr(drawing, "_draw", lambda graph, chains, centres, sizes, way: placed.update(locals()) or "<svg>")
    draw(tensor, direction=direction)
    boxes = [p for p in placed["centres"] if isinstance(p, int)]
    assert len(boxes) == len(placed["graph"].boxes)
    for a, b in itertools.combinations(boxes, 2):
        (xa, ya), (xb, yb) = placed["centres"][a], placed["centres"][b]
        (wa, ha), (wb, hb) = placed["sizes"][a], placed["sizes"][b]
        assert abs(xa - xb) >= (wa + wb) / 2 or abs(ya - yb) >= (ha + hb) / 2, "two boxes overlap"
    for a, b in placed["graph"].edges:
        (xa, ya), (xb, yb) = placed["centres"][a], placed["centres"][b]
        assert xb > xa if direction == "LR" else yb < ya


def test_a_leaf_stands_just_before_its_first_use():
    x, late = leaf(2.0), leaf(3.0)
    graph = drawing._collect(x.exp().exp().exp() * late + late, drawing._names({"late": late}), True)
    layers = drawing._layers(graph)
    number = [box.title for box in graph.boxes].index("late")
    product = [box.title for box in graph.boxes].index("Mul")
    assert layers[number] == layers[product] - 1 == 3


def test_long_graphs_go_downwards():
    def size(svg):
        return [float(v) for v in ET.fromstring(svg).get("viewBox").split()[2:]]

    (w1, h1), (w2, h2) = size(draw(small()["L"])), size(draw(tangle(5)))
    assert w1 > h1 and h2 > w2


# ---------------------------------------------------------------- Graphviz


def test_dot_gets_the_whole_graph(monkeypatch):
    graphviz = pytest.importorskip("graphviz", reason="needs the graphviz package")
    sources = []

    def pipe(self, format, encoding):
        sources.append(self.source)
        return '<?xml version="1.0"?>\n<!-- Generated by graphviz 1.0 -->\n<svg width="1pt">\n</svg>'

    monkeypatch.setattr(graphviz.Source, "pipe", pipe)
    tensors = small()
    picture = draw_graph(tensors["L"], tensors, engine="dot", direction="TB")
    assert picture.startswith('<svg width="1pt">\n<title>Computation graph')
    lines = [line.strip() for line in sources[0].splitlines()]
    assert 'n0 [label="Tanh → L\\n= 1", fillcolor="#fbe3d0", color="#D55E00"];' in lines
    assert any(line.startswith("rankdir=TB") for line in lines)
    assert sum("->" in line for line in lines) == 4


def test_without_dot_matplotlib_draws(monkeypatch):
    monkeypatch.setattr(drawing.shutil, "which", lambda name: None)
    assert "Mul" in texts(draw_graph(small()["L"]))


# ---------------------------------------------------------------- errors


def test_a_tensor_without_graph_is_refused():
    with pytest.raises(ValueError, match="this tensor has no graph"):
        draw_graph(shared.ones(2))
    with pytest.raises(ValueError, match="this tensor has no graph"):
        draw_graph(leaf(1.0))


def test_a_released_graph_is_refused():
    tensors = small()
    tensors["L"].backward()
    with pytest.raises(ValueError, match=r"backward\(retain_graph=True\)"):
        draw_graph(tensors["L"])


@pytest.mark.parametrize("options", [{"direction": "up"}, {"engine": "neato"}])
def test_unknown_options_are_named(options):
    with pytest.raises(ValueError, match="must be .* but got '(up|neato)'"):
        draw_graph(small()["L"], **options)

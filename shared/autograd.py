"""Floor 1: reverse-mode differentiation on a graph of Functions.

Every differentiable operation is a `Function`. Applying one to Tensors that require a gradient leaves the
instance behind as a node of a graph: `node.edges` leads to the nodes (or leaf Tensors) its inputs came from.
`backward` walks the nodes in falling order of creation, so that a node is visited only after everything that
used its result, and hands each node the gradient of its output.

Source: Baydin et al., "Automatic Differentiation in Machine Learning: a Survey", JMLR 18 (2018), section 3.2.
"""

from __future__ import annotations

import heapq
import importlib
import itertools
import operator
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shared import autocast_mode
from shared.arrays import device, random
from shared.arrays.device import xp
from shared.grad_mode import (  # noqa: F401  (found under torch.autograd's names)
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    modes,
    no_grad,
    set_grad_enabled,
)

if TYPE_CHECKING:
    from shared.tensor import Tensor
# At run time tensor.py puts its class here, since each of the two files needs the other: the knot, tied there.

_creation_numbers = itertools.count(1)


# ---------------------------------------------------------------- the graph's nodes


class Function:
    """One differentiable operation; the instance that ran is the graph's node.

    A subclass writes

    - `forward(*arrays)`: raw arrays (or Python numbers) in, one raw array out. Puts what backward needs into
      the tuple `self.saved`: inputs and the output as they are (not views of them, so that a later in-place
      change is noticed), and nothing for a gradient that is not wanted (`self.needs[i]` is False).
    - `backward(grad)`: the gradient with respect to the output in, one gradient per input out: a tuple, or for
      one input the gradient itself; None where there is none. The engine undoes broadcasting.

    Parameters that are not differentiated go to `__init__`. `twice = True` declares that `backward` is written
    in operators that arrays and Tensors share, so that it can itself be differentiated. `view = True` says that
    the output shares the input's memory.

    >>> import shared
    >>> class Cube(Function):
    ...     def forward(self, x):
    ...         self.saved = (x,)
    ...         return x * x * x
    ...     def backward(self, grad):
    ...         (x,) = self.saved
    ...         return 3 * x * x * grad
    >>> x = shared.tensor([2.0], requires_grad=True)
    >>> Cube()(x).backward(); x.grad
    tensor([12.])
    """

    twice = False
    view = False

    saved: tuple = ()
    needs: Sequence[bool] = ()
    edges: Sequence[Function | Tensor | None] | None = ()
    origins: Sequence[tuple] = ()
    hooks: list[Callable] | None = None
    trace: list[str] | None = None

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def __call__(self, *inputs: Tensor | float) -> Tensor:
        arrays, edges, needs = [], [], []
        grad_enabled = modes.grad
        recording = False
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x.array)
                if x._base is not None:
                    _check_view(x)
                if grad_enabled and x._requires_grad:
                    edges.append(x if x._fn is None else x._fn)
                    needs.append(True)
                    recording = True
                    continue
            else:
                arrays.append(x)
            edges.append(None)
            needs.append(False)
        self.needs = needs
        try:
            result = self.forward(*arrays)
        except (ValueError, TypeError) as error:
            device.check_same_device(type(self).__name__, arrays)
            raise self.explain(error, arrays) from error
        output = Tensor(result)
        if self.view:
            _join_view(output, inputs[0])
        if recording:
            self.number = next(_creation_numbers)
            self.edges = edges
            self.shape, self.dtype = output.array.shape, output.array.dtype
            if self.saved:
                if output.array is not result:  # NumPy gave a bare number: saved, it must be known as the output
                    self.saved = tuple([output.array if a is result else a for a in self.saved])
                self.origins = self._origins_of_saved(inputs, output)
            if modes.anomaly:
                self.trace = traceback.format_stack()[:-1]
            output._requires_grad = True
            output._fn = self
        return output

    def explain(self, error: Exception, arrays: list) -> Exception:
        """Turns an error of the array library into one that names the operation and the shapes."""
        shapes = " and ".join(str(tuple(a.shape)) for a in arrays if hasattr(a, "shape"))
        if "broadcast" in str(error) and len(arrays) > 1:
            return RuntimeError(
                f"{self.name}: shapes {shapes} cannot be broadcast together: aligned at the last dimension, "
                f"two sizes must be equal or one of them 1"
            )
        kind = ValueError if isinstance(error, ValueError) else TypeError  # NumPy's own kinds take other arguments
        return kind(f"{self.name} on shapes {shapes}: {error}")

    @property
    def name(self) -> str:
        """The op's name in messages and drawings, e.g. 'Mul'."""
        return type(self).__name__

    def _origins_of_saved(self, inputs: Sequence[Tensor | float], output: Tensor) -> list[tuple]:
        """For each saved array that is the output or an input: its place, where it came from, and its version."""
        origins: list[tuple] = []
        for place, array in enumerate(self.saved):
            if array is output.array:
                origins.append((place, _OUTPUT, output._version, output._version[0]))
                continue
            for x, edge in zip(inputs, self.edges, strict=True):
                if isinstance(x, Tensor) and array is x.array:
                    origins.append((place, edge, x._version, x._version[0]))
                    break
        return origins

    def _check_saved(self) -> None:
        for place, _, counter, number in self.origins:
            if counter[0] != number:
                raise RuntimeError(
                    f"one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"{self.name} saved an array of shape {tuple(self.saved[place].shape)} at version {number}, and it "
                    f"is at version {counter[0]} now. Use the out-of-place form of that operation, or clone() first"
                )

    def _saved_as_tensors(self) -> tuple:
        """The saved arrays as Tensors, joined to the graph where they came from it."""
        tensors = [Tensor(a) if hasattr(a, "dtype") and hasattr(a, "shape") else a for a in self.saved]
        for place, origin, counter, _ in self.origins:
            if isinstance(origin, Tensor):
                tensors[place] = origin
            elif origin is not None:
                tensors[place]._fn = self if origin is _OUTPUT else origin
                tensors[place]._requires_grad = True
            tensors[place]._version = counter
        return tuple(tensors)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}Backward0>"


_OUTPUT = object()  # stands for a node's own output among its origins: the node itself would be a cycle


def _check_view(x: Tensor) -> None:
    """Refuses a view whose base got a new history after the view was taken: its gradient would be wrong."""
    if x._base._fn is not x._base_fn:
        raise RuntimeError(
            f"this tensor of shape {tuple(x.array.shape)} is a view of a tensor that a recorded in-place operation has "
            f"changed since; take the view again after the change"
        )


def _join_view(output: Tensor, source: Tensor) -> None:
    """Lets a view share its base's version counter."""
    a, b = output.array, source.array
    base_a, base_b = getattr(a, "base", None), getattr(b, "base", None)
    if a is b or base_a is b or (base_a is not None and base_a is base_b):
        output._version = source._version
        output._base = source if source._base is None else source._base
        output._base_fn = output._base._fn


def unbroadcast(grad: Any, shape: tuple[int, ...]) -> Any:
    """Sums `grad` over the axes along which an array of `shape` was broadcast to `grad.shape`.

    An element that was used several times receives the sum of the gradients of its uses. Shapes are aligned from the
    right: axes that `shape` does not have are gone from the result, and axes of size 1 that were stretched have size
    1 again. Where nothing was broadcast, `grad` may be returned as it is. Errors: RuntimeError naming both shapes where
    `shape` cannot have been broadcast to `grad.shape`.

    `grad` is an array, or a Tensor where this gradient is itself to be differentiated, and the result is of the same
    kind. Both have `shape`, `sum(axis=…, keepdims=…)` and `reshape`, with one difference: over no axes at all,
    `axis=()`, NumPy sums nothing and a Tensor, as in PyTorch, everything.

    >>> import numpy as np
    >>> unbroadcast(np.ones((4, 3)), (3,)), unbroadcast(np.ones((4, 3)), (4, 1)).shape
    (array([4., 4., 4.]), (4, 1))
    """
    if tuple(grad.shape) == tuple(shape):
        return grad
    extra = len(grad.shape) - len(shape)
    if extra >= 0:
        stretched = tuple(i + extra for i, n in enumerate(shape) if n == 1 and grad.shape[i + extra] != 1)
        summed = grad.sum(axis=tuple(range(extra)) + stretched, keepdims=True)
        if tuple(summed.shape[extra:]) == tuple(shape):
            return summed.reshape(tuple(shape))
    raise RuntimeError(f"a gradient of shape {tuple(grad.shape)} does not fit an input of shape {tuple(shape)}")


# ---------------------------------------------------------------- the engine


class _Gradients:
    """The gradients under way: one sum per node or leaf, added in place only into buffers that nobody else holds.

    - `sums`: {node or leaf: the sum of the gradients that have reached it}
    - `waiting`: a heap of (-node.number, node): the nodes to visit, the youngest first
    - `owned`: ids of the nodes and leaves whose sum is in an array that the engine alone holds
    """

    def __init__(self, create_graph: bool, targets: Sequence[Tensor] | None):
        self.create_graph = create_graph
        self.sums: dict[Any, Any] = {}
        self.waiting: list[tuple[int, Function]] = []
        self.owned: set[int] = set()
        self.others: tuple | None = None  # what the node just visited was given, saved and returned
        self.wanted = {t._fn for t in targets if t._fn is not None} if targets is not None else ()
        self.captured: dict[Function, Any] = {}  # the gradients of the wanted nodes

    def add(self, edge: Function | Tensor, grad: Any) -> None:
        """Adds `grad`, in the shape and dtype of what it is for, to what has reached `edge`: a node, or a leaf Tensor.

        The first gradient becomes `self.sums[edge]` as it is, and a node (a Function) that gets its first one joins
        the heap `self.waiting` as `(-edge.number, edge)`, once. Each further gradient, of another use of the same
        value, is added to the sum.

        An array that came in may be held by others: an addition returns one array for both of its inputs. So a sum
        is a new array, and that is all it takes.

        Optional, for speed: where `id(edge)` is in `self.owned`, the array of the sum belongs to the engine alone, and
        `operator.iadd` may add to it in place. As owned one may put down a sum made here, and a leaf's first gradient
        where `self.is_fresh(grad)`; under `self.create_graph`, where gradients are Tensors with a history, nothing.
        """
        before = self.sums.get(edge)
        if before is None:
            self.sums[edge] = grad
            if isinstance(edge, Function):
                heapq.heappush(self.waiting, (-edge.number, edge))
            elif self.is_fresh(grad):
                self.owned.add(id(edge))
        elif id(edge) in self.owned:
            self.sums[edge] = operator.iadd(before, grad)
        else:
            self.sums[edge] = before + grad
            if not self.create_graph:
                self.owned.add(id(edge))

    def pop(self) -> tuple[Function, Any]:
        """The youngest node that waits, and its gradient; both are taken out."""
        node = heapq.heappop(self.waiting)[1]
        self.owned.discard(id(node))
        self.others = None  # what the last node saved must not live on while this one works
        return node, self.sums.pop(node)

    def is_fresh(self, result: Any) -> bool:
        """True where nobody else holds an array that the node just visited returned: a leaf may keep it uncopied."""
        if self.others is None or isinstance(result, Tensor):
            return False
        if getattr(result, "base", None) is not None and not _alone_on_its_base(result):
            return False
        grad, results, saved = self.others
        if result is grad or sum(result is other for other in results) > 1:
            return False
        return not any(result is other for other in saved)


def _alone_on_its_base(view: Any) -> bool:
    """True for a view of all of an array that nobody else holds, such as what `reshape` made of a new array.

    Not for one that cannot be written to, such as what `broadcast_to` made of a single number.
    """
    whole = type(view.base) is type(view) and view.base.base is None and view.base.size == view.size
    whole = whole and getattr(view.flags, "writeable", True)
    return whole and sys.getrefcount(view.base) == 2  # the view's reference and that of the call


def _walk(gradients: _Gradients, keep: bool) -> None:
    """Visits every node that a gradient reaches, the youngest first, until none is waiting.

    `gradients.pop()` takes a node and its gradient out. `_backward_of(node, grad, gradients)` gives the gradients of
    its inputs, in the order of `node.edges`, which says where each came from: a node, a leaf, or None for an input
    that needs no gradient. `_fit(result, edge)` puts a gradient into the shape and dtype of its input, and
    `gradients.add(edge, …)` hands it over. A gradient can be None as well, also where the edge is not: the output
    does not depend on that input. Without an edge, or without a gradient, there is nothing to hand over.

    Unless `keep`, each node lets go of what it holds before the next one is taken, so that memory falls during the
    walk: its `edges` become None (the sign by which a second walk is refused), its `saved` and its `origins`, which
    leads to the same nodes as `edges`, empty tuples.
    """
    while gradients.waiting:
        node, grad = gradients.pop()
        results = _backward_of(node, grad, gradients)
        for edge, result in zip(node.edges, results, strict=True):
            if edge is not None and result is not None:
                gradients.add(edge, _fit(result, edge))
        if not keep:
            node.edges, node.saved, node.origins = None, (), ()


def _run(
    roots: Sequence[Tensor],
    seeds: Sequence[Any],
    keep: bool,
    create_graph: bool,
    targets: Sequence[Tensor] | None,
) -> _Gradients:
    """Propagates `seeds` from `roots`; returns the gradients that reached leaves and targets."""
    gradients = _Gradients(create_graph, targets)
    for root, seed in zip(roots, seeds, strict=True):
        if root._base is not None:
            _check_view(root)
        gradients.add(root if root._fn is None else root._fn, seed)
    _walk(gradients, keep)
    gradients.others = None
    gradients.sums.update(gradients.captured)
    return gradients


def _backward_of(node: Function, grad: Any, gradients: _Gradients) -> tuple:
    """One gradient per input, from the node's backward, after hooks and checks."""
    if node.edges is None:
        raise RuntimeError(
            f"Trying to backward through the graph a second time (at {node.name}), but what it saved has been "
            f"freed. Pass retain_graph=True to the first backward, or compute the result anew"
        )
    if node.hooks:
        grad = _call_hooks(node.hooks, grad, gradients.create_graph)
    if node in gradients.wanted:
        gradients.captured[node] = grad
    if node.origins:
        node._check_saved()
    if gradients.create_graph:
        results = _recorded_backward(node, grad)
    else:
        results = node.backward(grad)
    if not isinstance(results, tuple):
        results = (results,)
    if len(results) != len(node.edges):
        raise RuntimeError(
            f"the backward of {node.name} returned {len(results)} gradients, expected {len(node.edges)}: one per input"
        )
    if modes.anomaly:
        for place, result in enumerate(results):
            _check_anomaly(node, result, place)
    gradients.others = (grad, results, node.saved)
    return results


def _recorded_backward(node: Function, grad: Tensor) -> Any:
    """The node's backward on Tensors, so that it leaves a graph of its own."""
    if not node.twice:
        raise RuntimeError(
            f"create_graph=True: the gradient of {node.name} cannot itself be differentiated (its Function does not "
            f"declare twice = True)"
        )
    arrays = node.saved
    node.saved = node._saved_as_tensors()
    try:
        return node.backward(grad)
    finally:
        node.saved = arrays


def _fit(grad: Any, edge: Function | Tensor) -> Any:
    """The gradient in the shape and dtype of the input it is for: broadcasting and promotion undone."""
    input = edge.array if isinstance(edge, Tensor) else edge
    if grad.shape != input.shape:
        if grad.dtype.itemsize == 2 and not isinstance(grad, Tensor):
            grad = grad.astype("float32")  # sums of float16 and bfloat16 would lose what is small beside them
        grad = unbroadcast(grad, input.shape)
    if grad.dtype != input.dtype:
        grad = grad.to(input.dtype) if isinstance(grad, Tensor) else grad.astype(input.dtype)
    return grad


def _call_hooks(hooks: list[Callable], grad: Any, create_graph: bool) -> Any:
    """Hands the gradient to each hook as a Tensor; a hook may return another one."""
    for hook in list(hooks):
        changed = hook(grad if create_graph else Tensor(grad))
        if changed is not None:
            grad = changed if create_graph else changed.array
    return grad


def _check_anomaly(node: Function, result: Any, place: int) -> None:
    array = result.array if isinstance(result, Tensor) else result
    if array is not None and xp(array).isnan(array).any():
        where = "".join(node.trace) if node.trace else "  (its forward ran outside detect_anomaly)\n"
        raise RuntimeError(
            f"Function '{node.name}Backward0' returned nan values in its {place}th output. The op was "
            f"called here:\n{where}"
        )


def _seed(root: Tensor, grad: Tensor | None, create_graph: bool) -> Any:
    """The gradient to start from: the given one, or 1 for a tensor of one element."""
    if not root._requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    if grad is None:
        if root.array.size != 1:
            raise RuntimeError(
                f"grad can be implicitly created only for scalar outputs, but this output has shape "
                f"{tuple(root.array.shape)}. Reduce it first, e.g. with .sum(), or pass backward(gradient)"
            )
        ones = xp(root.array).ones_like(root.array)
        return Tensor(ones) if create_graph else ones
    if not isinstance(grad, Tensor):
        raise TypeError(f"gradients can be either Tensors or None, but got {type(grad).__name__}")
    if grad.array.shape != root.array.shape:
        raise RuntimeError(
            f"Mismatch in shape: the gradient has a shape of {tuple(grad.array.shape)} and the output has a shape of "
            f"{tuple(root.array.shape)}"
        )
    if grad.array.dtype != root.array.dtype:
        grad = grad.to(root.array.dtype)
    return grad if create_graph else grad.array


def _as_list(x: Any) -> list:
    return [x] if x is None or hasattr(x, "shape") or isinstance(x, (int, float)) else list(x)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Adds to `.grad` of every leaf (or just of `inputs`) the gradient of `tensors`.

    A tensor of one element needs no gradient argument; any other takes one of its own shape. What the graph
    saved is released on the way unless `retain_graph` (default: `create_graph`).
    """
    roots = _as_list(tensors)
    grads = _as_list(grad_tensors) if grad_tensors is not None else [None] * len(roots)
    if len(grads) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(grads)} gradients")
    targets = None if inputs is None else _as_list(inputs)
    if targets is not None and not targets:
        raise RuntimeError("`inputs` argument to `backward` cannot be empty.")
    keep = create_graph if retain_graph is None else retain_graph
    seeds = [_seed(t, g, create_graph) for t, g in zip(roots, grads, strict=True)]
    gradients = _run(roots, seeds, keep, create_graph, targets)
    allowed = None if targets is None else {id(t) for t in targets}
    for edge, grad in gradients.sums.items():
        if isinstance(edge, Tensor) and (allowed is None or id(edge) in allowed):
            _deliver(edge, grad, id(edge) in gradients.owned, create_graph)
    for target in targets or ():
        if target._fn is not None and target._fn in gradients.sums:
            _deliver(target, gradients.sums[target._fn], False, create_graph)


def _deliver(leaf: Tensor, grad: Any, owned: bool, create_graph: bool) -> None:
    """Hands a finished gradient to the leaf's hooks, and adds it to `leaf.grad`."""
    if leaf._hooks:
        grad, owned = _call_hooks(leaf._hooks, grad, create_graph), False
    if create_graph:
        leaf.grad = grad.clone() if leaf._grad is None else leaf._grad + grad
    else:
        _accumulate(leaf, _tensor_of(grad, owned) if leaf._grad is None else Tensor(grad))


def _accumulate(leaf: Tensor, grad: Tensor) -> None:
    """Adds `grad`, a Tensor of the leaf's shape, to `leaf.grad`, which is None before the first backward.

    The first gradient becomes `leaf.grad` itself; its memory is the leaf's alone. A later one is added in place, to
    `leaf.grad.array`, so that whoever holds `leaf.grad` sees the sum, and `leaf.grad._version[0]`, one more for each
    change, tells a node that saved `leaf.grad`. Where `leaf.grad` requires a gradient itself, other results may depend
    on it: there nothing is changed, and `leaf.grad` becomes a new Tensor, the sum of both.
    """
    if leaf._grad is None:
        leaf.grad = grad
    elif leaf._grad._requires_grad:
        leaf.grad = leaf._grad + grad
    else:
        leaf._grad.array += grad.array
        leaf._grad._version[0] += 1


def _tensor_of(grad: Any, owned: bool) -> Tensor:
    """The gradient as a contiguous Tensor, in memory of its own."""
    array = xp(grad).asarray(grad)
    return Tensor(array if owned and array.flags.c_contiguous else array.copy("C"))


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, as a tuple; no `.grad` is touched.

    >>> import shared
    >>> x = shared.tensor(3.0, requires_grad=True)
    >>> (slope,) = shared.autograd.grad(x**3, x, create_graph=True)
    >>> shared.autograd.grad(slope, x)
    (tensor(18.),)
    """
    roots, sources = _as_list(outputs), _as_list(inputs)
    grads = _as_list(grad_outputs) if grad_outputs is not None else [None] * len(roots)
    for i, source in enumerate(sources):
        if not source._requires_grad:
            raise RuntimeError(f"input {i} of grad() does not require grad")
    keep = create_graph if retain_graph is None else retain_graph
    seeds = [_seed(t, g, create_graph) for t, g in zip(roots, grads, strict=True)]
    gradients = _run(roots, seeds, keep, create_graph, sources)
    found: list[Tensor | None] = []
    for i, source in enumerate(sources):
        result = gradients.sums.get(source if source._fn is None else source._fn)
        if result is None and not allow_unused:
            raise RuntimeError(
                f"One of the differentiated Tensors (input {i}, shape {tuple(source.array.shape)}) appears to not have "
                f"been used in the graph. Set allow_unused=True if this is the desired behavior."
            )
        owned = id(source) in gradients.owned
        if result is not None and source._fn is None and source._hooks:
            result, owned = _call_hooks(source._hooks, result, create_graph), False
        found.append(result if result is None or create_graph else _tensor_of(result, owned))
    return tuple(found)


# ---------------------------------------------------------------- hooks and recomputation


class RemovableHandle:
    """What registering a hook returns; `remove()` takes the hook away."""

    def __init__(self, hooks: Any, hook: Any):
        self.hooks, self.hook = hooks, hook

    def remove(self) -> None:
        if self.hook in self.hooks:
            self.hooks.remove(self.hook)


def register_hook(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Calls `hook(grad)` whenever the gradient of `tensor` has been computed; it may return another gradient."""
    if not tensor._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    owner = tensor if tensor._fn is None else tensor._fn
    attribute = "_hooks" if tensor._fn is None else "hooks"
    if getattr(owner, attribute) is None:
        setattr(owner, attribute, [])
    hooks = getattr(owner, attribute)
    hooks.append(hook)
    return RemovableHandle(hooks, hook)


def retain_grad(tensor: Tensor) -> None:
    """Makes a tensor that is no leaf keep its gradient in `.grad`."""
    if tensor._fn is None or tensor._retains_grad:
        if not tensor._requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        return
    reference = weakref.ref(tensor)  # a strong one would tie node and tensor into a cycle

    def keep(gradient: Tensor) -> None:
        owner = reference()
        if owner is not None:
            owner.grad = gradient.clone() if owner.grad is None else owner.grad + gradient

    register_hook(tensor, keep)
    tensor._retains_grad = True


class Checkpoint(Function):
    """Runs `function` without recording; backward runs it again, recorded, and goes through that graph."""

    def __init__(self, function: Callable, args: tuple):
        self.function = function
        self.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        self.others = [None if isinstance(a, Tensor) else a for a in args]

    def _call(self, tensors: list[Tensor]) -> Any:
        args = list(self.others)
        for place, tensor in zip(self.places, tensors, strict=True):
            args[place] = tensor
        return self.function(*args)

    def forward(self, *arrays: Any) -> Any:
        self.saved = arrays[:-1]  # without the anchor
        self.rng_state, self.autocast = random.get_states(), autocast_mode.now()
        with no_grad():
            result = self._call([Tensor(a) for a in self.saved])
        if not isinstance(result, Tensor):
            raise TypeError(f"checkpoint expects a function that returns one Tensor, but got {type(result).__name__}")
        return result.array

    def backward(self, grad: Any) -> tuple:
        tensors = [Tensor(a, requires_grad=need) for a, need in zip(self.saved, self.needs, strict=False)]
        now = random.get_states()
        random.set_states(self.rng_state)  # the same dropout masks as the first time
        try:
            with enable_grad(), self.autocast:  # and the same dtypes
                result = self._call(tensors)
        finally:
            random.set_states(now)
        if result._requires_grad:
            backward(result, Tensor(grad))
        return (*[None if x.grad is None else x.grad.array for x in tensors], None)


def checkpoint(function: Callable[..., Tensor], *args: Any, use_reentrant: bool = True) -> Tensor:
    """`function(*args)`, keeping only its inputs: backward computes the inside once more.

    Trades one more forward for the memory of the intermediate results. Gradients of parameters that
    `function` uses are added to their `.grad` on the way. `use_reentrant` is there for PyTorch's signature.
    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).
    """
    tensors = [a for a in args if isinstance(a, Tensor)]
    if not is_grad_enabled():
        return function(*args)
    anchor = Tensor(xp(tensors[0].array if tensors else None).empty(0, dtype="float32"))
    anchor._requires_grad = True  # parameters inside need gradients even where no argument does
    return Checkpoint(function, args)(*tensors, anchor)


def __getattr__(name: str) -> Any:
    """`gradcheck` and `gradgradcheck` under PyTorch's name; they live upstairs, in `shared.testing`."""
    if name in ("gradcheck", "gradgradcheck"):
        return getattr(importlib.import_module("shared.testing"), name)
    raise AttributeError(f"module 'shared.autograd' has no attribute {name!r}")

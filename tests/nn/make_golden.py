"""Run every case with PyTorch and keep the outcome: `python -m tests.nn.make_golden` (needs torch)."""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np

from tests.nn.cases import FUNCTIONS, MODULES, Case, Constant
from tests.nn.golden_file import save

HERE = Path(__file__).parent


# torch is imported where it is used: pytest looks for doctests in this file also where there is no torch.


def run(case: Case, precision: str = "float64") -> list[np.ndarray | None]:
    """The output, then the gradient by each input (None for constants)."""
    import torch

    dtype = getattr(torch, precision)
    tensors = []
    for x in case.inputs():
        array = torch.from_numpy(np.asarray(x.array if isinstance(x, Constant) else x))
        array = array.to(dtype) if array.is_floating_point() else array
        tensors.append(array if isinstance(x, Constant) else array.requires_grad_())
    out = case.call(torch.nn.functional, *tensors)
    out.backward(torch.from_numpy(np.asarray(case.cotangent(tuple(out.shape)))).to(dtype))
    return [out.detach().numpy()] + [t.grad.numpy() if t.requires_grad else None for t in tensors]


def run_module(expression: str, shapes: tuple) -> tuple[dict, dict[str, np.ndarray]]:
    """How a module prints and what its state's keys are; its state, inputs, output and gradients."""
    import torch

    torch.manual_seed(0)
    module = eval(expression, {"nn": torch.nn, "OrderedDict": OrderedDict}).double()
    texts = {"repr": repr(module), "keys": list(module.state_dict())}
    if not shapes:
        return texts, {}
    arrays = {f"state.{k}": v.detach().clone().numpy() for k, v in module.state_dict().items()}
    inputs = [torch.randn(shape, dtype=torch.float64).softmax(-1).requires_grad_() for shape in shapes]
    arrays |= {f"input.{i}": x.detach().numpy() for i, x in enumerate(inputs)}
    out = module(*inputs)
    (out * torch.arange(1.0, out.numel() + 1, dtype=torch.float64).reshape(out.shape)).sum().backward()
    arrays["output"] = out.detach().numpy()
    arrays |= {f"input_grad.{i}": x.grad.numpy() for i, x in enumerate(inputs)}
    return texts, arrays | {f"grad.{k}": p.grad.numpy() for k, p in module.named_parameters()}


def main() -> None:
    warnings.simplefilter("ignore")
    source = hashlib.sha256((HERE / "cases.py").read_bytes()).hexdigest()
    functions = {}
    for case in FUNCTIONS:
        functions |= {f"{case.name}|{i}": a for i, a in enumerate(run(case)) if a is not None}
    modules, texts = {}, {}
    for expression, shapes in MODULES:
        texts[expression], arrays = run_module(expression, shapes)
        modules |= {f"{expression}|{k}": v for k, v in arrays.items()}
    (HERE / "golden").mkdir(exist_ok=True)
    save(HERE / "golden" / "functions.npz", {"source_sha256": source}, functions)
    save(HERE / "golden" / "modules.npz", {"source_sha256": source, "modules": texts}, modules)
    print(f"{len(FUNCTIONS)} function cases, {len(MODULES)} modules")


if __name__ == "__main__":
    main()

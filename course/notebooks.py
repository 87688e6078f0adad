"""Executing notebooks headless, and checking that the committed ones are what their code produced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import environment
from .files import write_atomically
from .sprints import ROOT, CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_SECONDS = 600
# A path that exists on one machine only. Base64 images are never searched, only text.
MACHINE_PATH = re.compile(
    r"""(?<![\w.~/])/(?:home|root|tmp|work|Users|private|mnt|var/folders)/[\w.]"""
    r"""|(?<!\w)/(?:opt|usr)/[^\s"']*(?:site-packages|python3\.)"""
    r"""|\b[A-Z]:\\{1,2}Users\\"""
)


def source_hash(notebook: dict[str, Any]) -> str:
    """sha256 of the code cells' sources, in order: what the outputs depend on."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def read(path: Path) -> NotebookNode:
    """The notebook at `path`, as nbformat 4; CourseError when it cannot be read."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises what json, its validator and the file system raise
        raise CourseError(f"{path.name} is not a readable notebook: {error}") from None


def _own_kernel() -> Any:
    # A kernel specification of the user may point to another Python: start this one, whatever is registered.
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=40", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    return AsyncKernelManager(kernel_spec_manager=ThisPython(), kernel_name="python3")


def execute(path: Path, root: Path = ROOT, on_cell: Callable[[int], None] | None = None) -> tuple[NotebookNode, float]:
    """Run every cell of the notebook in a fresh kernel whose folder is the repository's root.

    Returns the executed notebook (the file is not touched) and the seconds taken. A failing cell raises
    CourseError with its number, source and traceback. `on_cell(done)` is called after each code cell.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read(path)
    position = {"index": 0, "done": 0}
    stopped = threading.Event()

    def before(cell: NotebookNode, cell_index: int) -> None:
        if stopped.is_set():
            raise DeadKernelError("stopped")
        position["index"] = cell_index

    def after(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        position["done"] += 1
        if on_cell:
            on_cell(position["done"])

    manager = _own_kernel()
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,  # a progress bar ends up as one line, not as one output per refresh
        resources={"metadata": {"path": str(root)}},
        on_cell_execute=before,
        on_cell_executed=after,
    )
    variables = environment(root, PYDEVD_DISABLE_FILE_VALIDATION="1")
    started = time.perf_counter()
    # In a thread of its own, nbclient leaves the signal handlers alone: its own one waits for ever after Ctrl-C.
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute, env=variables, cleanup_kc=True)
        try:
            running.result()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            number, source = position["index"] + 1, "".join(notebook.cells[position["index"]]["source"])
            why = error.traceback if isinstance(error, CellExecutionError) else str(error)
            why = re.sub(r"\x1b\[[0-9;]*m", "", why).strip()
            raise CourseError(f"{path.name}: cell {number} failed.\n\n{source}\n\n{why}") from None
        except KeyboardInterrupt:
            stopped.set()
            if process := getattr(manager.provisioner, "process", None):
                process.kill()
            raise
    return notebook, time.perf_counter() - started


def _portable(value: Any, root: Path) -> Any:
    """The same output without this machine's folders, in text only."""
    if isinstance(value, str):
        value = value.replace(f"{root}{os.sep}", "").replace(str(root), ".")
        value = value.replace(f"{Path(sys.prefix)}{os.sep}", "")
        return re.sub(r"(?:/tmp|/var/folders/\S*?)/ipykernel_\d+/\d+\.py", "<cell>", value)
    if isinstance(value, list):
        return [_portable(item, root) for item in value]
    if isinstance(value, dict):
        return {k: v if str(k).startswith("image/png") else _portable(v, root) for k, v in value.items()}
    return value


IMAGES = ("image/png", "image/svg+xml")


def describe_images(notebook: dict[str, Any]) -> None:
    """Give every image the caption below it as alternative text: the italics that open the next Markdown cell."""
    for cell, below in zip(notebook["cells"], notebook["cells"][1:], strict=False):
        caption = _caption("".join(below["source"])) if below["cell_type"] == "markdown" else None
        for output in cell.get("outputs", []) if caption else []:
            for kind in IMAGES:
                if kind in output.get("data", {}):
                    output["metadata"][kind] = {**output["metadata"].get(kind, {}), "alt": caption}


def _caption(markdown: str) -> str | None:
    """The text of a paragraph in italics, without its markup; None where the cell does not open with one."""
    paragraph = markdown.strip().split("\n\n")[0]
    found = re.fullmatch(r"\*([^*].*[^*])\*", paragraph, re.DOTALL)
    return " ".join(re.sub(r"[`$]", "", found[1]).split()) if found else None


def write_executed(path: Path, notebook: NotebookNode, root: Path = ROOT) -> None:
    """Store an executed notebook with the hash of its code, without what differs between machines."""
    import nbformat

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = [nbformat.from_dict(_portable(dict(output), root)) for output in cell["outputs"]]
    describe_images(notebook)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {
        "name": "python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
    }
    notebook.metadata["course"] = {"source_sha256": source_hash(notebook)}
    nbformat.validate(notebook)
    write_atomically(path, nbformat.writes(notebook, version=4) + "\n")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return ["".join(value)] if all(isinstance(v, str) for v in value) else [t for v in value for t in _texts(v)]
    if isinstance(value, dict):
        return [t for k, v in value.items() if not str(k).startswith("image/png") for t in _texts(v)]
    return []


def problems(path: Path) -> list[str]:
    """What is wrong with a committed notebook; empty when its outputs are those of its code."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = list(enumerate(notebook["cells"], 1))
    except (ValueError, KeyError, TypeError) as error:
        return [f"is not a readable notebook ({error})"]
    found = []
    stored = notebook.get("metadata", {}).get("course", {}).get("source_sha256")
    if stored is None:
        found.append("has never been executed with `course run NN --write`")
    elif stored != source_hash(notebook):
        found.append("has code that was changed after it was executed: `course run NN --write`")
    for number, cell in cells:
        for text in _texts(cell["source"]):
            if match := MACHINE_PATH.search(text):
                found.append(f"cell {number} holds a path of one machine: {match[0]}…")
        if cell["cell_type"] != "code":
            continue
        if "".join(cell["source"]).strip() and cell.get("execution_count") is None:
            found.append(f"cell {number} was not executed")
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                found.append(f"cell {number} ends in an error: {output.get('ename')}: {output.get('evalue')}")
            for kind in IMAGES:
                if kind in output.get("data", {}) and not output["metadata"].get(kind, {}).get("alt"):
                    found.append(
                        f"cell {number}'s image has no alternative text: put a caption, *in italics*, below it"
                    )
            for text in _texts(output):
                if match := MACHINE_PATH.search(text):
                    found.append(f"cell {number}'s output holds a path of one machine: {match[0]}…")
    return found

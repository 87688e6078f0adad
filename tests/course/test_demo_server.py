"""`course demo` with Gradio, without a browser: the address, what is sent, two clients at once."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from course.demo import server
from course.demo.session import read_prompt, write
from course.demo.strategies import PARAMETERS, STRATEGIES, Settings
from course.demo.turns import Turns
from course.sprints import ROOT
from tests.course import demo_models

if importlib.util.find_spec("gradio") is None:
    pytest.skip("needs Gradio: python -m course setup --extra demo", allow_module_level=True)

from course.demo import app  # noqa: E402

DEFAULTS = [p.default for p in PARAMETERS.values()]


@pytest.fixture(scope="module")
def shelf():
    return demo_models.shelf()[0]


@pytest.fixture(scope="module")
def address(shelf):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_SHARE", "True")  # would ask Gradio's servers for a public address
        patch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
        for name in ("HTTP_PROXY", "http_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "example.org")
        patch.setenv("no_proxy", "example.org")
        app = server.launch(shelf, 0)
        assert app.share_url is None and app.server_name == "127.0.0.1"
        yield app.local_url
        app.close(verbose=False)


def client(address: str):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False)


def alone(shelf, model: str, prompt: str, settings: Settings) -> str:
    reader = shelf.get(model)
    choices = write(reader, read_prompt(reader, prompt), settings, threading.Event(), Turns())
    return prompt + "".join(choice.text for choice in choices)


def test_it_is_served_on_this_machine_only(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")


def test_the_page_may_load_nothing_from_elsewhere(address: str) -> None:
    with urllib.request.urlopen(address) as answer:
        policy, page = answer.headers["content-security-policy"], answer.read().decode()
    assert policy.startswith("default-src 'self';") and "http" not in policy and "*" not in policy
    assert "fonts.googleapis" not in page
    config = json.loads(urllib.request.urlopen(f"{address}config").read())
    assert config["analytics_enabled"] is False and config["enable_queue"]


def test_two_clients_at_once_get_what_each_gets_alone(shelf, address: str) -> None:
    tasks = [
        ("Shakespeare by characters", "ROMEO:\n", "Sampling", 80, 1),
        (demo_models.BYTES, "é", "Nucleus", 80, 2),
        ("Shakespeare by characters", "JULIET:\n", "Sampling", 80, 3),
        (demo_models.BYTES, "<b>", "Greedy", 80, 4),
    ]
    expected = [
        alone(shelf, model, prompt, Settings(strategy, None, number, seed))
        for model, prompt, strategy, number, seed in tasks
    ]
    assert len(set(expected)) == len(tasks)
    clients = [client(address) for _ in tasks]
    ready = threading.Barrier(len(tasks))

    def ask(which: int) -> str:
        ready.wait()
        return clients[which].predict(*tasks[which], *DEFAULTS, api_name="/generate")[2]

    with ThreadPoolExecutor(len(tasks)) as pool:
        assert list(pool.map(ask, range(len(tasks)))) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({0: "Nobody"}, "Nobody"),
        ({1: ""}, "The prompt is empty"),
        ({1: "é"}, "é (U+00E9)"),
        ({1: "x" * 3_000_000}, "3,000,000 characters"),
        ({3: 100_000}, "100000"),
        ({5: 99.0}, "99"),
    ],
)
def test_wrong_requests_are_refused_in_words(address: str, changes: dict, said: str) -> None:
    request = ["Shakespeare by characters", "ROMEO:\n", "Sampling", 10, 0, *DEFAULTS]
    for place, value in changes.items():
        request[place] = value
    try:
        note = client(address).predict(*request, api_name="/generate")[0]
        assert 'role="alert"' in note
    except Exception as error:  # Gradio itself refuses what its components cannot hold
        note = str(error)
    assert said in note


@pytest.mark.parametrize("value", [None, "many", 2.5, 600, 0, float("inf"), float("nan"), [1]])
def test_numbers_that_are_none_are_named_and_no_mistake_of_the_program(shelf, value) -> None:
    """A box that somebody has emptied gives None."""
    on, source = app.Handlers(shelf), shelf.sources[demo_models.BYTES]
    with pytest.raises(ValueError, match="Number of tokens: expected "):
        on._settings(source, "Sampling", value, 0, tuple(DEFAULTS))
    if value not in (None, 0, 600):
        with pytest.raises(ValueError, match="Seed: expected "):
            on._settings(source, "Sampling", 5, value, tuple(DEFAULTS))
    assert on._settings(source, "Sampling", 5, None, tuple(DEFAULTS)).seed == 0
    written = {"model": demo_models.BYTES, "ids": [1, 2, 3]}
    assert "Layer: expected " in on.attention(written, value, 1, 32)
    assert "Head: expected " in on.attention(written, 1, value, 32)
    if value != 600:
        assert "Tokens shown: expected " in on.attention(written, 1, 1, value)


def test_only_generate_can_be_called_from_outside(address: str) -> None:
    endpoints = client(address).view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/generate"]


def test_a_taken_port_is_explained_by_the_command(address: str) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "course", "demo", "--no-browser", "--port", port]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert f"port {port} cannot be used" in result.stderr and "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Starting …" and lines[1].startswith("framework: ")


def test_every_strategy_is_offered(address: str) -> None:
    config = json.loads(urllib.request.urlopen(f"{address}config").read())
    radios = [c["props"] for c in config["components"] if c["type"] == "radio"]
    assert [name for name, _ in radios[0]["choices"]] == list(STRATEGIES)

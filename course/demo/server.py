"""Where the page is served: on this machine only, unless somebody asks for more in so many words."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from ..sprints import CourseError
from .models import ModelError, Shelf, sources

HOME, EVERYWHERE = "127.0.0.1", "0.0.0.0"
PORT, TRIES = 7860, 20
# The page loads its parts from here, and nothing from anywhere else: the browser would refuse.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'self'"
)


class Policy:
    """ASGI middleware that sends POLICY with every answer."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def serve(models: Iterable[str] = (), port: int | None = None, public: bool = False, browser: bool = True) -> None:
    """Serve the page until Ctrl-C. CourseError for what stands in the way, with what to do."""
    try:
        shelf = Shelf(sources(models))
    except ModelError as error:
        raise CourseError(str(error)) from None
    app = launch(shelf, port, public)
    print(f"The demo is at {app.local_url}; stop with Ctrl-C.", flush=True)
    if public:
        print(
            "course: --public: everybody who can reach this machine over the network can use this page, without a "
            "password.",
            file=sys.stderr,
        )
    elif browser:
        import webbrowser

        webbrowser.open(app.local_url)
    try:
        while True:
            time.sleep(0.5)
    finally:
        app.close(verbose=False)


def launch(shelf: Shelf, port: int | None = None, public: bool = False) -> Any:
    """The page, running in threads of its own: `.local_url`, `.close()`."""
    if importlib.util.find_spec("gradio") is None:
        raise CourseError("the demo needs Gradio, which is not installed: run `python -m course setup --extra demo`")
    host = EVERYWHERE if public else HOME
    port = free_port(host, port)
    # Gradio asks its own page whether it is there, which a proxy would get wrong.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOME, "localhost"]))
    from starlette.middleware import Middleware

    from . import app as pages

    app = pages.build(shelf)
    app.queue(default_concurrency_limit=8)
    try:
        app.launch(
            server_name=host,
            server_port=port,
            share=False,  # whatever $GRADIO_SHARE says
            inline=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            max_file_size="1mb",
            app_kwargs={"middleware": [Middleware(Policy)]},
            theme=pages.theme(),
            css=pages.STYLE.read_text(encoding="utf-8"),
        )
    except OSError as error:  # taken since we looked
        raise CourseError(f"the page cannot be served at port {port}: {error}") from None
    return app


def free_port(host: str, wanted: int | None) -> int:
    """`wanted`, or the first free one from PORT on. CourseError that says what to do, where it is taken."""
    for port in [wanted] if wanted is not None else range(PORT, PORT + TRIES):
        with socket.socket() as probe:
            if os.name == "posix":  # elsewhere it would let two programs share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                reason = error
            else:
                return probe.getsockname()[1]
    if wanted is None:
        raise CourseError(f"no port from {PORT} to {PORT + TRIES - 1} is free; name one with --port.")
    raise CourseError(
        f"port {wanted} cannot be used ({reason}): another program may have it. Name another with --port."
    )

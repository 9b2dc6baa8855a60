"""The server of a run's page: for this machine alone, without a request to another."""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aigc_jax.utils.errors import UserError, mark_argument, require

HOST = "127.0.0.1"
EXTRA = "app"  # the extra of pyproject.toml
MOST_BODY = 2**20  # bytes of a request but for an upload
# What a page of this server may load: itself. Gradio writes its scripts and styles into
# the page, so that those of the page are allowed.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def import_gradio(folder: Path) -> Any:
    """Import gradio without telemetry, with its files in a folder of its own; raise a
    UserError where it is not installed.

    Args:
      folder: directory of uploads and outputs, which the caller removes.
    """
    # Variables of the user could share the page, serve other paths or ask a hub.
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= dict(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder),
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",
    )
    try:
        import gradio
    except ImportError:
        raise UserError(
            f"the page of a run needs the package gradio: pip install 'aigc_jax[{EXTRA}]'"
        ) from None
    return gradio


def open_socket(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine alone; 0: any free port.
    Raise a UserError where the port is taken.
    """
    name = mark_argument("port")
    require(0 <= port < 2**16, f"{name}={port} must be an integer in [0, 65535]; 0: a free one")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as e:
        listener.close()
        raise UserError(
            f"{name}={port} cannot be used: {e.strerror}; {name}=0 takes a free one"
        ) from None
    return listener


def is_own_host(address: str) -> bool:
    """Return whether an address such as "127.0.0.1:7860" is this machine's own."""
    return urlsplit(f"//{address}").hostname in (HOST, "localhost")


def names_own_files(body: bytes, folder: Path) -> bool:
    """Return whether a request in JSON names no file but those below a folder: Gradio
    would read any image of this machine, and download one from an address.
    """

    def walk(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(walk, value))
        if not isinstance(value, dict):
            return True
        path = value.get("path", folder)
        inside = isinstance(path, (str, Path)) and Path(path).resolve().is_relative_to(root)
        return inside and all(map(walk, value.values()))

    root = folder.resolve()
    try:
        return not body or walk(json.loads(body))
    except (ValueError, RecursionError, OSError):
        return False


async def read_body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it has more than MOST_BODY bytes."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BODY:
            return None
    return body


class OnlyThisMachine:
    """A layer of a server that refuses requests of other sites, which a browser on this
    machine could send here, and requests that name other files than uploads. Pages load
    nothing from elsewhere.

    Args:
      application: the server below.
      folder: directory of uploads and outputs.
    """

    def __init__(self, application: Application, folder: Path) -> None:
        self.application, self.folder = application, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        if not is_own_request(scope):
            await refuse(send, 403)
            return
        if scope["method"] not in ("GET", "HEAD") and not scope["path"].endswith("/upload"):
            body = await read_body(receive)
            if body is None or not names_own_files(body, self.folder):
                await refuse(send, 413 if body is None else 403)
                return
            receive = replay(body, receive)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.application(scope, receive, send_with_headers)


def is_own_request(scope: Scope) -> bool:
    """Return whether a request is for this machine, and not of another site's page."""
    sent = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
    hosts = [sent.get("host", "")]
    if "origin" in sent:
        hosts.append(urlsplit(sent["origin"]).netloc)
    return all(map(is_own_host, hosts))


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that receives a body that was read, and then what follows."""
    messages = [dict(type="http.request", body=body, more_body=False)]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again


async def refuse(send: Send, status: int) -> None:
    """Answer a request by a status alone."""
    await send(dict(type="http.response.start", status=status, headers=[]))
    await send(dict(type="http.response.body", body=b"refused"))


def make_application(page: Any, folder: Path, max_file_bytes: int) -> Application:
    """Return the server's application of a page.

    Args:
      page: the `gradio.Blocks`.
      folder: the folder of `import_gradio`.
      max_file_bytes: of an uploaded file.
    """
    import fastapi

    gradio = import_gradio(folder)
    fonts = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    mounted = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        page,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=[],
        show_error=False,
        max_file_size=max_file_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(**fonts),
    )
    return OnlyThisMachine(mounted, folder)


def serve(application: Application, listener: socket.socket) -> None:
    """Serve an application until SIGINT or SIGTERM; the latter raises SystemExit."""
    import uvicorn

    # The server raises a signal again once it has ended, and the default handler would
    # end the process before its files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    # Connections of open pages, which the end cuts off, are no errors.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])

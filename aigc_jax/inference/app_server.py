"""The server of a run's page: for this machine alone, without a request to another."""

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aigc_jax.utils.errors import UserError, mark_argument, require

HOST = "127.0.0.1"
EXTRA = "app"  # the extra of pyproject.toml
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


class OnlyThisMachine:
    """A layer of a server that refuses requests of other sites, which a browser on this
    machine could send here, and lets pages load nothing from elsewhere.

    Args:
      application: the server below.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        sent = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = sent.get("origin", "")
        host = urlsplit(origin).netloc if origin else HOST
        if not is_own_host(sent.get("host", "")) or not is_own_host(host):
            await send(dict(type="http.response.start", status=403, headers=[]))
            await send(dict(type="http.response.body", body=b"only for this machine"))
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.application(scope, receive, send_with_headers)


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
    return OnlyThisMachine(mounted)


def serve(application: Application, listener: socket.socket) -> None:
    """Serve an application until it is interrupted."""
    import uvicorn

    config = uvicorn.Config(
        application, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listener])

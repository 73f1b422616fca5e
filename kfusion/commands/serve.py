"""`kfusion serve`: an exported model behind TensorFlow Serving's REST interface."""

from __future__ import annotations

import argparse
import contextlib
import socket
from typing import Any

from kfusion.commands.mistakes import CommandError, user_input
from kfusion.commands.options import positive
from kfusion.commands.telling import tell


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser("serve", help="answer requests, as TensorFlow Serving does")
    add = parser.add_argument
    add("model", metavar="MODEL_DIR", help="folder written by export")
    add("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    add("--port", type=_port, default=8501, help="default: %(default)s; 0: any that is free")
    add("--max-megabytes", type=positive, default=32, help="of a request; default: %(default)s")
    add("--max-rows", type=positive, default=1024, help="of a request; default: %(default)s")
    add("--max-megapixels", type=positive, default=50, help="of an image; default: %(default)s")
    parser.set_defaults(command=serve)


def serve(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serves until it is interrupted; returns what was served, and where."""
    try:
        import uvicorn

        from kfusion.server.app import build_app
    except ModuleNotFoundError as error:
        raise CommandError(
            f"`kfusion serve` needs {error.name}: pip install 'kfusion[serve]'."
        ) from error
    from kfusion.exports.serving import load_exported
    from kfusion.server.reading import Limits

    limits = Limits(
        max_bytes=arguments.max_megabytes * 2**20,
        max_rows=arguments.max_rows,
        max_pixels=arguments.max_megapixels * 10**6,
    )
    with user_input((ValueError, OSError)):
        model = load_exported(arguments.model)
        family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
        listening = socket.create_server((arguments.host, arguments.port), family=family)
    with listening:
        # Connections inherit it; without it an answer waits 40 ms for its head's receipt.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listening.getsockname()[:2]
        app = build_app(model, limits=limits)
        shown = f"[{host}]" if ":" in host else host
        tell(f"{arguments.model} answers at http://{shown}:{port}/v1/models/kfusion:predict")
        server = uvicorn.Server(uvicorn.Config(app, host=host, port=port))
        # Raised again by uvicorn, after it has answered what it was asked before.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    return {"model": arguments.model, "host": host, "port": port}


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535; got {text!r}")
    return int(text)

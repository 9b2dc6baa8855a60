"""Show a run on an interactive page: samples, latents, uploads and prompts.

The page opens in a browser of this machine and cannot be reached from another. Below
each output stands the `sample` command that makes it again. Needs the extra `app`.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_jax.cli import sample, sample_text
from aigc_jax.utils.subprocesses import program_name
from aigc_jax.utils.terminal import print_text

if TYPE_CHECKING:
    from aigc_jax.inference.app import PageFunctions
    from aigc_jax.inference.run import Run

PORT = 7860  # Gradio's own


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, its checkpoint and the port."""
    parser.add_argument("workdir", metavar="RUN", help="work directory of a run")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="latest|best",
        help="the checkpoint to show (default: latest)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        metavar="N",
        help=f"port of 127.0.0.1; 0: any free port (default: {PORT})",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Serve the page of a run until it is interrupted, and return exit code 0."""
    from aigc_jax.inference import app_server, conditioning
    from aigc_jax.inference.app_page import Page
    from aigc_jax.inference.load import load

    with tempfile.TemporaryDirectory(prefix="aigc_jax_app_") as folder:
        gradio = app_server.import_gradio(Path(folder))
        with app_server.open_socket(args.port) as listener:
            loaded = load(args.workdir, args.checkpoint)
            functions = make_functions(loaded, args, program_name(), Path(folder))
            page = Page(gradio, functions, read_hints()).build()
            application = app_server.make_application(
                page, Path(folder), conditioning.MOST_FILE_BYTES
            )
            print_text(f"http://{app_server.HOST}:{listener.getsockname()[1]}  (Ctrl-C ends it)")
            app_server.serve(application, listener)
    return 0


def make_functions(loaded: "Run", args: Namespace, program: str, folder: Path) -> "PageFunctions":
    """Return what the controls of the page do, with the code of the verb `sample`.

    Args:
      loaded: the run.
      args: the arguments of the verb `app`.
      program: words that start the command line.
      folder: directory of the images.
    """
    from aigc_jax.inference.app import PageFunctions

    common = dict(workdir=args.workdir) | (
        {} if args.checkpoint == "latest" else dict(checkpoint=args.checkpoint)
    )
    save = lambda flags, out: sample.save_image_samples(loaded, sample_arguments(flags), out)
    draw = lambda flags: sample_text.draw_texts(loaded, sample_arguments(flags))
    return PageFunctions(loaded, program, common, save, draw, folder)


def sample_arguments(flags: dict[str, Any]) -> Namespace:
    """Return the arguments of `sample` for {flag: value}; None: the default."""
    parser = ArgumentParser()
    sample.add_arguments(parser)
    parser.set_defaults(workdir="")
    known = {action.option_strings[-1].lstrip("-"): action.dest for action in parser._actions}
    defaults = {action.dest: parser.get_default(action.dest) for action in parser._actions}
    values = {known[name]: value for name, value in flags.items() if value is not None}
    return Namespace(**defaults | values)


def read_hints() -> dict[str, str]:
    """Return {flag of `sample`: its help}."""
    parser = ArgumentParser()
    sample.add_arguments(parser)
    return {action.dest: action.help or "" for action in parser._actions}

"""The parts that the tabs of a run's page share, in Gradio."""

import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aigc_jax.inference.app import Output, PageFunctions
from aigc_jax.utils.errors import UserError

ALL_CLASSES = -1  # the value of the class selector for all of them
SPLITS = ["test", "valid", "train"]
# Events wait for `PageParts.lock`, not in Gradio's queue, where one that follows
# another at once can be lost (gradio-app/gradio, pull request 13761). Of several during
# one, the last follows it: controls and outputs agree.
AT_ONCE: dict[str, Any] = dict(queue=False, api_visibility="private")
LAST = AT_ONCE | dict(trigger_mode="always_last", show_progress="minimal")


class PageParts:
    """Parts of tabs, and the updates of their outputs.

    Args:
      gradio: the module, as `app_server.import_gradio` returns it.
      functions: what the controls do.
      hints: {flag of `sample`: its help}, shown below the controls.
    """

    def __init__(self, gradio: Any, functions: PageFunctions, hints: dict[str, str]) -> None:
        self.gr, self.functions, self.hints = gradio, functions, hints
        self.lock = threading.Lock()  # one event computes at a time: each uses all cores

    def add_seed(self) -> tuple[Any, Any]:  # -> number, button
        """Add the seed and the button that draws another one."""
        gr = self.gr
        with gr.Row():
            # A text: a number of many digits would be rounded before it is refused.
            seed = gr.Textbox("0", label="Seed", max_length=40, min_width=100, scale=2)
            button = gr.Button("New seed", size="md", min_width=100, scale=1, elem_classes="small")
        return seed, button

    def add_slider(self, low: float, high: float, value: float, label: str, **more: Any) -> Any:
        """Add a slider. A number beside it that is typed is checked by the functions
        of the page: Gradio's own check ends in an error of the server.
        """
        slider = self.gr.Slider(low, high, value=value, label=label, **more)
        slider.preprocess = lambda payload: payload
        return slider

    def add_file(self, about: str) -> Any:
        """Add the place of an uploaded file, whose value is (its path here, its name in
        the user's directory): Gradio's own value is the path alone, without characters
        of the name such as "$".
        """
        file = self.gr.File(label=about, height=180)
        name = lambda payload: payload.orig_name or Path(payload.path).name
        file.preprocess = lambda payload: payload and (payload.path, name(payload))
        return file

    def add_message(self) -> Any:
        """Add the place of refusals and notes, which is hidden without one."""
        return self.gr.HTML(visible=False, elem_classes="message")

    def add_image(self, about: str, height: int = 360, kind: str = "samples") -> Any:
        """Add the place of an image: of the kind "pixels", they are shown as squares;
        text is legible only where they are smoothed.
        """
        return self.gr.Image(
            label=about,
            show_label=False,
            alt_text=about,
            interactive=False,
            type="filepath",
            format="png",
            height=height,
            buttons=["download", "fullscreen"],
            elem_classes=["samples", *[kind] * (kind != "samples")],
        )

    def add_command(self) -> Any:
        """Add the place of the command."""
        return self.gr.Textbox(
            label="This command makes the same again",
            interactive=False,
            lines=1,
            max_lines=8,
            buttons=["copy"],
            elem_classes="command",
        )

    def add_class(self, num_classes: int, has_all: bool = True) -> Any:
        """Add the selector of a class, hidden for a model without classes."""
        choices = [("all classes", ALL_CLASSES)] * has_all
        names = self.functions.run.spec.label_classes()[:num_classes]
        choices += [(name, i) for i, name in enumerate(names)]
        first = choices[0][1] if choices else None
        return self.gr.Dropdown(choices, value=first, label="Class", visible=num_classes > 0)

    def show(self, output: Output) -> tuple[Any, str, Any]:
        """Return the updates of an output, its command and the message."""
        return output.value, output.command, self.message(" ".join(output.notes))

    def message(self, text: str) -> Any:
        """Return the update of the message; "" hides it."""
        return self.gr.update(value=f'<p role="alert">{html.escape(text)}</p>', visible=bool(text))

    def guarded(self, draw: Callable[..., Output]) -> Callable[..., tuple[Any, str, Any]]:
        """Return a function whose refusals are shown on the page."""

        def call(*values: Any) -> tuple[Any, str, Any]:
            try:
                with self.lock:
                    return self.show(draw(*values))
            except UserError as e:
                return None, "", self.message(str(e))

        return call

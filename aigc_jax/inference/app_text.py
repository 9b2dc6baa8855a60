"""The tabs of models of text: prompts, translation and samplers, in Gradio."""

import threading
from collections.abc import Iterator
from typing import Any

from aigc_jax.inference import app
from aigc_jax.inference.app import Output
from aigc_jax.inference.app_parts import AT_ONCE, LAST, SPLITS, PageParts
from aigc_jax.methods.decoding import PLAIN
from aigc_jax.utils.errors import UserError

SECONDS = 0.2  # between two updates of a text that is generated


class TextThread(threading.Thread):
    """Generates a text until its end, `stop`, or the end of the program. A page reads
    what it has so far.

    Args:
      outputs: the text as it grows.
    """

    def __init__(self, outputs: Iterator[Output]) -> None:
        super().__init__()
        self.outputs, self.latest, self.error = outputs, Output("", ""), ""
        self.is_generating = True

    def run(self) -> None:
        """Generate the text."""
        try:
            for output in self.outputs:
                if not (self.is_generating and threading.main_thread().is_alive()):
                    return
                self.latest = output
        except UserError as e:
            self.error = str(e)
        finally:
            self.is_generating = False

    def stop(self) -> None:
        """Generate no further token."""
        self.is_generating = False


class TextTabs(PageParts):
    """The tabs of a model of text."""

    def add_text(self) -> None:
        """Add the tab of a prompt and its continuation."""
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    label="Prompt", lines=3, max_length=app.MOST_PROMPT,
                    placeholder="empty: the start of a text",
                )  # fmt: skip
                tokens = self.add_slider(1, app.MOST_TOKENS, 256, "tokens", step=1)
                sampling = [self.add_sampling_parameter(name) for name in PLAIN._fields]
                seed, button = self.add_seed()
                with gr.Row():
                    start = gr.Button("Generate", variant="primary")
                    stop = gr.Button("Stop", interactive=False)
            with gr.Column(scale=3, min_width=300, elem_classes="outputs"):
                message = self.add_message()
                text = gr.Textbox(label="Text", lines=16, max_lines=30, interactive=False)
                command = self.add_command()
        texts, outputs = gr.State([]), [text, command, message, stop]
        begin = dict(
            fn=self.begin_text, inputs=[texts, prompt, tokens, seed, *sampling], outputs=outputs
        )
        gr.on([start.click, prompt.submit], **begin | LAST)
        button.click(app.make_seed, outputs=seed, **AT_ONCE).then(**begin | LAST)
        stop.click(self.stop_text, inputs=texts, outputs=outputs, **AT_ONCE)
        tick = gr.Timer(SECONDS).tick
        tick(self.show_text, inputs=texts, outputs=outputs, show_progress="hidden", **AT_ONCE)

    def add_sampling_parameter(self, name: str) -> Any:
        """Add the control of a field of `SamplingParams`, by its type and default."""
        gr, usual = self.gr, getattr(PLAIN, name)
        about = dict(label=name, info=self.hints.get(name, ""))
        if name in app.SLIDERS:
            low, high = app.SLIDERS[name]
            return self.add_slider(low, high, usual, step=0.01, **about)
        return gr.Number(usual, **about)

    def begin_text(
        self, texts: list[TextThread], prompt: str, tokens: Any, seed: Any, *sampling: Any
    ) -> list[Any]:
        """Generate a text in place of the one before it. Return the updates of
        `show_text`.

        Args:
          texts: the latest text of this window of the page, or none.
          prompt: the text to continue.
          tokens: the most tokens of the continuation.
          seed: the seed.
          *sampling: the fields of `SamplingParams`.
        """
        values = dict(zip(PLAIN._fields, sampling, strict=True))
        text = TextThread(self.functions.stream_text(prompt, tokens, seed, **values))
        with self.lock:
            self.stop_text(texts)
            texts[:] = [text]
        text.start()
        return self.show_text(texts)

    def stop_text(self, texts: list[TextThread]) -> list[Any]:
        """Stop the text that is generated, and return the updates of `show_text`."""
        for text in texts:
            text.stop()
        return self.show_text(texts)

    def show_text(self, texts: list[TextThread]) -> list[Any]:
        """Return the updates of the text, its command, the message and the Stop button,
        which can be pressed while a text is generated.
        """
        if not texts:
            return [self.gr.skip()] * 4
        (text,) = texts
        button = self.gr.update(interactive=text.is_generating)  # before its last token
        if text.error:
            return [None, "", self.message(text.error), button]
        return [*self.show(text.latest), button]

    def add_translation(self) -> None:
        """Add the tab of an encoder-decoder."""
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                source = gr.Textbox(
                    label="Source, a text a line", lines=4, max_length=app.MOST_PROMPT
                )
                start = gr.Button("Translate", variant="primary")
            with gr.Column(scale=1, min_width=300, elem_classes="outputs"):
                message = self.add_message()
                text = gr.Textbox(label="Target", lines=4, interactive=False)
                command = self.add_command()
        draw = dict(
            fn=self.guarded(self.functions.translate), inputs=[source],
            outputs=[text, command, message],
        )  # fmt: skip
        gr.on([start.click, source.submit], **draw | LAST)

    def add_text_samplers(self, samplers: list[str]) -> None:
        """Add the tab of the samplers of texts, such as filled masks."""
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                what = gr.Dropdown(samplers, value=samplers[0], label="Sampler")
                split = gr.Dropdown(SPLITS, value="test", label="Split of the examples")
                num = self.add_slider(1, app.MOST_TEXTS, 4, "Number of texts", step=1)
                seed, button = self.add_seed()
                start = gr.Button("Draw", variant="primary")
            with gr.Column(scale=3, min_width=300, elem_classes="outputs"):
                message = self.add_message()
                text = gr.Textbox(label="Texts", lines=16, max_lines=30, interactive=False)
                command = self.add_command()
        draw = dict(
            fn=self.guarded(self.functions.draw_texts), inputs=[what, num, seed, split],
            outputs=[text, command, message],
        )  # fmt: skip
        start.click(**draw | LAST)
        new = button.click(app.make_seed, outputs=seed, **AT_ONCE)
        new.then(**draw | LAST)

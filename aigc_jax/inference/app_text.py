"""The tabs of models of text: prompts, translation and samplers, in Gradio."""

from collections.abc import Iterator
from typing import Any

from aigc_jax.inference import app
from aigc_jax.inference.app_parts import AT_ONCE, LAST, SPLITS, PageParts
from aigc_jax.methods.decoding import PLAIN
from aigc_jax.utils.errors import UserError

# Texts begin at once and end those before them.
STREAM: dict[str, Any] = dict(
    concurrency_limit=None,
    trigger_mode="multiple",
    api_visibility="private",
    show_progress="minimal",
)


class TextTabs(PageParts):
    """The tabs of a model of text."""

    last_stream: Iterator | None = None  # of all windows of the page

    def add_text(self) -> None:
        """Add the tab of a prompt and its continuation."""
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    label="Prompt", lines=3, max_length=app.MOST_PROMPT,
                    placeholder="empty: the start of a text",
                )  # fmt: skip
                tokens = gr.Slider(1, app.MOST_TOKENS, value=256, step=1, label="tokens")
                sampling = [self.add_sampling_parameter(name) for name in PLAIN._fields]
                seed, button = self.add_seed()
                with gr.Row():
                    start = gr.Button("Generate", variant="primary")
                    stop = gr.Button("Stop")
            with gr.Column(scale=3, min_width=300, elem_classes="outputs"):
                message = self.add_message()
                text = gr.Textbox(label="Text", lines=16, max_lines=30, interactive=False)
                command = self.add_command()
        draw = dict(
            fn=self.stream, inputs=[prompt, tokens, seed, *sampling],
            outputs=[text, command, message],
        )  # fmt: skip
        again = dict(
            fn=self.stream_new_seed, inputs=[prompt, tokens, *sampling],
            outputs=[seed, text, command, message],
        )  # fmt: skip
        gr.on([start.click, prompt.submit], **draw | STREAM)
        button.click(**again | STREAM)
        stop.click(self.stop, **AT_ONCE)

    def add_sampling_parameter(self, name: str) -> Any:
        """Add the control of a field of `SamplingParams`, by its type and default."""
        gr, usual = self.gr, getattr(PLAIN, name)
        about = dict(label=name, info=self.hints.get(name, ""))
        if name in app.SLIDERS:
            low, high = app.SLIDERS[name]
            return gr.Slider(low, high, value=usual, step=0.01, **about)
        return gr.Number(usual, precision=0 if isinstance(usual, int) else None, **about)

    def stop(self) -> None:
        """End the text that is generated."""
        self.last_stream = None

    def stream(self, prompt: str, tokens: Any, seed: Any, *sampling: Any) -> Iterator[tuple]:
        """Yield the updates of the tab of text, until another text begins or `stop`."""
        values = dict(zip(PLAIN._fields, sampling, strict=True))
        outputs = self.functions.stream_text(prompt, tokens, seed, **values)
        self.last_stream = outputs
        try:
            while True:
                with self.lock:
                    output = next(outputs, None)
                if output is None or self.last_stream is not outputs:
                    return
                yield self.show(output)
        except UserError as e:
            yield None, "", self.message(str(e))

    def stream_new_seed(self, prompt: str, tokens: Any, *sampling: Any) -> Iterator[tuple]:
        """Yield a new seed and the updates of `stream`."""
        seed = app.make_seed()
        for update in self.stream(prompt, tokens, seed, *sampling):
            yield seed, *update

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
                num = gr.Slider(1, app.MOST_TEXTS, value=4, step=1, label="Number of texts")
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

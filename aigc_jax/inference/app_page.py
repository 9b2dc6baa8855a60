"""The page of a run: its controls and what they change, in Gradio."""

import functools
import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aigc_jax.inference import app, conditioning
from aigc_jax.inference.app import Output, PageFunctions
from aigc_jax.methods.decoding import PLAIN
from aigc_jax.utils.errors import UserError, require

ALL_CLASSES = -1  # the value of the class selector for all of them
SPLITS = ["test", "valid", "train"]
# One request at a time: each uses all cores.
QUEUE: dict[str, Any] = dict(
    concurrency_limit=1, concurrency_id="run", api_visibility="private", show_progress="minimal"
)
STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.message { border-left: 4px solid #c2410c; padding: .5em .8em; }
.outputs { align-self: flex-start; position: sticky; top: 0; }
.samples img {
  width: 100% !important; height: 100% !important; object-fit: contain !important;
  image-rendering: pixelated;
}
.command textarea { font-family: ui-monospace, monospace; font-size: .9em; }
.small { align-self: center; }
@media (max-width: 760px) {
  .outputs { position: static; align-self: stretch; }
  .first { order: -1; }
}
"""


class Page:
    """The tabs of a run's page.

    Args:
      gradio: the module, as `app_server.import_gradio` returns it.
      functions: what the controls do.
      hints: {flag of `sample`: its help}, shown below the controls.
    """

    def __init__(self, gradio: Any, functions: PageFunctions, hints: dict[str, str]) -> None:
        self.gr, self.functions, self.hints = gradio, functions, hints

    def build(self) -> Any:  # -> gradio.Blocks
        """Return the page; raise a UserError where the run has nothing to show."""
        gr, tabs = self.gr, self.list_tabs()
        require(
            tabs,
            f"config.method = {self.functions.run.config.method!r} has no samples that the page "
            "can show: images, points or text",
        )
        self.page = gr.Blocks(title="aigc_jax", fill_width=True, delete_cache=(3600, 3600))
        with self.page:
            gr.HTML(f"<style>{STYLE}</style>{self.describe_run()}")
        with self.page, gr.Tabs():
            for name, add in tabs:
                with gr.Tab(name):
                    add()
        return self.page

    def list_tabs(self) -> list[tuple[str, Callable[[], None]]]:  # (name, adds the controls)
        """Return the tabs of what the run can show."""
        functions = self.functions
        tabs: list[tuple[str, Callable[[], None]]] = []
        if functions.is_translator:
            tabs.append(("Translation", self.add_translation))
        elif functions.has_prompt:
            tabs.append(("Text", self.add_text))
        if drawable := functions.find_drawable_samplers():
            tabs.append(("Samples", functools.partial(self.add_samples, drawable)))
        if functions.find_upload_samplers():
            tabs.append(("Upload", self.add_upload))
        if texts := functions.find_text_samplers():
            tabs.append(("Samplers", functools.partial(self.add_text_samplers, texts)))
        return tabs

    def describe_run(self) -> str:  # HTML
        """Return the heading of the page."""
        run = self.functions.run
        about = f"{run.dir.path} · step {run.step:,}"
        name = f"{run.config.method} on {run.config.data.name}"
        return f"<h2>{html.escape(name)}</h2><p>{html.escape(about)}</p>"

    # -- parts that tabs share

    def add_seed(self) -> tuple[Any, Any]:  # -> number, button
        """Add the seed and the button that draws another one."""
        gr = self.gr
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100, scale=2)
            button = gr.Button("New seed", size="md", min_width=100, scale=1, elem_classes="small")
        return seed, button

    def add_message(self) -> Any:
        """Add the place of refusals and notes, which is hidden without one."""
        return self.gr.HTML(visible=False, elem_classes="message")

    def add_image(self, about: str, height: int = 360) -> Any:
        """Add the place of an image."""
        return self.gr.Image(
            label=about,
            show_label=False,
            alt_text=about,
            interactive=False,
            type="filepath",
            format="png",
            height=height,
            buttons=["download", "fullscreen"],
            elem_classes="samples",
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
        choices += [(str(i), i) for i in range(num_classes)]
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
                return self.show(draw(*values))
            except UserError as e:
                return None, "", self.message(str(e))

        return call

    # -- tabs

    def add_samples(self, samplers: list[str]) -> None:
        """Add the tab of samples: sampler, class, number, seed and latents."""
        gr, functions = self.gr, self.functions
        first = samplers[0]
        classes = max(functions.samplers[name].classes for name in samplers)
        most = max(functions.count_latents(name) for name in samplers)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                what = gr.Dropdown(samplers, value=first, label="Sampler")
                label = self.add_class(classes)
                examples = functions.samplers[first].conditioned
                split = gr.Dropdown(
                    SPLITS, value="test", label="Split of the examples", visible=examples
                )
                count = 2 * classes if 0 < classes <= 32 else 16  # full rows of the grid
                most_samples = app.MOST_SAMPLES
                num = gr.Slider(1, most_samples, value=count, step=1, label="Number of samples")
                seed, button = self.add_seed()
                sliders, other, reset = self.add_latents(first, most)
            with gr.Column(scale=3, min_width=300, elem_classes="outputs first"):
                message = self.add_message()
                image = self.add_image("Samples")
                command = self.add_command()
        controls = dict(what=what, num=num, seed=seed, label=label, split=split, other=other)
        buttons, outputs = dict(seed=button, latents=reset), [image, command, message]
        self.connect_samples(controls, sliders, buttons, outputs)

    def connect_samples(
        self, controls: dict[str, Any], sliders: list, buttons: dict[str, Any], outputs: list
    ) -> None:
        """Connect the controls of the tab of samples with its outputs."""
        gr, private = self.gr, dict(api_visibility="private")
        inputs, other = [*controls.values(), *sliders], controls["other"]
        what, seed, label, split = (controls[name] for name in ("what", "seed", "label", "split"))
        draw = dict(fn=self.guarded(self.draw_samples), inputs=inputs, outputs=outputs) | QUEUE
        place: dict[str, Any] = dict(fn=self.place_controls, inputs=[what, seed, label])
        place |= dict(outputs=[label, split, *sliders]) | QUEUE
        chosen = gr.on([what.input, seed.input, label.input], trigger_mode="always_last", **place)
        chosen.then(**draw)
        buttons["seed"].click(app.make_seed, outputs=seed, **private).then(**place).then(**draw)
        cleared = buttons["latents"].click(lambda: "", outputs=other, **private)
        cleared.then(**place).then(**draw)
        changes = [x.input for x in (controls["num"], split, *sliders)]
        gr.on([*changes, other.submit, other.blur], trigger_mode="always_last", **draw)
        self.page.load(**draw)

    def add_latents(self, what: str, most: int) -> tuple[list[Any], Any, Any]:
        """Add the sliders of the first latents, a field for the others, and a button
        that takes both back; return the three.
        """
        gr, positions = self.gr, self.functions.latent_values(what, 0)
        with gr.Accordion("Latents", open=True, visible=most > 0):
            gr.Markdown(
                "The sliders stand at the latents of the first sample. One that is moved sets "
                "its latent in all samples."
            )
            reach = app.SLIDER_REACH
            sliders = [
                gr.Slider(-reach, reach, value=value, step=0.01, label=f"Latent {i}", buttons=[])
                for i, value in enumerate(positions)
            ]
            other = gr.Textbox(
                label=f"Other latents, 0 to {max(most - 1, 0)}",
                placeholder="12:1.5,13:-0.2",
                visible=most > len(positions),
                max_length=2000,
            )
            reset = gr.Button("Reset latents", size="sm")
        return sliders, other, reset

    def draw_samples(
        self, what: str, num: Any, seed: Any, label: int, split: str, other: str, *sliders: float
    ) -> Output:
        """Draw the image of the tab of samples."""
        chosen = None if label in (None, ALL_CLASSES) else label
        return self.functions.draw_images(what, num, seed, chosen, split, sliders, other)

    def place_controls(self, what: str, seed: Any, label: int) -> list[Any]:
        """Return the updates of the class, the split and the sliders for a sampler and
        a seed: those that the sampler does not read are hidden.
        """
        gr, functions = self.gr, self.functions
        sampler = functions.samplers[what]
        chosen = None if label in (None, ALL_CLASSES) or not sampler.classes else label
        count = len(functions.latent_values(functions.find_drawable_samplers()[0], 0))
        try:
            positions = functions.latent_values(what, seed, chosen)
            sliders = [gr.update(value=value, visible=True) for value in positions]
        except UserError:  # the drawing that follows shows it
            sliders = [gr.skip()] * count
        return [
            gr.update(visible=sampler.classes > 0),
            gr.update(visible=sampler.conditioned),
            *(sliders or [gr.update(visible=False)] * count),
        ]

    def add_upload(self) -> None:
        """Add the tab of an uploaded image: its reconstruction, or its classes."""
        gr, functions = self.gr, self.functions
        samplers = functions.find_upload_samplers()
        classes = functions.run.spec.classes if conditioning.needs_label(functions.run) else 0
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                most = conditioning.MOST_FILE_BYTES // 2**20
                file = gr.File(label=f"An image of at most {most} MB", height=180)
                binarized = functions.run.config.get("binarize") == "dynamic"
                gr.Markdown("The model's input" + ", before it is binarized" * binarized)
                preview = self.add_image("The model's input", height=180)
                what = gr.Dropdown(
                    samplers, value=samplers[0], label="Sampler", visible=len(samplers) > 1
                )
                label = self.add_class(classes, has_all=False)
                seed, button = self.add_seed()
            with gr.Column(scale=3, min_width=300, elem_classes="outputs"):
                message = self.add_message()
                chances = gr.Label(
                    label="Probabilities", num_top_classes=10, visible=functions.is_classifier
                )
                image = self.add_image("Input and output")
                command = self.add_command()
                above = "A reconstruction is below its input. "
                gr.Markdown(
                    above * ("reconstruction" in samplers)
                    + "The command is for the directory of the image."
                )
        inputs = [file, what, seed, label]
        draw = dict(
            fn=self.use_upload, inputs=inputs, outputs=[image, command, message, preview, chances]
        )
        draw |= QUEUE
        gr.on([file.upload, file.clear], **draw)
        changes = [x.input for x in (what, seed, label)]
        gr.on(changes, trigger_mode="always_last", **draw)
        button.click(app.make_seed, outputs=seed, api_visibility="private").then(**draw)

    def use_upload(self, path: str | None, what: str, seed: Any, label: int | None) -> tuple:
        """Return the updates of the tab for an uploaded file."""
        functions = self.functions
        if not path:
            return None, "", self.message(""), None, None
        try:
            functions.check_upload(path)
            preview = functions.preview_upload(path)
            output = functions.draw_from_upload(what, path, seed, label)
            chances = functions.classify_upload(path).value if functions.is_classifier else None
        except UserError as e:
            shown = str(e).replace(f"input={path}", Path(path).name)
            return None, "", self.message(shown), None, None
        return *self.show(output), preview, chances

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
        events = [start.click(**draw | QUEUE), prompt.submit(**draw | QUEUE)]
        new = button.click(app.make_seed, outputs=seed, api_visibility="private")
        events.append(new.then(**draw | QUEUE))
        stop.click(None, cancels=events, api_visibility="private")

    def add_sampling_parameter(self, name: str) -> Any:
        """Add the control of a field of `SamplingParams`, by its type and default."""
        gr, usual = self.gr, getattr(PLAIN, name)
        about = dict(label=name, info=self.hints.get(name, ""))
        if name in app.SLIDERS:
            low, high = app.SLIDERS[name]
            return gr.Slider(low, high, value=usual, step=0.01, **about)
        return gr.Number(usual, precision=0 if isinstance(usual, int) else None, **about)

    def stream(self, prompt: str, tokens: Any, seed: Any, *sampling: Any) -> Iterator[tuple]:
        """Yield the updates of the tab of text."""
        values = dict(zip(PLAIN._fields, sampling, strict=True))
        try:
            for output in self.functions.stream_text(prompt, tokens, seed, **values):
                yield self.show(output)
        except UserError as e:
            yield None, "", self.message(str(e))

    def add_translation(self) -> None:
        """Add the tab of an encoder-decoder."""
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                source = gr.Textbox(
                    label="Source, a text a line", lines=4, max_length=app.MOST_PROMPT
                )
                start = gr.Button("Translate", variant="primary")
            with gr.Column(scale=1, min_width=300):
                message = self.add_message()
                text = gr.Textbox(label="Target", lines=4, interactive=False)
                command = self.add_command()
        draw = dict(
            fn=self.guarded(self.functions.translate), inputs=[source],
            outputs=[text, command, message],
        )  # fmt: skip
        gr.on([start.click, source.submit], **draw | QUEUE)

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
        start.click(**draw | QUEUE)
        new = button.click(app.make_seed, outputs=seed, api_visibility="private")
        new.then(**draw | QUEUE)

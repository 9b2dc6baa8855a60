"""The page of a run: its controls and what they change, in Gradio."""

import functools
import html
from collections.abc import Callable
from typing import Any

from aigc_jax.inference import app, conditioning
from aigc_jax.inference.app import Output
from aigc_jax.inference.app_parts import ALL_CLASSES, AT_ONCE, LAST, SPLITS
from aigc_jax.inference.app_text import TextTabs
from aigc_jax.utils.errors import UserError, require

STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.message { border-left: 4px solid #c2410c; padding: .5em .8em; }
.outputs { align-self: flex-start; position: sticky; top: 0; }
.samples img {
  width: 100% !important; height: 100% !important; object-fit: contain !important;
}
.pixels img { image-rendering: pixelated; }
.command textarea { font-family: ui-monospace, monospace; font-size: .9em; }
.small { align-self: center; }
@media (max-width: 760px) {
  .outputs { position: static; align-self: stretch; }
  .first { order: -1; }
}
"""


class Page(TextTabs):
    """The tabs of a run's page; the arguments are those of `PageParts`."""

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
                num = self.add_slider(1, most_samples, count, "Number of samples", step=1)
                seed, button = self.add_seed()
                latents, sliders, other, reset = self.add_latents(first, most)
            with gr.Column(scale=3, min_width=300, elem_classes="outputs first"):
                message = self.add_message()
                image = self.add_image("Samples")
                command = self.add_command()
        controls = dict(what=what, num=num, seed=seed, label=label, split=split, other=other)
        buttons, outputs = dict(seed=button, latents=reset), [image, command, message]
        self.connect_samples(controls, latents, sliders, buttons, outputs)

    def connect_samples(
        self,
        controls: dict[str, Any],
        latents: Any,
        sliders: list,
        buttons: dict[str, Any],
        outputs: list,
    ) -> None:
        """Connect the controls of the tab of samples with its outputs. Those of
        `latents` are hidden where the sampler has none.
        """
        gr = self.gr
        inputs, other = [*controls.values(), *sliders], controls["other"]
        what, seed, label, split = (controls[name] for name in ("what", "seed", "label", "split"))
        draw = dict(fn=self.guarded(self.draw_samples), inputs=inputs, outputs=outputs) | LAST
        place: dict[str, Any] = dict(fn=self.place_controls, inputs=[what, seed, label])
        place |= dict(outputs=[label, split, latents, *sliders]) | LAST
        chosen = gr.on([what.input, seed.submit, seed.blur, label.input], **place)
        chosen.then(**draw)
        buttons["seed"].click(app.make_seed, outputs=seed, **AT_ONCE).then(**place).then(**draw)
        cleared = buttons["latents"].click(lambda: "", outputs=other, **AT_ONCE)
        cleared.then(**place).then(**draw)
        changes = [x.input for x in (controls["num"], split, *sliders)]
        gr.on([*changes, other.submit, other.blur], **draw)
        self.page.load(**draw)

    def add_latents(self, what: str, most: int) -> tuple[Any, list[Any], Any, Any]:
        """Add a group with the sliders of the first latents, a field for the others,
        and a button that takes both back; return the four.
        """
        gr, positions = self.gr, self.functions.latent_values(what, 0)
        with gr.Accordion("Latents", open=True, visible=bool(positions)) as group:
            gr.Markdown(
                "The sliders stand at the latents of the first sample. One that is moved sets "
                "its latent in all samples."
            )
            reach = app.SLIDER_REACH
            sliders = [
                self.add_slider(-reach, reach, value, f"Latent {i}", step=0.01, buttons=[])
                for i, value in enumerate(positions)
            ]
            other = gr.Textbox(
                label=f"Other latents, 0 to {max(most - 1, 0)}",
                placeholder=f"{max(most - 2, 0)}:1.5,{max(most - 1, 1)}:-0.2",
                visible=most > len(positions),
                max_length=2000,
            )
            reset = gr.Button("Reset latents", size="sm")
        return group, sliders, other, reset

    def draw_samples(
        self,
        what: str,
        num: Any,
        seed: Any,
        label: int | None,
        split: str,
        other: str | None,
        *sliders: float,
    ) -> Output:
        """Draw the image of the tab of samples."""
        chosen = None if label in (None, ALL_CLASSES) else label
        latents = other or ""  # a hidden field has None
        return self.functions.draw_images(what, num, seed, chosen, split, sliders, latents)

    def place_controls(self, what: str, seed: Any, label: int) -> list[Any]:
        """Return the updates of the class, the split, the group of the latents and its
        sliders for a sampler and a seed: those that the sampler does not read are
        hidden.
        """
        gr, functions = self.gr, self.functions
        sampler = functions.samplers[what]
        chosen = None if label in (None, ALL_CLASSES) or not sampler.classes else label
        count = len(functions.latent_values(functions.find_drawable_samplers()[0], 0))
        try:
            with self.lock:
                positions = functions.latent_values(what, seed, chosen)
            sliders = [gr.update(value=value, visible=True) for value in positions]
        except UserError:  # the drawing that follows shows it
            sliders = [gr.skip()] * count
        return [
            gr.update(visible=sampler.classes > 0),
            gr.update(visible=sampler.conditioned),
            gr.update(visible=bool(sliders)),
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
                file = self.add_file(f"An image of at most {most} MB")
                binarized = functions.run.config.get("binarize") == "dynamic"
                gr.Markdown("The model's input" + ", before it is binarized" * binarized)
                preview = self.add_image("The model's input", 180, "pixels")
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
                    + "Run the command in the directory of the image, whose name it has."
                )
        inputs = [file, what, seed, label]
        draw = dict(
            fn=self.use_upload, inputs=inputs, outputs=[image, command, message, preview, chances]
        )
        draw |= LAST
        changed = [what.input, seed.submit, seed.blur, label.input]
        gr.on([file.upload, file.clear, *changed], **draw)
        button.click(app.make_seed, outputs=seed, **AT_ONCE).then(**draw)

    def use_upload(
        self, file: tuple[str, str] | None, what: str, seed: Any, label: int | None
    ) -> tuple:
        """Return the updates of the tab for an uploaded file, as `add_file` has it."""
        functions = self.functions
        if not file:
            return None, "", self.message(""), None, None
        path, name = file
        try:
            functions.check_upload(path)
            with self.lock:
                preview = functions.preview_upload(path)
                output = functions.draw_from_upload(what, path, seed, label, name)
                chances = functions.classify_upload(path).value if functions.is_classifier else None
        except UserError as e:
            shown = str(e).replace(f"input={path}", name)
            return None, "", self.message(shown), None, None
        return *self.show(output), preview, chances

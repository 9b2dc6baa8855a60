"""Hooks of the site's build (mkdocs.yml): figures of the experiments, and no network.

The figures lie outside docs/, where the experiments write them, so that pages link to
them as ../experiments/results/NAME/figure.png from the place of the page's file. Both
the site and a viewer of the repository show them.
"""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "experiments/results"
# What a browser fetches when it shows a page; links that a reader may follow are none.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\s(?:src|data)=[\"']?"
    r"(?:https?:)?//[^\s>]*"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|alternate))[^>]*\shref=[\"']?(?:https?:)?//[^\s>]*"
    r"|url\([\"']?(?:https?:)?//[^)]*\)|@import [\"'](?:https?:)?//[^\"']*",
    re.I,
)


def on_files(files, config):
    """Add the figures to the site, below FOLDER."""
    for path in sorted((ROOT / FOLDER).glob("*/figure.png")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Remove one level of the links to FOLDER: in the site it lies beside the pages."""
    return re.sub(rf"\]\(\.\./((?:\.\./)*{FOLDER}/)", r"](\1", markdown)


def find_loads(text: str) -> list[str]:
    """Return what a page or a style sheet loads from the network."""
    return LOADS.findall(text)


def on_post_build(config):
    """Raise an error where a page or a style sheet loads anything from the network."""
    site = Path(config.site_dir)
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        if found := find_loads(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(site)} loads from the network: {found[0]}")

"""What environment.json files say of the versions and machines that trained runs."""

import itertools
import re
from collections.abc import Iterable

from aigc_jax.utils.quantities import format_devices


def rename_devices(text: object) -> str:
    """Return the devices of an environment.json, of earlier versions "1 x cpu cpu"."""
    found = re.fullmatch(r"(\d{1,9}) x (\w+) (.+)", str(text))
    return format_devices(int(found[1]), found[2], found[3]) if found else str(text)


def summarize_environments(environments: Iterable[dict]) -> list[tuple[str, str]]:
    """Return (name, value) of versions, devices, platform, cores and commit; different
    values are separated by commas.
    """
    found: dict[str, dict[str, None]] = {}
    for environment in environments:
        flat = dict(environment)
        versions = flat.pop("versions", {})
        flat |= versions if isinstance(versions, dict) else {}
        devices = flat.get("devices")
        named = map(rename_devices, devices if isinstance(devices, list) else [devices or ""])
        flat["devices"] = ", ".join(named)
        for name, value in itertools.islice(flat.items(), 40):
            if name != "command" and value:
                found.setdefault(str(name), {})[str(value)] = None
    return [(name, ", ".join(values)) for name, values in found.items()]

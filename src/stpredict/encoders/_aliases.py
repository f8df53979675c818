"""Names of encoders in the published code, and suggestions for unknown names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Names in DeepSpot (`utils_image.py`), and in HEST and TRIDENT (`patch_encoder_models/load.py`).
#: HEST's "conch_v1" is missing: it embeds before the projection, lazyslide-models' "conch" after.
ALIASES = {
    "hoptimus0": "h-optimus-0",
    "hoptimus1": "h-optimus-1",
    "h0mini": "h0-mini",
    "phikonv2": "phikon-v2",
    "phikon_v2": "phikon-v2",
    "inception": "inception_v3",
    "uni_v1": "uni",
    "uni_v2": "uni2",
    "uni2-h": "uni2",
    "conch_v15": "conch_v1.5",
    "prov-gigapath": "gigapath",
    "hibou_l": "hibou-l",
    "openmidnight": "open-midnight",
    "efficientnet-lite0": "efficientnet_lite0",
}
_HUB_PREFIXES = ("timm:hf-hub:", "timm:hf_hub:", "hf_hub:")


def canonical(name: str) -> str:
    """Name in this package of an encoder that published code names otherwise."""
    for prefix in _HUB_PREFIXES:
        if name.startswith(prefix):
            return "hf-hub:" + name.removeprefix(prefix)
    return ALIASES.get(name, name)


def slot_part(name: str) -> str:
    """Name of an encoder as part of the name of a slot."""
    return re.sub("[:/@+]", "_", canonical(name))


def suggestions(name: str, choices: Iterable[str]) -> str:
    """Similar names, as the part of a message after the first sentence; empty for none."""
    # names that differ in case only should match
    by_lower_case = {choice.lower(): canonical(choice) for choice in choices}
    similar = difflib.get_close_matches(name.lower(), by_lower_case)
    matches = dict.fromkeys(by_lower_case[choice] for choice in similar)
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""

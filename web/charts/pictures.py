"""Charts as pictures for slides and print: drawn on the server, with a font that has Chinese characters."""

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import vl_convert

_FONTS = "pylopdf_fonts_zh_cn"
_FAMILY = "Noto Sans SC, system-ui, sans-serif"
_WIDTH = 760
_CONFIG = {
    "background": "white",
    "font": _FAMILY,
    "view": {"stroke": None},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#dde3ea"},
    "legend": {"labelFontSize": 12},
    "title": {"fontSize": 13, "anchor": "start", "frame": "group"},
}
_lock = Lock()

Extension = Literal["svg", "png"]
MEDIA: dict[Extension, str] = {"svg": "image/svg+xml", "png": "image/png"}


def picture(spec: dict[str, Any], extension: Extension) -> bytes:
    """Return a chart as SVG, whose texts the reader's fonts draw, or as PNG of twice the size, for sharp print."""
    fixed = {key: part for key, part in spec.items() if key != "usermeta"} | {"width": _WIDTH, "config": _CONFIG}
    return _drawn(json.dumps(fixed, sort_keys=True), extension)


@lru_cache(maxsize=128)
def _drawn(spec: str, extension: Extension) -> bytes:
    with _lock:
        _register()
        if extension == "svg":
            return bytes(vl_convert.vegalite_to_svg(spec).encode())
        return bytes(vl_convert.vegalite_to_png(spec, scale=2))


@lru_cache(maxsize=1)
def _register() -> None:
    found = find_spec(_FONTS)
    assert found is not None  # the program requires it
    assert found.origin is not None
    vl_convert.register_font_directory(str(Path(found.origin).parent))

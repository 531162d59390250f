"""What `import vidseg` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import vidseg


def test_every_public_name_loads_and_the_list_is_sorted() -> None:
    assert list(vidseg.__all__) == sorted(vidseg.__all__)
    assert set(vidseg.__all__) == set(vidseg._MODULES)
    for name in vidseg.__all__:
        assert getattr(vidseg, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(vidseg, "no_such_name")


def test_the_import_loads_neither_numpy_nor_opencv() -> None:
    script = "import sys, vidseg; sys.exit(bool({'numpy', 'cv2'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)

"""The process that plays a GStreamer pipeline: `python3 -I child.py DESCRIPTOR`.

It is started by its path, because GStreamer's bindings are mostly the system's Python's, which knows no vidseg and none
of its dependencies. Of vidseg it loads a few modules that need nothing but Python's own library, from beside itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def find_vidseg() -> None:
    """Let `import vidseg.runtime...` find the files beside this one, however they were installed."""
    for name, folders in (("vidseg", []), ("vidseg.runtime", [str(Path(__file__).resolve().parents[2])])):
        package = ModuleType(name)
        package.__path__ = folders
        sys.modules[name] = package


def main() -> None:
    """Serve the process that holds the other end of the socket."""
    from vidseg.runtime.sources.gstreamer.player import serve

    serve(int(sys.argv[1]))


if __name__ == "__main__":
    find_vidseg()
    main()

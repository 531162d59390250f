"""Finished calibration tables in the user's cache folder, so that an interrupted export goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from vidseg.calibration.ranges import METHODS
from vidseg.calibration.table import CalibrationTable, parse_table, table_json
from vidseg.runtime.cache import private_folder
from vidseg.runtime.engines.opening import EngineName
from vidseg.runtime.errors import ConfigurationError


class TableCache:
    """Tables of one model. Trouble with the folder costs a calibration, no more.

    Args:
        folder: where they lie; None for none.
        model_sha256: of the float graph.
        log: called with a line where a table cannot be kept.
    """

    def __init__(self, folder: Path | None, model_sha256: str, log: Callable[[str], None] = lambda _line: None) -> None:
        self._folder = folder
        self._model_sha256 = model_sha256
        self._log = log

    def holds(self, engine: EngineName) -> bool:
        """True where a table is there whose activations were observed in an engine, of whatever frames."""
        return self._folder is not None and any(self._folder.glob(f"{self._prefix(engine)}-*.json"))

    def read(self, engine: EngineName, frames_sha256: str, tensors: Collection[str]) -> CalibrationTable | None:
        """The table of these frames; None where there is none, or one that another version made of other tensors."""
        if self._folder is None:
            return None
        with suppress(ConfigurationError, OSError):
            path = private_folder(self._folder) / self._name(engine, frames_sha256)
            table = parse_table(path.read_bytes(), str(path))
            is_of_them = (table.model_sha256, table.frames_sha256) == (self._model_sha256, frames_sha256)
            has_methods = all(set(METHODS) == set(found.amax) for found in table.tensors.values())
            if is_of_them and has_methods and set(table.tensors) == set(tensors):
                return table
        return None

    def write(self, engine: EngineName, table: CalibrationTable) -> None:
        """Keep a table. The file is replaced as a whole."""
        if self._folder is None:
            return
        path = self._folder / self._name(engine, table.frames_sha256)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            private_folder(self._folder)
            part.write_bytes(table_json(table))
            part.replace(path)
        except (ConfigurationError, OSError) as error:
            self._log(f"the calibration is not kept for another export: {error}")
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _name(self, engine: EngineName, frames_sha256: str) -> str:
        return f"{self._prefix(engine)}-{frames_sha256[:16]}.json"

    def _prefix(self, engine: EngineName) -> str:
        return f"calibration-{version('vidseg')}-{self._model_sha256[:16]}-{engine}"

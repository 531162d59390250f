"""The configuration of a site: which cameras, what of them counts, where results go. A strict schema in YAML.

`${NAME}` in an address stands for a variable of the environment, `${file:/run/secrets/camera}` for the first line of a
file, so that no password has to stand in the configuration; `$${` is a plain `${`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import ConfigurationError
from vidseg.runtime.frame import Frame
from vidseg.runtime.pipeline.opening import OpenOptions
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.results.zones import Zone
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.view import View
from vidseg.runtime.yaml_reading import MAX_BYTES, read_yaml

MAX_SECRET_BYTES = 4096

NAMES_DO = "Names have at most 64 letters of a to z, digits, spaces and . _ -, and begin with a letter or a digit."

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]

_VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")


class SourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source.

    Attributes:
        uri: as `vidseg run --source` takes it.
        required: the run ends where this source cannot be opened or is lost.
        roi: see `View`.
        ignore: see `View`.
    """

    uri: Text
    required: bool = False
    roi: tuple[Share, Share, Share, Share] | None = None
    ignore: tuple[tuple[tuple[Share, Share], ...], ...] = ()


class EventSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"class_name": "class"}):
    """An event; see `Rule`."""

    class_name: Text
    above: Share
    below: Share | None = None
    zone: Name | None = None
    after_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a configuration; what stands in it for a command's options is theirs where they are not given.

    Attributes:
        sources: by the name that results and pages show.
        sinks: as `vidseg run --sink` takes them.
        bundle, engine, variant, deadline_ms, every_frame: see `OpenOptions`.
        hang_s: see `PipelineOptions`.
        zones: corners of polygons on the pictures of every source, by name.
        events: by name.
    """

    sources: dict[Name, SourceSpec]
    sinks: tuple[Text, ...] = ()
    bundle: Text | None = None
    engine: Literal["auto", "onnxruntime", "openvino", "tensorrt"] = "auto"
    variant: Text | None = None
    deadline_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    every_frame: bool = False
    hang_s: Annotated[float, msgspec.Meta(gt=0)] | None = 60.0
    zones: dict[Name, tuple[tuple[Share, Share], ...]] = {}
    events: dict[Name, EventSpec] = {}

    def report_options(self) -> ReportOptions:
        """What sinks for programs tell.

        Raises:
            ConfigurationError: a zone that is no polygon, an event that makes no sense.
        """
        zones = tuple(Zone(name, corners) for name, corners in self.zones.items())
        rules = tuple(
            Rule(name, spec.class_name, spec.above, spec.below, spec.zone, spec.after_ms)
            for name, spec in self.events.items()
        )
        return ReportOptions(zones, rules)

    def views(self) -> dict[str, View]:
        """What of each source's pictures counts.

        Raises:
            ConfigurationError: a region or polygon that is none.
        """
        return {name: View(spec.roi, spec.ignore) for name, spec in self.sources.items() if spec.roi or spec.ignore}

    @property
    def required(self) -> frozenset[str]:
        """Names of the sources without which nothing goes."""
        return frozenset(name for name, spec in self.sources.items() if spec.required)


def read_site(path: Path) -> Site:
    """Read a configuration.

    Raises:
        ConfigurationError: it is missing, is no YAML, or has a key or value that is not understood; the message names
            the place and repeats no value.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read", error.strerror or "", "Check the path.") from error
    document: object = None
    try:
        document = read_yaml(content)
        return msgspec.convert(document, Site)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        shown = _with_name(re.sub(r"[`$]\.?", "", place), document) or "it"
        do = NAMES_DO if shown.startswith("key in") and "regex" in what else ""
        raise ConfigurationError(f"{path}: {shown} is not understood", _without_values(what), do) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no YAML", str(error)) from None


def _with_name(place: str, document: object) -> str:
    """A place with the name of its source or event, which msgspec leaves out. What is in it is not shown."""
    kinds = {"sources[...]": SourceSpec, "events[...]": EventSpec}
    found = next((part for part in kinds if place.startswith(part)), None)
    specs = document.get(found.removesuffix("[...]")) if found and isinstance(document, dict) else None
    if found is None or not isinstance(specs, dict):
        return place
    for name, spec in specs.items():
        try:
            msgspec.convert({name: None}, dict[Name, None])
        except msgspec.ValidationError:
            continue
        try:
            msgspec.convert(spec, kinds[found])
        except msgspec.ValidationError:
            return place.replace("[...]", f".{name}", 1)
    return place


def _without_values(what: str) -> str:
    """What msgspec says, without a value, and without a key unless it is nearly one of ours: a comma in a password
    makes a key of what stands behind it."""
    kind, mark, key = what.partition("`")
    if not mark or not kind.startswith("Object contains unknown field"):
        return re.sub(r" '.*'", "", what, flags=re.DOTALL)
    near = get_close_matches(key[:-1], _KEYS, 1) if re.fullmatch(r"[A-Za-z_]{1,30}`", key) else []
    return f"{what}, which is nearly {near[0]}" if near else kind.rstrip()


_KEYS = [field.encode_name for kind in (Site, SourceSpec, EventSpec) for field in msgspec.structs.fields(kind)]


def with_secrets(text: str, environment: Mapping[str, str], name: str) -> str:
    """An address with what stands for its secrets filled in.

    Args:
        text: with `${NAME}` or `${file:PATH}`.
        environment: as `os.environ`.
        name: of what the address belongs to, for messages, which never repeat a secret.

    Raises:
        ConfigurationError: a variable is not set, a file cannot be read or is empty.
    """

    def filled(found: re.Match[str]) -> str:
        inner = found[1]
        if inner is None:
            return "${"
        kind, separator, path = inner.partition(":")
        if separator and kind == "file":
            return _secret_of_file(Path(path), name)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", inner):
            raise ConfigurationError(f"{name}: ${{…}} is not understood", "", "Write ${NAME} or ${file:PATH}.")
        if inner not in environment:
            raise ConfigurationError(f"{name}: the variable {inner} is not set", "", f"export {inner}=…")
        return environment[inner]

    return _VARIABLE.sub(filled, text)


def _secret_of_file(path: Path, name: str) -> str:
    try:
        with path.open("rb") as stream:
            line = stream.read(MAX_SECRET_BYTES).split(b"\n", 1)[0].decode().strip()
    except (OSError, ValueError) as error:  # ValueError: it is no UTF-8, or no path
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigurationError(f"{name}: the secret in {path} cannot be read", reason or "") from None
    if not line:
        raise ConfigurationError(f"{name}: there is no secret in {path}", "an empty line")
    return line


def with_site(options: OpenOptions, site: Site, given: Collection[str]) -> OpenOptions:
    """Options with what a site says of those that were not given.

    Args:
        options: with defaults for what was not given.
        site: the configuration.
        given: names of the command's options that were.

    Raises:
        ConfigurationError: a zone, event or region that makes no sense.
    """
    ours = {"engine": "engine", "variant": "variant", "every_frame": "every_frame", "deadline": "deadline_ms"}
    told = {name: getattr(site, name) for option, name in ours.items() if option not in given}
    return replace(
        options, **told, retry="always", required=site.required, hang_s=site.hang_s, views=site.views(),
        report=site.report_options(),
    )  # fmt: skip


def sources_of(site: Site, environment: Mapping[str, str], *, realtime: bool = False) -> list[Source]:
    """The sources of a site, by the names that it gives them. Nothing is opened.

    Raises:
        ConfigurationError: see `with_secrets`.
        UsageError: an address that is not understood.
    """
    return [
        NamedSource(name, source_from_uri(with_secrets(spec.uri, environment, f"source {name}"), realtime=realtime))
        for name, spec in site.sources.items()
    ]


def sinks_of(site: Site, environment: Mapping[str, str]) -> list[str]:
    """The sinks of a site, as `vidseg run --sink` takes them, with their secrets: a page's token, a server's password.

    Raises:
        ConfigurationError: see `with_secrets`.
    """
    return [with_secrets(text, environment, f"sink {number}") for number, text in enumerate(site.sinks, 1)]


class NamedSource:
    """A source under another name.

    Args:
        name: that results show.
        source: what is read.
    """

    def __init__(self, name: str, source: Source) -> None:
        self._name = name
        self._source = source

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def live(self) -> bool:
        """As of the source itself."""
        return self._source.live

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """See `Source`."""
        self._source.open(clock, stop)

    def read(self) -> Frame | None:
        """See `Source`."""
        frame = self._source.read()
        return None if frame is None else replace(frame, source=self._name)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()

"""Addresses of sources and sinks: whatever is in a password, nobody sees it; whatever is wrong is one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.addresses import LOCAL, SINKS, Address, damaged_address, whole_address
from tests.fuzz.campaign import Campaign
from tests.fuzz.invariant import OBEYED, check_error, check_hidden, check_line, tried
from tests.fuzz.mutation import damaged_text
from tests.tiny_models import CLASSES
from vidseg.runtime.errors import ConfigurationError, UsageError, VidsegError
from vidseg.runtime.results.events import Rule
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sinks.opening import sink_from_uri
from vidseg.runtime.sinks.recording.options import parse_record_uri
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.sources.streams.source import StreamSource
from vidseg.runtime.web.address import web_address


def _check_found(found: SecretUri, address: Address) -> None:
    check_line(found.name[:900])
    check_hidden(f"{found.name} {found!r}", address.secrets if address.core in address.text else ())
    assert secret_uri(found.uri).uri == found.uri
    assert secret_uri(found.name).name == found.name
    cleaned = found.clean(f"cannot open {found.uri}: {address.text} failed")
    assert not [one for one in found.secrets if len(one) > 3 and one in cleaned.replace(found.name, "")]


def test_whole_addresses(campaign: Campaign) -> None:
    """Each is taken, and shows nothing; what a library says of it is clean."""
    for rng in campaign.cases("address", 500):
        address = whole_address(rng)
        found = tried(lambda address=address: secret_uri(address.text), address.secrets)  # type: ignore[misc]
        assert found is not None, address
        _check_found(found, address)
        check_hidden(found.clean(f"no route to {found.uri} ({address.core})"), address.secrets)


def test_damaged_addresses(campaign: Campaign) -> None:
    for rng in campaign.cases("damaged address", 300):
        address = damaged_address(rng)
        found = tried(lambda address=address: secret_uri(address.text), address.secrets)  # type: ignore[misc]
        if found is not None:
            _check_found(found, address)


def test_streams(campaign: Campaign) -> None:
    for rng in campaign.cases("stream", 300):
        address = damaged_address(rng)
        source = tried(lambda address=address: StreamSource.from_uri(address.text), address.secrets)  # type: ignore[misc]
        if source is not None:
            check_hidden(f"{source.name} {source!r}", address.secrets if address.core in address.text else ())


def test_sources(campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for rng in campaign.cases("source", 300):
        is_local = rng.random() < 0.7
        address = Address(damaged_text(rng, rng.choice(LOCAL)), "-", ()) if is_local else damaged_address(rng)
        source = tried(lambda address=address: source_from_uri(address.text), address.secrets)  # type: ignore[misc]
        if source is not None and "://" in address.text:
            check_line(source.name[:900], address.secrets if address.core in address.text else ())


def test_sinks(campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = ReportOptions((), (Rule("car", "red", 0.1), Rule("person", "blue", 0.1)))
    for rng in campaign.cases("sink", 300):
        text = rng.choice(SINKS) if rng.random() < 0.7 else damaged_address(rng).text
        text = damaged_text(rng, text)
        if text.startswith("web://"):  # a sink would serve it
            web = tried(lambda text=text: web_address(text), ["zebra7quokka8"])  # type: ignore[misc]
            assert web is None or (web.is_loopback or len(web.token) >= 16)
            assert web is None or "quokka8" not in f"{web!r} {web.name}"
            continue
        sink = tried(lambda text=text: sink_from_uri(text, CLASSES, report), _secrets_of(text))  # type: ignore[misc]
        if sink is not None:
            assert not OBEYED.search(sink.name) or "://" not in text
            sink.close()
    assert not list(tmp_path.iterdir())


def _secrets_of(text: str) -> tuple[str, ...]:
    """None where damage has made a file's name of it."""
    return ("zebra7", "quokka8", "ocelot9") if "://" in text else ()


def test_recordings(campaign: Campaign) -> None:
    for rng in campaign.cases("recording", 200):
        text = damaged_text(rng, rng.choice([sink for sink in SINKS if sink.startswith("record://")]))
        found = tried(lambda text=text: parse_record_uri(text))  # type: ignore[misc]
        if found is not None:
            folder, options = found
            assert str(folder).isprintable()
            assert all(name.isprintable() for name in options.events)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:12345/zebra7@ho st/x", "rtsp://me:zebra7@[::1/x", "rtsp:/me:zebra7@camera/x", "me:zebra7@camera",
        "rtsp:/me:zebra7://x@camera", "rtsp//me:zebra7@camera", "rtsp://me:80/zebra7@", "rtsp://me:80/zebra7@camera:x/",
        "web://127.0.0.1:8080#zebra7", "web://me:zebra7@127.0.0.1:80", "record://x#pass=zebra7@", "jsonl://zebra7@x",
        "window://me:zebra7@x", "rtsps:me:zebra7@x/live", "RTSP;//me:zebra7@x",
    ],
)  # fmt: skip
def test_a_slip_of_the_finger_in_a_sink_shows_no_password(text: str) -> None:
    with pytest.raises((UsageError, ConfigurationError)) as caught:
        sink_from_uri(text, CLASSES)
    assert isinstance(caught.value, VidsegError)
    check_error(caught.value, ["zebra7"])

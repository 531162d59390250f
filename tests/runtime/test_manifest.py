"""A manifest that is read wrongly runs the wrong model with the wrong preprocessing."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import tiny_parts
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.errors import BundleError
from vidseg.runtime.manifest import FORMAT, ClassSpec, Manifest, manifest_text, parse_manifest

levels = st.tuples(*[st.integers(0, 255)] * 3)
triples = st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False)] * 3)
names = st.text(
    st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), min_size=1, max_size=20
)


def _manifest() -> Manifest:
    manifest, members = tiny_parts()
    return msgspec.structs.replace(manifest, members={name: sha256_of(content) for name, content in members.items()})


@given(st.lists(st.tuples(names, levels), min_size=1, max_size=5), triples, triples)
def test_reading_is_the_inverse_of_writing(
    classes: list[tuple[str, tuple[int, int, int]]],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    manifest = _manifest()
    replaced = msgspec.structs.replace(
        manifest,
        input=msgspec.structs.replace(manifest.input, mean=mean, std=std),
        output=msgspec.structs.replace(
            manifest.output, classes=tuple(ClassSpec(name=name, color_rgb=color) for name, color in classes)
        ),
    )
    assert parse_manifest(manifest_text(replaced), "x") == replaced


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown field `colour`"),
        ({"format": FORMAT + 1}, f"not of format {FORMAT}: got format {FORMAT + 1}"),
        ({"format": FORMAT - 2}, f"not of format {FORMAT}"),
        ({"format": True}, f"not of format {FORMAT}"),
        ({"task": "boxes"}, r"\$\.task"),
        ({"input": {"size_wh": [0, 4]}}, r"\$\.input"),
        ({"members": {"../evil": "0" * 64}}, r"\$\.members"),
        ({"members": {"a" * 201: "0" * 64}}, r"\$\.members"),
        ({"members": {}}, "a file without a checksum"),
        ({"variants": []}, r"\$\.variants"),
        ({"format": int("f" * 80, 16)}, f"not of format {FORMAT}"),
        ({"colour" + "r" * 5000: 1}, "unknown field"),
        ({"provenance": {"tools": {"vidseg": "\u202eevil"}}}, r"\$\.provenance"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_name(change: dict[str, object], message: str) -> None:
    document = yaml.safe_load(manifest_text(_manifest())) | change
    with pytest.raises(BundleError, match=message) as caught:
        parse_manifest(yaml.safe_dump(document), "x")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ["", "[", "a: b: c", "!!python/object/apply:os.system [ls]", "\x00", "[" * 5000, "a: &a [1]\nb: [*a, *a]", "1"],
)
def test_hostile_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(text, "x")
    assert "\n" not in str(caught.value)


def test_the_format_before_this_one_is_read() -> None:
    document = yaml.safe_load(manifest_text(_manifest())) | {"format": FORMAT - 1}
    for variant in document["variants"]:
        for accuracy in variant["accuracy"].values():
            for name in ("disagreement", "mean_iou", "samples"):  # came with format 3
                del accuracy[name]
    manifest = parse_manifest(yaml.safe_dump(document), "x")
    assert msgspec.structs.replace(manifest, format=FORMAT) == _manifest()

"""What programs, Prometheus and container runtimes ask for has to be there, true, and safe to have."""

from __future__ import annotations

import json
import threading
from math import nan

import cv2
import numpy as np
import pytest

from tests.runtime.web.site import CLASSES, result_of, site
from tests.waiting import until
from vidseg.runtime.frame import SourceStatus
from vidseg.runtime.web.access import SECURITY_HEADERS

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


def test_the_page_and_its_files_are_there_with_headers_that_keep_others_out() -> None:
    with site() as served:
        for path, kind in {
            "/": "text/html",
            "/assets/page.js": "text/javascript",
            "/assets/page.css": "text/css",
        }.items():
            status, headers, body = served.request(path)
            assert status == 200
            assert headers["content-type"].startswith(kind)
            assert len(body) > 1000
            for name, value in SECURITY_HEADERS:
                assert headers[name.decode()] == value.decode()
        page = served.request("/")[2].decode()
        assert "style=" not in page
        assert "<script>" not in page
        assert "//" not in page.replace("<!doctype", ""), "nothing from elsewhere"


def test_health_is_ready_only_while_results_come_and_names_no_camera() -> None:
    with site() as served:
        assert served.request("/health/live")[0] == 200
        status, _, body = served.request("/health/ready")
        assert status == 503
        assert json.loads(body) == {"ready": False, "reasons": ["no result yet", "2 of 2 sources: waiting"]}
        served.write(0)
        status, _, body = served.request("/health/ready")
        assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})


def test_a_failed_sink_or_a_stage_that_hangs_is_not_ready_and_is_named_to_those_who_may_know() -> None:
    with site() as served:
        served.write(0)
        served.pipeline.detached, served.pipeline.hanging = ("web://127.0.0.1:0",), ("source rtsp://10.0.0.7/yard",)
        status, _, body = served.request("/health/ready")
        assert (status, json.loads(body)["reasons"]) == (503, ["1 stage hangs", "1 of 1 sinks: failed"])
        told = served.json("/api/status")["statistics"]
        assert (told["detached"], told["hanging"]) == (["web://127.0.0.1:0"], ["source rtsp://10.0.0.7/yard"])
        text = served.request("/metrics")[2].decode().splitlines()
        served.pipeline.detached, served.pipeline.hanging = (), ()
        assert served.request("/health/ready")[0] == 200
        healthy = served.request("/metrics")[2].decode().splitlines()
    assert 'vidseg_sink_detached{sink="web://127.0.0.1:0"} 1.0' in text
    assert 'vidseg_stage_hanging{stage="source rtsp://10.0.0.7/yard"} 1.0' in text
    assert 'vidseg_stage_hanging{stage="infer"} 0.0' in text
    assert 'vidseg_sink_detached{sink="web://127.0.0.1:0"} 0.0' in healthy


def test_ages_that_nobody_knows_are_null_or_absent() -> None:
    with site() as served:
        served.pipeline.age_ms = nan
        status = served.request("/api/status")[2]
        text = served.request("/metrics")[2].decode()
    told = json.loads(status, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["statistics"]
    assert (told["age_p50_ms"], told["age_p99_ms"]) == (None, None)
    assert "vidseg_age_seconds{" not in text
    assert "nan" not in text.lower()


def test_before_the_pipeline_is_there_its_parts_say_so() -> None:
    with site(attached=False) as served:
        served.write(0)
        assert served.request("/api/status")[0] == served.request("/metrics")[0] == 503
        for path in ("/api/overlay", "/api/sources/front/pause"):
            assert served.post(path, {})[0] == 503
        assert served.request("/api/sources/front/snapshot.jpg")[0] == 200
        assert served.request("/")[0] == 200


def test_status_tells_statistics_sources_and_shares() -> None:
    with site() as served:
        served.write(3)
        served.sink.notify(SourceStatus("rtsp://10.0.0.7/yard", "lost", 0))
        found = served.json("/api/status")
    assert found["statistics"]["age_p99_ms"] == 80.25
    front, yard = found["sources"]
    assert (front["id"], front["state"], front["size_wh"], front["late"]) == ("front", "live", [64, 48], False)
    assert dict(zip([spec.name for spec in CLASSES], front["shares"], strict=True)) == pytest.approx(
        {"road": 0.4375, "car": 0.0417, "sky": 0.5}, abs=1e-3
    )
    assert (yard["id"], yard["name"], yard["state"]) == ("10-0-0-7-yard", "rtsp://10.0.0.7/yard", "lost")
    assert yard["since_unix_ms"] <= found["now_unix_ms"]
    assert found["classes"][0] == {"name": "road", "color_rgb": [128, 64, 128]}
    assert found["overlay"] == {"alpha": 0.5, "hidden": []}


def test_the_class_map_is_a_png_of_class_ids_at_frame_size() -> None:
    with site() as served:
        assert served.request("/api/sources/front/class-map.png")[0] == 503
        served.write(1)
        status, headers, png = served.request("/api/sources/front/class-map.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    expected = result_of(1).at_frame_size()
    assert decoded.shape[:2] == expected.shape
    for class_id, spec in enumerate(CLASSES):
        assert (decoded[expected == class_id][:, :3] == spec.color_rgb[::-1]).all()
    assert (decoded[expected == 255][:, 3] == 0).all()


def test_the_snapshot_is_the_newest_picture_and_a_dark_one_of_a_lost_camera() -> None:
    with site() as served:
        served.write(3, size_wh=(320, 240))
        light = cv2.imdecode(np.frombuffer(served.request("/api/sources/front/snapshot.jpg")[2], np.uint8), 1)
        served.sink.notify(SourceStatus("front", "lost", 0))
        dark = cv2.imdecode(np.frombuffer(served.request("/api/sources/front/snapshot.jpg")[2], np.uint8), 1)
    assert light is not None
    assert dark is not None
    assert light.shape == dark.shape == (240, 320, 3)
    assert abs(float(light[:100].mean()) - 111) < 2
    assert float(dark[200:].mean()) < 40


def test_buttons_act_on_the_pipeline_and_say_why_they_do_not() -> None:
    with site() as served:
        assert served.post("/api/sources/10-0-0-7-yard/pause")[0] == 200
        assert served.pipeline.waiting == {"rtsp://10.0.0.7/yard"}
        assert served.json("/api/status")["sources"][1]["state"] == "paused"
        assert served.post("/api/sources/10-0-0-7-yard/resume")[0] == 200
        assert served.pipeline.waiting == set()
        assert served.post("/api/sources/nobody/pause")[0] == 404
        served.pipeline.names = ("stubborn",)
        status, _, body = served.post("/api/sources/stubborn/pause")
        assert (status, json.loads(body)) == (409, {"error": "stubborn cannot be paused."})


def test_the_overlay_is_changed_in_part_and_only_to_what_makes_sense() -> None:
    with site() as served:
        assert served.post("/api/overlay", {"alpha": 0.25})[0] == 200
        assert served.post("/api/overlay", {"hidden": ["sky", "sky"]})[0] == 200
        assert (served.pipeline.style.alpha, served.pipeline.style.hidden) == (0.25, ("sky",))
        impossible: tuple[object, ...] = (
            {"alpha": 2}, {"alpha": "much"}, {"hidden": ["lorry"]}, {"hidden": "sky"}, {"view": "mask"}, [], None,
        )  # fmt: skip
        for wrong in impossible:
            assert served.post("/api/overlay", wrong)[0] == 400, wrong
        assert served.request("/api/overlay", "POST", {"Origin": f"http://{served.host}"}, b"\xff{")[0] == 400
        assert served.request("/api/overlay", "POST", {"Origin": f"http://{served.host}"}, b"[" * 16000)[0] == 400
        assert (served.pipeline.style.alpha, served.pipeline.style.hidden) == (0.25, ("sky",))


def test_metrics_are_those_of_the_books() -> None:
    with site() as served:
        served.write(0)
        text = served.request("/metrics")[2].decode()
        assert served.metric("vidseg_frames_resolved_total") == served.pipeline.resolved
    for line in (
        'vidseg_frames_dropped_total{cause="replaced"} 3.0', "vidseg_frames_in_flight 1.0",
        'vidseg_age_seconds{quantile="0.5"} 0.0215', 'vidseg_stage_seconds{stage="infer"} 0.0125',
        'vidseg_source_state{source="front",state="live"} 1.0',
        'vidseg_source_state{source="rtsp://10.0.0.7/yard",state="waiting"} 1.0',
        'vidseg_sink_results_total{outcome="dropped",sink="web://127.0.0.1:0"} 1.0',
    ):  # fmt: skip
        assert line in text.splitlines()


def test_events_tell_the_classes_and_then_the_state_each_second() -> None:
    with site() as served:
        served.write(0)
        with served.connect("/api/events") as connection, connection.makefile("rb") as stream:
            kinds: list[str] = []
            documents: list[dict[str, list[dict[str, object]]]] = []
            while len(documents) < 3:
                line = stream.readline().decode()
                assert line
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: ").strip())
                if line.startswith("data: ") and kinds[-1] == "now":
                    documents.append(json.loads(line[6:]))
    assert {source["id"] for source in documents[-1]["sources"]} == {"front", "10-0-0-7-yard"}
    assert kinds[0] == "classes"


def test_what_is_asked_while_results_come_is_always_whole() -> None:
    with site() as served:
        served.write(0)
        done = threading.Event()

        def write() -> None:
            index = 0
            while not done.is_set():
                index += 1
                served.write(index, size_wh=(64, 48) if index % 2 else (96, 64))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(30):
                picture = served.request("/api/sources/front/snapshot.jpg")[2]
                assert picture.endswith(b"\xff\xd9")
                assert served.request("/api/sources/front/class-map.png")[2].endswith(b"IEND\xaeB`\x82")
                assert served.json("/api/status")["sources"][0]["size_wh"] in ([64, 48], [96, 64])
        finally:
            done.set()
            thread.join()


def test_a_fault_of_the_pipeline_is_an_answer_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with site() as served:
        served.pipeline.names = None  # type: ignore[assignment]
        status, _, body = served.request("/api/status")
        assert status == 500
        assert b"Traceback" not in body
        assert served.request("/health/live")[0] == 200
        until(lambda: "the page has no status" in caplog.text)
        served.pipeline.names = ("front",)
        with served.connect("/api/events") as connection, connection.makefile("rb") as stream:
            assert any(line == b"event: now\n" for line in stream)
    assert all(record.exc_info is None for record in caplog.records)

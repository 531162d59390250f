// The page: pictures, charts and controls. All that it knows comes once a second from /api/events.

import { WINDOW_MS, areas, color, legend, lines } from "./charts.js";
import { LiveVideo, isPossible as isVideoPossible } from "./video.js";

// A browser opens six connections to a server. Four may be pictures; the other cameras get a picture a second.
const MAX_STREAMS = 4;
const RETRY_MS = 2000;
const SERIES = 8;

const MESSAGES = {
  lost: "Camera lost", refused: "Camera refuses", silent: "Camera gives nothing", opening: "Camera is being opened",
  quiet: "No new picture", waiting: "Waiting for the first picture", paused: "Paused",
};

const byId = (id) => document.getElementById(id);
const clockTime = (unixMs) => new Date(unixMs).toLocaleTimeString([], { hour12: false });
const series = (index) => color(`--series-${(index % SERIES) + 1}`);
const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));

let classes = [];
let history = [];
let events = null;
let streamNumber = 0;
let cutOffAt = null;
let videoRoom = 0;
const cameras = new Map();

// ---- one card a camera ----

class Camera {
  constructor(source) {
    const card = byId("camera").content.firstElementChild.cloneNode(true);
    const part = (selector) => card.querySelector(selector);
    Object.assign(this, { card, source, isVisible: true, mode: "none", live: null, hasVideoFailed: false });
    this.image = part("img");
    this.video = part("video");
    this.veil = part(".veil");
    const path = `/api/sources/${source.id}`;
    part(".name").textContent = source.name;
    part(".snapshot").href = `${path}/snapshot.jpg`;
    part(".class-map").href = `${path}/class-map.png`;
    this.image.alt = `Live picture of ${source.name}`;
    this.image.addEventListener("error", () => {
      if (this.mode === "none") return;
      this.mode = "none";
      setTimeout(showPictures, RETRY_MS);
    });
    this.image.addEventListener("load", () => this.fit(this.image.naturalWidth, this.image.naturalHeight));
    this.video.muted = true;
    this.video.addEventListener("resize", () => this.fit(this.video.videoWidth, this.video.videoHeight));
    this.button = part(".pause");
    this.button.addEventListener("click", async () => {
      this.button.disabled = true;
      await post(`${path}/${this.source.state === "paused" ? "resume" : "pause"}`);
      this.button.disabled = false;
    });
    card.dataset.id = source.id;
    observer.observe(card);
  }

  fit(width, height) {
    if (width) this.image.parentElement.style.aspectRatio = `${width} / ${height}`;
  }

  show(mode) {
    if (mode === "snapshots" || mode !== this.mode) {
      this.live?.stop();
      this.live = null;
      this.video.hidden = mode !== "video";
      if (mode === "video") this.play();
      if (mode === "none" || mode === "video") this.image.removeAttribute("src");
      else if (mode === "stream") this.image.src = `/streams/${this.source.id}.mjpg?n=${streamNumber++}`;
      else this.image.src = `/api/sources/${this.source.id}/snapshot.jpg?n=${streamNumber++}`;
    }
    this.mode = mode;
  }

  play() {
    this.live = new LiveVideo(this.video, `/api/sources/${this.source.id}/webrtc`, () => {
      this.hasVideoFailed = true;
      this.mode = "none";
      showPictures();
    });
  }

  // True where the picture may come as video: otherwise, and where that does not work, it comes as MJPEG.
  takesVideo() {
    if (!isVideoPossible || this.hasVideoFailed) return false;
    if (this.mode === "video") return true;
    videoRoom -= 1;
    return videoRoom >= 0;
  }

  update(source) {
    this.source = source;
    const { state } = source;
    const isOld = state !== "live";
    const message = cutOffAt ? "No connection" : MESSAGES[state];
    const since = cutOffAt ?? source.since_unix_ms;
    this.veil.hidden = !isOld && !cutOffAt;
    if (!this.veil.hidden) {
      this.veil.firstElementChild.textContent = message;
      this.veil.lastElementChild.textContent = since === null ? "" : `since ${clockTime(since)}`;
    }
    for (const media of [this.image, this.video]) {
      media.classList.toggle("old", Boolean(cutOffAt) || (isOld && state !== "paused"));
      media.classList.toggle("still", state === "paused" && since === null); // else it comes in the dark
    }
    if (state === "live" && source.fps > 0) this.live?.check();
    this.card.querySelector(".late").hidden = !source.late;
    this.card.querySelector(".dot").className = `dot ${state}`;
    for (const link of this.card.querySelectorAll(".tools a")) link.hidden = source.size_wh === null;
    this.button.textContent = state === "paused" ? "Resume" : "Pause";
    const facts = [];
    if (state === "live") facts.push(`${number(source.fps)} fps`, `${number(source.age_ms, 0)} ms old`);
    if (source.size_wh) facts.push(source.size_wh.join("×"));
    this.card.querySelector(".facts").textContent = facts.join("  ·  ");
  }

  draw(times, now) {
    const past = history.map((one) => one.sources.find((source) => source.id === this.source.id)?.shares ?? null);
    const layers = classes.map((one, index) => ({
      name: one.name,
      color: `rgb(${one.color_rgb.join(" ")})`,
      values: past.map((shares) => shares && shares[index]),
    }));
    areas(this.card.querySelector(".shares"), times, now, layers);
    const shares = this.source.shares ?? [];
    const largest = layers.map((layer, index) => ({ ...layer, share: shares[index] ?? 0 }))
      .filter((layer) => layer.share >= 0.005).sort((a, b) => b.share - a.share).slice(0, 6);
    legend(this.card.querySelector(".legend"), largest.map((layer) => ({
      color: layer.color, name: layer.name, value: `${(layer.share * 100).toFixed(0)} %`,
    })));
  }

  remove() {
    this.show("none");
    observer.unobserve(this.card);
    this.card.remove();
  }
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const camera = cameras.get(entry.target.dataset.id);
    if (camera) camera.isVisible = entry.isIntersecting;
  }
  showPictures();
}, { rootMargin: "200px" });

function showPictures() {
  let streams = 0;
  for (const camera of cameras.values()) {
    const isWanted = camera.isVisible && !document.hidden && !cutOffAt && camera.source.size_wh !== null;
    if (!isWanted) camera.show("none");
    else if (streams < MAX_STREAMS) {
      streams += 1;
      camera.show(camera.takesVideo() ? "video" : "stream");
    } else if (camera.source.state === "live") camera.show("snapshots");
  }
}

function updateCameras(sources) {
  const generations = new Map(sources.map((source) => [source.id, source.generation]));
  for (const [id, camera] of cameras) {
    if (generations.get(id) !== camera.source.generation) {
      cameras.delete(id);
      camera.remove();
    }
  }
  const place = byId("cameras");
  sources.forEach((source, index) => {
    if (!cameras.has(source.id)) cameras.set(source.id, new Camera(source));
    const camera = cameras.get(source.id);
    if (place.children[index] !== camera.card) place.insertBefore(camera.card, place.children[index] ?? null);
    camera.update(source);
  });
  place.classList.toggle("one", sources.length === 1);
  place.classList.toggle("few", sources.length === 2 || sources.length === 4);
}

// ---- recordings and streams ----

const FACTS = {
  recorded: "frames recorded", not_recorded: "frames missing", published: "pictures published",
  not_published: "pictures missing", written: "lines written", missing: "lines missing",
};

function updateOutputs(outputs) {
  const all = Object.entries(outputs);
  byId("outputs").hidden = !all.length;
  byId("outputs").querySelector("ul").replaceChildren(...all.map(([name, output]) => {
    const facts = Object.entries(FACTS).filter(([field]) => output[field] > 0 || (field in output && !field.startsWith("not_")))
      .map(([field, words]) => `${output[field].toLocaleString("en")} ${words}`);
    if (output.size_bytes) facts.push(`${(output.size_bytes / 2 ** 20).toFixed(0)} MiB`);
    return element("li", element("b", name), element("span", facts.join("  ·  ")));
  }));
}

// What the run does not do any more, or not now, for all to see at the top.
function updateTroubles({ outputs, statistics }) {
  const told = [
    ...(statistics?.hanging ?? []).map((stage) => `${stage} hangs`),
    ...(statistics?.detached ?? []).map((sink) => `${sink} has failed and gets nothing any more; the log says why`),
  ];
  for (const [name, output] of Object.entries(outputs)) {
    if (!output.trouble || statistics?.detached.includes(name)) continue;
    const [verb, missing, what] = "recorded" in output ? ["is not recording", output.not_recorded, "frames"]
      : "written" in output ? ["is not writing", output.missing, "lines"]
      : ["is not publishing", output.not_published, "pictures"];
    told.push(`${name} ${verb}: ${output.trouble}${missing ? `; ${missing.toLocaleString("en")} ${what} are missing` : ""}`);
  }
  byId("troubles").hidden = !told.length;
  byId("troubles").replaceChildren(...told.map((text) => element("li", text)));
}

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

// ---- numbers and charts ----

function updateSummary(statistics) {
  byId("fps").textContent = statistics ? `${number(statistics.fps)} /s` : "–";
  const age = (ms) => (ms === null || ms === undefined ? "–" : `${number(ms, 0)} ms`); // null: no result of late
  byId("age-p50").textContent = age(statistics?.age_p50_ms);
  byId("age-p99").textContent = age(statistics?.age_p99_ms);
  byId("dropped").textContent = statistics ? dropped(statistics).toLocaleString("en") : "–";
}

function dropped(statistics) {
  return Object.values(statistics.dropped).reduce((sum, count) => sum + count, 0);
}

// What grew between two documents, a second; null at the first one and behind a restart.
function rates(count) {
  return history.map((one, index) => {
    const before = history[index - 1];
    if (!before?.statistics || !one.statistics) return null;
    const grown = count(one.statistics) - count(before.statistics);
    const seconds = (one.now_unix_ms - before.now_unix_ms) / 1000;
    return grown < 0 || seconds <= 0 ? null : grown / seconds;
  });
}

function drawCharts() {
  const times = history.map((one) => one.now_unix_ms);
  const now = times.at(-1);
  const values = (pick) => history.map((one) => (one.statistics ? pick(one.statistics) ?? null : null));
  chart("chart-rate", times, now, [
    { name: "results", values: rates((statistics) => statistics.resolved) },
    { name: "dropped", values: rates(dropped) },
  ]);
  chart("chart-age", times, now, [
    { name: "median", values: values((statistics) => statistics.age_p50_ms) },
    { name: "99 %", values: values((statistics) => statistics.age_p99_ms) },
  ]);
  const stages = Object.keys(history.at(-1).statistics?.stage_ms ?? {});
  chart("chart-stages", times, now, stages.map((stage) => ({
    name: stage, values: values((statistics) => statistics.stage_ms[stage]),
  })));
  for (const camera of cameras.values()) if (camera.isVisible) camera.draw(times, now);
}

function chart(id, times, now, wanted) {
  const painted = wanted.map((one, index) => ({ ...one, color: series(index) }));
  lines(byId(id), times, now, painted);
  legend(byId(id).nextElementSibling, painted.map((one) => ({
    color: one.color, name: one.name, value: number(one.values.at(-1)),
  })));
}

// ---- overlay ----

let alphaTimer = null;

function updateOverlay(overlay) {
  byId("overlay").hidden = overlay === null;
  if (overlay === null) return;
  const slider = byId("alpha");
  if (alphaTimer === null && document.activeElement !== slider) {
    slider.value = Math.round(overlay.alpha * 100);
    byId("alpha-value").textContent = `${slider.value} %`;
  }
  const hidden = new Set(overlay.hidden);
  for (const chip of byId("classes").children) chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.name)));
}

function makeChips() {
  byId("classes").replaceChildren(...classes.map(({ name, color_rgb }) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.dataset.name = name;
    chip.setAttribute("aria-pressed", "true");
    const patch = document.createElement("i");
    patch.style.background = `rgb(${color_rgb.join(" ")})`;
    chip.append(patch, name);
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      const chips = [...byId("classes").children];
      const hidden = chips.filter((one) => one.getAttribute("aria-pressed") === "false").map((one) => one.dataset.name);
      post("/api/overlay", { hidden });
    });
    return chip;
  }));
}

byId("alpha").addEventListener("input", (event) => {
  byId("alpha-value").textContent = `${event.target.value} %`;
  clearTimeout(alphaTimer);
  alphaTimer = setTimeout(async () => {
    await post("/api/overlay", { alpha: Number(event.target.value) / 100 });
    alphaTimer = null;
  }, 120);
});

// ---- the server ----

async function post(path, document_) {
  try {
    const answer = await fetch(path, { method: "POST", body: document_ ? JSON.stringify(document_) : "" });
    if (answer.status === 401) location.assign("/login");
    else if (!answer.ok) notice((await answer.json()).error ?? "It did not work.");
    else if (!cutOffAt) notice("");
  } catch {
    notice("The server did not answer.");
  }
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function take(document_) {
  history.push(document_);
  history = history.filter((one) => one.now_unix_ms > document_.now_unix_ms - WINDOW_MS - 2000);
}

function connect() {
  events?.close();
  events = new EventSource("/api/events");
  events.addEventListener("classes", (event) => {
    classes = JSON.parse(event.data);
    history = [];
    if (cutOffAt) {
      cutOffAt = null;
      notice("");
      for (const camera of cameras.values()) camera.hasVideoFailed = false;
    }
    makeChips();
  });
  events.addEventListener("past", (event) => take(JSON.parse(event.data)));
  events.addEventListener("now", (event) => {
    const now = JSON.parse(event.data);
    take(now);
    videoRoom = now.webrtc.room;
    updateCameras(now.sources);
    updateSummary(now.statistics);
    updateOverlay(now.overlay);
    updateOutputs(now.outputs);
    updateTroubles(now);
    showPictures();
    drawCharts();
  });
  events.addEventListener("error", async ({ target }) => {
    target.close();
    cutOff();
    setTimeout(() => { if (!document.hidden && events === target) connect(); }, RETRY_MS);
    if (await isLoggedOut()) location.assign("/login");
  });
}

// True where the server is there, and wants the token again: a cookie does not last for ever, nor does a token.
async function isLoggedOut() {
  try {
    return (await fetch("/api/status", { method: "HEAD" })).status === 401;
  } catch {
    return false;
  }
}

function cutOff() {
  cutOffAt ??= Date.now();
  notice(`No connection to vidseg since ${clockTime(cutOffAt)}`);
  for (const camera of cameras.values()) camera.update(camera.source);
  showPictures();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) events?.close();
  else connect();
  showPictures();
});
addEventListener("pagehide", () => { for (const camera of cameras.values()) camera.show("none"); });
addEventListener("resize", () => { if (history.length) drawCharts(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (history.length) drawCharts(); });
connect();

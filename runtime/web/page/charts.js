// Charts on a canvas: lines and stacked areas over the last three minutes.

export const WINDOW_MS = 180_000;
const LEFT = 36, BOTTOM = 18, TOP = 6;

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const style = getComputedStyle(canvas);
  const width = canvas.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const height = canvas.clientHeight;
  const size = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return { context, width, height };
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A round number that is not less.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((round) => round >= value * 0.999);
}

function axes(context, width, height, top) {
  context.strokeStyle = color("--grid");
  context.fillStyle = color("--quiet");
  context.lineWidth = 1;
  const base = height - BOTTOM;
  for (const share of [0, 0.5, 1]) {
    const y = Math.round(base - share * (base - TOP)) + 0.5;
    context.beginPath();
    context.moveTo(LEFT, y);
    context.lineTo(width, y);
    context.stroke();
    context.textAlign = "right";
    context.textBaseline = share === 1 ? "top" : "middle";
    context.fillText(`${+(top * share).toPrecision(3)}`, LEFT - 6, share === 1 ? y - 3 : y);
  }
  timeAxis(context, LEFT, width, height);
}

function timeAxis(context, left, width, height) {
  context.fillStyle = color("--quiet");
  context.textBaseline = "bottom";
  const labels = [["left", left, "3 min ago"], ["right", width, "now"]];
  for (const [align, x, text] of labels) {
    context.textAlign = align;
    context.fillText(text, x, height);
  }
}

// series: [{color, values: [number|null, one for each time]}]
export function lines(canvas, times, now, series) {
  const { context, width, height } = prepare(canvas);
  if (width <= LEFT) return;
  const highest = Math.max(0, ...series.flatMap((one) => one.values.filter((value) => value !== null)));
  const top = roundUp(Math.max(highest * 1.08, 1e-3));
  axes(context, width, height, highest > 0 ? top : 1);
  const base = height - BOTTOM;
  const x = (time) => width - ((now - time) / WINDOW_MS) * (width - LEFT);
  const y = (value) => base - (value / (highest > 0 ? top : 1)) * (base - TOP);
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  for (const one of series) {
    context.strokeStyle = context.fillStyle = one.color;
    context.beginPath();
    let isOn = false;
    one.values.forEach((value, index) => {
      if (value === null || x(times[index]) < LEFT) {
        isOn = false;
        return;
      }
      context[isOn ? "lineTo" : "moveTo"](x(times[index]), y(value));
      isOn = true;
    });
    context.stroke();
  }
}

// layers: [{color, values: [share 0..1, one for each time]}], the lowest first; null where nothing is known
export function areas(canvas, times, now, layers) {
  const { context, width, height } = prepare(canvas);
  const base = height - BOTTOM;
  context.fillStyle = color("--grid");
  context.fillRect(0, 0, width, base);
  const x = (time) => width - ((now - time) / WINDOW_MS) * width;
  const floor = times.map(() => 0);
  for (const layer of layers) {
    context.fillStyle = layer.color;
    for (const [first, end] of runs(layer.values)) {
      context.beginPath();
      for (let i = first; i < end; i += 1) context.lineTo(x(times[i]), base - floor[i] * base);
      for (let i = end - 1; i >= first; i -= 1) context.lineTo(x(times[i]), base - (floor[i] + layer.values[i]) * base);
      context.fill();
    }
    layer.values.forEach((value, i) => { floor[i] += value ?? 0; });
  }
  timeAxis(context, 0, width, height);
}

// Parts without a gap, as [first, end).
function runs(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const last = found.at(-1);
    if (last && last[1] === index) last[1] = index + 1;
    else found.push([index, index + 1]);
  });
  return found;
}

// entries: [{color, name, value}]
export function legend(list, entries) {
  const wanted = entries.map(({ color: paint, name, value }) => {
    const item = document.createElement("li");
    const patch = document.createElement("i");
    patch.style.background = paint;
    const number = document.createElement("b");
    number.textContent = value;
    item.append(patch, name, number);
    return item;
  });
  list.replaceChildren(...wanted);
}

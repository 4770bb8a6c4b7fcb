// The page's side of live plots: points come in one binary message, and are drawn on a canvas a plot.
// Colours as they come are those of printed plots; some are too dark on a dark page, others too pale for letters.
const ON_DARK = { "#0072B2": "#56B4E9", "#666666": "#999999" };
const LETTERS = { "#E69F00": "#8A5F00", "#009E73": "#00664A", "#D55E00": "#B04E00" };
const LETTERS_ON_DARK = { "#009E73": "#4CD3A6", "#D55E00": "#FF8A3D" };
const LEFT = 48, RIGHT = 6, TOP = 6, BOTTOM = 22;

export default () => {
  const painters = new Set();
  let newest = null, waiting = [], asked = false, painted = () => {};

  // One plot an animation frame: drawn all at once, they would take the time of a picture of the live view. The
  // kernel is told when all are drawn, so a page that is slow, or hidden, is sent less.
  const paint = () => {
    asked = false;
    waiting.shift()?.();
    if (waiting.length) ask();
    else painted();
  };
  const ask = () => {
    if (!asked) requestAnimationFrame(paint);
    asked = true;
  };
  const repaint = () => {
    waiting = newest ? [...painters].flatMap((painter) => painter(newest)) : [];
    if (waiting.length) ask();
  };

  return {
    initialize({ model }) {
      painted = () => { if (newest.number) model.send({ seen: newest.number }); };
      model.on("msg:custom", (content, buffers) => {
        const view = buffers[0];  // it may begin at any byte: numbers of four must not
        const data = view && view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
        newest = content.error && newest ? { ...newest, error: content.error } : { ...content, data };
        repaint();
      });
    },
    render({ model, el }) {
      const box = document.createElement("div"), note = document.createElement("div"), plots = new Map();
      box.className = "avlab-live";
      note.className = "avlab-note";
      note.setAttribute("role", "status");
      note.textContent = "waiting for the stream";
      box.append(note);
      el.append(box);

      const plot = (kind) => {
        if (!plots.has(kind)) {
          const section = document.createElement("section"), header = document.createElement("header");
          const title = document.createElement("b"), value = document.createElement("span");
          const canvas = document.createElement("canvas");
          canvas.setAttribute("role", "img");
          header.append(title, value);
          section.append(header, canvas);
          box.insertBefore(section, note);
          plots.set(kind, { title, value, canvas });
        }
        return plots.get(kind);
      };
      const painter = (content) => {
        const steps = [];
        note.textContent = content.error ?? (content.number ? "" : "the stream has ended");
        if (!content.charts) return steps;
        const ink = getComputedStyle(box).color;
        const dark = (ink.match(/[\d.]+/g) ?? [0]).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 382;
        let at = 0;
        for (const chart of content.charts) {
          const columns = [];
          for (let column = 0; column < chart.columns; column += 1, at += 4 * chart.points) {
            columns.push(new Float32Array(content.data, at, chart.points));
          }
          const { title, value, canvas } = plot(chart.kind);
          steps.push(() => {
            title.textContent = chart.title;
            value.textContent = chart.value;
            canvas.setAttribute("aria-label", `${chart.title}: ${chart.value || "no reading yet"}`);
            draw(canvas, chart, columns, content, ink, dark);
          });
        }
        return steps;
      };
      painters.add(painter);
      const resized = new ResizeObserver(repaint);
      resized.observe(box);
      model.send({ hello: true });
      return () => {
        resized.disconnect();
        painters.delete(painter);
      };
    },
  };
};

// Round numbers, about `most` of them, from low to high.
function ticks(low, high, most) {
  const rough = (high - low) / most, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * size).find((each) => each >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push(k * step);
  return found;
}

function draw(canvas, chart, [times, ...values], { now, seconds }, ink, dark) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const c = canvas.getContext("2d"), [low, high] = chart.range;
  const right = width - RIGHT, bottom = height - BOTTOM;
  const span = Math.min(seconds, Math.max(now, 10));  // a run that has just begun fills the plot nevertheless
  const x = (time) => right + (time / span) * (right - LEFT);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - TOP);
  const hue = (colour) => (dark && ON_DARK[colour]) || colour;
  const letters = (colour) => (dark ? LETTERS_ON_DARK : LETTERS)[colour] ?? hue(colour);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "13px system-ui, sans-serif";
  c.textBaseline = "middle";

  c.textAlign = "right";
  for (const tick of ticks(low, high, 5)) {
    c.globalAlpha = 0.15;
    c.fillStyle = ink;
    c.fillRect(LEFT, Math.round(y(tick)), right - LEFT, 1);
    c.globalAlpha = 0.8;
    c.fillText(Number(tick.toPrecision(6)).toLocaleString("en").replace("-", "\u2212"), LEFT - 6, y(tick));
  }
  c.textAlign = "center";
  for (const tick of ticks(Math.max(0, now - span), now, 6)) {
    c.globalAlpha = 0.8;
    if (x(tick - now) < right - 12) c.fillText(`${Number(tick.toPrecision(6))} s`, x(tick - now), bottom + 13);
  }

  c.save();
  c.beginPath();
  c.rect(LEFT, TOP - 2, right - LEFT, bottom - TOP + 4);
  c.clip();
  for (const [from, to, colour, alpha] of chart.bands) {
    c.globalAlpha = dark ? alpha * 1.5 : alpha;
    c.fillStyle = hue(colour);
    c.fillRect(LEFT, y(to), right - LEFT, y(from) - y(to));
  }
  c.globalAlpha = 0.9;
  for (const [value, colour] of chart.lines) {
    c.fillStyle = hue(colour);
    c.fillRect(LEFT, y(value) - 0.5, right - LEFT, 1);
  }
  c.globalAlpha = 1;
  values.forEach((column, at) => {
    c.fillStyle = c.strokeStyle = hue(chart.colours[at]);
    c.lineWidth = 2;
    if (chart.marks === "dots") {
      for (let i = 0; i < column.length; i += 1) c.fillRect(x(times[i]) - 1.25, y(column[i]) - 1.25, 2.5, 2.5);
      return;
    }
    c.beginPath();
    let pen = false;
    for (let i = 0; i < column.length; i += 1) {
      if (Number.isFinite(column[i])) {
        if (pen) c.lineTo(x(times[i]), y(column[i]));
        else c.moveTo(x(times[i]), y(column[i]));
        if (chart.marks === "steps") c.lineTo(x(times[i] + 1), y(column[i]));
      }
      pen = Number.isFinite(column[i]);
    }
    c.stroke();
  });
  c.restore();

  c.globalAlpha = 1;
  c.textAlign = "left";
  let along = LEFT + 6;
  for (const [text, colour] of chart.names) {
    c.lineWidth = 4;
    c.strokeStyle = dark ? "#111111" : "#ffffff";
    c.strokeText(text, along, TOP + 8);
    c.fillStyle = letters(colour);
    c.fillText(text, along, TOP + 8);
    along += c.measureText(text).width + 14;
  }
}

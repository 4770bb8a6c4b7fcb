// The page's side of the class's table: rows that sort, a sparkline each, and the sum against what Wi-Fi carries.
// Names are strangers': they are set as text, and nothing here is made of HTML.
const COLUMNS = [ // key, heading, what it says, digits and unit; null: text
  ["name", "name", "what the client says it is called", null],
  ["address", "address", "where it is", null],
  ["since", "since", "when it came", null],
  ["fps", "fps", "frames sent to it a second", [1, ""]],
  ["loss", "loss", "packets lost, of its latest report", [1, " %"]],
  ["jitter", "jitter", "of the packets' arrival, of its latest report", [1, " ms"]],
  ["round_trip", "round trip", "there and back, of its latest report", [1, " ms"]],
  ["kbps", "kbit/s", "sent to it, with sound and repair", [0, ""]],
  ["report", "report", "how long ago its latest report came", [0, " s"]],
];
const LOSSY = 2, SILENT = 5; // per cent, and seconds, from which on a number stands out
const SPARKS = { loss: ["loss", "%"], fps: ["fps", "fps"] };

const make = (tag, className, text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
};
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const shown = (value, form) => {
  if (value === null || value === undefined) return "\u2013";
  return form ? value.toLocaleString("en", { minimumFractionDigits: form[0], maximumFractionDigits: form[0] }) + form[1] : value;
};

const compare = (key) => (a, b) => {
  const [left, right] = [a[key], b[key]];
  if (typeof left === "string") return left.localeCompare(right, undefined, { numeric: true });
  return (left ?? -Infinity) - (right ?? -Infinity);
};

const draw = (canvas, values, most, count) => {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = style.color;
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  pen.beginPath();
  let pen_down = false;
  values.forEach((value, at) => {
    if (value === null) { pen_down = false; return; }
    const x = width - 2 - (values.length - 1 - at) * (width - 4) / (count - 1);
    const y = height - 2 - Math.min(1, value / most) * (height - 4);
    if (pen_down) pen.lineTo(x, y); else { pen.moveTo(x, y); pen.lineTo(x + 0.5, y); }
    pen_down = true;
  });
  pen.stroke();
};

export default () => {
  const painters = new Set();
  let newest = null;

  return {
    initialize({ model }) {
      model.on("msg:custom", (content) => {
        newest = content.failed ? { ...newest, ...content } : content;
        for (const painter of painters) painter();
        if (content.number) model.send({ seen: content.number });
      });
    },
    render({ model, el }) {
      const root = make("div", "avlab-class"), say = make("p", "say"), meter = make("div", "meter");
      const fill = make("div", "fill"), table = make("table"), head = make("thead"), body = make("tbody");
      const news = make("ul", "news"), empty = make("p", "quiet"), marks = [];
      let sort = ["name", 1], spark = "loss";
      say.setAttribute("role", "status");
      news.setAttribute("role", "log");
      meter.setAttribute("role", "img");
      meter.append(fill);

      const row = make("tr"), headings = COLUMNS.map(([key, label, help, form]) => {
        const cell = make("th", form ? "number" : ""), button = make("button", "", label);
        cell.scope = "col";
        button.type = "button";
        button.title = help;
        button.addEventListener("click", () => {
          sort = [key, sort[0] === key ? -sort[1] : form ? -1 : 1]; // of numbers, the largest first
          painter();
        });
        cell.append(button);
        row.append(cell);
        return [key, cell];
      });
      const last = make("th", "spark"), swap = make("button");
      swap.type = "button";
      swap.title = "the last minute: loss or fps";
      swap.addEventListener("click", () => { spark = spark === "loss" ? "fps" : "loss"; painter(); });
      last.scope = "col";
      last.append(swap);
      row.append(last);
      head.append(row);
      table.append(head, body);
      root.append(say, meter, table, empty, news);
      el.append(root);

      const rows = new Map(); // by client: [tr, cells, canvas]
      const added = (client) => {
        const line = make("tr"), canvas = make("canvas"), holder = make("td", "spark");
        const cells = COLUMNS.map(([, , , form]) => make("td", form ? "number" : ""));
        canvas.setAttribute("role", "img");
        holder.append(canvas);
        line.append(...cells, holder);
        line.dataset.client = client;
        const made = [line, cells, canvas];
        rows.set(client, made);
        return made;
      };

      const paint_meter = () => {
        const carries = newest.carries ?? [], mbps = newest.mbps ?? 0;
        const whole = 1.15 * Math.max(mbps, ...carries.map(([, most]) => most), 1);
        fill.style.width = `${100 * mbps / whole}%`;
        fill.classList.toggle("much", carries.length > 0 && mbps > carries[0][1]);
        fill.classList.toggle("over", carries.length > 0 && mbps > carries.at(-1)[1]);
        carries.forEach(([name, most], at) => {
          marks[at] ??= meter.appendChild(make("div", "mark"));
          marks[at].style.left = `${100 * most / whole}%`;
          marks[at].classList.toggle("right", most > 0.75 * whole); // its words go to the left
          put(marks[at], `${name}: ${most}`);
        });
        meter.setAttribute("aria-label", newest.say);
      };

      const painter = () => {
        if (!newest) return;
        put(say, newest.say);
        say.classList.toggle("wrong", Boolean(newest.failed));
        paint_meter();
        for (const [key, cell] of headings) {
          const way = sort[0] === key ? (sort[1] > 0 ? "ascending" : "descending") : "none";
          if (cell.getAttribute("aria-sort") !== way) cell.setAttribute("aria-sort", way);
        }
        const [noun, unit] = SPARKS[spark], past = `${spark}_past`, members = newest.rows ?? [];
        const most = Math.max(spark === "loss" ? 10 : 1, ...members.flatMap((each) => each[past]).map((v) => v ?? 0));
        put(swap, `${noun}, ${newest.seconds} s`);
        const sorted = [...members].sort((a, b) => sort[1] * compare(sort[0])(a, b) || a.client - b.client);
        const here = new Set(sorted.map((each) => each.client));
        for (const [client, [line]] of rows) if (!here.has(client)) { line.remove(); rows.delete(client); }
        sorted.forEach((each, at) => {
          const [line, cells, canvas] = rows.get(each.client) ?? added(each.client);
          COLUMNS.forEach(([key, , , form], column) => put(cells[column], shown(each[key], form)));
          cells[0].classList.toggle("nameless", !each.name);
          if (!each.name) put(cells[0], "no name");
          line.classList.toggle("lossy", (each.loss ?? 0) >= LOSSY);
          line.classList.toggle("silent", (each.report ?? 0) >= SILENT);
          if (body.children[at] !== line) body.insertBefore(line, body.children[at] ?? null);
          draw(canvas, each[past], most, Math.max(2, Math.round(newest.seconds)));
          canvas.setAttribute("aria-label", `${noun} of the last ${newest.seconds} s, now ${shown(each[spark], [1, ` ${unit}`])}`);
        });
        table.classList.toggle("old", Boolean(newest.ended || newest.failed));
        put(empty, members.length ? "" : "Nobody plays at this moment.");
        const words = newest.news ?? [], told = words.join("\n");
        if (news.dataset.told !== told) { // or a reader of the screen hears them anew each time
          news.dataset.told = told;
          news.replaceChildren(...words.map((each) => make("li", "", each)));
        }
      };
      painters.add(painter);
      painter();
      model.send({ hello: true });
      return () => painters.delete(painter);
    },
  };
};

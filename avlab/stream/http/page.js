// The page of the http wire: pictures and sound from one WebSocket, shown and heard in step, and numbers about them.
// Without sound a picture is painted as it comes. With it, the page's audio clock is the master: a picture is painted
// once the sound heard has reached its presentation time. What others say (title, notes) is set as text, never as HTML.
"use strict";

const PICTURE = 1, SOUND = 2, HEADER = 16; // bytes before a picture or samples: the kind, and a time in seconds
const LEAD = 0.25; // seconds of sound that are scheduled ahead of what is heard
const NEAR = 0.03; // how far from that it may be before samples are added or left out
const FAR = 1; // seconds ahead: more is not scheduled
const SOON = 0.008; // what is due before the screen's next frame is painted in this one
const DECODE = 0.15; // how long before it is due a picture is decoded
const MOST_PICTURES = 90; // that wait; of more the oldest are dropped

const $ = (id) => document.getElementById(id);
const url = (name) => new URL(name, location.origin + location.pathname);

// Sound as blocks of int16 that are scheduled one behind the other: this works where a page is no secure context, too,
// which has no worklet. The stream's clock and the device's differ: by a sample more or less in a block of 20 ms.
class Sound {
  constructor({ rate, channels }) {
    Object.assign(this, { rate, channels, blocks: [], next: 0, slack: LEAD, underruns: 0 });
    Object.assign(this, { quickest: Infinity, passed: 0 }); // how long the way took at least; sound passed over
    try {
      this.context = new AudioContext({ sampleRate: rate });
    } catch { // a rate that this browser does not open a device at
      this.context = new AudioContext();
    }
    this.context.resume();
  }

  push(pts, samples) {
    const { context, blocks, rate, channels } = this;
    if (context.state !== "running") return;
    const count = samples.length / channels;
    if (count < 8) return;
    if (this.slack > 2 * LEAD) this.stop(); // all of it would go on being so late
    const now = context.currentTime, last = blocks.at(-1), way = performance.now() / 1000 - pts;
    this.quickest = Math.min(this.quickest + 2e-5, way);
    const gap = last ? pts - last.pts - last.media : 0;
    if (last && gap > 0.005 && gap < FAR) this.next += gap; // what is missing is silence
    if (!last || this.next < now + 0.01 || Math.abs(gap) >= FAR) {
      if (way - this.quickest > LEAD && this.passed < FAR) { // old, and newer sound is behind it
        this.passed += count / rate;
        return;
      }
      if (last) this.underruns += 1;
      if (this.passed >= FAR) this.quickest = way;
      Object.assign(this, { next: now + LEAD, slack: LEAD, passed: 0 });
    }
    const ahead = this.next - now;
    if (ahead > FAR) return;
    this.slack += (ahead - this.slack) * 0.02;
    const size = count + (this.slack < LEAD - NEAR ? 1 : this.slack > LEAD + NEAR ? -1 : 0);
    const buffer = context.createBuffer(channels, size, rate);
    for (let c = 0; c < channels; c++) fill(buffer.getChannelData(c), samples, count, channels, c);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start(this.next);
    blocks.push({ pts, media: count / rate, at: this.next, lasts: size / rate, source });
    if (blocks.length > 200) blocks.shift();
    this.next += size / rate;
  }

  // The presentation time heard now, in seconds; null while nothing is.
  heard() {
    const { context, blocks } = this;
    if (context.state !== "running" || !blocks.length) return null;
    const { contextTime, performanceTime } = context.getOutputTimestamp?.() ?? {};
    const moment = performanceTime
      ? contextTime + (performance.now() - performanceTime) / 1000
      : context.currentTime - (context.outputLatency || context.baseLatency || 0);
    const block = blocks.findLast(({ at }) => at <= moment) ?? blocks[0];
    return block.pts + (moment - block.at) * (block.media / block.lasts);
  }

  stop() {
    for (const { source } of this.blocks.splice(0)) source.stop();
    this.slack = LEAD;
    this.underruns += 1;
  }

  close() {
    this.context.close().catch(() => {});
  }
}

// A channel of `count` samples as a plane of one more, one less or as many, interpolated.
const fill = (plane, samples, count, channels, c) => {
  const step = (count - 1) / (plane.length - 1);
  for (let i = 0; i < plane.length; i++) {
    const at = i * step, low = Math.min(count - 1, Math.floor(at)), high = Math.min(count - 1, low + 1);
    const first = samples[low * channels + c];
    plane[i] = (first + (samples[high * channels + c] - first) * (at - low)) / 32768;
  }
};

let shown = null, socket = null, sound = null, over = false, tries = 0, wanted = false, name = "";
let frames = [], decoding = 0, asked = false, painted = [], came = [], dropped = 0, skipped = 0, offset = null;

const canvas = $("picture"), brush = canvas.getContext("2d", { alpha: false });
const note = (words) => { $("note").textContent = words; };
const say = (words) => { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(words)); };

// ---- pictures

// Seconds until a picture is due; without sound at once.
const early = ({ pts }, heard) => (heard === null ? -Infinity : pts - heard);
const drop = (frame) => {
  frame.gone = true;
  frame.bitmap?.close();
  dropped += 1;
};
const ask = () => {
  if (!asked) requestAnimationFrame(tick);
  asked = true;
};
const tick = () => {
  asked = false;
  const heard = sound?.heard() ?? null;
  const pick = frames.findLastIndex((frame) => frame.bitmap && early(frame, heard) <= SOON);
  if (pick >= 0) {
    frames.splice(0, pick).forEach(drop);
    paint(frames.shift(), heard);
  }
  decode(heard);
  if (frames.length) ask();
};
const paint = ({ bitmap, pts }, heard) => {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  }
  brush.drawImage(bitmap, 0, 0);
  bitmap.close();
  painted.push(performance.now());
  offset = heard === null ? null : heard - pts;
  if (!over) note("");
};
// Of several that are due and not begun, the newest is worth decoding.
const decode = (heard) => {
  const last = frames.findLastIndex((frame) => early(frame, heard) <= SOON);
  frames = frames.filter((frame, i) => i >= last || frame.begun || drop(frame));
  for (const frame of frames) {
    if (frame.begun) continue;
    if (decoding > 1 || early(frame, heard) > DECODE) return;
    frame.begun = true;
    decoding += 1;
    createImageBitmap(new Blob([frame.bytes], { type: "image/jpeg" }))
      .then((bitmap) => {
        if (frame.gone) bitmap.close();
        else frame.bitmap = bitmap;
      })
      .catch(() => { frames = frames.filter((other) => other !== frame || drop(frame)); })
      .finally(() => {
        decoding -= 1;
        ask();
      });
  }
};

// ---- what comes

const receive = ({ data }) => {
  if (typeof data === "string") {
    const told = JSON.parse(data);
    skipped = told.skipped;
    $("clients").textContent = String(told.clients);
    return;
  }
  came.push([performance.now(), data.byteLength]);
  const view = new DataView(data);
  const kind = view.getUint8(0), pts = view.getFloat64(8);
  if (kind === SOUND) {
    sound?.push(pts, new Int16Array(data, HEADER));
  } else if (kind === PICTURE && !document.hidden) {
    frames.push({ pts, bytes: new Uint8Array(data, HEADER) });
    while (frames.length > MOST_PICTURES) drop(frames.shift());
    decode(sound?.heard() ?? null);
    ask();
  }
};

const connect = () => {
  const to = url("live");
  to.protocol = "ws:";
  socket = new WebSocket(to);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    tries = 0;
    say({ pictures: !document.hidden, sound: wanted, name });
  };
  socket.onmessage = receive;
  socket.onclose = ({ code }) => {
    if (code === 1000) return end();
    note("The connection is lost. It is tried again …");
    setTimeout(hello, Math.min(8000, 500 * 2 ** tries++));
  };
};
const end = () => {
  over = true;
  note("The stream has ended.");
  $("again").hidden = false;
  silence();
};

// ---- joining

const hello = async () => {
  try {
    const answer = await fetch(url("hello"), { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    shown = await answer.json();
  } catch (error) {
    $("stage").hidden = false;
    note(error instanceof TypeError ? "The server does not answer. It is tried again …" : error.message);
    setTimeout(hello, Math.min(8000, 500 * 2 ** tries++));
    return;
  }
  if (shown.asks === "login") return location.assign(url("login"));
  $("join").hidden = shown.asks !== "code";
  $("stage").hidden = shown.asks === "code";
  $("login").hidden = !shown.login;
  if (shown.asks) return tryCode();
  document.title = $("title").textContent = shown.title;
  canvas.hidden = !shown.pictures;
  $("sound").hidden = !shown.rate;
  $("full").hidden = !(shown.pictures && document.fullscreenEnabled);
  if (shown.full) {
    note(shown.full);
    setTimeout(hello, 5000);
    return;
  }
  note(shown.pictures ? "Waiting for the first picture …" : "There are no pictures, only sound.");
  connect();
};
const join = async (code) => {
  const answer = await fetch(url("join"), { method: "POST", body: new URLSearchParams({ code }) });
  $("refused").textContent = answer.ok ? "" : await answer.text();
  if (answer.ok) await hello();
};
// A code behind the address's #, as the QR code has it: it is asked for by nobody, and leaves with nothing.
const tryCode = () => {
  const code = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  if (code) {
    $("code").value = code;
    join(code).catch(() => {});
  } else {
    $("code").focus();
  }
};

// ---- what a person does

const silence = () => {
  sound?.close();
  sound = null;
  $("sound").textContent = "Play sound";
  $("sound").setAttribute("aria-pressed", "false");
  frames.splice(0).forEach(drop);
};
const play = () => {
  sound = new Sound(shown);
  $("sound").textContent = "Mute";
  $("sound").setAttribute("aria-pressed", "true");
};
$("sound").onclick = () => {
  wanted = !wanted;
  if (wanted) play();
  else silence();
  say({ sound: wanted });
};
$("again").onclick = () => {
  over = false;
  $("again").hidden = true;
  if (wanted) play();
  hello();
};
$("full").onclick = () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("frame").requestFullscreen();
};
$("join").onsubmit = (event) => {
  event.preventDefault();
  name = $("name").value;
  join($("code").value).catch(() => { $("refused").textContent = "The server does not answer."; });
};
document.onvisibilitychange = () => {
  if (document.hidden) frames.splice(0).forEach(drop);
  say({ pictures: !document.hidden });
};

setInterval(() => {
  const since = performance.now() - 1000;
  painted = painted.filter((at) => at > since);
  came = came.filter(([at]) => at > since);
  $("fps").textContent = String(painted.length);
  $("rate").textContent = `${(came.reduce((sum, [, size]) => sum + size, 0) / 125_000).toFixed(1)} Mbit/s`;
  $("skipped").textContent = String(skipped + dropped);
  $("offset").textContent = offset === null ? "no sound" : `${Math.round(offset * 1000)} ms`;
}, 500);
hello();

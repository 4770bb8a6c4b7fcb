// The page's half of the live view: decodes, paints and plays what the kernel sends, and says what became of it.
// `initialize` receives for all views of a widget, `render` makes one. With sound, the page's audio clock is the
// master: a picture is painted once the sound heard has reached its pts.

const SOON_MS = 8; // what is due before the screen's next frame is painted in this one
const SPARE_MS = 20;
const DECODE_MS = 150; // how long before it is due a picture is decoded
const REPORT_MS = 250; // a word a picture would cost a fifth of them
const FILL_S = 0.15; // sound held before it begins to play

// Plays blocks of int16; says at which of the context's frames it began or ran dry, and where.
const RING = `registerProcessor("avlab-ring", class extends AudioWorkletProcessor {
  constructor({ processorOptions: { fill } }) {
    super();
    this.fill = fill;
    this.reset();
    this.port.onmessage = ({ data }) => {
      if (!data) return this.reset();
      this.blocks.push(data);
      this.held += data.count;
    };
  }
  reset() {
    Object.assign(this, { blocks: [], at: 0, held: 0, position: 0, playing: false });
  }
  turn(playing, frame) {
    this.playing = playing;
    this.port.postMessage({ playing, frame, position: this.position });
  }
  process(_, [out]) {
    if (!this.playing && this.held >= this.fill) this.turn(true, currentFrame);
    for (let i = 0; this.playing && i < out[0].length; i++) {
      const { samples, channels } = this.blocks[0];
      for (let c = 0; c < out.length; c++) out[c][i] = samples[this.at + c] / 32768;
      this.at += channels; this.held -= 1; this.position += 1;
      if (this.at >= samples.length) { this.blocks.shift(); this.at = 0; }
      if (!this.blocks.length) this.turn(false, currentFrame + i + 1);
    }
    return true;
  }
});`;

// The sound of one stream. `state`: none (no sound here), held (waits for a click), ready.
class Sound {
  constructor(rate, channels, changed) {
    Object.assign(this, { rate, channels, changed, state: "held", underruns: 0 });
    this.reset();
    this.open().catch(() => this.turn("none"));
  }

  async open() {
    this.context = new AudioContext({ sampleRate: this.rate });
    this.gain = this.context.createGain();
    this.gain.connect(this.context.destination);
    this.context.onstatechange = () => this.look();
    if (this.context.audioWorklet) {
      await this.context.audioWorklet.addModule(URL.createObjectURL(new Blob([RING], { type: "text/javascript" })));
      this.node = new AudioWorkletNode(this.context, "avlab-ring", {
        numberOfInputs: 0, outputChannelCount: [this.channels], processorOptions: { fill: FILL_S * this.rate },
      });
      this.node.port.onmessage = ({ data }) => this.turned(data);
      this.node.connect(this.gain);
    } // no secure context, no worklet: blocks are scheduled
    this.opened = true;
    this.resume();
    this.look();
  }

  resume() {
    this.context?.resume().catch(() => {});
  }

  look() {
    if (this.opened) this.turn(this.context.state === "running" ? "ready" : "held");
  }

  turn(state) {
    if (state !== this.state) {
      this.state = state;
      this.changed();
    }
  }

  turned(mark) {
    if (mark.playing && this.starved) this.underruns += 1;
    this.starved = !mark.playing;
    this.mark = mark;
    this.changed();
  }

  // A block: its place in the sound sent, its media time in ms or null, its samples.
  push(position, pts, samples) {
    if (position === 0) this.reset();
    const count = samples.length / this.channels;
    this.blocks.push({ position, pts });
    if (this.blocks.length > 500) this.blocks.shift();
    if (this.node) this.node.port.postMessage({ samples, channels: this.channels, count });
    else this.schedule({ samples, count });
  }

  reset() {
    this.blocks = [];
    this.mark = { playing: false, frame: 0, position: 0 };
    this.starved = false;
    this.node?.port.postMessage(null);
    Object.assign(this, { waiting: [], place: 0, next: 0 }); // for blocks that are scheduled
  }

  schedule(block) {
    const { context, rate, channels } = this;
    this.waiting.push(block);
    if (this.mark.playing && this.next < context.currentTime) {
      this.turned({ playing: false, frame: this.next * rate, position: this.place });
    }
    if (!this.mark.playing) {
      if (this.waiting.reduce((sum, { count }) => sum + count, 0) < FILL_S * rate) return;
      this.next = context.currentTime + 0.02;
      this.turned({ playing: true, frame: this.next * rate, position: this.place });
    }
    for (const { samples, count } of this.waiting.splice(0)) {
      const buffer = context.createBuffer(channels, count, rate);
      for (let c = 0; c < channels; c++) {
        const plane = buffer.getChannelData(c);
        for (let i = 0; i < count; i++) plane[i] = samples[i * channels + c] / 32768;
      }
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.gain);
      source.start(this.next);
      this.next += count / rate;
      this.place += count;
    }
  }

  // The context's moment heard now, in seconds.
  moment(now) {
    const { context } = this;
    const { contextTime, performanceTime } = context.getOutputTimestamp?.() ?? {};
    if (performanceTime) return contextTime + (now - performanceTime) / 1000;
    return context.currentTime - (context.outputLatency || context.baseLatency || 0);
  }

  // The sample heard now, from the first one sent.
  position(now) {
    const { playing, frame, position } = this.mark;
    const since = this.moment(now) * this.rate - frame;
    return Math.max(0, position + Math[playing ? "max" : "min"](0, since));
  }

  // The media time heard now in ms, or null.
  heard(now) {
    if (this.state !== "ready") return null;
    const at = this.position(now);
    while (this.blocks.length > 1 && this.blocks[1].position <= at) this.blocks.shift();
    const first = this.blocks[0];
    return first && first.pts !== null ? first.pts + ((at - first.position) * 1000) / this.rate : null;
  }

  report(now) {
    if (this.state !== "ready") return null;
    const latency = Math.max(0, (this.context.currentTime - this.moment(now)) * 1000);
    return { position: Math.round(this.position(now)), at: now, latency, playing: this.mark.playing };
  }

  close() {
    this.opened = false;
    this.context?.close().catch(() => {});
  }
}

const make = (tag, name, attributes = {}) => {
  const element = document.createElement(tag);
  element.className = `avlab-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const signed = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(0)}`;

export default () => {
  const page = Math.random().toString(36).slice(2);
  const views = new Set();
  let model, sound = null, playing = false, muted = false, frozen = false, overlay = true;
  let frames = [], decoding = 0, asked = false, timer = null, state = null, heardOf = 0;
  let bitmap = null, newest = null, painted = 0, cameAt = [], paintedAt = [];
  let seen = 0, verdicts = [], echo = null, offset = null, quickest = Infinity;

  const say = (content) => {
    try {
      model.send({ page, ...content });
    } catch {} // the kernel is gone, and the note says so
  };
  const report = () => {
    clearTimeout(timer);
    timer = null;
    const now = performance.now();
    const word = { seen, echo, now, verdicts, visible: !document.hidden };
    if (sound) Object.assign(word, { sound: sound.state, audio: playing ? sound.report(now) : null });
    verdicts = [];
    say(word);
  };
  const owe = () => { timer ??= setTimeout(report, REPORT_MS); };

  // ---- pictures

  const settle = (frame, now = null, heard = null) => {
    verdicts.push([frame.number, now, heard && heard / 1000]);
    owe();
  };
  const drop = (frame) => {
    settle(frame);
    frame.bitmap?.close();
    frame.dropped = true;
  };
  const dropAll = () => frames.splice(0).forEach(drop);
  const moment = (now = performance.now()) => ({ now, heard: playing ? sound.heard(now) : null });
  // Ms until a picture is due; 0 for one that is shown as it comes.
  const early = ({ at, pts }, { now, heard }) => at && (heard === null ? at - now : pts - heard);
  // The newest due. Without sound here, one hardly due waits a tick for the one before it.
  const due = (when, of = Boolean) => {
    const last = frames.findLastIndex((frame) => of(frame) && early(frame, when) <= SOON_MS);
    const waits = when.heard === null && last > 0 && of(frames[last - 1]) && early(frames[last], when) > -SPARE_MS;
    return last - waits;
  };

  const ask = () => {
    if (!asked) requestAnimationFrame(tick);
    asked = true;
  };
  const tick = () => {
    asked = false;
    const when = moment();
    const pick = due(when, ({ bitmap }) => !!bitmap);
    if (pick >= 0) {
      frames.splice(0, pick).forEach(drop);
      const frame = frames.shift();
      if (frozen) drop(frame);
      else paint(frame, when);
    }
    decode(when);
    if (frames.length) ask();
  };
  const paint = (frame, { now, heard }) => {
    bitmap?.close();
    ({ bitmap } = newest = frame);
    for (const view of views) view.draw();
    painted += 1;
    paintedAt.push(now);
    offset = heard === null ? null : heard - frame.pts;
    settle(frame, now, heard);
  };
  // Of several due and not begun, the newest is worth decoding.
  const decode = (when) => {
    const last = due(when);
    frames = frames.filter((frame, i) => i >= last || frame.begun || drop(frame));
    for (const frame of frames) {
      if (frame.begun) continue;
      if (decoding > 1 || early(frame, when) > DECODE_MS) return;
      frame.begun = true;
      decoding += 1;
      createImageBitmap(new Blob([frame.bytes], { type: "image/jpeg" }))
        .then((made) => {
          if (frame.dropped) made.close();
          else frame.bitmap = made;
        })
        .catch(() => {
          frames = frames.filter((other) => other !== frame || drop(frame));
        })
        .finally(() => {
          decoding -= 1;
          ask();
        });
    }
  };

  // ---- what the kernel says

  const takeFrame = ({ number, pts, wait, sent }, bytes, now) => {
    seen = number;
    cameAt.push(now);
    quickest = Math.min(now - sent, quickest + 0.02); // the way, without what held this one up
    const at = wait === null ? 0 : sent + quickest + wait;
    const frame = { number, pts: pts * 1000, at, bytes };
    if (document.hidden) return settle(frame);
    frames.push(frame);
    decode(moment(now));
    ask();
  };
  const takeSound = ({ to, position, pts, channels }, buffer) => {
    if (to !== page || !sound || sound.channels !== channels) return;
    playing = true;
    const { byteOffset, byteLength } = buffer;
    const samples = new Int16Array(buffer.buffer.slice(byteOffset, byteOffset + byteLength));
    sound.push(position, pts && pts * 1000, samples);
  };
  const takeState = (now) => {
    const audio = state.to === page && !state.ended ? state.audio : null;
    if (!state.playing) playing = false;
    if (state.ended) dropAll();
    if (sound && (audio?.rate !== sound.rate || audio.channels !== sound.channels)) silence();
    if (audio && !sound) {
      sound = new Sound(audio.rate, audio.channels, () => {
        report();
        refresh();
      });
      mute(muted);
      sound.since = now;
    }
  };
  const silence = () => {
    sound?.close();
    sound = null;
    playing = false;
  };
  const mute = (wanted) => {
    muted = wanted;
    if (sound?.gain) sound.gain.gain.value = +!muted;
  };

  // ---- what a person sees

  const rate = (moments, now) => {
    while (moments[0] < now - 1000) moments.shift();
    return moments.length;
  };
  const numbers = (now) => {
    const fps = `${state?.sent ?? 0} sent  ${rate(cameAt, now)} received  ${rate(paintedAt, now)} painted`;
    let frame = "none yet";
    if (newest) {
      const size = `${bitmap.width} \u00d7 ${bitmap.height}  ${(newest.bytes.byteLength / 1000).toFixed(1)} kB`;
      const number = state?.target ? Math.round((newest.pts * state.target) / 1000) : newest.number;
      frame = `${number}  ${(newest.pts / 1000).toFixed(2)} s  ${size}`;
    }
    const away = playing && state.timed ? offset : state?.offset ?? null;
    const parts = [away === null ? "unknown" : `${signed(away)} ms`];
    if (state?.loss != null) parts.push(`loss ${state.loss.toFixed(1)} %`);
    if (playing) parts.push(`${sound.underruns} underrun${sound.underruns === 1 ? "" : "s"}`);
    return ["fps", fps, "frame", frame, "A/V", parts.join("  ")];
  };
  const note = (now) => {
    if (state?.note) return state.note;
    if (heardOf && now - heardOf > 3000 && !document.hidden) {
      return "Nothing comes from the kernel. If it was restarted, run the cells again.";
    }
    if (!painted) return "Waiting for the first picture \u2026";
    return frozen ? "Frozen" : "";
  };
  const where = () => {
    if (sound?.state === "none") return "this browser cannot play the sound: try client.view(sound='speaker')";
    if (sound?.state === "held") return "sound: waits for a click";
    if (playing) return muted ? "sound: muted" : "sound: this page";
    return state?.where ?? "";
  };
  const refresh = () => {
    const now = performance.now();
    const held = sound?.state === "held" && now - sound.since > 400;
    for (const view of views) view.tell(numbers(now), note(now), where(), held);
  };

  return {
    initialize(given) {
      model = given.model;
      const receive = (content, [buffer]) => {
        if (!views.size) return;
        const now = (heardOf = performance.now());
        if (content.kind === "state") {
          state = content;
          takeState(now);
          return refresh();
        }
        echo = [content.sent, now];
        if (content.kind === "frame") takeFrame(content, buffer, now);
        else takeSound(content, buffer);
        owe();
      };
      const look = () => {
        if (document.hidden) dropAll();
        if (views.size) report();
      };
      const closing = new AbortController(), { signal } = closing;
      model.on("msg:custom", receive);
      document.addEventListener("visibilitychange", look, { signal });
      addEventListener("pagehide", () => say({ bye: true }), { signal });
      return () => {
        model.off("msg:custom", receive);
        closing.abort();
        silence();
      };
    },

    render({ el }) {
      const root = make("div", "view");
      const picture = make("div", "picture");
      const canvas = make("canvas", "canvas", { role: "img", "aria-label": "Live picture" });
      const stats = make("div", "stats", { role: "group", "aria-label": "Statistics" });
      const message = make("div", "note", { role: "status" });
      const enable = make("button", "enable", { type: "button" });
      const bar = make("div", "bar", { role: "toolbar", "aria-label": "Live view" });
      const line = make("span", "where");
      const context = canvas.getContext("2d", { alpha: false });
      const button = (label, title, act, pressed) => {
        const element = make("button", "button", { type: "button", title });
        element.textContent = label;
        element.onclick = () => {
          act();
          refresh();
        };
        bar.append(element);
        return () => pressed && element.setAttribute("aria-pressed", pressed());
      };
      const shows = [
        button("Freeze", "Hold this picture", () => (frozen = !frozen), () => frozen),
        button("Save picture", "Download the JPEG as it came", save),
        button("Statistics", "Show numbers in the picture", () => (overlay = !overlay), () => overlay),
        button("Mute", "Silence this page", () => mute(!muted), () => muted),
      ];
      function save() {
        if (!newest) return;
        const url = URL.createObjectURL(new Blob([newest.bytes], { type: "image/jpeg" }));
        make("a", "save", { href: url, download: `avlab-${(newest.pts / 1000).toFixed(3)}s.jpg` }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10000);
      }
      const view = {
        draw() {
          if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
            canvas.width = bitmap.width;
            canvas.height = bitmap.height;
            picture.style.aspectRatio ||= `${bitmap.width} / ${bitmap.height}`;
          }
          context.drawImage(bitmap, 0, 0);
        },
        tell(lines, said, place, held) {
          stats.hidden = !overlay;
          stats.replaceChildren(...lines.map((text, i) => {
            const cell = make("span", i % 2 ? "value" : "term");
            cell.textContent = text;
            return cell;
          }));
          if (message.textContent !== said) message.textContent = said;
          message.hidden = !said;
          line.textContent = line.title = place;
          enable.hidden = !held;
          shows.forEach((show) => show());
        },
      };
      enable.textContent = "Enable sound";
      enable.onclick = () => sound?.resume();
      enable.hidden = true;
      picture.append(canvas, stats, message, enable);
      bar.append(line);
      root.append(picture, bar);
      el.append(root);
      views.add(view);
      if (bitmap) view.draw();
      refresh();
      const ticking = setInterval(refresh, 250);
      say({ hello: true });
      return () => {
        clearInterval(ticking);
        views.delete(view);
        if (views.size) return;
        dropAll();
        silence();
        say({ bye: true });
      };
    },
  };
};

// The page's side of the control panel: buttons, numbers and sentences; the sliders are ipywidgets' own.
const BUTTONS = [
  ["start", "\u25b6 Start", "play: new handles for those that have ended"],
  ["stop", "\u25a0 Stop", "stop server and client"],
  ["reset", "\u21ba Reset", "set every slider back to what it was at first"],
];
const NAMES = ["sent", "received", "shown", "A/V offset", "loss", "bit rate", "buffer"];
const WAITS = "In this kernel sliders and buttons act between cells: while a cell runs, they wait.";

const GONE = "Nothing comes from the kernel: it was restarted, or ended. Run the cells again for a panel that works.";

const make = (tag, className, text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
};

export default () => {
  const painters = new Set();
  let newest = null, numbers = null, gone = false;

  return {
    initialize({ model }) {
      model.on("msg:custom", (content) => {
        gone = false;
        const turned = content.state !== newest?.state; // what the sliders stand for may have changed with it
        newest = content;
        numbers = content.numbers ?? numbers;
        for (const painter of painters) painter();
        if (content.number || turned) model.send({ seen: content.number ?? 0 });
      });
      model.on("comm_live_update", () => { // with the kernel, the panel's own end of it has gone
        gone = !gone;
        for (const painter of painters) painter();
      });
    },
    render({ model, el }) {
      const desk = make("div", "avlab-desk"), bar = make("div", "bar"), state = make("span", "state");
      const list = make("div", "numbers"), say = make("p"), waits = make("p", "quiet");
      const notices = make("ul", "notices");
      const buttons = BUTTONS.map(([name, label, help]) => {
        const button = make("button", "", label);
        button.type = "button";
        button.title = help;
        button.addEventListener("click", () => model.send({ press: name }));
        return [name, button];
      });
      const values = NAMES.map((name) => {
        const pair = make("div"), value = make("span", "value", "\u2013");
        pair.append(make("span", "name", name), value);
        list.append(pair);
        return value;
      });
      state.setAttribute("role", "status");
      say.setAttribute("role", "alert");
      notices.setAttribute("role", "log");
      bar.append(...buttons.map(([, button]) => button), state);
      desk.append(bar, list, say, notices, waits);
      el.append(desk);

      const painter = () => {
        if (!newest) return;
        state.className = `state ${gone ? "" : newest.state}`;
        state.textContent = gone ? "no kernel" : newest.state;
        for (const [name, button] of buttons) button.disabled = gone || newest[name] === false;
        numbers?.forEach(([, text], at) => { values[at].textContent = text; });
        list.classList.toggle("old", gone || newest.state !== "playing");
        const said = gone ? GONE : newest.say;
        if (say.textContent !== said) say.textContent = said;
        say.classList.toggle("wrong", gone || newest.wrong);
        const words = newest.notices ?? [], told = words.join("\n");
        if (notices.dataset.told !== told) { // or a reader of the screen hears them anew each time
          notices.dataset.told = told;
          notices.replaceChildren(...words.map((each) => make("li", "", each)));
        }
        waits.textContent = newest.waits ? WAITS : "";
      };
      painters.add(painter);
      painter();
      model.send({ hello: true });
      return () => painters.delete(painter);
    },
  };
};

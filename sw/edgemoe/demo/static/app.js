// The demo's page: draws what /live sends, and sends back what is clicked. See demo/view.py for the messages.

const COLOURS = ["#56b4e9", "#e69f00", "#2fbf8f", "#cc79a7", "#f0e442", "#d55e00"]; // Okabe and Ito, on a dark ground
const TOGETHER = "#b8c0cc"; // tasks that one program has computed
const HISTORY = 120, RETRY_MS = 1000;
const find = (id) => document.getElementById(id);
const digits = (value, places) => value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
const duration = (ms) => ms < 1000 ? `${digits(ms, ms < 10 ? 1 : 0)} ms` : `${digits(ms / 1000, 1)} s`;
const rate = (fps) => digits(fps, fps < 1 ? 2 : fps < 10 ? 1 : 0); // a simulator takes seconds a frame

// `received`: frames since the page was opened; `failing`: news of failed frames since the last good one.
let socket, about, state, panels = new Map(), history = [], received = 0, hasFrame = false, failing = 0;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Connection

function connect() {
  socket = new WebSocket(`ws${location.protocol === "https:" ? "s" : ""}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => typeof data === "string" ? receive(JSON.parse(data)) : receiveFrame(data);
  socket.onclose = () => { setConnection(false); setTimeout(connect, RETRY_MS); };
}

function setConnection(isConnected) {
  const text = !isConnected ? "not connected" : state?.ended ? "ended" : state?.paused ? "paused"
    : failing > 1 ? "failing" : !hasFrame ? "waiting for the first frame" : "live";
  find("connection").toggleAttribute("data-live", text === "live");
  find("connection").textContent = text;
  find("panels").toggleAttribute("data-lost", !isConnected || Boolean(state?.ended));
  for (const button of document.querySelectorAll("nav button")) button.disabled = !isConnected || !state || state.ended;
  if (text !== "live") for (const name of ["fps", "watts", "millijoules"]) find(name).textContent = "–";
}

function send(command) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command));
}

function receive(message) {
  if (message.type === "about") showAbout(message);
  else if (message.type === "state") showState(message);
  else if (message.type === "refused") showBanner(message.message);
}

function receiveFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let start = 4 + length;
  received += 1;
  for (const [name, type, size] of header.images) {
    draw(name, received, header.number, new Blob([new Uint8Array(buffer, start, size)], { type }));
    start += size;
  }
  if (!hasFrame || failing) {
    [hasFrame, failing] = [true, 0];
    setConnection(true);
  }
  if (!state.paused) showFigures(header); // some were on their way
  showRuns(header.programs, header.runs);
  showExperts(header.programs);
}

// What is fixed: model, device, tasks

function showAbout(message) {
  [about, state, panels, hasFrame, failing] = [message, undefined, new Map(), false, 0]; // another server may answer than before
  find("blocks").removeAttribute("data-shape");
  about.tasks.forEach((task, index) => { task.colour = COLOURS[index % COLOURS.length]; });
  document.title = `edgemoe · ${about.model}`;
  document.documentElement.style.setProperty("--aspect", about.width / about.height);
  const device = { sim: "simulated RTL", reference: "integer reference", pynq: "PYNQ board", serial: "board at a serial line" }[about.device] ?? about.device;
  find("about").replaceChildren(...[about.model, about.config, device, about.source, `${about.width} × ${about.height}`]
    .map((text) => make("span", {}, text)));
  find("tasks").replaceChildren(...about.tasks.map((task) => {
    const button = make("button", { type: "button", "--task": task.colour, "data-task": task.name }, task.name);
    button.onclick = () => toggle(button);
    return button;
  }));
  const clock = `${Number(about.clock_mhz.toFixed(1))} MHz`;
  find("clock").textContent = `ms at ${clock.replace(" ", "\u00a0")}`;
  find("cycles-of").textContent = about.device === "reference" ? "cycles (est.)" : "cycles";
  find("clock-note").textContent = {
    reference: `No accelerator runs: cycles are the compiler's estimate, milliseconds at an assumed ${clock}. Frames/s and latency are of the NumPy reference on this machine.`,
    sim: `Cycles of the RTL, milliseconds at an assumed ${clock}. Frames/s and latency are of the simulator on this machine.`,
  }[about.device] ?? `Cycles as the accelerator counts them, milliseconds at its clock of ${clock}.`;
  find("power").hidden = about.measures_power;
  find("measured").hidden = !about.measures_power;
  if (about.measures_power) find("clock-note").textContent += " Power: the sum of all supply rails that the board measures.";
  find("experts").hidden = !about.experts;
  find("experts-note").textContent = "Tokens each expert gets, by task (grey: the mean of tasks in one program); dashed: an even load.";
  setConnection(true);
}

function toggle(button) {
  const isOn = button.getAttribute("aria-pressed") !== "true";
  if (!isOn && find("tasks").querySelectorAll("[aria-pressed=true]").length === 1) return; // the last one
  button.setAttribute("aria-pressed", isOn); // the next click may come before the answer
  send({ task: button.dataset.task, on: isOn });
}

// What viewers share: tasks, pause, errors

function showState(message) {
  const before = state;
  state = message;
  find("pause").textContent = state.paused ? "Resume" : "Pause";
  for (const button of find("tasks").children) {
    button.setAttribute("aria-pressed", state.tasks.includes(button.dataset.task));
  }
  const failed = state.failures ? ` (${state.failures} failed frame${state.failures > 1 ? "s" : ""})` : "";
  showBanner(state.ended ? `Playing has ended: ${state.error}` : state.error + (state.error && failed));
  if (before && state.failures > before.failures) failing += 1;
  else history = [];
  showPanels();
  setConnection(true);
}

function showBanner(text) {
  find("banner").hidden = !text;
  find("banner").textContent = text;
}

function showPanels() {
  const names = ["input", ...state.tasks];
  for (const name of names) if (!panels.has(name)) panels.set(name, makePanel(name));
  find("panels").dataset.count = names.length;
  find("panels").replaceChildren(...names.map((name) => panels.get(name)));
}

function makePanel(name) {
  const task = about.tasks.find((candidate) => candidate.name === name);
  const content = task?.kind === "classification" ? make("ul", { class: "classes", "--task": task.colour })
    : make("canvas", { role: "img", "aria-label": name, width: about.width, height: about.height });
  const caption = make("figcaption", {}, make("strong", {}, name));
  if (task?.legend.length) {
    caption.append(make("ul", { class: "legend" }, ...task.legend.map(([text, colour]) => make("li", { "--colour": colour }, text))));
  }
  if (task?.ramp.length) {
    const colours = task.ramp.map(([, colour]) => colour);
    caption.append(make("span", { class: "ramp" }, task.ramp[0][0],
      make("i", { "--ramp": `linear-gradient(90deg, ${colours.join(", ")})` }), task.ramp.at(-1)[0]));
  }
  return make("figure", { "data-name": name }, make("div", { class: "frame" }, content), caption);
}

// Frames

async function draw(name, order, number, blob) {
  const canvas = panels.get(name)?.querySelector("canvas");
  if (!canvas) return;
  const bitmap = await createImageBitmap(blob);
  if (order < Number(canvas.dataset.order ?? 0)) return; // a newer one has been faster
  canvas.dataset.order = order;
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  canvas.dataset.frame = number;
  bitmap.close();
}

function showFigures(header) {
  find("fps").textContent = header.fps ? rate(header.fps) : "–";
  find("watts").textContent = header.watts === null ? "–" : `${digits(header.watts, 2)} W`;
  find("millijoules").textContent = header.millijoules === null ? "–" : `${digits(header.millijoules, 1)} mJ a frame`;
  for (const name of ["p50", "p90"]) find(`latency-${name}`).textContent = duration(header[`latency_${name}`]);
  history = [...history, header.latency].slice(-HISTORY);
  const top = Math.max(...history);
  const points = history.map((value, index) => `${300 - (history.length - 1 - index) * 300 / (HISTORY - 1)},${54 - 50 * value / top}`);
  find("history").firstElementChild.setAttribute("points", points.join(" "));
  find("history-low").textContent = "0";
  find("history-high").textContent = duration(top);
}

// A program of several tasks has one count for all of them; one of several frames counts for this one evenly.
function showRuns(programs, runs) {
  let total = 0;
  const rows = programs.flatMap((program) => {
    const cycles = (program.cycles ?? program.estimated_cycles) / program.images, tasks = tasksOf(program);
    total += cycles;
    return tasks.map((task, place) => {
      if (runs[task.name].classes) showClasses(task, runs[task.name].classes);
      const name = make("th", { scope: "row", "--task": task.colour }, task.name);
      return place ? make("tr", {}, name) : make("tr", {}, name, make("td", { rowspan: tasks.length }, digits(cycles, 0)),
        make("td", { rowspan: tasks.length }, digits(cycles / about.clock_mhz / 1e3, 2)));
    });
  });
  find("runs").replaceChildren(...rows);
  find("cycles").textContent = digits(total, 0);
  find("milliseconds").textContent = digits(total / about.clock_mhz / 1e3, 2);
  find("together").textContent = programs.map((program) => program.text).filter(Boolean).join("; ");
  find("together").hidden = !find("together").textContent;
}

const tasksOf = (program) => about.tasks.filter((task) => program.tasks.includes(task.name));

function showClasses(task, classes) {
  panels.get(task.name)?.querySelector(".classes")?.replaceChildren(...classes.map(([text, share]) =>
    make("li", { "--share": `${100 * share}%` }, make("span", {}, text), make("span", {}, `${digits(100 * share, 1)} %`))));
}

function showExperts(programs) {
  const blocks = Object.keys(programs[0].experts);
  const shape = JSON.stringify([blocks, programs.map((program) => program.tasks)]);
  if (find("blocks").dataset.shape !== shape) {
    find("blocks").dataset.shape = shape;
    find("blocks").replaceChildren(...blocks.map((block) => makeBlock(block, programs)));
  }
  blocks.forEach((block, place) => {
    const loads = programs.map((program) => program.experts[block]);
    const top = Math.max(3 * about.visits / about.experts, ...loads.flat());
    const element = find("blocks").children[place], bars = element.querySelector(".bars");
    bars.style.setProperty("--even", `${100 * about.visits / about.experts / top}%`);
    element.querySelector("output").textContent = `busiest ${digits(Math.max(...loads.flat()), 0)} of ${about.visits}`;
    [...bars.children].forEach((expert, number) => [...expert.children].forEach((bar, program) =>
      bar.style.setProperty("--load", `${100 * loads[program][number] / top}%`)));
  });
}

function makeBlock(block, programs) {
  const colours = programs.map((program) => program.tasks.length > 1 ? TOGETHER : tasksOf(program)[0].colour);
  const experts = Array.from({ length: about.experts }, () =>
    make("div", { class: "expert" }, ...colours.map((colour) => make("i", { "--task": colour }))));
  const numbers = experts.map((_, number) => make("span", {}, number));
  return make("div", { class: "block", "data-block": block, "--space": about.experts > 8 ? "3px" : "6px" }, make("h3", {}, `block ${block}`, make("output")),
    make("div", { class: "bars" }, ...experts), make("div", { class: "numbers" }, ...numbers));
}

// Controls

find("pause").onclick = () => state && send({ paused: !state.paused });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.code === "Space" && event.target.tagName !== "BUTTON") { event.preventDefault(); find("pause").click(); }
  find("tasks").children[Number(event.key) - 1]?.click();
});
connect();

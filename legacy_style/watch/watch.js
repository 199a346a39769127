"use strict";
// The page of a run: what the server's events tell, drawn. Other scripts listen to "told" on the document.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

const SILENCE = 20000; // milliseconds after which a connection counts as lost: the server speaks every five seconds
const RETRY = 3000;

const run = { number: -1, names: [], points: [], picture: 0, loading: false, state: "", over: false, newest: null };
const words = {
  waiting: "Ready",
  running: "Painting",
  done: "Finished",
  stopped: "Stopped, and kept",
  interrupted: "Interrupted",
  failed: "It did not work",
};

function duration(seconds) {
  const whole = Math.ceil(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

const short = (loss) => (Math.abs(loss) >= 1000 ? Math.round(loss).toLocaleString("en") : loss.toPrecision(3));

function text(id, value) {
  // Unchanged text is not written again: screen readers would read it again.
  if ($(id).textContent !== value) $(id).textContent = value;
}

// ---- the picture

const before = $("before"), after = $("after"), split = $("split"), frame = $("frame");

function aspect(image) {
  if (image.naturalWidth) frame.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
}

async function load(image, address) {
  const next = new Image();
  next.src = address;
  await next.decode();
  const old = image.src;
  image.src = address;
  image.hidden = false;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

async function showPicture(number) {
  if (run.loading || number === run.picture || document.hidden) return;
  run.loading = true;
  try {
    const answer = await fetch(`picture?${number}`);
    if (answer.ok) {
      const painting = URL.createObjectURL(await answer.blob());
      await uncover();
      await load(after, painting);
      run.picture = number;
      painted();
    }
  } catch {
    // The run has ended in between: the last event brings its picture.
  }
  run.loading = false;
}

// The photograph of this run, beside which there may still be the painting of the one before.
async function uncover() {
  const { number, before: has } = run.newest;
  if (run.uncovered === number) return;
  run.uncovered = number;
  if (has) await load(before, `before?${number}`).catch(() => (before.hidden = true));
  else before.hidden = true;
}

function painted() {
  $("empty").hidden = !before.hidden || !after.hidden;
  aspect(before.hidden ? after : before);
  const both = !before.hidden && !after.hidden;
  document.querySelector(".seam").hidden = !both;
  document.querySelector(".compare").hidden = !both;
}

function setSplit(value) {
  split.value = value;
  split.setAttribute("aria-valuetext", `${Math.round(split.value)} percent`);
  frame.style.setProperty("--split", `${split.value}%`);
}

split.addEventListener("input", () => setSplit(split.value));
function drag(event) {
  if (event.buttons !== 1 || before.hidden || after.hidden) return;
  const box = before.getBoundingClientRect();
  setSplit((100 * (event.clientX - box.left)) / box.width);
  event.preventDefault();
}
frame.addEventListener("pointerdown", drag);
frame.addEventListener("pointermove", drag);
setSplit(0);

// ---- the curves

function draw() {
  const box = $("curves"), width = box.clientWidth, height = box.clientHeight;
  const points = run.points, rows = run.names.length;
  // L-BFGS begins with leaps that are far off: where a run began and its later half decide what is shown.
  const usual = [points[0] || [], ...points.slice(Math.floor(points.length / 2))];
  const values = usual.flatMap((point) => point.slice(1)).filter((loss) => loss > 0);
  if (!values.length || !width) return box.replaceChildren();
  const logs = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))].map(Math.log10);
  logs[0] = Math.max(logs[0], logs[1] - 6); // a content loss may begin at next to nothing
  if (logs[1] - logs[0] < 0.1) { logs[0] -= 0.05; logs[1] += 0.05; }
  const [left, right, top, bottom] = [46, width - 6, 8, height - 22];
  const first = points[0][0], last = points[points.length - 1][0];
  const x = (at) => left + ((right - left) * (at - first)) / Math.max(last - first, 1);
  const inside = (at) => Math.min(Math.max(at, top - 3), bottom + 3);
  const y = (log) => bottom - ((bottom - top) * (log - logs[0])) / (logs[1] - logs[0]);
  const svg = document.createElementNS(SVG, "svg");
  const add = (name, attributes, content = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = content;
    svg.append(made);
  };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const log of ticks(...logs)) {
    add("line", { x1: left, x2: right, y1: y(log), y2: y(log) });
    add("text", { x: left - 6, y: y(log) + 4, "text-anchor": "end" }, scale(log));
  }
  add("text", { x: left, y: height - 4 }, String(first));
  add("text", { x: right, y: height - 4, "text-anchor": "end" }, String(last));
  add("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, "iteration");
  // At most as many points as there are pixels to tell them apart.
  const step = Math.max(1, Math.floor(points.length / (2 * width)));
  const kept = points.filter((point, index) => index % step === 0 || index === points.length - 1);
  for (let row = 1; row <= rows; row++) {
    const way = kept.filter((point) => point[row] > 0);
    const d = way.map((point, at) => `${at ? "L" : "M"}${x(point[0]).toFixed(1)} ${inside(y(Math.log10(point[row]))).toFixed(1)}`);
    if (way.length) add("path", { class: `tone-${(row - 1) % 5}`, d: d.join("") });
  }
  box.replaceChildren(svg);
  const ends = [points[0][1], points[points.length - 1][1]];
  if (ends.every((loss) => loss !== null))
    box.setAttribute("aria-label", `The ${run.names[0]} loss went from ${short(ends[0])} to ${short(ends[1])} in ${last - first + 1} iterations`);
}

function ticks(low, high) {
  let found = [];
  for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], Array.from({ length: 90 }, (_, at) => 1 + at / 10)]) {
    found = [];
    for (let decade = Math.floor(low); decade <= high; decade++)
      for (const each of steps) {
        const log = decade + Math.log10(each);
        if (log >= low && log <= high) found.push(log);
      }
    if (found.length >= 3) break;
  }
  const every = Math.max(1, Math.ceil(found.length / 6));
  return found.filter((_, at) => at % every === 0);
}

function scale(log) {
  const value = Number((10 ** log).toPrecision(3));
  if (value >= 1e9) return value.toExponential(0);
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e3) return `${Number((value / 1e3).toPrecision(3))}k`;
  return value >= 0.01 ? String(value) : value.toExponential(0);
}

function legend() {
  const last = run.points[run.points.length - 1];
  const parts = run.names.map((name, at) => {
    const made = document.createElement("b");
    made.className = `tone-${at % 5}`;
    made.textContent = last && last[at + 1] !== null ? `${name} ${short(last[at + 1])}` : name;
    return made;
  });
  $("legend").replaceChildren("Losses, on a logarithmic scale", ...parts);
}

let drawn = 0;
function drawSoon() {
  if (drawn) return;
  drawn = requestAnimationFrame(() => { drawn = 0; draw(); legend(); });
}
new ResizeObserver(drawSoon).observe($("curves"));

// ---- what the server tells

function told(event) {
  if (event.run !== run.number) {
    // A picture that follows another one, as a frame does, takes its place when it is there.
    const follows = event.follows && !after.hidden;
    Object.assign(run, { number: event.run, points: [], picture: 0, state: "" });
    run.newest = { number: event.run, before: event.before };
    if (!follows) {
      after.hidden = before.hidden = true;
      setSplit(0);
      painted();
      uncover().then(painted);
    }
  }
  run.names = event.names;
  if (event.fresh) run.points = [];
  run.points.push(...event.points);
  const active = event.state === "running";
  if (event.title) text("title", event.title);
  const saved = event.saved[event.saved.length - 1];
  const news = JSON.stringify([event.state, event.stopping, event.message, event.remark, event.saved.length]);
  if (news !== run.news || !run.state) {
    let said = active && event.stopping ? "Stopping after this iteration …" : words[event.state];
    if (event.message) said += `. ${event.message}`;
    if (event.remark && active) said += `. ${event.remark}`;
    else if (saved && active && event.saved.length !== run.saved) said += `. Saved ${saved}`;
    Object.assign(run, { state: event.state, news, saved: event.saved.length });
    text("state", said);
    $("state").className = { done: "good", stopped: "good", failed: "bad", interrupted: "bad" }[event.state] || "";
  }
  $("bar").value = event.state === "done" && (!event.follows || "last" in event) ? 1 : event.share;
  text("iteration", event.iteration ? `${event.iteration}${event.iterations ? ` of ${event.iterations}` : ""}` : "–");
  text("left", active && event.left !== null ? duration(event.left) : "–");
  text("pace", event.pace ? `${event.pace < 1 ? event.pace.toPrecision(2) : event.pace.toFixed(1)} s a step` : "–");
  text("memory", event.memory ? `${(event.memory / 2 ** 30).toFixed(1)} GiB` : "–");
  text("stage", event.stage || "–");
  $("stage").parentElement.hidden = !event.stage;
  $("save").disabled = !active || !event.iteration || event.stopping;
  $("stop").disabled = !active || !event.iteration || event.stopping;
  const list = $("saved");
  if (list.children.length !== event.saved.length) {
    list.hidden = !event.saved.length;
    list.replaceChildren(...event.saved.map((name) => Object.assign(document.createElement("li"), { textContent: name })));
  }
  const percent = active && event.share ? `${Math.floor(100 * event.share)}%` : words[event.state];
  document.title = `${percent} · ${event.title || "legacy-style"}`;
  run.over = "last" in event;
  if (event.last) uncover().then(() => load(after, event.last)).then(painted, () => {});
  else if (event.picture) showPicture(event.picture);
  run.newest.picture = event.picture;
  drawSoon();
  document.dispatchEvent(new CustomEvent("told", { detail: event }));
}

// ---- the connection

let source, heard;

function connect() {
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("events");
  source.addEventListener("message", (message) => {
    heard = Date.now();
    told(JSON.parse(message.data));
  });
  source.addEventListener("error", lost);
}

function lost() {
  if (run.over) return source.close();
  run.state = ""; // so that the next event says again what the run does
  $("save").disabled = $("stop").disabled = true;
  text("state", "The program does not answer. It has ended, or this machine is very busy. Trying again …");
  if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
}

// A connection may be lost without a word, as when a machine slept or a tunnel broke.
setInterval(() => {
  if (!run.over && Date.now() - heard > SILENCE) connect();
}, RETRY);
document.addEventListener("visibilitychange", () => {
  if (run.newest && run.newest.picture && !run.over) showPicture(run.newest.picture);
});
connect();
for (const what of ["save", "stop"])
  $(what).addEventListener("click", () => {
    $(what).disabled = true;
    fetch(what, { method: "POST" }).catch(() => {});
  });

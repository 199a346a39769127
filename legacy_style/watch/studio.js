"use strict";
// The studio's form and its paintings; watch.js shows the one that is being painted.

const form = document.getElementById("make");
const MOST = 64 * 2 ** 20; // bytes, as the server has it

function say(id, message, bad = false) {
  const place = document.getElementById(id);
  place.textContent = message;
  place.classList.toggle("bad", bad);
}

async function ask(address, options) {
  const answer = await fetch(address, { method: "POST", ...options });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function choice(kind, id, name) {
  const label = document.createElement("label");
  label.className = "choice";
  const input = Object.assign(document.createElement("input"), { type: "radio", name: kind, value: id, checked: true });
  const image = Object.assign(document.createElement("img"), { src: `file?id=${id}`, alt: "" });
  const words = Object.assign(document.createElement("span"), { textContent: name });
  label.append(input, image, words);
  document.getElementById(`${kind}s`).append(label);
}

async function upload(kind, file) {
  const place = `${kind}-said`;
  if (file.size > MOST) return say(place, `${file.name} is larger than 64 MiB; save it smaller, as a JPEG`, true);
  say(place, `Reading ${file.name} …`);
  try {
    const found = await ask(`upload?name=${encodeURIComponent(file.name)}`, { body: file });
    choice(kind, found.id, found.name);
    say(place, `${found.name} is chosen`);
  } catch (error) {
    say(place, error.message, true);
  }
}

for (const drop of document.querySelectorAll(".drop")) {
  const input = drop.querySelector("input");
  // The field lies over the whole box, and takes what is dropped by itself.
  for (const [event, over] of [["dragenter", true], ["dragleave", false], ["drop", false]])
    drop.addEventListener(event, () => drop.classList.toggle("over", over));
  input.addEventListener("change", () => {
    for (const file of input.files) upload(drop.dataset.kind, file);
    input.value = "";
  });
}

const strengths = ["a touch", "light", "medium", "strong", "wild"];
form.elements.strength.addEventListener("input", (event) => {
  event.target.setAttribute("aria-valuetext", strengths[event.target.value - 1]);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(form);
  const number = (name) => Number(data.get(name));
  const order = {
    photo: data.get("photo"),
    style: data.get("style"),
    size: number("size"),
    steps: number("steps"),
    strength: number("strength"),
    colors: data.get("colors") !== null,
  };
  try {
    await ask("start", { body: JSON.stringify(order) });
    const busy = run.state === "running";
    say("make-said", busy ? "It waits for its turn, below." : "");
    if (!busy) document.getElementById("easel").scrollIntoView({ block: "nearest" });
  } catch (error) {
    say("make-said", error.message, true);
  }
});

// ---- the paintings

const states = { waiting: "Waits for its turn", running: "Being painted", done: "Finished", stopped: "Stopped, and kept", failed: "Did not work" };
let shown = "";

function card(job) {
  const item = document.createElement("li");
  const title = Object.assign(document.createElement("p"), { textContent: job.title });
  const state = Object.assign(document.createElement("small"), {
    textContent: job.message ? `${states[job.state]}: ${job.message}` : states[job.state],
  });
  if (job.files) item.append(Object.assign(document.createElement("img"), { src: `view?job=${job.id}`, alt: job.title, loading: "lazy" }));
  item.append(title, state);
  if (job.files) {
    const link = Object.assign(document.createElement("a"), { href: `result?job=${job.id}`, className: "button", textContent: "Download" });
    link.setAttribute("aria-label", `Download ${job.title}`);
    link.download = "";
    item.append(link);
  }
  if (job.state === "waiting") {
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${job.title}`);
    remove.addEventListener("click", () => ask(`remove?job=${job.id}`, {}).catch(() => {}));
    item.append(remove);
  }
  return item;
}

document.addEventListener("told", (event) => {
  const jobs = event.detail.jobs || [];
  const ready = jobs.find((job) => job.id === event.detail.job && job.files);
  const download = document.getElementById("download");
  download.hidden = !ready;
  if (ready) download.href = `result?job=${ready.id}`;
  const now = JSON.stringify(jobs);
  if (now === shown) return;
  shown = now;
  if (!jobs.some((job) => job.state === "waiting")) say("make-said", "");
  document.getElementById("gallery").hidden = !jobs.length;
  document.getElementById("jobs").replaceChildren(...[...jobs].reverse().map(card));
});

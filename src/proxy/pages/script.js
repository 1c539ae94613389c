// Keeps the page up to date: /-/events says when something changed, the page itself is fetched again
// and its parts are put in the place of the old ones. The seconds in between are counted here.
"use strict";

const RETRY_MS = 10000;
const TOLD_MS = 10000;
const byId = (id) => document.getElementById(id);
let serverAhead = Number(document.body.dataset.now) - Date.now();
let events = null;
let retry = 0;

let forget = 0;

// What went wrong stays until something else is said.
function tell(text, bad) {
  const told = byId("told");
  told.textContent = text;
  told.toggleAttribute("data-bad", Boolean(bad));
  clearTimeout(forget);
  if (!bad) forget = setTimeout(() => told.replaceChildren(), TOLD_MS);
}

function link(text, live) {
  byId("link").textContent = text;
  byId("link").toggleAttribute("data-live-now", live);
}

// As report/words.rs says it.
function duration(ms) {
  const two = (number) => String(number).padStart(2, "0");
  const s = Math.max(0, Math.floor(ms / 1000));
  const [min, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (d) return `${d} d ${two(h % 24)} h`;
  if (h) return `${h} h ${two(min % 60)} min`;
  if (min) return `${min} min ${two(s % 60)} s`;
  return `${s} s`;
}

function tick() {
  const now = Date.now() + serverAhead;
  const put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  for (const one of document.querySelectorAll("[data-until]")) put(one, duration(one.dataset.until - now));
  for (const one of document.querySelectorAll("[data-since]")) put(one, duration(now - one.dataset.since));
  for (const bar of document.querySelectorAll(".life")) {
    const { from, to } = bar.dataset;
    const gone = Math.min(1000, Math.max(0, (1000 * (now - from)) / Math.max(1, to - from)));
    bar.querySelector(".left").setAttribute("x", gone);
    bar.querySelector(".left").setAttribute("width", 1000 - gone);
  }
}

const providers = (page) => [...page.querySelectorAll("article")];

function show(page) {
  const same = (one) => one.id + one.dataset.name + one.querySelectorAll("button, details").length;
  const shape = (page) => providers(page).map(same).join("\n");
  serverAhead = Number(page.body.dataset.now) - Date.now();
  document.title = page.title;
  if (shape(document) !== shape(page)) {
    document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
    wire();
  }
  for (const article of providers(page)) {
    const own = byId(article.id);
    if (own && own.dataset.state !== article.dataset.state) {
      const word = article.querySelector(".badge").textContent.trim();
      const isNews = article.dataset.state !== "refreshing" && own.dataset.state !== "refreshing";
      // Why something failed is told until something else is done; the new state stands beside it.
      if (isNews && !byId("told").hasAttribute("data-bad")) {
        tell(`${article.dataset.name}: ${word}.`);
      }
      own.dataset.state = article.dataset.state;
    }
  }
  // Buttons and what is unfolded are not among these parts, so that they keep the focus.
  for (const part of page.querySelectorAll("[data-live]")) {
    const own = byId(part.id);
    if (own && own.innerHTML !== part.innerHTML) own.replaceChildren(...document.adoptNode(part).childNodes);
  }
  tick();
}

let updating = null;
let again = false;

async function update() {
  if (updating) {
    again = true;
    return updating;
  }
  updating = (async () => {
    do {
      again = false;
      const answer = await fetch("/-/", { cache: "no-store" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } while (again);
  })();
  try {
    await updating;
  } catch (error) {
    link("Not connected", false);
  } finally {
    updating = null;
  }
}

function connect() {
  disconnect();
  events = new EventSource("/-/events");
  events.addEventListener("status", async () => {
    link("Live", true);
    await update();
  });
  events.addEventListener("error", () => {
    link("Connecting again", false);
    if (events.readyState === EventSource.CLOSED) {
      retry = setTimeout(() => update().then(connect), RETRY_MS);
    }
  });
}

function disconnect() {
  clearTimeout(retry);
  if (events) events.close();
  events = null;
}

async function post(button) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  tell("");
  try {
    const answer = await fetch(button.dataset.post, { method: "POST" });
    const said = await answer.json().catch(() => ({}));
    const stays = `The configuration from ${said.in_use_since} stays in use.`;
    const why = said.problems?.concat(stays).join("\n") ?? said.refresh?.last_error ?? said.error?.message;
    const notes = said.notes?.join(" ") ?? "";
    if (answer.ok) tell(`${button.dataset.done} ${notes}`.trim());
    else tell(why ?? `The answer was ${answer.status}.`, true);
  } catch (error) {
    tell("evertoken does not answer.", true);
  } finally {
    button.removeAttribute("aria-disabled");
    await update();
  }
}

function wire() {
  for (const button of document.querySelectorAll("[data-post][hidden]")) {
    button.hidden = false;
    button.addEventListener("click", () => post(button));
  }
}

// A page that nobody sees takes no stream.
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
wire();
tick();
setInterval(() => document.hidden || tick(), 1000);
if (!document.hidden) connect();

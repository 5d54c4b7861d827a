// Counts support time down, and keeps the page as the server would write it now. Nothing is decided in here.
"use strict";

const SILENCE = 25000; // ms without a word of the server, which has a heartbeat of 10 s
const PAUSE = 1000; // ms between two looks at the page
const STALE = 60000; // ms after which it is looked at though nothing has happened

const link = document.querySelector("#link");
const told = document.querySelector("#told");
let page = document.querySelector("main");
let started, ticked; // the server's time, and this browser's steady clock, when the page was written

function written() {
  started = Number(page.dataset.now);
  ticked = performance.now();
}

function now() { // of the server: a wrong clock of this machine does not matter
  return started + performance.now() - ticked;
}

function counted(windows, from, to) {
  let sum = 0;
  for (const [opens, closes] of windows) sum += Math.max(0, Math.min(closes, to) - Math.max(opens, from));
  return sum;
}

function clock(left) {
  const seconds = Math.floor(Math.abs(left) / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const time = `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return (left < 0 ? "−" : "") + time;
}

function write(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

function count(row, hours, at) {
  const windows = hours[Number(row.dataset.hours)];
  const left = Number(row.dataset.left) - counted(windows, started, at);
  const open = windows.some(([opens, closes]) => opens <= at && at < closes);
  const next = windows.find(([opens]) => opens > at);
  const state = left <= 0 ? "late" : left <= Number(row.dataset.warn) ? "risk" : "ok";
  const words = { late: "late", risk: "at risk", ok: "" }[state];
  const closed = open || !next ? "" : `closed until ${next[2]}`;
  row.dataset.state = state;
  row.toggleAttribute("data-closed", !open);
  write(row.querySelector(".clock"), clock(left));
  write(row.querySelector(".note"), [words, closed].filter(Boolean).join(", "));
  const used = row.querySelector("progress");
  if (used) used.value = Math.min(used.max, Number(row.dataset.target) - left);
}

function tick() {
  const at = now();
  const hours = [...page.querySelectorAll(".hours")].map((element) => JSON.parse(element.dataset.windows));
  for (const row of page.querySelectorAll("[data-hours]")) count(row, hours, at);
  const local = new Date(at + Number(page.dataset.offset)); // its UTC is the wall time of the policy's zone
  write(document.querySelector("#clock"), local.toISOString().slice(11, 19));
}

let looking = false;
let again = false;
let looked = performance.now();

async function look() { // what the server would write now takes the place of what is there
  if (looking) {
    again = true;
    return;
  }
  looking = true;
  looked = performance.now();
  try {
    const answer = await fetch(location.href);
    const text = await answer.text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    if (answer.ok && fresh) replace(fresh);
  } catch {
    connected(false); // it is looked at again when the events are back
  }
  await new Promise((resolve) => setTimeout(resolve, PAUSE - Math.min(PAUSE, performance.now() - looked)));
  looking = false;
  if (again) {
    again = false;
    look();
  }
}

function key(row) { // of a promise
  return [row.dataset.objective, row.dataset.cycle, row.dataset.ticket].join(" ");
}

const has = (href) => (link) => link.getAttribute("href") === href;

function replace(fresh) {
  const before = new Set([...page.querySelectorAll("[data-ticket]")].map(key));
  const focused = page.contains(document.activeElement) ? document.activeElement : null;
  const href = focused?.getAttribute("href");
  const place = href ? [...page.querySelectorAll("a")].filter(has(href)).indexOf(focused) : 0;
  const scrolled = [...page.querySelectorAll("[data-scroll]")].map((element) => element.scrollLeft);
  const adopted = document.adoptNode(fresh);
  for (const row of adopted.querySelectorAll("[data-ticket]")) row.classList.toggle("new", !before.has(key(row)));
  for (const input of page.querySelectorAll("input")) { // what is being typed stays
    adopted.querySelector(`input[name="${input.name}"]`)?.replaceWith(input);
  }
  page.replaceWith(adopted);
  page = adopted;
  [...page.querySelectorAll("[data-scroll]")].forEach((element, n) => { element.scrollLeft = scrolled[n] ?? 0; });
  const same = href ? [...page.querySelectorAll("a")].filter(has(href)) : [focused]; // rows of one ticket share it
  (same[place] ?? same[0])?.focus({ preventScroll: true });
  written();
  tick();
}

function connected(is) {
  link.dataset.state = is ? "on" : "off";
  write(link, is ? "live" : "not connected, trying again");
}

let heard = performance.now();
let last = page.dataset.position;

function listen() {
  const events = new EventSource(`/events?after=${encodeURIComponent(last)}`);
  const hear = () => {
    heard = performance.now();
    connected(true);
  };
  events.addEventListener("beat", hear);
  events.addEventListener("error", () => {
    connected(false); // the browser tries again by itself, but not if it was refused
    if (events.readyState === EventSource.CLOSED) setTimeout(begin, PAUSE);
  });
  events.addEventListener("message", (message) => {
    hear();
    last = message.lastEventId;
    const news = JSON.parse(message.data);
    const broken = (news.events ?? []).filter((event) => event.event === "breached");
    if (broken.length) write(told, broken.map((event) => `${event.ticket_id}, ${event.says}`).slice(-3).join(", "));
    document.dispatchEvent(new CustomEvent("news", { detail: news })); // tests/e2e counts them
    look();
  });
  return events;
}

let events;
function begin() {
  events?.close();
  heard = performance.now();
  events = listen();
}

written();
tick();
setInterval(tick, 250);
begin();
setInterval(() => {
  if (performance.now() - heard > SILENCE) {
    connected(false);
    begin();
  }
  if (performance.now() - looked > STALE) look();
}, 5000);

document.addEventListener("keydown", (event) => { // up and down go through the list
  const links = [...page.querySelectorAll("[data-ticket] a")];
  const at = links.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (at < 0 || !step) return;
  event.preventDefault();
  links[at + step]?.focus();
});

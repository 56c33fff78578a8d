// Keeps the page up to date. Without this script, it is up to date whenever it is loaded.
"use strict";

const state = document.getElementById("live");
let busy = false;
let stale = false;

function say(text, live) {
  state.hidden = false;
  state.classList.toggle("on", live);
  if (state.textContent !== text) state.textContent = text;
}

// Puts `fresh` in the place of `old`, and keeps what the reader has open and where the keyboard is.
function replace(old, fresh) {
  for (const open of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector("#" + CSS.escape(open.id));
    if (same) same.open = true;
  }
  const confirm = old.querySelector("details.confirm[open]") && fresh.querySelector("details.confirm");
  if (confirm) confirm.open = true;
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const all = (root) => [...root.querySelectorAll("a, button, summary")];
  const key = (node) => node.tagName + (node.getAttribute("href") || node.textContent);
  const wanted = focus && key(focus);
  old.replaceWith(fresh);
  if (wanted) {
    const same = all(fresh).find((node) => key(node) === wanted);
    if (same) same.focus({ preventScroll: true });
  }
}

async function refresh() {
  if (busy || document.hidden) {
    stale = true;
    return;
  }
  busy = true;
  stale = false;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (new URL(answer.url).pathname === "/login") {
      location.assign("/login");
      return;
    }
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (fresh && !fresh.isEqualNode(old)) replace(old, document.adoptNode(fresh));
    }
    say("Live", true);
  } catch {
    say("Not live; load the page again", false);
  } finally {
    busy = false;
  }
  if (stale) setTimeout(refresh, 1000);
}

// The first number too: something may have changed since the page was made.
const news = new EventSource("/events");
news.onopen = () => say("Live", true);
news.onmessage = refresh;
news.onerror = () => {
  // After a pause the browser tries again by itself, and what it missed is looked up then.
  say(news.readyState === EventSource.CLOSED ? "Not live; load the page again" : "Connecting…", false);
};
document.addEventListener("visibilitychange", () => {
  if (stale) refresh();
});

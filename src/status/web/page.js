// Keeps a page up to date: reads it again every two seconds and changes only what is different, so that focus, selection and open
// details stay. Without it the page is whole, and read anew every ten seconds.
"use strict";

(() => {
  const EVERY_MS = 2000;
  const PATIENCE_MS = 10000;
  const STALE_MS = 10000;
  const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

  // The server's clock, by what it said last and what has passed here since.
  let said = Number(document.documentElement.dataset.now);
  let heard = performance.now();
  let failed = false;
  const now = () => said + (performance.now() - heard);

  const two = (n) => String(n).padStart(2, "0");
  const span = (ms) => {
    const whole = (unit) => Math.floor(ms / unit);
    if (ms < MINUTE) return `${whole(SECOND)}s`;
    if (ms < HOUR) return `${whole(MINUTE)}m${two(whole(SECOND) % 60)}s`;
    if (ms < DAY) return `${whole(HOUR)}h${two(whole(MINUTE) % 60)}m`;
    return `${whole(DAY)}d${two(whole(HOUR) % 24)}h`;
  };
  const relative = (away) => (away > 0 ? `in ${span(away)}` : `${span(-away)} ago`);

  const selects = () => {
    const selection = getSelection();
    return selection && !selection.isCollapsed && document.getElementById("page").contains(selection.anchorNode);
  };

  const tick = () => {
    const at = now();
    for (const time of document.querySelectorAll("time[data-ms]")) {
      const away = Number(time.dataset.ms) - at;
      const text = relative(away);
      if (time.textContent !== text) time.textContent = text;
      if (time.classList.contains("due")) time.classList.toggle("late", away <= 0);
    }
    const age = performance.now() - heard;
    const live = document.getElementById("live");
    const stale = failed || age > STALE_MS;
    const paused = selects();
    // What is shown is old, whatever it is for.
    const state = stale ? "stale" : paused ? "paused" : "live";
    const why = paused && !failed ? "paused while text is marked, for" : "no answer for";
    const word = stale ? `${why} ${span(age)}` : paused ? "paused while text is marked" : "live";
    live.dataset.state = state;
    const shown = live.querySelector(".word");
    if (shown.textContent !== word) shown.textContent = word;
  };

  // Makes `old` like `fresh`, and leaves alone what is like it already.
  const follow = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    const alike = old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName;
    if (!alike) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const theirs = [...fresh.childNodes];
    for (let at = 0; at < theirs.length; at += 1) {
      if (at < old.childNodes.length) follow(old.childNodes[at], theirs[at]);
      else old.append(theirs[at]);
    }
    while (old.childNodes.length > theirs.length) old.lastChild.remove();
  };

  const update = async () => {
    // What somebody marks to copy must not move.
    if (document.hidden || selects()) return;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const page = fresh.getElementById("page");
      // Not a page of ours, or one without facts: what was shown stays, and says how old it is.
      if (!page || answer.status >= 500) throw new Error("no page");
      follow(document.getElementById("page"), page);
      document.title = fresh.title;
      said = Number(fresh.documentElement.dataset.now);
      heard = performance.now();
      const stamp = document.querySelector("#live small time");
      const newer = fresh.querySelector("#live small time");
      stamp.textContent = newer.textContent;
      stamp.dateTime = newer.dateTime;
      failed = false;
    } catch {
      failed = true;
    }
    tick();
  };

  let waiting = Promise.resolve();
  const again = () => {
    waiting = update().then(() => { setTimeout(again, EVERY_MS); });
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) waiting = waiting.then(update); });
  setInterval(tick, SECOND);
  setTimeout(again, EVERY_MS);
  tick();
})();

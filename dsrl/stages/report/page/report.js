// The sample browser. Texts written by models are only ever inserted as text nodes, never as HTML.
"use strict";
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  const { rows, texts, passages, images } = JSON.parse(source.textContent);
  const PAGE = 100;
  const byId = new Map(rows.map((row) => [row.id, row]));
  rows.forEach((row, number) => {
    row.number = number;
    row.haystack = `${row.question || ""}\n${row.answer || ""}\n${row.reason || ""}\n${row.id}`.toLowerCase();
  });
  const columns = [
    { name: "question", label: "question", value: (row) => row.question || "" },
    { name: "answer", label: "answer", value: (row) => row.answer || "" },
    { name: "origin", label: "origin", value: (row) => row.origin },
    { name: "share", label: "votes agree", value: (row) => row.share, show: percent },
    { name: "rate", label: "pass rate", value: (row) => row.rate, show: percent },
    { name: "outcome", label: "outcome", value: (row) => row.outcome },
  ];
  const view = { text: "", outcome: "", origin: "", sort: null, descending: false, limit: PAGE };
  const place = Object.fromEntries(["browser", "search", "outcome", "origin", "found", "more"].map((id) => [id, document.getElementById(id)]));
  const body = place.browser.querySelector("tbody");

  function node(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "class") made.className = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    for (const child of children) {
      if (child !== null && child !== undefined) made.append(typeof child === "string" ? visible(child) : child);
    }
    return made;
  }

  // Spell out characters that are invisible or reorder text, as formatting.py does: \u27e8U+202E\u27e9. Joiners stay inside words of
  // other scripts and inside emoji.
  function visible(text) {
    return text
      .replace(/[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]/g, codePoint)
      .replace(/(?<![^\u0000-\u02ff])[\u200c\u200d]|[\u200c\u200d](?![^\u0000-\u02ff])/g, codePoint);
  }

  function codePoint(character) {
    return `\u27e8U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  }

  function percent(value) {
    return value === undefined || value === null ? "–" : `${Math.round(100 * value)}\u202f%`;
  }

  function plural(number, noun, many) {
    return `${number} ${number === 1 ? noun : many || noun + "s"}`;
  }

  // Filtering, sorting and paging.
  function matching() {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) =>
      (!view.outcome || row.outcome === view.outcome || row.reason === view.outcome) && (!view.origin || row.origin === view.origin) &&
      words.every((word) => row.haystack.includes(word)));
  }

  function sorted(found) {
    if (!view.sort) return found;
    const sign = view.descending ? -1 : 1;
    const value = view.sort.value;
    const known = (row) => value(row) !== undefined && value(row) !== null && value(row) !== "";
    return [...found].sort((a, b) => {
      if (known(a) !== known(b)) return known(a) ? -1 : 1;
      const [x, y] = [value(a), value(b)];
      if (x === y || !known(a)) return a.number - b.number;
      const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
      return sign * order;
    });
  }

  function show() {
    const found = sorted(matching());
    body.replaceChildren(...found.slice(0, view.limit).map(line));
    place.found.textContent = plural(found.length, "row");
    place.more.hidden = found.length <= view.limit;
    place.more.textContent = `Show ${Math.min(PAGE, found.length - view.limit)} more`;
  }

  function line(row) {
    const question = row.images ? (row.question || "").replace(/^(\[image \d+\]\s*)+/, "") : row.question;
    const words = question || "(unreadable output)";
    const first = (row.images || []).find(([place]) => typeof place === "number");
    const icon = first ? node("img", { class: "mini", src: images[first[0]], alt: "" }) : null;
    const button = node("button", { class: "open", type: "button", "aria-expanded": "false" }, icon, words.replace(/\s+/g, " "));
    const cells = columns.slice(1).map((column) => {
      const value = column.value(row);
      const shown = column.show ? column.show(value) : value === undefined ? "–" : String(value);
      return node("td", { class: column.name === "outcome" ? `outcome outcome-${row.outcome}` : column.name }, shown);
    });
    const made = node("tr", { class: "row", id: `row-${row.id}` }, node("td", { class: "question" }, button), ...cells);
    button.addEventListener("click", () => toggle(row, made, button));
    return made;
  }

  function toggle(row, made, button) {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) made.nextElementSibling.remove();
    else made.after(node("tr", { class: "detail" }, node("td", { colspan: visibleColumns() }, ...detail(row))));
  }

  // Narrow screens hide some columns.
  function visibleColumns() {
    return [...place.browser.querySelectorAll("thead th")].filter((cell) => cell.offsetParent !== null).length;
  }

  // The details of a row.
  function detail(row) {
    const parts = [];
    if (row.images) parts.push(node("div", { class: "pictures" }, ...row.images.map(figure)));
    if (row.question) parts.push(node("p", { class: "question-text", dir: "auto" }, row.question));
    parts.push(facts(row));
    if (row.passage && passages[row.passage]) parts.push(passage(passages[row.passage]));
    for (const exchange of row.exchanges || []) parts.push(...folds(exchange, row.answer));
    if (row.rollouts) parts.push(rollouts(row));
    if (row.bare) parts.push(node("p", { class: "method" }, `For prompts and replies: dsrl trace ${row.id}`));
    return parts;
  }

  // An image, or why it is missing.
  function figure([place, width, height], number) {
    const name = `image ${number + 1}`;
    const size = `${name}, ${width} × ${height}`;
    if (typeof place === "number") return node("figure", {}, node("img", { src: images[place], alt: name }), node("figcaption", {}, size));
    return node("figure", { class: "absent" }, node("figcaption", {}, `${size}: ${place}`));
  }

  function facts(row) {
    const list = node("dl", { class: "facts" });
    const add = (name, value) => value && list.append(node("dt", {}, name), node("dd", {}, value));
    add("Outcome", row.words);
    add("Detail", row.detail);
    add("Answer", row.answer);
    add("Solution", row.solution);
    add("Votes", row.votes && votes(row.votes));
    add("Greedy reply", row.probe && (row.probe.valid ? (row.probe.right ? "correct" : "wrong") : "failed"));
    add("Pass rate", row.score && rate(row.score));
    for (const [name, accepted, reason] of row.verdicts || []) add(name, `${accepted ? "accepted" : "rejected"}${reason ? ": " + reason : ""}`);
    add("Rewritten from", row.parent && link(row.parent));
    for (const child of row.children || []) add("Rewritten into", link(child));
    add("Id", row.candidate === undefined ? row.id : `${row.id}, candidate ${row.candidate}`);
    return list;
  }

  function votes(given) {
    const lines = given.counts ? given.counts.map(([answer, count]) => `${count} × ${answer}`) : [];
    if (given.unparsable) lines.push(`${given.unparsable} × unreadable`);
    if (given.failed) lines.push(`${given.failed} × no reply`);
    const early = given.early ? `stopped early after ${given.asked} of ${given.planned}` : `${given.asked} asked`;
    const own = given.agrees ? "; the generator's answer agrees" : given.differs ? "; the generator's answer differs" : "";
    return `${lines.join(", ") || "none"} (${early}${own})`;
  }

  function rate(score) {
    const rest = [[score.cut, "truncated"], [score.failed, "failed"]].filter(([number]) => number);
    const words = rest.map(([number, reason]) => `, ${number} ${reason}`).join("");
    return `${score.right || 0} of ${score.valid || 0} replies correct${words}; temperature ${score.temperature || 0}`;
  }

  function link(id) {
    const row = byId.get(id);
    if (!row) return `${id} (not among the rows on this page)`;
    const button = node("button", { type: "button", onclick: () => jump(row) }, row.question || row.id);
    return node("span", {}, button, ` (${row.outcome})`);
  }

  function jump(row) {
    Object.assign(view, { text: "", outcome: "", origin: "", sort: null });
    place.search.value = place.outcome.value = place.origin.value = "";
    view.limit = PAGE * Math.ceil((row.number + 1) / PAGE);
    head();
    show();
    const made = document.getElementById(`row-${row.id}`);
    const button = made.querySelector(".open");
    button.click();
    made.scrollIntoView({ block: "start" });
    button.focus({ preventScroll: true });
  }

  function fold(title, note, ...children) {
    return node("details", {}, node("summary", {}, title, node("small", {}, note)), ...children);
  }

  function turn(who, text, style = "", mark = "", good = false) {
    const read = mark ? node(good ? "b" : "span", {}, mark) : null;
    const head = node("div", { class: "who" }, node("span", {}, who), read);
    return node("div", { class: `turn ${style}`, tabindex: "0" }, head, node("p", { class: "said", dir: "auto" }, text));
  }

  function passage(given) {
    const where = `${given.source}, character ${given.offset}; hit ${given.rank} for “${given.keyword}”`;
    return fold("Passage", where, turn(given.source, given.text));
  }

  function folds(exchange, answer) {
    const votes = exchange.title === "Votes";
    const prompt = exchange.prompt.map(([who, number]) => turn(who, texts[number]));
    const replies = exchange.replies.map((reply, number) => {
      const who = (votes ? `vote ${number + 1}` : "reply") + (reply.cut ? ", truncated" : "");
      return turn(who, texts[reply.text], "reply", votes ? read(reply) : "", reply.read === answer);
    });
    return [
      fold(`${exchange.title}: prompt`, exchange.how, ...prompt),
      fold(`${exchange.title}: ${replies.length === 1 ? "reply" : "replies"}`, String(replies.length), ...replies),
    ];
  }

  function read(reply) {
    return reply.read === undefined || reply.read === null ? "no readable answer" : `read as ${reply.read}`;
  }

  function rollouts(row) {
    const turns = row.rollouts.map((reply) => {
      const who = (reply.right ? "correct" : "wrong") + (reply.cut ? ", truncated" : "");
      return turn(who, texts[reply.text], "reply", read(reply), reply.right);
    });
    return fold("Replies of the base model", `${turns.length} of ${row.score ? row.score.asked : turns.length}`, ...turns);
  }

  // Controls.
  function head() {
    const cells = columns.map((column) => {
      const chosen = view.sort === column;
      const mark = chosen ? (view.descending ? " ↓" : " ↑") : "";
      const button = node("button", { type: "button", onclick: () => sortBy(column) }, column.label + mark);
      const order = chosen ? { "aria-sort": view.descending ? "descending" : "ascending" } : {};
      return node("th", { scope: "col", class: column.name, ...order }, button);
    });
    place.browser.querySelector("thead tr").replaceChildren(...cells);
  }

  function sortBy(column) {
    if (view.sort !== column) Object.assign(view, { sort: column, descending: false });
    else if (!view.descending) view.descending = true;
    else Object.assign(view, { sort: null, descending: false });
    head();
    show();
  }

  function counted(name) {
    const counts = new Map();
    for (const row of rows) if (row[name]) counts.set(row[name], (counts.get(row[name]) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  function choices(select, all, ...groups) {
    const option = ([value, number]) => node("option", { value }, `${value} (${number})`);
    select.append(node("option", { value: "" }, all));
    for (const [label, counts] of groups) {
      if (counts.length) select.append(...(label ? [node("optgroup", { label }, ...counts.map(option))] : counts.map(option)));
    }
  }

  function listen(element, event, name) {
    element.addEventListener(event, () => {
      view[name] = element.value;
      view.limit = PAGE;
      show();
    });
  }

  choices(place.outcome, "All outcomes", ["", counted("outcome")], ["Rejected for", counted("reason")]);
  choices(place.origin, "All origins", ["", counted("origin")]);
  listen(place.search, "input", "text");
  listen(place.outcome, "change", "outcome");
  listen(place.origin, "change", "origin");
  place.browser.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  place.more.addEventListener("click", () => {
    view.limit += PAGE;
    show();
  });
  place.browser.hidden = false;
  head();
  show();
  const target = byId.get(decodeURIComponent(location.hash).replace(/^#row-/, ""));
  if (target) jump(target);
})();

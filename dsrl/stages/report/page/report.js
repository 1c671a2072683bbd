// The sample browser. Everything a model wrote reaches the page through textContent only.
"use strict";
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  const { rows, texts, passages, pictures } = JSON.parse(source.textContent);
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
    { name: "fate", label: "fate", value: (row) => row.fate },
  ];
  const view = { text: "", fate: "", origin: "", sort: null, descending: false, limit: PAGE };
  const place = Object.fromEntries(["browser", "search", "fate", "origin", "found", "more"].map((id) => [id, document.getElementById(id)]));
  const body = place.browser.querySelector("tbody");

  function node(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "class") made.className = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    for (const child of children) if (child !== null && child !== undefined) made.append(child);
    return made;
  }

  function percent(value) {
    return value === undefined || value === null ? "–" : `${Math.round(100 * value)}\u202f%`;
  }

  function plural(number, noun, many) {
    return `${number} ${number === 1 ? noun : many || noun + "s"}`;
  }

  // What is shown: filtered, sorted, cut.
  function matching() {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) =>
      (!view.fate || row.fate === view.fate || row.reason === view.fate) && (!view.origin || row.origin === view.origin) &&
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
    const words = question || "(nothing readable was written)";
    const first = (row.images || []).find(([place]) => typeof place === "number");
    const icon = first ? node("img", { class: "mini", src: pictures[first[0]], alt: "" }) : null;
    const button = node("button", { class: "open", type: "button", "aria-expanded": "false" }, icon, words.replace(/\s+/g, " "));
    const cells = columns.slice(1).map((column) => {
      const value = column.value(row);
      const shown = column.show ? column.show(value) : value === undefined ? "–" : String(value);
      return node("td", { class: column.name === "fate" ? `fate fate-${row.fate}` : column.name }, shown);
    });
    const made = node("tr", { class: "row", id: `row-${row.id}` }, node("td", { class: "question" }, button), ...cells);
    button.addEventListener("click", () => toggle(row, made, button));
    return made;
  }

  function toggle(row, made, button) {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) made.nextElementSibling.remove();
    else made.after(node("tr", { class: "detail" }, node("td", { colspan: visible() }, ...detail(row))));
  }

  // Narrow screens hide some columns.
  function visible() {
    return [...place.browser.querySelectorAll("thead th")].filter((cell) => cell.offsetParent !== null).length;
  }

  // One row opened.
  function detail(row) {
    const parts = [];
    if (row.images) parts.push(node("div", { class: "pictures" }, ...row.images.map(picture)));
    if (row.question) parts.push(node("p", { class: "question-text" }, row.question));
    parts.push(facts(row));
    if (row.passage && passages[row.passage]) parts.push(passage(passages[row.passage]));
    for (const exchange of row.exchanges || []) parts.push(...folds(exchange, row.answer));
    if (row.rollouts) parts.push(rollouts(row));
    if (row.bare) parts.push(node("p", { class: "method" }, `Prompts and replies are not on this page: dsrl trace ${row.id}`));
    return parts;
  }

  // A picture, or in words why it isn't here.
  function picture([place, width, height], number) {
    const name = `image ${number + 1}`;
    const size = `${name}, ${width} × ${height}`;
    if (typeof place === "number") return node("figure", {}, node("img", { src: pictures[place], alt: name }), node("figcaption", {}, size));
    return node("figure", { class: "absent" }, node("figcaption", {}, `${size}: ${place}`));
  }

  function facts(row) {
    const list = node("dl", { class: "facts" });
    const add = (name, value) => value && list.append(node("dt", {}, name), node("dd", {}, value));
    add("Fate", row.words);
    add("Detail", row.detail);
    add("Answer", row.answer);
    add("Solution", row.solution);
    add("Votes", row.votes && votes(row.votes));
    add("Greedy reply", row.probe && (row.probe.valid ? (row.probe.right ? "right" : "wrong") : "never came"));
    add("Pass rate", row.score && rate(row.score));
    for (const [name, accepted, reason] of row.verdicts || []) add(name, `${accepted ? "accepted" : "refused"}${reason ? ": " + reason : ""}`);
    add("Rewritten from", row.parent && link(row.parent));
    for (const child of row.children || []) add("Rewritten into", link(child));
    add("Id", row.candidate === undefined ? row.id : `${row.id}, candidate ${row.candidate}`);
    return list;
  }

  function votes(given) {
    const lines = given.counts ? given.counts.map(([answer, count]) => `${count} × ${answer}`) : [];
    if (given.unparsable) lines.push(`${given.unparsable} × not readable`);
    if (given.failed) lines.push(`${given.failed} × no reply`);
    const early = given.early ? `stopped early after ${given.asked} of ${given.planned}` : `${given.asked} asked`;
    const own = given.agrees ? "; the writer's own answer agrees" : given.differs ? "; the writer's own answer differs" : "";
    return `${lines.join(", ") || "none"} (${early}${own})`;
  }

  function rate(score) {
    const rest = [[score.cut, "cut off"], [score.failed, "without a reply"]].filter(([number]) => number);
    const words = rest.map(([number, reason]) => `, ${number} ${reason}`).join("");
    return `${score.right || 0} of ${score.valid || 0} replies right${words}; temperature ${score.temperature || 0}`;
  }

  function link(id) {
    const row = byId.get(id);
    if (!row) return `${id} (not among the rows on this page)`;
    const button = node("button", { type: "button", onclick: () => jump(row) }, row.question || row.id);
    return node("span", {}, button, ` (${row.fate})`);
  }

  function jump(row) {
    Object.assign(view, { text: "", fate: "", origin: "", sort: null });
    place.search.value = place.fate.value = place.origin.value = "";
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
    return node("div", { class: `turn ${style}` }, head, node("p", { class: "said" }, text));
  }

  function passage(given) {
    const where = `${given.source}, from character ${given.offset}; hit ${given.rank} for “${given.keyword}”`;
    return fold("Passage", where, turn(given.source, given.text));
  }

  function folds(exchange, answer) {
    const votes = exchange.title === "Votes";
    const prompt = exchange.prompt.map(([who, number]) => turn(who, texts[number]));
    const replies = exchange.replies.map((reply, number) => {
      const who = (votes ? `vote ${number + 1}` : "reply") + (reply.cut ? ", cut off" : "");
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
      const who = (reply.right ? "right" : "wrong") + (reply.cut ? ", cut off" : "");
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

  choices(place.fate, "Every fate", ["", counted("fate")], ["Rejected because", counted("reason")]);
  choices(place.origin, "Every origin", ["", counted("origin")]);
  listen(place.search, "input", "text");
  listen(place.fate, "change", "fate");
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

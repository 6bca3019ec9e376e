// What all views share: elements, commands to the kernel, and the picture of a plan.
// Text is only ever set as text, never as markup. Nothing is fetched from anywhere.

function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// Put these in the place of what was inside; what is not there is left out.
function put(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
}

// Commands: what a person did goes to the kernel, and the answer comes back under the same number.
function commands(model) {
  const waiting = new Map();
  const page = Math.random().toString(36).slice(2);
  let number = 0;
  const heard = (answer) => {
    const resolve = waiting.get(answer.ask);
    if (resolve) { waiting.delete(answer.ask); resolve(answer); }
  };
  model.on("msg:custom", heard);
  const ask = (what, more = {}) => new Promise((resolve) => {
    const id = `${page}-${++number}`;
    waiting.set(id, resolve);
    model.send({ do: what, ask: id, ...more });
  });
  ask.end = () => model.off("msg:custom", heard);
  return ask;
}

// A name that begins with "#" stands over numbers.
function table(header, rows, attributes = {}) {
  const title = (name) => h("th", { scope: "col", class: name[0] === "#" ? "number" : null }, name.replace(/^#/, ""));
  return h("table", attributes,
    h("thead", {}, h("tr", {}, header.map(title))),
    h("tbody", {}, rows));
}

// --- the picture of a plan ----------------------------------------------------------------------

function picture(scene, words, { pick = null, arrows = null } = {}) {
  const root = s("svg", {
    viewBox: `0 0 ${scene.width} ${scene.height}`, role: "group", "aria-label": words, class: "picture",
  });
  const bands = new Map(), boxes = new Map(), lines = [];
  for (const band of scene.bands) {
    const group = s("g", { class: `band${band.idle ? " idle" : ""}`, "data-site": band.site },
      s("rect", { class: "ground", x: scene.margin / 2, y: band.y, rx: 8, width: scene.width - scene.margin, height: band.h }),
      s("text", { class: "name", x: scene.margin + 4, y: band.y + 17 }, band.site,
        s("tspan", { class: "small", dx: 8 }, `${band.about}${band.idle ? ", not used" : ""}`)));
    bands.set(band.site, { ...band, group });
    root.append(group);
  }
  const order = scene.arrows.map((arrow, index) => ({ arrow, index })).sort(
    (a, b) => (a.arrow.crosses - b.arrow.crosses) || (b.arrow.thick - a.arrow.thick));
  const labels = [];
  for (const { arrow, index } of order) {
    const [ax, ay, bx, by, cx, cy, dx, dy] = arrow.path;
    const half = arrow.crosses ? 3 + arrow.thick / 1.7 : 4;
    const line = s("path", {
      class: arrow.crosses ? `moved${arrow.again ? " again" : ""}` : "local",
      "stroke-width": arrow.crosses ? arrow.thick : 1.2,
      d: `M${ax} ${ay}C${bx} ${by} ${cx} ${cy} ${dx} ${dy}`,
    });
    const group = s("g", { class: "arrow" }, line,
      s("path", { class: arrow.crosses ? "moved-tip" : "tip", d: `M${dx + 7} ${dy}l-8 ${-half}v${2 * half}z` }));
    if (arrow.title) group.append(s("title", {}, arrow.title));
    root.append(group);
    let text = null;
    if (arrow.label) {
      const [x, y] = arrow.at;
      const wide = arrow.label.length * 5.9 + 8;
      text = s("text", { class: "small", x, y: y + 4, "text-anchor": "middle" }, arrow.label);
      labels.push(s("g", { class: "tag" }, s("rect", { class: "paper", x: x - wide / 2, y: y - 8, width: wide, height: 16, rx: 4 }), text));
    }
    lines[index] = { arrow, line, text, group };
  }
  for (const box of scene.boxes) {
    const round = box.kind === "dataset" ? scene.box / 2 : 6;
    const middle = box.x + box.w / 2;
    const detail = s("text", { class: "small", x: middle, y: box.y + 30, "text-anchor": "middle" }, box.detail);
    const place = { x: box.x, y: box.y, width: box.w, height: scene.box, rx: round };
    const group = s("g", {
      class: `box ${box.kind}${box.wanted ? " wanted" : ""}`, tabindex: -1, "data-id": box.id, "data-key": box.key,
      "data-label": box.label, role: pick ? "button" : "img", "aria-label": box.title,
    },
      s("title", {}, box.title), s("rect", { class: "paper", ...place }), s("rect", { class: "face", ...place }),
      s("text", { x: middle, y: box.y + 16, "text-anchor": "middle" }, box.label), detail);
    boxes.set(box.id, { box, group, detail });
    root.append(group);
  }
  root.append(...labels);
  return { root, bands, boxes, lines };
}

// Arrows move the focus to the nearest box that way; one stop for Tab.
function walk(drawn, { pick, focused }) {
  const all = [...drawn.boxes.values()];
  if (!all.length) return;
  const first = all.find(({ box }) => box.id === focused.id) || all[0];
  first.group.setAttribute("tabindex", 0);
  const go = (to) => {
    for (const one of all) one.group.setAttribute("tabindex", one === to ? 0 : -1);
    focused.id = to.box.id;
    to.group.focus();
  };
  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  for (const one of all) {
    one.group.addEventListener("focus", () => { focused.id = one.box.id; });
    one.group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault(); event.stopPropagation();
        pick(one.box, true);
        return;
      }
      const way = ways[event.key];
      if (!way) return;
      event.preventDefault(); event.stopPropagation();
      const from = { x: one.box.x + one.box.w / 2, y: one.box.y };
      let best = null, least = Infinity;
      for (const other of all) {
        const x = other.box.x + other.box.w / 2 - from.x, y = other.box.y - from.y;
        const along = x * way[0] + y * way[1], aside = Math.abs(x * way[1]) + Math.abs(y * way[0]);
        if (along > 4 && along + 2 * aside < least) { least = along + 2 * aside; best = other; }
      }
      if (best) go(best);
    });
  }
}

// The picture in a window of its own size, with buttons for its scale.
function stage(scene, root, size) {
  const window_ = h("div", { class: "stage", tabindex: -1 }, root);
  const set = (scale) => {
    size.scale = Math.min(2.5, Math.max(0.2, scale));
    root.setAttribute("width", scene.width * size.scale);
    root.setAttribute("height", scene.height * size.scale);
  };
  const fit = () => set(Math.min(1, Math.max(0.45, ((window_.clientWidth || 900) - 4) / scene.width)));
  if (size.scale) set(size.scale); else { set(1); requestAnimationFrame(() => { if (!size.chosen) fit(); }); }
  const button = (sign, words, act) => h("button", { type: "button", title: words, "aria-label": words, onclick: () => { size.chosen = true; act(); } }, sign);
  const tools = h("span", { class: "tools", role: "group", "aria-label": "scale" },
    button("−", "smaller", () => set(size.scale / 1.25)), button("fit", "fit the width", fit),
    button("+", "larger", () => set(size.scale * 1.25)));
  return { window_, tools };
}

// Where a pointer is in the picture.
function within(root, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
  return [point.x, point.y];
}

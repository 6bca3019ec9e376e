// A job as it goes: states in the picture, bytes over links, time left, logs; cancel, pause, retry.

const STATES = { w: "waits", r: "runs", d: "done", f: "failed", s: "there" };

function render({ model, el }) {
  const ask = commands(model);
  const root = h("div", { class: "flow-view" });
  el.append(root);
  const size = {}, focused = { id: "" };
  let drawn = null, facts = null, letters = "";
  const status = h("strong", { class: "status", role: "status" });
  const bar = h("div", { class: "meter", role: "progressbar", "aria-valuemin": 0, "aria-label": "units that are through" }, h("span"));
  const figures = h("span", { class: "figures" });
  const message = h("p", { class: "message" });
  const buttons = h("span", { class: "tools", role: "group", "aria-label": "the job" });
  const parts = h("div", { class: "parts" });
  const says = h("pre", { class: "says", role: "status", "aria-live": "polite" });

  function draw() {
    facts = model.get("facts");
    if (!facts || !facts.scene) return;
    drawn = picture(facts.scene, facts.words);
    letters = "";
    walk(drawn, { pick: () => {}, focused });
    const { window_, tools } = stage(facts.scene, drawn.root, size);
    put(root,
      h("div", { class: "bar" }, h("span", {}, "job ", h("code", {}, facts.job)), status, bar, figures, buttons, tools),
      message, window_, parts, says);
    update();
  }

  function update() {
    const now = model.get("progress");
    if (!drawn || !now || !now.boxes) { message.textContent = (now && now.message) || ""; return; }
    status.textContent = now.status;
    status.dataset.status = now.status;
    root.dataset.status = now.status;
    root.dataset.events = now.events;
    bar.setAttribute("aria-valuemax", now.total);
    bar.setAttribute("aria-valuenow", now.done);
    bar.firstChild.style.width = `${now.total ? (100 * now.done) / now.total : 0}%`;
    const took = now.took ? `${now.took} of ${now.predicted} predicted` : `${now.predicted} predicted`;
    figures.textContent = [`${now.done} of ${now.total} units`, took, `${now.moved} of ${now.predicted_moved} moved`, now.left].filter(Boolean).join(" · ");
    message.textContent = now.message || "";
    message.classList.toggle("wrong", ["failed", "timed-out"].includes(now.status));
    // Only what has changed since the last frame is touched.
    if (now.boxes !== letters) {
      let at = 0;
      for (const { box, group } of drawn.boxes.values()) {
        const letter = now.boxes[at];
        if (letter !== letters[at]) {
          group.dataset.state = letter;
          group.setAttribute("aria-label", `${box.title}; ${STATES[letter] || ""}`);
        }
        at += 1;
      }
      letters = now.boxes;
    }
    control(now);
    const links = now.links.map(([from, to, bytes, planned, share]) => h("tr", {},
      h("th", { scope: "row" }, `${from} → ${to}`), h("td", { class: "number" }, bytes), h("td", { class: "number" }, planned),
      h("td", {}, h("div", { class: "meter small-meter" }, h("span", { style: `width: ${100 * share}%` })))));
    const units = now.rows.map(([what, where, how, time, planned]) => h("tr", {},
      h("th", { scope: "row" }, what), h("td", {}, where), h("td", {}, how), h("td", { class: "number" }, time), h("td", { class: "number" }, planned)));
    put(parts,
      units.length ? h("div", { class: "wide" }, table(["what", "where", "", "#took", "#predicted"], units)) : null,
      links.length ? h("div", { class: "wide" }, table(["link", "#crossed", "#predicted", ""], links)) : null);
  }

  let shownFor = "";
  function control(now) {
    const wanted = now.over ? "over" : now.status;
    if (wanted === shownFor && buttons.firstChild) return; // a button that is pressed must not be replaced
    shownFor = wanted;
    const button = (words, what) => h("button", { type: "button", onclick: () => order(what) }, words);
    put(buttons,
      now.over ? button("retry", "retry") : button("cancel", "cancel"),
      now.over ? null : now.status === "suspended" ? button("go on", "resume") : button("pause", "suspend"),
      button("logs", "logs"), button("Dask pages", "dashboards"));
  }

  async function order(what) {
    says.classList.remove("wrong");
    says.textContent = "asking …";
    const answer = await ask(what);
    says.classList.toggle("wrong", Boolean(answer.error));
    const pages = (answer.dashboards || []).map(([site, url]) => h("a", { href: url, target: "_blank", rel: "noopener" }, `${site} `));
    if (answer.dashboards) put(says, pages.length ? pages : ["no site has workers now"]);
    else says.textContent = answer.error || [answer.logs, answer.ledger, model.get("progress").trace].filter(Boolean).join("\n\n");
  }

  model.on("change:facts", draw);
  model.on("change:progress", update);
  draw();
  return () => { ask.end(); model.off("change:facts", draw); model.off("change:progress", update); };
}

export default { render };

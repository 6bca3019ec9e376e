// A plan: look into a step, drag it to another site, pin it there, compare, start.

function render({ model, el }) {
  const ask = commands(model);
  const root = h("div", { class: "flow-view" });
  el.append(root);
  const size = {}, focused = { id: "" };
  let picked = null; // key of the step that is looked at
  let tried = null; // the site that it is thought of at
  let drawn = null, facts = null;
  const panel = h("section", { class: "panel", "aria-label": "the chosen step" });
  const says = h("p", { class: "says", role: "status", "aria-live": "polite" });

  function draw() {
    facts = model.get("facts");
    if (!facts || !facts.scene) return;
    if (picked && !facts.steps[picked]) picked = tried = null;
    if (picked && facts.steps[picked].site === tried) tried = null; // it is there now
    drawn = picture(facts.scene, facts.words, { pick });
    walk(drawn, { pick, focused });
    for (const one of drawn.boxes.values()) {
      one.group.addEventListener("click", () => { if (!one.dragged) pick(one.box); one.dragged = false; });
      if (facts.steps[one.box.key]?.pinnable && one.box.kind === "step") draggable(one);
    }
    const { window_, tools } = stage(facts.scene, drawn.root, size);
    put(root,
      h("div", { class: "bar" }, h("strong", { class: "head" }, facts.head), plans(), start(), tools),
      window_, panel, says, compared(), notes());
    if (picked) look(picked, tried); else show();
  }

  function plans() {
    if (facts.plans.length < 2) return null;
    return h("span", { class: "tools", role: "group", "aria-label": "plans" },
      facts.plans.map((words, number) => h("button", {
        type: "button", title: words, "aria-pressed": String(number === facts.number),
        onclick: () => order("show", { number }),
      }, `plan ${number + 1}`)));
  }

  function start() {
    if (facts.job) return h("span", { class: "job" }, `job ${facts.job} is under way`);
    if (!facts.session) return null;
    return h("button", { type: "button", class: "main start", onclick: () => order("run") }, "start");
  }

  function compared() {
    if (!facts.compare) return null;
    const { figures, rows, more } = facts.compare;
    const body = rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))));
    return h("details", { class: "compare", open: true },
      h("summary", {}, `compared with plan ${facts.number}: ${figures}`),
      rows.length ? table(["what", "before", "now"], body) : "the same steps at the same sites",
      more ? `… and ${more} more` : "");
  }

  function notes() {
    const lines = [facts.bounds, ...facts.notes].filter(Boolean);
    if (!lines.length) return null;
    return h("details", {}, h("summary", {}, `${lines.length} note${lines.length > 1 ? "s" : ""}`),
      h("ul", {}, lines.map((line) => h("li", {}, line))));
  }

  async function order(what, more = {}) {
    says.textContent = "asking the kernel …";
    const answer = await ask(what, more);
    says.textContent = answer.error || "";
    says.classList.toggle("wrong", Boolean(answer.error));
    return answer;
  }

  function pick(box, byKey = false) {
    if (!facts.steps[box.key]) { picked = null; says.textContent = box.title; show(); return; }
    look(box.key, null);
    if (byKey) (panel.querySelector("button") || panel.querySelector("h4")).focus();
  }

  async function look(key, site) {
    picked = key; tried = site;
    show();
    const answer = await ask("why", { step: key });
    if (picked === key) tell(answer);
  }

  function leave() {
    const id = focused.id;
    picked = tried = null;
    show();
    drawn.boxes.get(id)?.group.focus();
  }

  function show() {
    for (const { box, group } of drawn.boxes.values()) group.classList.toggle("picked", box.key === picked && box.kind === "step");
    if (!picked) {
      panel.replaceChildren(h("p", { class: "hint" },
        "Choose a step to see where else it could run, and at what price. Drag it to another site to try that."));
      return;
    }
    const step = facts.steps[picked];
    const rows = step.candidates.map((one) => {
      const here = one.site === step.site;
      const may = one.allowed && !here && step.pinnable && facts.session;
      return h("tr", { class: `${here ? "here" : ""}${one.site === tried ? " tried" : ""}${one.allowed ? "" : " refused"}`, "data-site": one.site },
        h("th", { scope: "row" }, one.site), h("td", { class: "number" }, one.seconds), h("td", { class: "number" }, one.bytes),
        h("td", { class: one.better ? "better" : "" }, one.allowed ? one.change : `✗ ${one.change}`),
        h("td", {}, may ? h("button", {
          type: "button", class: one.site === tried ? "main pin" : "pin",
          "aria-label": `pin ${step.label} at ${one.site}: ${one.change}`,
          onclick: () => order("pin", { step: picked, site: one.site }),
        }, `pin at ${one.site}`) : ""));
    });
    const trial = step.candidates.find((one) => one.site === tried);
    const words = trial && (trial.allowed ? `${step.label} at ${tried} instead: ${trial.change}` : `${step.label} may not run at ${tried}: ${trial.change}`);
    put(panel,
      h("div", { class: "bar" }, h("h4", { tabindex: -1 }, `${step.label} at ${step.site}`),
        h("span", { class: "small" }, `${step.operation}, ${step.seconds}, ${step.memory} of memory`),
        h("button", { type: "button", class: "close", "aria-label": "close", onclick: leave }, "×")),
      h("p", {}, step.because),
      words ? h("p", { class: `trial${trial.allowed ? "" : " refused"}`, role: "alert" }, words) : null,
      h("div", { class: "wide" }, table(["site", "#the plan takes", "#and moves", "that is", ""], rows)),
      h("ul", { class: "why" }));
  }

  function tell(answer) {
    const list = panel.querySelector(".why");
    if (!list) return;
    const lines = [answer.error, answer.margin, ...(answer.why || [])].filter(Boolean);
    list.replaceChildren(...lines.map((line) => h("li", {}, line)));
  }

  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); leave(); }
  });

  // Drag a step to the band of another site: its price shows at once, from the facts.
  function draggable(one) {
    const { box, group } = one;
    group.classList.add("draggable");
    group.addEventListener("pointerdown", (down) => {
      if (down.button !== 0) return;
      group.setPointerCapture(down.pointerId); // however fast it goes
      const step = facts.steps[box.key];
      const from = within(drawn.root, down);
      let ghost = null, over = null;
      const tip = h("div", { class: "tip-of-drag", role: "status" });
      const move = (event) => {
        const [x, y] = within(drawn.root, event);
        if (!ghost) {
          if (Math.hypot(x - from[0], y - from[1]) < 5) return;
          ghost = group.cloneNode(true);
          ghost.removeAttribute("tabindex");
          ghost.classList.add("ghost");
          drawn.root.append(ghost);
          root.append(tip);
          for (const candidate of step.candidates) {
            drawn.bands.get(candidate.site)?.group.classList.add(
              candidate.site === step.site ? "own" : candidate.allowed ? "may" : "may-not");
          }
        }
        event.preventDefault();
        ghost.setAttribute("transform", `translate(${x - from[0]} ${y - from[1]})`);
        over = [...drawn.bands.values()].find((band) => y >= band.y && y <= band.y + band.h) || null;
        for (const band of drawn.bands.values()) band.group.classList.toggle("over", band === over);
        const candidate = over && step.candidates.find((each) => each.site === over.site);
        tip.textContent = !candidate ? "" : candidate.site === step.site ? `${candidate.site}: where it is`
          : `${candidate.site}: ${candidate.allowed ? candidate.change : `✗ ${candidate.change}`}`;
        tip.classList.toggle("refused", Boolean(candidate && !candidate.allowed));
        const edge = root.getBoundingClientRect();
        tip.style.left = `${Math.min(event.clientX - edge.left + 14, edge.width - 220)}px`;
        tip.style.top = `${event.clientY - edge.top + 14}px`;
      };
      const end = (event) => {
        group.removeEventListener("pointermove", move);
        group.removeEventListener("pointerup", end);
        group.removeEventListener("pointercancel", end);
        if (!ghost) return;
        one.dragged = true;
        setTimeout(() => { one.dragged = false; }, 0);
        ghost.remove();
        tip.remove();
        for (const band of drawn.bands.values()) band.group.classList.remove("may", "may-not", "own", "over");
        if (event.type === "pointerup" && over && over.site !== step.site) look(box.key, over.site);
      };
      group.addEventListener("pointermove", move);
      group.addEventListener("pointerup", end);
      group.addEventListener("pointercancel", end);
    });
  }

  model.on("change:facts", draw);
  draw();
  return () => { ask.end(); model.off("change:facts", draw); };
}

export default { render };

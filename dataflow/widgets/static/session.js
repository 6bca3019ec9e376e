// A federation: datasets to search a page at a time, one to look into, sites and links, requests to try.

function render({ model, el }) {
  const ask = commands(model);
  const root = h("div", { class: "flow-view" });
  el.append(root);
  let facts = null, tab = "datasets", shown = null, waiting = 0;
  const asked = { text: "", tags: [], site: "", kind: "" };
  const list = h("div", { class: "list", "aria-live": "polite" });
  const panel = h("section", { class: "panel", "aria-label": "the chosen dataset" });
  const body = h("div", { role: "tabpanel" });

  function draw() {
    facts = model.get("facts");
    if (!facts || !facts.first) return;
    shown = facts.first;
    const names = { datasets: "datasets", federation: "sites and links", request: "try a request" };
    put(root, h("div", { class: "bar" }, h("strong", { class: "head" }, facts.head),
      h("span", { class: "tools", role: "tablist" }, Object.entries(names).map(([name, words]) => h("button", {
        type: "button", role: "tab", "aria-selected": String(name === tab), "aria-pressed": String(name === tab),
        onclick: () => { tab = name; draw(); },
      }, words))),
      h("button", { type: "button", onclick: () => ask("refresh") }, "look again")), body);
    if (tab === "datasets") datasets();
    if (tab === "federation") sites();
    if (tab === "request") request();
  }

  // --- datasets -----------------------------------------------------------------------------------

  function datasets() {
    const choose = (label, name, options) => h("label", {}, `${label} `, h("select", {
      onchange: (event) => { asked[name] = event.target.value; find(0); },
    }, h("option", { value: "" }, "any"), options.map((one) => h("option", { value: one, selected: asked[name] === one }, one))));
    let timer = 0;
    const words = h("input", { type: "search", placeholder: "words in name, owner, tags", "aria-label": "search", value: asked.text,
      oninput: (event) => { asked.text = event.target.value; clearTimeout(timer); timer = setTimeout(() => find(0), 150); } });
    const tags = h("div", { class: "tags", role: "group", "aria-label": "tags" }, facts.offered.tags.map(([tag, count]) => h("button", {
      type: "button", "aria-pressed": String(asked.tags.includes(tag)),
      onclick: (event) => {
        asked.tags = asked.tags.includes(tag) ? asked.tags.filter((one) => one !== tag) : [...asked.tags, tag];
        event.target.setAttribute("aria-pressed", String(asked.tags.includes(tag)));
        find(0);
      },
    }, `${tag} (${count})`)));
    put(body, h("div", { class: "bar" }, words, choose("at", "site", facts.federation.sites.map((site) => site.name)),
      choose("kind", "kind", facts.offered.kinds)), facts.offered.tags.length ? tags : null, list, panel);
    rows();
  }

  async function find(number) {
    const mine = ++waiting;
    const answer = await ask("find", { ...asked, number });
    if (mine !== waiting) return; // typed on meanwhile
    if (answer.error) { put(list, h("p", { class: "says wrong" }, answer.error)); return; }
    shown = answer;
    rows();
  }

  function rows() {
    const { rows: found, count, page, pages } = shown;
    const lines = found.map((one) => h("tr", { "data-id": one.id },
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => look(one.id) }, one.name)),
      h("td", {}, one.sites.map(([site, away]) => `${site}${away ? " (away)" : ""}`).join(", ")),
      h("td", {}, one.what), h("td", {}, one.owner), h("td", {}, one.tags)));
    const step = (words, to) => h("button", { type: "button", disabled: to < 0 || to >= pages, onclick: () => find(to) }, words);
    put(list,
      found.length ? h("div", { class: "wide" }, table(["name", "sites", "what", "owner", "tags"], lines)) : h("p", {}, "nothing answers to that"),
      h("div", { class: "bar" }, h("span", { class: "small count" }, `${count.toLocaleString("en")} dataset${count === 1 ? "" : "s"}, page ${page + 1} of ${pages}`),
        h("span", { class: "tools", role: "group", "aria-label": "pages" }, step("first", page ? 0 : -1), step("before", page - 1), step("next", page + 1), step("last", page + 1 < pages ? pages - 1 : -1))));
  }

  async function look(id) {
    put(panel, h("p", {}, "looking …"));
    const one = await ask("look", { id });
    if (one.error) { put(panel, h("p", { class: "says wrong" }, one.error)); return; }
    const values = h("pre", { class: "says" });
    put(panel,
      h("div", { class: "bar" }, h("h4", { tabindex: -1 }, one.name), h("span", { class: "small" }, one.line),
        h("button", { type: "button", class: "close", "aria-label": "close", onclick: () => put(panel) }, "×")),
      one.made ? h("p", {}, `made by ${one.made}`) : null,
      h("div", { class: "wide" }, table(["variable", "dimensions", "type", "#size", "chunks"], one.variables.map((v) => h("tr", {},
        h("th", { scope: "row" }, v.name), h("td", {}, v.dims), h("td", {}, v.dtype), h("td", { class: "number" }, v.size),
        h("td", {}, chunks(v)))))),
      one.more ? h("p", { class: "small" }, `… and ${one.more} more`) : null,
      table(["copy at", "store", "format", "#size"], one.copies.map((row) => h("tr", {}, row.map((cell, n) => h("td", { class: n === 3 ? "number" : null }, cell))))),
      h("details", { open: true }, h("summary", {}, "what may be done with it, where"), may(one.may)),
      h("button", { type: "button", onclick: async () => {
        values.textContent = "reading …";
        const answer = await ask("values", { id });
        values.textContent = answer.error || answer.values;
      } }, "show values"), values);
    panel.querySelector("h4").focus();
  }

  // The last two dimensions, and how they are cut.
  function chunks(v) {
    if (!v.chunks) return "contiguous";
    const words = `${v.chunks.join(" × ")}${v.counts ? `, ${v.counts.reduce((a, b) => a * b, 1).toLocaleString("en")} in all` : ""}`;
    if (!v.counts) return words;
    const [down, across] = v.counts.length > 1 ? v.counts.slice(-2) : [1, v.counts[0]];
    const wide = 120, tall = v.counts.length > 1 ? 48 : 14, lines = [];
    for (let n = 0; n <= Math.min(across, 30); n++) lines.push(s("path", { d: `M${(n * wide) / Math.min(across, 30)} 0v${tall}` }));
    for (let n = 0; n <= Math.min(down, 12); n++) lines.push(s("path", { d: `M0 ${(n * tall) / Math.min(down, 12)}h${wide}` }));
    return h("span", {}, s("svg", { class: "chunks", width: wide + 2, height: tall + 2, viewBox: `-1 -1 ${wide + 2} ${tall + 2}`, role: "img", "aria-label": words }, lines), ` ${words}`);
  }

  function may(answer) {
    const lines = answer.rows.map(([label, site, fine, why]) => h("tr", { class: fine ? "" : "refused" },
      h("th", { scope: "row" }, site), h("td", { class: fine ? "better" : "" }, fine ? "✓ may run there" : `✗ ${why}`), h("td", {}, label.replace("_", " "))));
    return h("div", {},
      answer.missing.map(([what, why]) => h("p", { class: "trial refused" }, `${what.replace("_", " ")}: not granted: ${why}`)),
      lines.length ? table(["site", "", "step"], lines) : null,
      h("ul", {}, answer.notes.map((note) => h("li", {}, note))));
  }

  // --- sites and links ----------------------------------------------------------------------------

  function sites() {
    const { sites: all, links } = facts.federation;
    put(body,
      h("div", { class: "wide" }, table(["site", "", "workers", "busy", "trust", "stores"], all.map((one) => h("tr", { class: one.away ? "refused" : "" },
        h("th", { scope: "row" }, one.name), h("td", {}, one.away ? "✗ away" : "✓ answers"), h("td", {}, one.computers), h("td", {}, one.busy || "·"), h("td", {}, one.trust), h("td", {}, one.stores))))),
      links.length ? h("div", { class: "wide" }, table(["from", "to", "#carries", "#delay", "known by"], links.map((row) => h("tr", {},
        row.map((cell, n) => h("td", { class: n === 2 || n === 3 ? "number" : null }, cell)))))) : null);
  }

  // --- a request that nobody sends ------------------------------------------------------------------

  function request() {
    const field = (label, name, more = {}) => h("label", { class: "field" }, `${label} `, h("input", { name, ...more }));
    const said = h("div", { "aria-live": "polite" });
    const form = h("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        const data = Object.fromEntries(new FormData(form));
        const names = data.datasets.split(/[\s,]+/).filter(Boolean);
        if (!names.length) { put(said, h("p", { class: "says wrong" }, "Which datasets?")); return; }
        const answer = await ask("try", { datasets: names, request: data.request, purpose: data.purpose, archetype: data.archetype });
        put(said, answer.error ? h("p", { class: "says wrong" }, answer.error) : may(answer));
      },
    }, field("datasets", "datasets", { size: 30, placeholder: "names, with blanks between" }), field("request type", "request"),
      field("purpose", "purpose"), field("archetype", "archetype"), h("button", { type: "submit", class: "main" }, "what would they say?"));
    put(body, h("p", { class: "small" }, "A function of yours over these datasets: who would allow it, and where. Nothing is sent, nothing runs."), form, said);
  }

  model.on("change:facts", draw);
  draw();
  return () => { ask.end(); model.off("change:facts", draw); };
}

export default { render };

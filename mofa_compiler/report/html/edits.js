// The table of edits: sorted, filtered, and shown a part at a time. Rows are those of the HTML or, of very many edits,
// made here from the report's data; every word in them comes from Python, so that there is one way to write a number.
const data = JSON.parse(document.getElementById("report").textContent);
const extra = JSON.parse(document.getElementById("page").textContent);
const names = new Map(Object.entries(extra.names));
const printable = (value) => names.get(value) ?? value;
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
for (const hidden of document.querySelectorAll(".script")) hidden.hidden = false;

const table = (() => {
  const part = matchMedia("(max-width: 46rem)").matches ? 20 : 50;
  const chunk = 200;
  const body = document.querySelector("table.edits tbody");
  const listeners = [];
  if (!body) return { listeners, count: () => 0, choose() {}, chosen: () => "" };

  const written = [...body.rows];
  const stages = new Map(extra.stages.map((stage, index) => [stage, index]));
  const edits = data.passes.flatMap((pass, index) => pass.edits.map((edit) => ({ ...edit, step: index + 1 })));
  edits.forEach((edit, number) => {
    edit.number = number;
    edit.stage ??= "other";
    edit.ms = extra.times[number] ?? null;
    if (edit.fate === "removed") edit.exact = data.passes[edit.step - 1].exact; // as `text.is_exact` has it
    edit.words = [edit.path, edit.stage, edit.before, edit.after || "removed", edit.fate, edit.note].join(" ").toLowerCase();
  });

  const form = document.querySelector("#edits form");
  const status = document.getElementById("shown");
  const more = document.querySelector("#edits .more");
  const order = { key: "", down: false };
  let limit = part;
  let found = edits;

  // -- rows ----------------------------------------------------------------------------------------------------------
  const code = (value) => element("code", {}, printable(value));
  const change = (edit) => {
    if (edit.before === edit.after) return [code(edit.before), ", same layer"];
    return edit.after ? [code(edit.before), " → ", code(edit.after)] : [code(edit.before), " → removed"];
  };
  const row = (edit) => {
    if (edit.row) return edit.row;
    if (edit.number < written.length) return (edit.row = written[edit.number]);
    const [parameters, macs, accuracy, time] = extra.rest[edit.number - written.length].map((word) => extra.words[word]);
    const cells = [
      [printable(edit.stage)],
      [`${edit.step} ${printable(data.passes[edit.step - 1].name)}`],
      change(edit),
      [parameters],
      [macs],
      [time],
      [edit.fate, ...(edit.note ? [element("small", {}, printable(edit.note))] : [])],
      [accuracy],
    ];
    const head = element("th", { scope: "row" }, code(edit.path));
    return (edit.row = element("tr", {}, head, ...cells.map((cell) => element("td", {}, ...cell))));
  };

  // -- order ---------------------------------------------------------------------------------------------------------
  const collator = new Intl.Collator("en", { numeric: true });
  const keys = {
    path: (edit) => edit.path,
    stage: (edit) => stages.get(edit.stage) ?? stages.size,
    step: (edit) => edit.step,
    before: (edit) => `${edit.before} ${edit.after}`,
    parameters: (edit) => edit.parameters,
    macs: (edit) => edit.macs,
    ms: (edit) => edit.ms,
    fate: (edit) => edit.fate,
    exact: (edit) => (edit.exact ? (edit.error ?? 0) : 1 + (data.passes[edit.step - 1].verdict.relative_error ?? 1e9)),
  };
  const sorted = (list) => {
    const key = keys[order.key];
    if (!key) return list;
    const sign = order.down ? -1 : 1;
    const entries = list.map((edit) => [key(edit), edit]);
    entries.sort(([a, one], [b, other]) => {
      if (a === null || b === null) return (a === null) - (b === null) || one.number - other.number;
      const compared = typeof a === "string" ? collator.compare(a, b) : a - b;
      return sign * compared || one.number - other.number;
    });
    return entries.map(([, edit]) => edit);
  };

  // -- what is shown -------------------------------------------------------------------------------------------------
  const fields = form.elements;
  let pending = 0;
  const fill = (from, to) => {
    body.append(...found.slice(from, Math.min(to, limit)).map(row));
    if (to < Math.min(limit, found.length)) pending = setTimeout(fill, 0, to, to + chunk);
  };
  const show = (atOnce = chunk) => {
    clearTimeout(pending);
    body.replaceChildren();
    fill(0, atOnce); // the browser takes a second to lay out thousands of rows: it does that after the first are seen
    const chosen = [
      fields.words.value.trim() && `containing “${fields.words.value.trim()}”`,
      fields.stage.value && `of stage ${printable(fields.stage.value)}`,
      fields.step.value && `of pass ${fields.step.selectedOptions[0].text}`,
      fields.fate.value && `with ${fields.fate.value} weights`,
      fields.exact.value && `that are ${fields.exact.selectedOptions[0].text}`,
    ].filter(Boolean);
    const all = `${edits.length} ${edits.length === 1 ? "edit" : "edits"}`;
    const first = found.length > limit ? `, the first ${limit} are shown` : "";
    status.textContent = chosen.length
      ? `${found.length} of ${all}: those ${chosen.join(", ")}${first}.`
      : `${all}${first}.`;
    more.hidden = found.length <= limit;
    more.querySelector("button").hidden = found.length - limit <= Number(more.querySelector("button").dataset.more);
  };
  const filter = () => {
    const words = fields.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = sorted(
      edits.filter(
        (edit) =>
          (!fields.stage.value || edit.stage === fields.stage.value) &&
          (!fields.step.value || edit.step === Number(fields.step.value)) &&
          (!fields.fate.value || edit.fate === fields.fate.value) &&
          (!fields.exact.value || edit.exact === (fields.exact.value === "yes")) &&
          words.every((word) => edit.words.includes(word)),
      ),
    );
    limit = part;
    show();
    for (const listener of listeners) listener(fields.stage.value);
  };

  // -- controls ------------------------------------------------------------------------------------------------------
  const headers = [...document.querySelectorAll("table.edits th[data-key]")];
  const sort = (key, down) => {
    Object.assign(order, { key, down });
    for (const header of headers) {
      const mine = header.dataset.key === key;
      header.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
    }
    fields.order.value = key ? `${key} ${down ? "down" : "up"}` : "";
    found = key ? sorted(found) : [...found].sort((a, b) => a.number - b.number);
    show();
  };
  fields.order.append(element("option", { value: "" }, "order of the passes"));
  for (const header of headers) {
    const { key } = header.dataset;
    const label = header.textContent;
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      const mine = order.key === key;
      sort(mine && order.down ? "" : key, mine); // up, down, and as it was
    });
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
    for (const [direction, words] of [["up", "smallest first"], ["down", "largest first"]])
      fields.order.append(element("option", { value: `${key} ${direction}` }, `${label}, ${words}`));
  }
  form.addEventListener("input", (event) => {
    if (event.target === fields.order) {
      const [key, direction] = fields.order.value.split(" ");
      sort(key, direction === "down");
    } else filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sort("", false); filter(); }));
  more.addEventListener("click", (event) => {
    const count = event.target.dataset?.more;
    if (!count) return;
    const first = Math.min(limit, found.length);
    limit = count === "all" ? Infinity : limit + Number(count);
    show(first + chunk);
    row(found[first]).querySelector("th").setAttribute("tabindex", "-1");
    row(found[first]).querySelector("th").focus(); // where the reader goes on
  });
  addEventListener("beforeprint", () => { limit = Infinity; show(Infinity); });
  addEventListener("afterprint", () => { limit = part; show(); });
  form.reset(); // a browser may have kept what was chosen before a reload
  show();

  return {
    listeners,
    count: (stage) => edits.filter((edit) => edit.stage === stage).length,
    chosen: () => fields.stage.value,
    choose(stage) {
      fields.stage.value = stage;
      filter();
    },
  };
})();

// Of a chosen stage only the reasons that were met in it are shown. Long lists of layers that were left alone are
// completed when they are opened, and everything is opened to be printed.
{
  const groups = data.passes.flatMap((pass) => {
    const reasons = new Map();
    for (const skip of pass.skips ?? []) reasons.set(skip.reason, [...(reasons.get(skip.reason) ?? []), skip]);
    return [...reasons.values()];
  });
  const entries = [...document.querySelectorAll("tr[data-refusal]")];
  const status = document.getElementById("left");
  table.listeners.push((stage) => {
    for (const entry of entries) entry.hidden = stage !== "" && !extra.refused[entry.dataset.refusal].includes(stage);
    const shown = entries.filter((entry) => !entry.hidden).length;
    if (status) status.textContent = stage && `${shown} of ${entries.length} reasons: those met in stage ${printable(stage)}.`;
  });
  for (const entry of entries) {
    const rest = entry.querySelector(".rest");
    entry.querySelector("details")?.addEventListener("toggle", () => {
      if (!rest?.isConnected || !groups.length) return; // left out of a very large page: the rest is in report.json
      const list = entry.querySelector("ul");
      for (const skip of groups[Number(entry.dataset.refusal)].slice(extra.listed)) {
        const form = element("span", { className: "form" }, printable(skip.layer));
        list.append(element("li", {}, element("code", {}, printable(skip.path)), " ", form));
      }
      rest.remove();
    });
  }
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; opened.push(one); }
  });
  addEventListener("afterprint", () => { for (const one of opened.splice(0)) one.open = false; });
}

// The stages of the drawing and of the table beside it: pointed at or focused they list their layers, chosen they filter
// the edits.
(() => {
  const panel = document.getElementById("panel");
  const stages = data.before.stages;
  const layers = new Map(stages.map((stage) => [stage.name, []]));
  (data.layers ?? []).forEach((layer, index) => {
    const [became, macs] = extra.layers[index].map((word) => extra.words[word]);
    layers.get(layer.stage ?? "other")?.push({ ...layer, became, macs });
  });
  const edited = new Map(stages.map((stage, index) => [stage.name, extra.edited[index]]));
  const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const counted = (stage) => {
    const edits = table.count(stage);
    const parts = data.layers ? [plural(layers.get(stage).length, "layer")] : [];
    parts.push(edits ? `${edited.get(stage)} edited (${plural(edits, "edit")})` : "no edits");
    return parts.join(", ");
  };
  const toggle = (stage) => table.choose(table.chosen() === stage ? "" : stage);

  // In the table of stages, every name becomes a button.
  const buttons = new Map();
  for (const place of document.querySelectorAll("table.stages [data-stage]")) {
    const stage = stages[Number(place.dataset.stage)]?.name;
    if (stage === undefined) continue;
    const button = element("button", { type: "button", title: "Show only the edits of this stage" }, ...place.childNodes);
    button.addEventListener("click", () => {
      toggle(stage);
      if (table.chosen()) document.getElementById("edits").scrollIntoView();
    });
    place.replaceChildren(button);
    buttons.set(stage, [button]);
  }

  const blocks = stages.map((stage, index) => document.getElementById(`stage-${index}`));
  blocks.forEach((block, index) => {
    if (!block) return;
    const stage = stages[index];
    block.setAttribute("role", "button");
    block.setAttribute("tabindex", "0");
    block.setAttribute("aria-label", `${printable(stage.name)}: ${counted(stage.name)}`);
    buttons.set(stage.name, [...(buttons.get(stage.name) ?? []), block]);
    block.addEventListener("click", () => toggle(stage.name));
    block.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(stage.name);
    });
    for (const event of ["pointerenter", "focus"]) block.addEventListener(event, () => list(stage));
  });
  blocks.find(Boolean)?.closest("svg").setAttribute("role", "group"); // what is in an image cannot be focused

  let listed = "";
  function list(stage) {
    const now = JSON.stringify([stage.name, table.chosen()]);
    if (!panel || listed === now) return; // a button in it that is being pressed must stay
    listed = now;
    const rows = layers.get(stage.name).map((layer) => {
      const form = element("span", { className: "form" }, printable(layer.layer));
      const became = layer.became ? [" ", element("strong", {}, layer.became)] : [];
      return element("li", {}, element("code", {}, printable(layer.path)), " ", form, ...became, element("small", {}, layer.macs));
    });
    const shown = rows.length ? element("ul", {}, ...rows) : element("p", { className: "hint" }, data.layers ? "No layers that compute." : "Its layers are in report.json.");
    panel.replaceChildren(
      element("h4", {}, printable(stage.name)),
      element("p", {}, `${counted(stage.name)}.`),
      ...filtered(),
      shown,
    );
    panel.scrollTop = 0;
  }
  function filtered() {
    const chosen = table.chosen();
    if (!chosen) return [];
    const clear = element("button", { type: "button" }, "Show all edits");
    clear.addEventListener("click", () => table.choose(""));
    const link = element("a", { href: "#edits" }, "table of edits");
    return [element("p", { className: "chosen" }, "The ", link, ` shows only ${printable(chosen)}. `, clear)];
  }
  table.listeners.push((chosen) => {
    for (const [stage, controls] of buttons)
      for (const control of controls) control.setAttribute("aria-pressed", String(stage === chosen));
    const stage = stages.find((one) => one.name === chosen) ?? stages.find((one) => one.name === JSON.parse(listed || "[]")[0]);
    if (stage) list(stage);
  });
  for (const controls of buttons.values()) for (const control of controls) control.setAttribute("aria-pressed", "false");
  panel?.append(element("p", { className: "hint" }, "Point at a stage to see its layers."));
})();

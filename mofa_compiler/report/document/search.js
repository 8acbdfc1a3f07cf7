"use strict";
// What <details> and CSS cannot: the rows of a section filtered by their words, and its tables sorted by a column.
for (const search of document.querySelectorAll(".search")) {
  const section = search.closest("section");
  const field = search.querySelector("input");
  const rows = [...section.querySelectorAll("tbody tr, li")];
  const texts = rows.map((row) => {
    const part = row.closest("section > details")?.querySelector("summary");
    return [...(row.cells ?? [row]), part].map((one) => one?.textContent).join(" ").toLowerCase();
  });
  const filter = () => {
    const phrase = field.value.trim().toLowerCase();
    const whole = texts.some((text) => text.includes(phrase)); // `encoder 2` is a stage, not any encoder with a 2
    const words = whole ? [phrase].filter(Boolean) : phrase.split(/\s+/);
    rows.forEach((row, index) => { row.hidden = !words.every((word) => texts[index].includes(word)); });
    for (const part of section.querySelectorAll("details")) {
      const found = part.closest("li:not([hidden])") ?? part.querySelector(":is(tbody tr, li):not([hidden])");
      part.open = words.length > 0 && found !== null;
      if (part.parentNode === section) part.hidden = words.length > 0 && found === null;
    }
    const shown = rows.filter((row) => !row.hidden).length;
    search.querySelector("output").value = words.length ? `${shown} of ${rows.length} lines` : "";
  };
  field.addEventListener("input", filter);
  search.hidden = false;
  if (field.value) filter(); // a browser may have kept it

  const units = { µ: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const number = (text) => {
    const [, sign, digits, unit] = /^([+−]?)([\d.]+)(?: ([µmkMGTP]?)s?)?$/.exec(text) ?? [];
    return digits === undefined ? NaN : (sign === "−" ? -1 : 1) * Number(digits) * (units[unit] ?? 1);
  };
  const { compare } = new Intl.Collator("en", { numeric: true });
  for (const head of section.querySelectorAll("thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      for (const other of head.parentNode.children) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      const text = (row) => row.cells[head.cellIndex].textContent;
      const order = (a, b) => number(a) - number(b) || compare(a, b); // NaN, where one is no number, is no order
      const body = head.closest("table").tBodies[0];
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(text(a), text(b))));
    });
  }
}

// All pictures of one image show the same part of it.
for (const image of document.querySelectorAll(".image")) {
  const panes = [...image.querySelectorAll(".pane")].filter((pane) => pane.querySelector("img"));
  const slider = image.querySelector("input");
  const said = image.querySelector("output");
  const view = { x: 0.5, y: 0.5, zoom: 1 }; // the centre, as a share of the picture, and how many times it is enlarged
  const draw = () => {
    const margin = 0.5 / view.zoom;
    for (const axis of ["x", "y"]) view[axis] = Math.min(Math.max(view[axis], margin), 1 - margin);
    slider.value = Math.log2(view.zoom);
    said.value = `${view.zoom.toFixed(view.zoom < 10 ? 1 : 0).replace(".0", "")} ×`;
    for (const axis of ["x", "y"]) image.style.setProperty(`--${axis}`, `${(0.5 - view[axis]) * 100}%`);
    image.style.setProperty("--zoom", view.zoom);
    image.classList.toggle("zoomed", view.zoom > 1);
  };
  const set = (changes) => { Object.assign(view, changes); draw(); };
  const enlarge = (factor) => set({ zoom: Math.min(Math.max(view.zoom * factor, 1), 16) });
  const keys = {
    "+": () => enlarge(2 ** 0.5),
    "=": () => enlarge(2 ** 0.5),
    "-": () => enlarge(2 ** -0.5),
    0: () => set({ x: 0.5, y: 0.5, zoom: 1 }),
    ArrowLeft: () => set({ x: view.x - 0.1 / view.zoom }),
    ArrowRight: () => set({ x: view.x + 0.1 / view.zoom }),
    ArrowUp: () => set({ y: view.y - 0.1 / view.zoom }),
    ArrowDown: () => set({ y: view.y + 0.1 / view.zoom }),
  };
  slider.addEventListener("input", () => set({ zoom: 2 ** Number(slider.value) }));
  image.querySelector(".zoom button").addEventListener("click", keys[0]);
  for (const pane of panes) {
    pane.tabIndex = 0;
    pane.setAttribute("role", "group");
    pane.setAttribute("aria-label", `${pane.querySelector("img").alt}. Zoom with plus and minus, move with the arrow keys.`);
    pane.addEventListener("keydown", (event) => {
      const action = keys[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      if (view.zoom === 1 && event.key.startsWith("Arrow")) return; // the page scrolls
      event.preventDefault();
      action();
    });
    pane.addEventListener("pointermove", (event) => {
      if (!event.buttons || view.zoom === 1) return;
      const box = pane.getBoundingClientRect();
      set({ x: view.x - event.movementX / box.width / view.zoom, y: view.y - event.movementY / box.height / view.zoom });
    });
    pane.addEventListener("pointerdown", (event) => pane.setPointerCapture(event.pointerId));
    pane.addEventListener("dblclick", (event) => {
      const box = pane.getBoundingClientRect();
      const at = { x: (event.clientX - box.x) / box.width, y: (event.clientY - box.y) / box.height };
      set({ x: view.x + (at.x - 0.5) / view.zoom, y: view.y + (at.y - 0.5) / view.zoom, zoom: Math.min(view.zoom * 2, 16) });
    });
  }
  draw();
}

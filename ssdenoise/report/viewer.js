// Linked images of one scene. All panes show the same part of the same plane: `view` is the only state.
class Viewer {
  constructor(element) {
    this.element = element;
    this.data = JSON.parse(document.getElementById(element.dataset.pictures).textContent);
    this.view = { zoom: 1, x: 0.5, y: 0.5, plane: this.data.first, mode: "side", divider: 0.5, opacity: 0, difference: false };
    const last = this.data.images.length - 1;
    this.view.left = 0;
    this.view.right = last === this.data.reference && last > 1 ? last - 1 : last;
    this.panesElement = this.find(".panes");
    this.pointers = new Map();
    this.wire();
    this.lay();
    this.tell();
    new ResizeObserver(() => this.draw()).observe(this.panesElement);
  }

  find(selector) { return this.element.querySelector(selector); }

  // the images of the current plane, and what is computed from them
  async load() {
    const plane = this.view.plane, wanted = Symbol("plane");
    this.wanted = wanted;
    const images = await Promise.all(this.data.images.map((image) => decoded(image.planes[plane])));
    const names = Object.keys(this.data.uncertainty);
    const overlays = await Promise.all(names.map((name) => decoded(this.data.uncertainty[name][plane])));
    if (this.wanted !== wanted) return; // another plane was asked for meanwhile
    this.images = images;
    this.overlays = Object.fromEntries(overlays.map((canvas, i) => [names[i], overlayOf(canvas)]));
    this.differences = images.map(() => null);
    this.draw();
    this.element.dataset.drawn = plane;
  }

  lay() {
    const swipe = this.view.mode === "swipe";
    const shown = swipe ? [[this.view.left, this.view.right]] : this.data.images.map((_, i) => [i]);
    this.panesElement.replaceChildren();
    this.panesElement.classList.toggle("one", swipe);
    this.panes = shown.map((indices) => {
      const figure = document.createElement("figure"), canvas = canvasOf(this.data.width, this.data.height), caption = document.createElement("figcaption");
      figure.className = "pane";
      canvas.setAttribute("role", "img");
      for (const index of indices) {
        const text = document.createElement("span"), { name, psnr } = this.data.images[index];
        text.append(name);
        if (psnr) {
          const score = document.createElement("span");
          score.className = "quiet";
          score.append(" " + psnr);
          text.append(score);
        }
        caption.append(text);
      }
      figure.append(canvas, caption);
      if (swipe) figure.append(this.dividerOf(figure));
      this.panesElement.append(figure);
      return { canvas, indices, figure };
    });
    this.draw();
  }

  dividerOf(figure) {
    const divider = document.createElement("div");
    divider.className = "divider";
    divider.setAttribute("aria-hidden", "true"); // the slider above is for the keyboard
    divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); event.preventDefault(); });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = figure.getBoundingClientRect();
      this.change({ divider: between(0, (event.clientX - box.left) / box.width, 1) });
    });
    return divider;
  }

  // The only way to change what is seen.
  change(part) {
    const before = this.view, view = { ...before, ...part };
    view.zoom = between(1, view.zoom, Math.max(1, this.data.width / 8));
    const half = 0.5 / view.zoom;
    view.x = between(half, view.x, 1 - half);
    view.y = between(half, view.y, 1 - half);
    view.plane = between(0, view.plane, this.data.planes.length - 1);
    this.view = view;
    if (["mode", "left", "right"].some((key) => view[key] !== before[key])) this.lay();
    if (view.plane !== before.plane) this.load();
    this.tell();
    this.draw();
  }

  // state, for the controls and for whoever watches
  tell() {
    const { view, element } = this, swipe = view.mode === "swipe";
    for (const key of ["zoom", "x", "y", "plane", "divider", "opacity"]) element.dataset[key] = +view[key].toFixed(4);
    for (const button of element.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === view.mode);
    this.find(".swipe").hidden = !swipe;
    this.find("[data-left]").value = view.left;
    this.find("[data-right]").value = view.right;
    this.find("[data-divider]").value = Math.round(100 * view.divider);
    const plane = this.find("[data-plane]"), opacity = this.find("[data-opacity]");
    const z = `z = ${this.data.planes[view.plane]}`, percent = `${Math.round(100 * view.opacity)} %`;
    this.find("[data-range]").textContent = this.data.ranges[view.plane];
    if (plane) { plane.value = view.plane; plane.setAttribute("aria-valuetext", z); plane.parentElement.querySelector("output").value = z; }
    if (opacity) { opacity.value = 100 * view.opacity; opacity.parentElement.querySelector("output").value = percent; }
    this.panesElement.classList.toggle("zoomed", view.zoom > 1);
    for (const { canvas, indices } of this.panes)
      canvas.setAttribute("aria-label", `${indices.map((i) => this.data.images[i].name).join(" and ")}, ${z}`);
  }

  draw() {
    if (!this.images || this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => { this.queued = false; this.panes.forEach((pane) => this.drawPane(pane)); });
  }

  drawPane({ canvas, indices, figure }) {
    const { view, data } = this, density = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * density)), height = Math.max(1, Math.round(width * data.height / data.width));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    indices.forEach((index, side) => {
      context.save();
      const edge = indices.length > 1 ? Math.round(view.divider * width) : width;
      context.beginPath();
      context.rect(side ? edge : 0, 0, side ? width - edge : edge, height);
      context.clip();
      const scale = view.zoom * width / data.width;
      context.imageSmoothingEnabled = scale < 1;
      context.setTransform(scale, 0, 0, scale, width / 2 - view.x * data.width * scale, height / 2 - view.y * data.height * scale);
      context.drawImage(this.sourceOf(index), 0, 0);
      const overlay = this.overlays[data.images[index].name], plain = !view.difference || index === data.reference;
      if (overlay && plain && view.opacity) { context.globalAlpha = view.opacity; context.drawImage(overlay, 0, 0); }
      context.restore();
    });
    const divider = figure.querySelector(".divider");
    if (divider) { divider.style.left = `${100 * view.divider}%`; divider.style.bottom = `${figure.clientHeight - canvas.clientHeight}px`; }
  }

  sourceOf(index) {
    const { reference } = this.data;
    if (!this.view.difference || index === reference) return this.images[index];
    this.differences[index] ||= differenceOf(this.images[index], this.images[reference]);
    return this.differences[index];
  }

  // zoom by a factor about a point of a pane, in shares of its sides: what is there stays there
  zoomAbout(factor, px = 0.5, py = 0.5) {
    const { zoom, x, y } = this.view, next = between(1, zoom * factor, Math.max(1, this.data.width / 8));
    this.change({ zoom: next, x: x + (px - 0.5) * (1 / zoom - 1 / next), y: y + (py - 0.5) * (1 / zoom - 1 / next) });
  }

  wire() {
    const on = (selector, type, act) => this.element.querySelectorAll(selector).forEach((one) => one.addEventListener(type, () => act(one)));
    for (const side of ["left", "right"]) {
      this.data.images.forEach((image, i) => this.find(`[data-${side}]`).append(new Option(image.name, i)));
      on(`[data-${side}]`, "change", (select) => this.change({ [side]: +select.value }));
    }
    on("[data-mode]", "click", (button) => this.change({ mode: button.dataset.mode }));
    on("[data-divider]", "input", (slider) => this.change({ divider: slider.value / 100 }));
    on("[data-plane]", "input", (slider) => this.change({ plane: +slider.value }));
    on("[data-opacity]", "input", (slider) => this.change({ opacity: slider.value / 100 }));
    on("[data-difference]", "change", (box) => this.change({ difference: box.checked }));
    on("[data-zoom]", "click", (button) => button.dataset.zoom === "all" ? this.change({ zoom: 1 }) : this.zoomAbout(button.dataset.zoom === "in" ? 1.5 : 1 / 1.5));
    this.panesElement.addEventListener("keydown", (event) => this.key(event));
    this.panesElement.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"])
      this.panesElement.addEventListener(type, (event) => this.pointer(event));
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], { view } = this;
    if (step && event.shiftKey) this.change({ x: view.x + 0.1 * step[0] / view.zoom, y: view.y + 0.1 * step[1] / view.zoom });
    else if (step) this.change({ plane: view.plane + step[0] - step[1] });
    else if (event.key === "+" || event.key === "=") this.zoomAbout(1.5);
    else if (event.key === "-" || event.key === "_") this.zoomAbout(1 / 1.5);
    else if (event.key === "0") this.change({ zoom: 1 });
    else return;
    event.preventDefault();
  }

  wheel(event) {
    if (event.target.tagName !== "CANVAS") return;
    if (this.view.zoom === 1 && event.deltaY > 0) return; // all is seen: the page scrolls on
    event.preventDefault();
    const box = event.target.getBoundingClientRect();
    this.zoomAbout(Math.exp(-between(-200, event.deltaY, 200) / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }

  // one pointer pans, two pinch
  pointer(event) {
    if (event.type === "pointerdown" && event.target.tagName === "CANVAS") {
      event.target.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    } else if (event.type === "pointermove" && this.pointers.has(event.pointerId)) {
      const before = [...this.pointers.values()], box = event.target.getBoundingClientRect();
      const old = this.pointers.get(event.pointerId), { zoom, x, y } = this.view;
      this.pointers.set(event.pointerId, event);
      if (before.length === 1)
        this.change({ x: x - (event.clientX - old.clientX) / box.width / zoom, y: y - (event.clientY - old.clientY) / box.height / zoom });
      else if (before.length === 2) {
        const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), now = [...this.pointers.values()];
        const px = (now[0].clientX + now[1].clientX) / 2, py = (now[0].clientY + now[1].clientY) / 2;
        this.zoomAbout(apart(now) / Math.max(1, apart(before)), (px - box.left) / box.width, (py - box.top) / box.height);
      }
    } else if (event.type === "pointerup" || event.type === "pointercancel") this.pointers.delete(event.pointerId);
  }
}

// all take their place at once, but pictures are decoded when they come near the window
const viewers = new Map();
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(entry.target);
    viewers.get(entry.target).load();
  }
}, { rootMargin: "400px" });
document.querySelectorAll(".viewer").forEach((element) => {
  viewers.set(element, new Viewer(element));
  near.observe(element);
});

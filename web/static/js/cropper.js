// A square over a picture, moved and sized by buttons as well as by dragging (WCAG 2.2, 2.5.7).

/** Of the picture's shorter edge: how wide the square is at first, and how far one step moves it. */
const FIRST = 0.8;
const STEP = 0.05;

export class Cropper {
  #group;
  #image;
  #frame;
  #minEdge;
  #onChange;
  /** @type {import("./reduction.js").Crop | undefined} */
  #crop;

  /**
   * @param {HTMLElement} group the part of the page that _crop.html makes
   * @param {{address: string, minEdge: number, onChange: () => void, onDone: () => void}} options
   */
  constructor(group, { address, minEdge, onChange, onDone }) {
    this.#group = group;
    this.#image = group.querySelector("img");
    this.#frame = group.querySelector("[data-frame]");
    this.#minEdge = minEdge;
    this.#onChange = onChange;
    this.#image.src = address;
    this.#followPointer(group.querySelector("[data-stage]"));
    for (const button of group.querySelectorAll("[data-move]")) {
      const [right, down] = button.dataset.move.split(" ").map(Number);
      button.addEventListener("click", () => this.#move(right * this.#step, down * this.#step));
    }
    for (const button of group.querySelectorAll("[data-scale]")) {
      button.addEventListener("click", () => this.#scale(Number(button.dataset.scale)));
    }
    group.querySelector("[data-whole]").addEventListener("click", () => {
      this.#crop = undefined;
      this.#show();
      onDone();
    });
    group.querySelector("[data-done]").addEventListener("click", onDone);
  }

  get crop() {
    return this.#crop;
  }

  async open() {
    this.#group.hidden = false;
    await this.#image.decode();
    this.#crop ??= this.#first();
    this.#show();
    this.#group.querySelector("button").focus();
  }

  close() {
    this.#group.hidden = true;
  }

  get #shorter() {
    return Math.min(this.#image.naturalWidth, this.#image.naturalHeight);
  }

  get #step() {
    return this.#shorter * STEP;
  }

  #first() {
    const size = Math.max(this.#shorter * FIRST, Math.min(this.#minEdge, this.#shorter));
    return { x: (this.#image.naturalWidth - size) / 2, y: (this.#image.naturalHeight - size) / 2, size };
  }

  #move(right, down) {
    const { x, y, size } = this.#crop;
    this.#put(x + right, y + down, size);
  }

  #scale(factor) {
    const { x, y, size } = this.#crop;
    const next = size * factor;
    this.#put(x + (size - next) / 2, y + (size - next) / 2, next);
  }

  /** As near to it as the picture's edges allow. */
  #put(x, y, size) {
    const whole = Math.round(Math.min(this.#shorter, Math.max(size, Math.min(this.#minEdge, this.#shorter))));
    const within = (place, length) => Math.round(Math.min(Math.max(place, 0), length - whole));
    this.#crop = { x: within(x, this.#image.naturalWidth), y: within(y, this.#image.naturalHeight), size: whole };
    this.#show();
  }

  #show() {
    this.#onChange();
    if (!this.#crop) return;
    const { x, y, size } = this.#crop;
    const { naturalWidth: width, naturalHeight: height } = this.#image;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(this.#frame.style, {
      left: percent(x, width),
      top: percent(y, height),
      width: percent(size, width),
      height: percent(size, height),
    });
    const text = this.#group.querySelector("[data-part]");
    const values = { size, left: x, top: y };
    text.textContent = text.dataset.text.replace(/\{(\w+)\}/g, (_, name) => String(Math.round(values[name])));
  }

  #followPointer(stage) {
    const follow = (event) => {
      const shown = this.#image.getBoundingClientRect();
      const scale = this.#image.naturalWidth / shown.width;
      const { size } = this.#crop;
      this.#put((event.clientX - shown.left) * scale - size / 2, (event.clientY - shown.top) * scale - size / 2, size);
    };
    stage.addEventListener("pointerdown", (event) => {
      if (!this.#crop) return;
      stage.setPointerCapture(event.pointerId);
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => stage.hasPointerCapture(event.pointerId) && follow(event));
  }
}

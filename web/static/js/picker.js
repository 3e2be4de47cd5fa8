// Choosing a picture: by button, camera, drop or paste; the file input holds what was chosen, whichever way it came.

export class Picker {
  #form;
  #file;
  #preview;
  #address = "";

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.#form = form;
    this.#file = form.elements.namedItem("file");
    this.#preview = form.querySelector("[data-preview]");
    const image = this.#preview.querySelector("img");
    // A picture that this browser cannot draw may still be one that the server can read.
    image.addEventListener("error", () => (image.hidden = true));
    image.addEventListener("load", () => (image.hidden = false));
    this.#file.addEventListener("change", () => this.#show());
    this.#takeCamera();
    this.#takeDrops();
  }

  /** @returns {File | undefined} */
  get picture() {
    return this.#file.files[0];
  }

  /** What the server would refuse anyway, said before sending. @returns {string | undefined} the problem's slug */
  get problem() {
    if (!this.picture) return "no-picture";
    if (this.picture.size > Number(this.#form.dataset.maxBytes)) return "upload-too-large";
    // The browser goes by the name; where it does not know, the server looks at the bytes.
    return /^(image\/|application\/dicom$|$)/.test(this.picture.type) ? undefined : "not-a-picture";
  }

  /** Forgets the picture. */
  clear() {
    this.#form.reset();
    this.#show();
  }

  #show() {
    URL.revokeObjectURL(this.#address);
    const image = this.#preview.querySelector("img");
    const { picture } = this;
    this.#preview.hidden = !picture;
    image.hidden = true;
    if (!picture) {
      image.removeAttribute("src");
      return;
    }
    this.#address = URL.createObjectURL(picture);
    image.src = this.#address;
    const [size, unit] = picture.size < 1e6 ? [picture.size / 1e3, "kilobyte"] : [picture.size / 1e6, "megabyte"];
    const format = new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, maximumFractionDigits: 1 });
    this.#preview.querySelector("[data-size]").textContent = format.format(size);
  }

  #take(files) {
    if (files.length) {
      this.#file.files = files;
      this.#file.dispatchEvent(new Event("change", { bubbles: true }));
    }
  }

  #takeCamera() {
    const part = this.#form.querySelector("[data-camera]");
    const camera = part.querySelector("input");
    camera.addEventListener("change", () => this.#take(camera.files));
    part.hidden = false;
  }

  #takeDrops() {
    const zone = this.#form.querySelector("[data-drop]");
    zone.querySelector("[data-drop-hint]").hidden = false;
    // A file dropped beside the zone must not replace the page.
    for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
    zone.addEventListener("dragover", () => zone.classList.add("over"));
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      this.#take(event.dataTransfer.files);
    });
    this.#form.addEventListener("paste", (event) => this.#take(event.clipboardData.files));
  }
}

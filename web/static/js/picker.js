// Choosing pictures: by button, camera, drop or paste; the file input holds what was chosen, whichever way it came.

import { Cropper } from "./cropper.js";
import { reduce } from "./reduction.js";

/**
 * @typedef {{file: File, address: string, cropper?: Cropper}} Chosen
 */

export class Picker {
  #form;
  #file;
  #list;
  #item;
  /** @type {Chosen[]} */
  #chosen = [];

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.#form = form;
    this.#file = form.elements.namedItem("file");
    this.#list = form.querySelector("[data-chosen]");
    this.#item = form.querySelector("template[data-chosen-item]");
    this.#file.addEventListener("change", () => this.#replace(this.#file.files));
    // Back from another page, the browser may have put the files back into the input.
    window.addEventListener("pageshow", () => this.#replace(this.#file.files));
    this.#takeCamera();
    this.#takeDrops();
  }

  /** What the server would refuse anyway, said before sending. @returns {string | undefined} the problem's slug */
  get problem() {
    if (!this.#chosen.length) return "no-picture";
    if (this.#chosen.length > Number(this.#form.dataset.maxPictures)) return "too-many-pictures";
    // The browser goes by the name; where it does not know, the server looks at the bytes.
    const isPicture = ({ file }) => /^(image\/|application\/dicom$|$)/.test(file.type);
    return this.#chosen.every(isPicture) ? undefined : "not-a-picture";
  }

  /** One after the other: each is decoded whole. @returns {Promise<Blob[]>} what is to be sent */
  async prepare(signal) {
    const pictures = [];
    for (const { file, cropper } of this.#chosen) {
      pictures.push(await reduce(file, cropper?.crop));
      signal.throwIfAborted();
    }
    return pictures;
  }

  /** Forgets the pictures. */
  clear() {
    this.#form.reset();
    this.#replace([]);
  }

  #replace(files) {
    for (const { address } of this.#chosen) URL.revokeObjectURL(address);
    this.#chosen = Array.from(files, (file) => ({ file, address: URL.createObjectURL(file) }));
    this.#list.replaceChildren(...this.#chosen.map((chosen) => this.#show(chosen)));
    this.#number();
  }

  #add(files) {
    if (!files.length) return;
    const added = Array.from(files, (file) => ({ file, address: URL.createObjectURL(file) }));
    this.#chosen.push(...added);
    this.#list.append(...added.map((chosen) => this.#show(chosen)));
    this.#settle();
  }

  #remove(chosen, item) {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    URL.revokeObjectURL(chosen.address);
    this.#chosen = this.#chosen.filter((other) => other !== chosen);
    item.remove();
    this.#settle();
    (next?.querySelector("[data-remove]") ?? this.#file).focus();
  }

  /** The input is told what was chosen otherwise. */
  #settle() {
    const transfer = new DataTransfer();
    for (const { file } of this.#chosen) transfer.items.add(file);
    this.#file.files = transfer.files;
    this.#number();
    this.#form.dispatchEvent(new Event("change"));
  }

  #number() {
    this.#list.hidden = !this.#chosen.length;
    for (const [index, place] of this.#list.querySelectorAll("[data-place]").entries()) place.textContent = String(index + 1);
  }

  #show(chosen) {
    const item = this.#item.content.cloneNode(true).firstElementChild;
    const image = item.querySelector("figure img");
    const crop = item.querySelector("[data-crop]");
    // A picture that this browser cannot draw may still be one that the server can read.
    image.addEventListener("error", () => (image.hidden = true));
    image.addEventListener("load", () => (crop.hidden = false));
    image.src = chosen.address;
    item.querySelector("[data-size]").textContent = formatSize(chosen.file.size);
    item.querySelector("[data-remove]").addEventListener("click", () => this.#remove(chosen, item));
    crop.addEventListener("click", () => this.#toggleCropper(chosen, item, crop));
    return item;
  }

  #toggleCropper(chosen, item, button) {
    const close = () => {
      chosen.cropper.close();
      button.setAttribute("aria-expanded", "false");
      button.focus();
    };
    if (button.getAttribute("aria-expanded") === "true") {
      close();
      return;
    }
    chosen.cropper ??= new Cropper(item.querySelector("[data-cropper]"), {
      address: chosen.address,
      minEdge: Number(this.#form.dataset.minEdge),
      onChange: () => (item.querySelector("[data-cropped]").hidden = !chosen.cropper.crop),
      onDone: close,
    });
    button.setAttribute("aria-expanded", "true");
    chosen.cropper.open();
  }

  #takeCamera() {
    const part = this.#form.querySelector("[data-camera]");
    const camera = part.querySelector("input");
    camera.addEventListener("change", () => this.#add(camera.files));
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
      this.#add(event.dataTransfer.files);
    });
    // Nothing needs to have the focus for it; while another dialog is open its form is not this one.
    document.addEventListener("paste", (event) => this.#form.checkVisibility() && this.#add(event.clipboardData.files));
  }
}

function formatSize(bytes) {
  const [size, unit] = bytes < 1e6 ? [bytes / 1e3, "kilobyte"] : [bytes / 1e6, "megabyte"];
  const format = new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, maximumFractionDigits: 1 });
  return format.format(size);
}

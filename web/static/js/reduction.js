// What is sent of a picture: the part that was chosen, and no more pixels than the assessment can use. The server checks it again.

/** Of the longer edge, in pixels: several times what the model sees. */
export const MAX_EDGE = 2048;

/** A smaller file is sent as it is: coding it anew would lose detail and win no time. */
const LIGHT_BYTES = 1e6;

/** Formats that a browser decodes as the server does; of others, DICOM among them, the server gets the file itself. */
const TYPES = /^image\/(jpeg|png|webp)$/;
const QUALITY = 0.92;

/**
 * @typedef {{x: number, y: number, size: number}} Crop a square, in pixels of the upright picture
 */

/** The chosen part could not be cut out. More than it must not be sent. */
export class CropFailed extends Error {}

/**
 * @param {File} file
 * @param {Crop | undefined} crop
 * @returns {Promise<Blob>} the file itself when nothing is to be gained or anything fails; rejects with CropFailed
 */
export async function reduce(file, crop) {
  if (!crop && (file.size <= LIGHT_BYTES || !TYPES.test(file.type))) return file;
  try {
    const smaller = await redraw(file, crop);
    return smaller && (crop || smaller.size < file.size) ? smaller : file;
  } catch (error) {
    if (crop) throw new CropFailed("the part could not be cut out", { cause: error });
    return file;
  }
}

async function redraw(file, crop) {
  // Upright: the orientation that a camera has noted is applied here, and gone afterwards.
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  try {
    const part = crop
      ? { x: crop.x, y: crop.y, width: crop.size, height: crop.size }
      : { x: 0, y: 0, width: bitmap.width, height: bitmap.height };
    const scale = Math.min(1, MAX_EDGE / Math.max(part.width, part.height));
    if (scale === 1 && !crop) return undefined;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(part.width * scale);
    canvas.height = Math.round(part.height * scale);
    const context = canvas.getContext("2d");
    // As the server does with transparent parts.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, part.x, part.y, part.width, part.height, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    if (!blob) throw new Error("the browser gave no picture");
    return blob;
  } finally {
    bitmap.close();
  }
}

// The check without leaving the page. Every text comes from the page; the result is the server's fragment.

import { toFragment } from "./fragment.js";
import { Picker } from "./picker.js";
import { CropFailed } from "./reduction.js";
import { enhanceResult } from "./result.js";
import { NoConnection, upload } from "./upload.js";

/**
 * Lets the form send its pictures by script.
 *
 * @param {HTMLFormElement} form
 * @param {(html: string) => void} showResult
 * @returns {{stop: () => void}} stop aborts an upload and forgets the pictures
 */
export function enhanceCheck(form, showResult) {
  const input = form.querySelector("[data-input]");
  const busy = form.querySelector("[data-busy]");
  const progress = busy.querySelector("progress");
  const cancel = busy.querySelector("[data-cancel]");
  const status = form.querySelector("[data-status]");
  const problems = form.querySelector("[data-problems]");
  const submit = input.querySelector("button");
  const consent = form.elements.namedItem("consent");
  const picker = new Picker(form);
  /** @type {AbortController | undefined} */
  let running;

  form.classList.add("enhanced");
  // The browser's own bubbles speak the browser's language, not the page's.
  form.noValidate = true;
  // Without its bubbles the browser would still call empty fields invalid, before anything was done.
  for (const field of form.querySelectorAll("[required]")) {
    field.required = false;
    field.setAttribute("aria-required", "true");
  }
  form.addEventListener("change", clearProblem);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    const problem = picker.problem ?? (consent.checked ? undefined : "no-consent");
    if (problem) {
      showOwnProblem(problem);
      return;
    }
    await send();
  });
  cancel.addEventListener("click", () => running?.abort());

  async function send() {
    running = new AbortController();
    const { signal } = running;
    clearProblem();
    input.hidden = true;
    busy.hidden = false;
    progress.value = 0;
    status.textContent = status.dataset.preparing;
    cancel.focus();
    try {
      const pictures = await picker.prepare(signal);
      if (pictures.reduce((sum, { size }) => sum + size, 0) > Number(form.dataset.maxBytes)) {
        finish("");
        showOwnProblem("upload-too-large");
        return;
      }
      status.textContent = status.dataset.uploading;
      const body = fill(pictures);
      const answer = await upload(form.action, body, {
        signal,
        onProgress: (share) => (progress.value = share),
        onSent: () => {
          progress.removeAttribute("value");
          status.textContent = status.dataset.analysing;
        },
      });
      finish("");
      if (answer.ok) {
        picker.clear();
        showResult(answer.html);
        enhanceResult(document.querySelector("[data-result]"));
      } else {
        showProblem(toFragment(answer.html));
      }
    } catch (error) {
      finish(signal.aborted ? status.dataset.cancelled : "");
      if (error instanceof NoConnection) {
        showOwnProblem("no-connection");
      } else if (error instanceof CropFailed) {
        showOwnProblem("broken-picture");
      } else if (!signal.aborted) {
        throw error;
      }
    }
  }

  function fill(pictures) {
    const body = new FormData();
    body.append("consent", consent.value);
    for (const { name, value } of form.querySelectorAll(".options input:checked")) body.append(name, value);
    // Under a name of ours: the file's own may tell who the patient is.
    for (const picture of pictures) body.append("file", picture, "picture");
    return body;
  }

  function finish(text) {
    running = undefined;
    busy.hidden = true;
    input.hidden = false;
    status.textContent = text;
    submit.focus();
  }

  /** One that the page itself has the words for. */
  function showOwnProblem(slug) {
    showProblem(form.querySelector(`template[data-problem="${slug}"]`).content.cloneNode(true));
    if (slug === "no-consent") consent.setAttribute("aria-invalid", "true");
  }

  function showProblem(content) {
    clearProblem();
    problems.append(content);
    problems.hidden = false;
    problems.focus();
  }

  function clearProblem() {
    problems.hidden = true;
    problems.replaceChildren();
    consent.removeAttribute("aria-invalid");
  }

  function stop() {
    running?.abort();
    clearProblem();
    picker.clear();
    status.textContent = "";
  }

  return { stop };
}

// The check without leaving the page. Every text comes from the page; the result is the server's fragment.

import { toFragment } from "./fragment.js";
import { Picker } from "./picker.js";
import { NoConnection, upload } from "./upload.js";

/**
 * Lets the form send its picture by script.
 *
 * @param {HTMLFormElement} form
 * @param {(html: string) => void} showResult
 * @returns {{stop: () => void}} stop aborts an upload and forgets the picture
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
      showProblem(form.querySelector(`template[data-problem="${problem}"]`).content.cloneNode(true), problem);
      return;
    }
    await send();
  });
  cancel.addEventListener("click", () => running?.abort());

  async function send() {
    running = new AbortController();
    const { signal } = running;
    const body = new FormData();
    body.append("consent", consent.value);
    // Under a name of ours: the file's own may tell who the patient is.
    body.append("file", picker.picture, "picture");
    clearProblem();
    input.hidden = true;
    busy.hidden = false;
    progress.value = 0;
    status.textContent = status.dataset.uploading;
    cancel.focus();
    try {
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
      } else {
        showProblem(toFragment(answer.html));
      }
    } catch (error) {
      finish(signal.aborted ? status.dataset.cancelled : "");
      if (error instanceof NoConnection) {
        showProblem(form.querySelector('template[data-problem="no-connection"]').content.cloneNode(true));
      } else if (!signal.aborted) {
        throw error;
      }
    }
  }

  function finish(text) {
    running = undefined;
    busy.hidden = true;
    input.hidden = false;
    status.textContent = text;
    submit.focus();
  }

  function showProblem(content, slug) {
    clearProblem();
    if (slug === "no-consent") consent.setAttribute("aria-invalid", "true");
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

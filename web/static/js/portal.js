// Entry: gives a page its dialogs. Without this script every form still works as a plain form.

import { enhanceCheck } from "./check.js";
import { toFragment } from "./fragment.js";

const form = document.querySelector("form[data-check]");
const start = document.querySelector("form[data-start]");
const checkDialog = document.querySelector("#check-dialog");
const resultDialog = document.querySelector("#result-dialog");

if (form) {
  const check = enhanceCheck(form, showResult);
  if (checkDialog) {
    start.querySelector("button").setAttribute("aria-haspopup", "dialog");
    start.addEventListener("submit", (event) => {
      event.preventDefault();
      checkDialog.showModal();
    });
    checkDialog.addEventListener("close", check.stop);
  }
  // What was shown to one person must not wait in the page for the next one.
  resultDialog.addEventListener("close", () => resultDialog.querySelector("[data-result]").replaceChildren());
}
enablePrinting(document);
for (const once of document.querySelectorAll("form[data-once]")) sendOnce(once);
// A page that came back with something to correct begins there, as it does where a script shows it.
document.querySelector("[data-focus]")?.focus();

function showResult(html) {
  checkDialog?.close();
  const place = resultDialog.querySelector("[data-result]");
  place.replaceChildren(toFragment(html));
  enablePrinting(place);
  resultDialog.showModal();
  resultDialog.scrollTop = 0;
  place.querySelector("#result-heading").focus();
}

function enablePrinting(root) {
  for (const button of root.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }
}

/** A second press of the button, while the first is under way, sends nothing. */
function sendOnce(form) {
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) event.preventDefault();
    isSent = true;
  });
  // The browser may bring the page back as it was left.
  window.addEventListener("pageshow", () => (isSent = false));
}

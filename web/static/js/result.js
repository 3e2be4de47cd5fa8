// What scripts add to a result, on its own page or in the dialog. The page has every number and word; nothing is calculated here.

/** @param {ParentNode} root */
export function enhanceResult(root) {
  for (const part of root.querySelectorAll("[data-prevalence]")) showPrevalence(part);
  // Without a secure connection a browser has no clipboard for us.
  if (navigator.clipboard) {
    for (const button of root.querySelectorAll("[data-copy]")) offerCopy(button);
  }
}

function showPrevalence(part) {
  const range = part.querySelector("input");
  const counts = part.querySelector("[data-counts]").dataset.counts.split("|");
  const show = () => {
    part.querySelector("[data-share]").textContent = range.value;
    part.querySelector("output").textContent = counts[range.valueAsNumber - range.min];
  };
  range.addEventListener("input", show);
  show();
  part.hidden = false;
}

function offerCopy(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.setAttribute("aria-live", "polite");
    button.textContent = button.dataset.copied;
  });
}

enhanceResult(document);
